#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <set>

#include "parallel/exec_context.h"
#include "parallel/thread_pool.h"

namespace gptoss {
namespace {

TEST(ThreadPool, RunsEveryTaskOnceAndPublishesWhatItWrote) {
  for (int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    for (int job = 0; job < 300; ++job) {
      const int64_t count = job % 37;
      std::vector<int> hits(count, 0);  // plain ints: a race or a second run would show under TSan or in the sum
      pool.Run(count, [&](int64_t task, int worker) {
        ASSERT_LT(worker, threads);
        ++hits[task];
      });
      for (int h : hits) ASSERT_EQ(h, 1);
    }
  }
}

TEST(ThreadPool, ParallelForCoversTheRangeInPieces) {
  ThreadPool pool(3);
  std::vector<int> hits(1001, 0);
  pool.ParallelFor(1001, 64, [&](int64_t begin, int64_t end, int) {
    EXPECT_LE(end - begin, 64);
    for (int64_t i = begin; i < end; ++i) ++hits[i];
  });
  EXPECT_EQ(std::accumulate(hits.begin(), hits.end(), 0), 1001);
  EXPECT_EQ(*std::min_element(hits.begin(), hits.end()), 1);
}

TEST(ThreadPool, SleepingWorkersWakeUp) {
  ThreadPool pool(2);
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // past the spinning phase
    std::atomic<int> n{0};
    pool.Run(100, [&](int64_t, int) { n.fetch_add(1); });
    EXPECT_EQ(n.load(), 100);
  }
}

TEST(ThreadPool, ClocksTheCallersWait) {
  ThreadPool pool(2);
  double waited = 0;
  pool.set_wait_clock(&waited);
  std::atomic<bool> taken{false};
  // The caller holds its task until the worker has one, so it is the caller that ends first and waits.
  pool.Run(2, [&](int64_t, int worker) {
    if (worker == 0) {
      while (!taken.load()) std::this_thread::yield();
    } else {
      taken.store(true);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  });
  EXPECT_GT(waited, 0.0);
  const double before = waited;
  pool.set_wait_clock(nullptr);
  pool.Run(100, [](int64_t, int) {});
  EXPECT_EQ(waited, before);
}

TEST(ScratchArena, FramesNestAndReuseMemory) {
  ScratchArena arena;
  const void* first;
  {
    ScratchFrame frame(arena);
    float* a = arena.Allocate<float>(1000);
    first = a;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a) % 64, 0u);
    {
      ScratchFrame inner(arena);
      float* b = arena.Allocate<float>(1000);
      EXPECT_GE(b, a + 1000);
      arena.Allocate<std::byte>(5u << 20);  // a block of its own
    }
    EXPECT_GE(arena.Allocate<float>(1), a + 1000);
  }
  const size_t capacity = arena.capacity();
  ScratchFrame frame(arena);
  EXPECT_EQ(arena.Allocate<float>(1000), first);
  arena.Allocate<std::byte>(5u << 20);
  EXPECT_EQ(arena.capacity(), capacity);
}

TEST(ScratchArena, WhatIsReservedIsNotTakenAgain) {
  ScratchArena arena;
  ASSERT_TRUE(arena.Reserve(8u << 20).ok());
  const size_t capacity = arena.capacity();
  EXPECT_GE(capacity, 8u << 20);
  for (int i = 0; i < 2; ++i) {
    ScratchFrame frame(arena);
    arena.Allocate<std::byte>(5u << 20);
    arena.Allocate<std::byte>(3u << 20);
    EXPECT_EQ(arena.capacity(), capacity);
  }
  ASSERT_TRUE(arena.Reserve(1u << 20).ok());
  EXPECT_EQ(arena.capacity(), capacity);
  EXPECT_FALSE(arena.Reserve(size_t{1} << 60).ok());
}

TEST(Profiler, SumsByStage) {
  ThreadPool pool(1);
  ScratchArena arena;
  Profiler profiler;
  ExecContext context{pool, arena, &profiler};
  { ProfileScope scope(context, "qkv"); }
  { ProfileScope scope(context, "qkv"); }
  EXPECT_EQ(profiler.seconds().size(), 1u);
  EXPECT_GE(profiler.seconds().at("qkv"), 0.0);
  profiler.counts().passes = 3;
  *profiler.wait_clock() += 0.5;
  EXPECT_EQ(profiler.waiting(), 0.5);
  profiler.Reset();
  EXPECT_EQ(profiler.counts().passes, 0);
  EXPECT_EQ(profiler.waiting(), 0.0);
  EXPECT_TRUE(profiler.seconds().empty());
}

}  // namespace
}  // namespace gptoss
