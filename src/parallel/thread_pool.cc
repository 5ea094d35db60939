#include "parallel/thread_pool.h"

#include <algorithm>
#include <chrono>

#include "base/check.h"

namespace gptoss {
namespace {

/// About 20 to 50 µs: longer than the gap between two ops of a layer, short enough to leave the core to others.
constexpr int kSpins = 2000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Spins for a while until `value` differs from `old`, then sleeps in the kernel.
uint32_t AwaitChange(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    const uint32_t now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    Pause();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  GPTOSS_CHECK(num_threads >= 1);
  for (int worker = 1; worker < num_threads; ++worker) {
    threads_.emplace_back([this, worker] { WorkerLoop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  wake_.fetch_add(1, std::memory_order_release);
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::RunErased(int64_t count, TaskFunction function, const void* context) {
  if (count <= 0) return;
  if (threads_.empty() || count == 1) {
    for (int64_t task = 0; task < count; ++task) function(context, task, 0);
    return;
  }
  GPTOSS_CHECK(count < INT32_MAX);
  // First close the old job's ticket: a late worker that sees any of the new fields then fails its claim on the old
  // one.
  const uint32_t epoch = static_cast<uint32_t>(ticket_.load(std::memory_order_relaxed) >> 32) + 2;
  ticket_.store(static_cast<uint64_t>(epoch - 1) << 32 | UINT32_MAX, std::memory_order_release);
  function_.store(function, std::memory_order_release);
  context_.store(context, std::memory_order_release);
  count_.store(static_cast<uint32_t>(count), std::memory_order_release);
  done_.store(0, std::memory_order_relaxed);
  ticket_.store(static_cast<uint64_t>(epoch) << 32, std::memory_order_release);
  wake_.fetch_add(1, std::memory_order_release);
  wake_.notify_all();
  WorkOn(epoch, 0);
  if (wait_seconds_ == nullptr) {
    AwaitAll(static_cast<uint32_t>(count));
    return;
  }
  const auto start = std::chrono::steady_clock::now();
  AwaitAll(static_cast<uint32_t>(count));
  *wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void ThreadPool::AwaitAll(uint32_t count) {
  uint32_t done = done_.load(std::memory_order_acquire);
  while (done != count) done = AwaitChange(done_, done);
}

void ThreadPool::WorkerLoop(int worker) {
  uint32_t seen = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    seen = AwaitChange(wake_, seen);
    WorkOn(static_cast<uint32_t>(ticket_.load(std::memory_order_acquire) >> 32), worker);
  }
}

void ThreadPool::WorkOn(uint32_t epoch, int worker) {
  for (;;) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    const TaskFunction function = function_.load(std::memory_order_acquire);
    const void* context = context_.load(std::memory_order_acquire);
    const uint32_t count = count_.load(std::memory_order_acquire);
    if (static_cast<uint32_t>(ticket >> 32) != epoch || static_cast<uint32_t>(ticket) >= count) return;
    // Had the job changed since the fields were read, the epoch in the ticket would differ and the claim fail.
    if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
    function(context, static_cast<uint32_t>(ticket), worker);
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) done_.notify_all();
  }
}

}  // namespace gptoss
