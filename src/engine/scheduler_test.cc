#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "base/rng.h"
#include "kv_cache/block_pool.h"

namespace gptoss {
namespace {

constexpr int kBlock = 16;

/// Sequences that are nothing but tables of blocks.
class FakeSpace : public KvSpace {
 public:
  explicit FakeSpace(int blocks) : pool(blocks) {}
  int Enter(uint64_t id) override {
    EXPECT_FALSE(tables.contains(id));
    const int cached = std::exchange(next_cached, 0);
    const auto [entry, added] = tables.emplace(id, Table{std::make_unique<BlockTable>(&pool, kBlock), cached});
    if (!entry->second.blocks->Reserve(0, cached)) entry->second.computed = 0;
    return entry->second.computed;
  }
  bool Reserve(uint64_t id, int count) override {
    Table& table = tables.at(id);
    return table.blocks->Reserve(table.computed, table.computed + count);
  }
  void Leave(uint64_t id) override { EXPECT_EQ(tables.erase(id), 1u); }
  int64_t FreeTokens() const override { return int64_t{pool.free_blocks()} * kBlock; }

  struct Table {
    std::unique_ptr<BlockTable> blocks;
    int computed;
  };
  BlockPool pool;
  std::map<uint64_t, Table> tables;
  int next_cached = 0;  // tokens that the next sequence finds computed
};

/// One random life of a scheduler: arrivals, ends, cancellations, in a pool that holds the longest sequence and little
/// more, or plenty.
class Life {
 public:
  Life(uint64_t seed, int requests)
      : random_(seed, 1),
        longest_(20 + Draw(400)),
        max_rows_(1 + Draw(100)),
        max_prefill_rows_(1 + Draw(max_rows_)),
        max_running_(1 + Draw(12)),
        space_((longest_ + kBlock - 1) / kBlock + Draw(60)),
        scheduler_(&space_, max_running_),
        left_(requests) {}

  void Run() {
    const int limit = 200000;  // far beyond what any of these lives takes
    int steps = 0;
    while ((left_ > 0 || !requests_.empty()) && !testing::Test::HasFailure()) {
      ASSERT_LT(++steps, limit) << "some request does not end";
      if (left_ > 0 && Draw(3) == 0) Arrive();
      if (!requests_.empty() && Draw(40) == 0) CancelOne();
      if (!requests_.empty()) Step();
    }
    EXPECT_EQ(space_.pool.free_blocks(), space_.pool.size());
    EXPECT_EQ(scheduler_.running() + scheduler_.waiting(), 0);
  }
  int preemptions() const { return preemptions_; }

 private:
  struct Request {
    int tokens, computed, final_tokens;
    bool running = false;
  };

  int Draw(int below) { return static_cast<int>(random_.Word(draws_++) % static_cast<uint64_t>(below)); }

  void Arrive() {
    --left_;
    const int prompt = 1 + (Draw(2) == 0 ? Draw(8) : Draw(longest_ - 1));
    const int final_tokens = std::min(longest_, prompt + 1 + Draw(300));
    scheduler_.Add(++last_id_, prompt);
    requests_[last_id_] = {prompt, 0, final_tokens};
  }

  void CancelOne() {
    auto it = requests_.begin();
    std::advance(it, Draw(static_cast<int>(requests_.size())));
    scheduler_.Remove(it->first);
    requests_.erase(it);
  }

  void Step() {
    // The oldest that waits is the next to enter.
    const auto next = std::ranges::find_if(requests_, [](const auto& entry) { return !entry.second.running; });
    space_.next_cached = next == requests_.end() ? 0 : Draw(3) == 0 ? Draw(next->second.tokens) : 0;
    const Scheduler::Step step = scheduler_.Plan(max_rows_, max_prefill_rows_);
    preemptions_ += static_cast<int>(step.preempted.size());
    for (const uint64_t id : step.preempted) {
      requests_.at(id).running = false;
      requests_.at(id).computed = 0;
    }
    for (const uint64_t id : step.entered) {
      requests_.at(id).running = true;
      requests_.at(id).computed = space_.tables.at(id).computed;
    }
    CheckStep(step);
    for (const Scheduler::Rows& rows : step.rows) Advance(rows);
  }

  void CheckStep(const Scheduler::Step& step) {
    ASSERT_FALSE(step.rows.empty()) << "a step without work";
    std::set<uint64_t> planned;
    int prefill = 0, decode = 0;
    for (size_t i = 0; i < step.rows.size(); ++i) {
      const auto& [id, count, completes] = step.rows[i];
      ASSERT_TRUE(planned.insert(id).second) << "twice in a step";
      const Request& r = requests_.at(id);
      ASSERT_TRUE(r.running);
      ASSERT_GT(count, 0);
      ASSERT_LE(r.computed + count, r.tokens);
      ASSERT_EQ(completes, r.computed + count == r.tokens);
      ASSERT_TRUE(space_.tables.at(id).blocks->Covers(0, r.computed + count)) << "room is there";
      (static_cast<int>(i) < step.decode_rows ? decode : prefill) += count;
    }
    ASSERT_EQ(decode, step.decode_rows);
    ASSERT_LE(prefill, std::max(0, max_rows_ - decode));
    if (decode > 0) {
      ASSERT_LE(prefill, max_prefill_rows_);
    }
    CheckOrder(planned, step);
  }

  void CheckOrder(const std::set<uint64_t>& planned, const Scheduler::Step& step) {
    int running = 0, blocks = 0;
    bool waits = false, prompt_waits = false;
    for (const auto& [id, r] : requests_) {
      ASSERT_EQ(r.running, scheduler_.IsRunning(id));
      ASSERT_EQ(r.running, space_.tables.contains(id));
      if (!r.running) {
        waits = true;
        continue;
      }
      ASSERT_FALSE(waits) << "a younger one runs while an older one waits";
      ++running;
      if (r.tokens - r.computed == 1) {
        ASSERT_TRUE(planned.contains(id)) << "a sequence that decodes missed a step";
      }
      prompt_waits |= r.tokens - r.computed > 1 && !planned.contains(id);
      for (const int32_t block : space_.tables.at(id).blocks->blocks()) blocks += block >= 0;
    }
    ASSERT_LE(running, max_running_);
    ASSERT_EQ(blocks, space_.pool.size() - space_.pool.free_blocks());
    // The oldest prompt gets on in every step in which there are rows to give.
    const auto oldest = std::ranges::find_if(requests_, [](const auto& entry) {
      return entry.second.running && entry.second.tokens - entry.second.computed > 1;
    });
    if (prompt_waits && max_rows_ > step.decode_rows) {
      ASSERT_TRUE(planned.contains(oldest->first));
    }
  }

  void Advance(const Scheduler::Rows& rows) {
    Request& r = requests_.at(rows.id);
    r.computed += rows.count;
    space_.tables.at(rows.id).computed = r.computed;
    if (rows.completes) ++r.tokens;
    if (r.tokens > r.final_tokens) {
      scheduler_.Remove(rows.id);
      requests_.erase(rows.id);
    } else {
      scheduler_.Update(rows.id, r.tokens, r.computed);
    }
  }

  const RandomStream random_;
  uint64_t draws_ = 0;
  const int longest_, max_rows_, max_prefill_rows_, max_running_;
  FakeSpace space_;
  Scheduler scheduler_;
  int left_, preemptions_ = 0;
  uint64_t last_id_ = 0;
  std::map<uint64_t, Request> requests_;
};

TEST(Scheduler, RandomLivesKeepEveryPromise) {
  int preemptions = 0;
  for (uint64_t seed = 0; seed < 300 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Life life(seed, 40);
    life.Run();
    preemptions += life.preemptions();
  }
  EXPECT_GT(preemptions, 100) << "the lives were too easy";
}

TEST(Scheduler, PromptsGoBesideDecodingInOneStep) {
  FakeSpace space(100);
  Scheduler scheduler(&space, 4);
  scheduler.Add(1, 5);
  auto step = scheduler.Plan(32, 8);
  ASSERT_EQ(step.rows.size(), 1u);
  EXPECT_TRUE(step.rows[0].completes);
  space.tables.at(1).computed = 5;
  scheduler.Update(1, 6, 5);
  scheduler.Add(2, 100);
  step = scheduler.Plan(32, 8);
  ASSERT_EQ(step.rows.size(), 2u);
  EXPECT_EQ(step.decode_rows, 1);
  EXPECT_EQ(step.rows[0].id, 1u);
  EXPECT_EQ(step.rows[1].id, 2u);
  EXPECT_EQ(step.rows[1].count, 8);
  EXPECT_FALSE(step.rows[1].completes);
}

TEST(Scheduler, AShortPromptDoesNotWaitForALongOne) {
  FakeSpace space(1000);
  Scheduler scheduler(&space, 4);
  scheduler.Add(1, 10000);
  auto step = scheduler.Plan(32, 32);
  ASSERT_EQ(step.rows.size(), 1u);
  EXPECT_EQ(step.rows[0].count, 32);
  space.tables.at(1).computed = 32;
  scheduler.Update(1, 10000, 32);
  scheduler.Add(2, 20);
  for (int steps = 1;; ++steps) {
    ASSERT_LE(steps, 3) << "half of the rows are the newcomer's";
    step = scheduler.Plan(32, 32);
    int total = 0;
    bool done = false;
    for (const auto& rows : step.rows) {
      total += rows.count;
      space.tables.at(rows.id).computed += rows.count;
      scheduler.Update(rows.id, rows.id == 1 ? 10000 : 20, space.tables.at(rows.id).computed);
      done |= rows.id == 2 && rows.completes;
    }
    EXPECT_EQ(total, 32) << "no row is left unused";
    if (done) break;
  }
}

}  // namespace
}  // namespace gptoss
