#include "kv_cache/prefix_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/rng.h"

namespace gptoss {
namespace {

using Tokens = std::vector<int32_t>;

/// What the cache would hold for a position: a number that depends on all tokens up to it.
uint64_t Content(std::span<const int32_t> tokens, int position) {
  uint64_t h = 1;
  for (int i = 0; i <= position; ++i) h = Mix64(h * 31 + static_cast<uint64_t>(tokens[i]));
  return h;
}

/// A pool of blocks with something in them.
struct Memory {
  Memory(int blocks, int block_size)
      : pool(blocks), block(block_size), slots(static_cast<size_t>(blocks) * block_size) {}
  void Copy(const std::optional<BlockCopy>& copy) {
    if (!copy.has_value()) return;
    std::copy_n(slots.begin() + copy->from * block, block, slots.begin() + copy->to * block);
  }
  BlockPool pool;
  int block;
  std::vector<uint64_t> slots;
};

/// A sequence as the engine keeps it: two tables, of which the sliding one forgets.
struct FakeSequence {
  FakeSequence(Memory* full_memory, Memory* sliding_memory)
      : memory{full_memory, sliding_memory},
        tables{BlockTable(&full_memory->pool, full_memory->block),
               BlockTable(&sliding_memory->pool, sliding_memory->block)} {}

  void Share(const PrefixCache::State& state) {
    tables[0].Share(0, state.full);
    tables[1].Share(state.first_sliding, state.sliding);
    computed = state.length;
  }
  bool Reserve(int count) {
    for (int g = 0; g < 2; ++g) {
      std::optional<BlockCopy> copy;
      if (!tables[g].Reserve(computed, computed + count, &copy)) return false;
      memory[g]->Copy(copy);
    }
    return true;
  }
  void Write(int count) {
    for (const int end = computed + count; computed < end; ++computed) {
      for (int g = 0; g < 2; ++g) memory[g]->slots[tables[g].Slot(computed)] = Content(tokens, computed);
    }
  }
  /// Everything that the next token sees is what this sequence would have written itself.
  void Check(int window) const {
    for (int position = 0; position < computed; ++position) {
      const uint64_t want = Content(tokens, position);
      ASSERT_EQ(memory[0]->slots[tables[0].Slot(position)], want) << position;
      if (position >= computed - window + 1) {
        ASSERT_EQ(memory[1]->slots[tables[1].Slot(position)], want) << position;
      }
    }
  }

  Memory* memory[2];
  BlockTable tables[2];
  Tokens tokens;
  int computed = 0;
};

struct Fixture {
  explicit Fixture(int full = 100, int sliding = 100, int max_full = 60, int max_sliding = 60, int block = 4,
                   int window_size = 8)
      : window(window_size),
        full_memory(full, block),
        sliding_memory(sliding, block),
        cache(&full_memory.pool, &sliding_memory.pool,
              {.block_size = block, .window = window, .max_full_blocks = max_full, .max_sliding_blocks = max_sliding}) {
  }
  /// Computes all of `tokens`, from what is cached on, and keeps checkpoints after `keep` tokens and after all. Returns
  /// how many were cached.
  int Run(const Tokens& tokens, std::vector<int> keep = {}) {
    FakeSequence s(&full_memory, &sliding_memory);
    s.tokens = tokens;
    if (const auto state = cache.Find(tokens, static_cast<int>(tokens.size()) - 1)) s.Share(*state);
    s.Check(window);
    const int cached = s.computed;
    keep.push_back(static_cast<int>(tokens.size()));
    for (const int length : keep) {
      if (length <= s.computed) continue;
      EXPECT_TRUE(s.Reserve(length - s.computed));
      s.Write(length - s.computed);
      cache.Insert(std::span(tokens).first(length), s.tables[0].blocks(), s.tables[1].blocks());
      s.tables[1].ReleaseBefore(length - window + 1);
    }
    s.Check(window);
    return cached;
  }

  const int window;
  Memory full_memory, sliding_memory;
  PrefixCache cache;
};

Tokens Counting(int n, int from = 0) {
  Tokens tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(from + i);
  return tokens;
}

Tokens Join(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(PrefixCache, GoesOnFromTheLongestCheckpoint) {
  Fixture f;
  EXPECT_EQ(f.Run(Counting(30), {10, 17}), 0);
  EXPECT_EQ(f.Run(Counting(50)), 30) << "within a block";
  EXPECT_EQ(f.Run(Join(Counting(20), Counting(9, 900))), 17) << "branches off after 20, kept after 17";
  EXPECT_EQ(f.Run(Join(Counting(16), Counting(9, 700))), 10);
  EXPECT_EQ(f.Run(Counting(30)), 17) << "one token at least is computed";
  EXPECT_EQ(f.Run(Join(Counting(9), Counting(9, 700))), 0);
  EXPECT_EQ(f.cache.CommonBlocks(Join(Counting(11), Counting(9, 333))).size(), 2u);
}

TEST(PrefixCache, ForgetsTheLeastRecentlyUsed) {
  Fixture f(100, 100, /*max_full=*/12, /*max_sliding=*/60);
  f.Run(Counting(15, 100));  // four blocks each
  f.Run(Counting(15, 200));
  f.Run(Counting(15, 300));
  EXPECT_EQ(f.cache.full_blocks(), 12);
  EXPECT_EQ(f.Run(Join(Counting(15, 100), {1})), 15) << "used again; its end is new";
  EXPECT_FALSE(f.cache.Find(Counting(16, 200), 16).has_value());
  EXPECT_TRUE(f.cache.Find(Counting(16, 300), 16).has_value());
  EXPECT_LE(f.cache.full_blocks(), 12);
}

TEST(PrefixCache, RefusesWhatAloneIsTooMuch) {
  Fixture f(100, 100, /*max_full=*/5, /*max_sliding=*/60);
  f.Run(Counting(12, 50));
  f.Run(Counting(21));
  EXPECT_EQ(f.cache.checkpoints(), 1);
  EXPECT_TRUE(f.cache.Find(Counting(13, 50), 13).has_value()) << "and nothing was thrown away for it";
}

TEST(PrefixCache, GivesEverythingBack) {
  Fixture f;
  f.Run(Counting(30), {10, 17});
  f.Run(Join(Counting(20), Counting(9, 900)));
  EXPECT_EQ(f.cache.idle_full_blocks(), f.cache.full_blocks());
  EXPECT_EQ(f.full_memory.pool.size() - f.full_memory.pool.free_blocks(), f.cache.full_blocks());
  EXPECT_EQ(f.sliding_memory.pool.size() - f.sliding_memory.pool.free_blocks(), f.cache.sliding_blocks());
  while (f.cache.EvictOne()) {
  }
  EXPECT_EQ(f.cache.full_blocks(), 0);
  EXPECT_EQ(f.full_memory.pool.free_blocks(), 100);
  EXPECT_EQ(f.sliding_memory.pool.free_blocks(), 100);
}

/// Random sequences that begin as earlier ones did, side by side, in pools that are too small: what is found is always
/// what the sequence would have computed itself, no block is lost, the limits hold.
class RandomLife {
 public:
  explicit RandomLife(uint64_t seed)
      : random_(seed, 1), f_(40 + Draw(60), 30 + Draw(60), 5 + Draw(60), 3 + Draw(40), 1 + Draw(6), 1 + Draw(20)) {}

  void Run() {
    for (int step = 0; step < 400 && !testing::Test::HasFatalFailure(); ++step) {
      switch (Draw(4)) {
        case 0:
          if (live_.size() < 4) Begin();
          break;
        case 1:
          if (!live_.empty() && Draw(2) == 0) live_.erase(live_.begin() + Draw(static_cast<int>(live_.size())));
          break;
        default:
          if (!live_.empty()) Extend(live_[static_cast<size_t>(Draw(static_cast<int>(live_.size())))].get());
      }
      CheckCounts();
    }
    live_.clear();
    while (f_.cache.EvictOne()) {
    }
    EXPECT_EQ(f_.full_memory.pool.free_blocks(), f_.full_memory.pool.size());
    EXPECT_EQ(f_.sliding_memory.pool.free_blocks(), f_.sliding_memory.pool.size());
  }
  int hits() const { return hits_; }

 private:
  int Draw(int below) { return static_cast<int>(random_.Word(draws_++) % static_cast<uint64_t>(below)); }

  void Begin() {
    auto s = std::make_unique<FakeSequence>(&f_.full_memory, &f_.sliding_memory);
    if (!history_.empty()) {
      const Tokens& earlier = history_[static_cast<size_t>(Draw(static_cast<int>(history_.size())))];
      s->tokens.assign(earlier.begin(), earlier.begin() + Draw(static_cast<int>(earlier.size()) + 1));
    }
    for (int i = 1 + Draw(5); i > 0; --i) s->tokens.push_back(Draw(2));
    const auto state = f_.cache.Find(s->tokens, static_cast<int>(s->tokens.size()) - 1);
    if (state.has_value()) {
      ASSERT_LT(state->length, static_cast<int>(s->tokens.size()));
      s->Share(*state);
      ASSERT_NO_FATAL_FAILURE(s->Check(f_.window));
      ++hits_;
    }
    live_.push_back(std::move(s));
  }

  void Extend(FakeSequence* s) {
    for (int i = Draw(8); i > 0; --i) s->tokens.push_back(Draw(2));
    const int count = std::min(static_cast<int>(s->tokens.size()) - s->computed, 1 + Draw(30));
    if (count <= 0) return;
    while (!s->Reserve(count)) {
      if (f_.cache.EvictOne()) continue;
      std::erase_if(live_, [&](const auto& other) { return other.get() == s; });
      return;
    }
    const int before = s->computed;
    s->Write(count);
    for (int i = Draw(3); i > 0; --i) {
      const int length = before + 1 + Draw(count);
      f_.cache.Insert(std::span(s->tokens).first(length), s->tables[0].blocks(), s->tables[1].blocks());
      history_.push_back({s->tokens.begin(), s->tokens.begin() + length});
    }
    s->tables[1].ReleaseBefore(s->computed - f_.window + 1);
    ASSERT_NO_FATAL_FAILURE(s->Check(f_.window));
  }

  void CheckCounts() {
    const auto used = [](const BlockPool& pool) { return pool.size() - pool.free_blocks(); };
    std::set<int32_t> full;
    for (const auto& s : live_) {
      for (const int32_t block : s->tables[0].blocks()) full.insert(block);
    }
    ASSERT_EQ(static_cast<int>(full.size()) + f_.cache.idle_full_blocks(), used(f_.full_memory.pool));
    ASSERT_GE(used(f_.sliding_memory.pool), f_.cache.sliding_blocks());
  }

  const RandomStream random_;
  uint64_t draws_ = 0;
  Fixture f_;
  std::vector<std::unique_ptr<FakeSequence>> live_;
  std::vector<Tokens> history_;
  int hits_ = 0;
};

TEST(PrefixCache, RandomLivesFindWhatTheyWouldHaveComputed) {
  int hits = 0;
  for (uint64_t seed = 0; seed < 300 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    RandomLife life(seed);
    life.Run();
    hits += life.hits();
  }
  EXPECT_GT(hits, 5000);
}

/// Without limits, what is found is the longest of all that were kept.
TEST(PrefixCache, FindsTheLongestOfAll) {
  const RandomStream random(7, 2);
  uint64_t draws = 0;
  const auto draw = [&](int below) { return static_cast<int>(random.Word(draws++) % static_cast<uint64_t>(below)); };
  Fixture f(20000, 20000, 20000, 20000);
  std::vector<Tokens> kept;
  for (int round = 0; round < 400; ++round) {
    Tokens tokens;
    if (!kept.empty()) tokens = kept[static_cast<size_t>(draw(static_cast<int>(kept.size())))];
    tokens.resize(tokens.empty() ? 0 : static_cast<size_t>(draw(static_cast<int>(tokens.size()))));
    for (int i = 1 + draw(12); i > 0; --i) tokens.push_back(draw(2));
    size_t longest = 0;
    for (const Tokens& t : kept) {
      if (t.size() < tokens.size() && t.size() > longest && std::equal(t.begin(), t.end(), tokens.begin())) {
        longest = t.size();
      }
    }
    EXPECT_EQ(f.Run(tokens), static_cast<int>(longest));
    kept.push_back(tokens);
  }
}

}  // namespace
}  // namespace gptoss
