// The prefix cache under the engine: a hit gives, to the bit, what computing everything anew gives; an agent's turns
// cost what is new in them.

#include <gtest/gtest.h>

#include <filesystem>

#include "engine_testing.h"

namespace gptoss {
namespace {

using Tokens = std::vector<int32_t>;

Tokens Join(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class PrefixCacheModelTest : public EngineTest {
 protected:
  static constexpr uint64_t kPlenty = 64 << 20;

  void StartCached(uint64_t cache_bytes, const Ops* ops = nullptr, int max_context = kMaxContext) {
    engine_.reset();
    Load({.max_context = max_context, .max_sequences = 4, .chunk_tokens = 64, .cache_bytes = cache_bytes}, ops);
    Start({.max_running = 4, .cache_bytes = cache_bytes});
  }
};

EngineRequest WithLogprobs(Tokens prompt, int max_tokens, std::vector<int> checkpoints = {}) {
  EngineRequest request = Request(std::move(prompt), 0.9, max_tokens, 11);
  request.sampling.top_logprobs = 20;
  request.checkpoints = std::move(checkpoints);
  return request;
}

TEST_F(PrefixCacheModelTest, AHitGivesTheSameLogitsToTheBit) {
  for (const NamedOps& ops : AllOps(Precision::kFast)) {
    if (ops.name == "portable") continue;  // slow
    // On both sides of the borders of blocks and of the window of 128.
    const int kLengths[] = {2, 31, 32, 33, 64, 126, 127, 128, 129, 130, 160, 300, 451};
    std::vector<Outcome> plain;
    StartCached(0, ops.ops);
    for (const int length : kLengths) {
      plain.push_back(Run(WithLogprobs(RandomPrompt(length, length), 12)));
      const Tokens longer = Join(RandomPrompt(length, length), RandomPrompt(9, 7));
      plain.push_back(Run(WithLogprobs(longer, 12)));
      plain.push_back(Run(WithLogprobs(Join(Join(longer, plain.back().tokens), {5, 6}), 12)));
    }
    StartCached(kPlenty, ops.ops);
    size_t next = 0;
    for (const int length : kLengths) {
      const auto expect = [&](const Outcome& got, int cached) {
        const std::string where = ops.name + " " + std::to_string(length);
        EXPECT_EQ(got.tokens, plain[next].tokens) << where;
        EXPECT_EQ(got.logprobs, plain[next].logprobs) << where;
        EXPECT_EQ(got.finish.usage.cached_tokens, cached) << where;
      };
      const Tokens prompt = RandomPrompt(length, length), longer = Join(prompt, RandomPrompt(9, 7));
      expect(Run(WithLogprobs(prompt, 12)), 0);
      expect(Run(WithLogprobs(prompt, 12)), length - 1);
      ++next;
      expect(Run(WithLogprobs(longer, 12)), length - 1);
      ++next;
      // The last token of an output is not computed: nothing comes after it.
      expect(Run(WithLogprobs(Join(Join(longer, plain[next - 1].tokens), {5, 6}), 12)), length + 9 + 12 - 1);
      ++next;
    }
  }
}

TEST_F(PrefixCacheModelTest, BranchesAtCheckpointsAndWhereOthersBranchedOff) {
  StartCached(0);
  const Tokens system = RandomPrompt(200, 1);
  std::vector<Outcome> plain;
  for (int i = 0; i < 4; ++i) plain.push_back(Run(WithLogprobs(Join(system, RandomPrompt(50, 20 + i)), 10)));
  StartCached(kPlenty);
  std::vector<Outcome> got;
  got.push_back(Run(WithLogprobs(Join(system, RandomPrompt(50, 20)), 10, {150, 200})));
  got.push_back(Run(WithLogprobs(Join(system, RandomPrompt(50, 21)), 10)));
  EXPECT_EQ(got[1].finish.usage.cached_tokens, 200);
  // Nobody said where these branch off; the second of them shows it.
  StartCached(kPlenty);
  got[0] = Run(WithLogprobs(Join(system, RandomPrompt(50, 20)), 10));
  got[1] = Run(WithLogprobs(Join(system, RandomPrompt(50, 21)), 10));
  EXPECT_EQ(got[1].finish.usage.cached_tokens, 0);
  got.push_back(Run(WithLogprobs(Join(system, RandomPrompt(50, 22)), 10)));
  EXPECT_EQ(got[2].finish.usage.cached_tokens, 192) << "in whole blocks";
  got.push_back(Run(WithLogprobs(Join(system, RandomPrompt(50, 23)), 10)));
  EXPECT_EQ(got[3].finish.usage.cached_tokens, 192);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(got[i].tokens, plain[i].tokens) << i;
    EXPECT_EQ(got[i].logprobs, plain[i].logprobs) << i;
  }
}

/// Many requests at once that share beginnings, in a cache and a pool that are too small for all of them.
TEST_F(PrefixCacheModelTest, SharingUnderPressureChangesNothing) {
  const auto make = [](int i) {
    EngineRequest request = WithLogprobs(Join(RandomPrompt(40 + 90 * (i % 3), i % 3), RandomPrompt(5 + i, 50 + i % 7)),
                                         30 + 5 * (i % 4), {40 + 90 * (i % 3)});
    request.sampling.seed = static_cast<uint64_t>(i);
    return request;
  };
  constexpr int kCount = 24;
  StartCached(0);
  std::vector<Outcome> plain;
  for (int i = 0; i < kCount; ++i) plain.push_back(Run(make(i)));
  uint64_t cached = 0;
  for (const uint64_t cache_bytes : {uint64_t{200} << 10, uint64_t{1} << 20}) {
    Load(
        {.max_context = 400, .max_sequences = 4, .chunk_tokens = 64, .total_context = 800, .cache_bytes = cache_bytes});
    Start({.max_running = 4, .cache_bytes = cache_bytes});
    for (int round = 0; round < 2; ++round) {
      std::vector<std::shared_ptr<Collector>> listeners;
      for (int i = 0; i < kCount; ++i) listeners.push_back(Submit(make(i)));
      for (int i = 0; i < kCount; ++i) {
        EXPECT_EQ(listeners[i]->Wait().reason, FinishReason::kMaxTokens);
        EXPECT_EQ(listeners[i]->tokens(), plain[i].tokens) << i;
        EXPECT_EQ(listeners[i]->logprobs(), plain[i].logprobs) << i;
      }
    }
    const EngineStats stats = engine_->stats();
    cached += stats.cached_tokens;
    EXPECT_EQ(stats.kv_blocks_used, stats.cache_blocks) << "what nobody runs, the cache holds";
  }
  EXPECT_GT(cached, 0u);
}

/// A new process goes on from the folder of an old one; damage in it costs time, never a wrong token.
TEST_F(PrefixCacheModelTest, TheFolderOutlastsTheEngine) {
  std::string folder = (std::filesystem::temp_directory_path() / "prefix_cache_XXXXXX").string();
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const auto start = [&](const Ops* ops = nullptr) {
    engine_.reset();
    Load({.max_context = kMaxContext, .max_sequences = 4, .chunk_tokens = 64, .cache_bytes = kPlenty}, ops);
    Start({.max_running = 4, .cache_bytes = kPlenty, .cache_dir = folder});
  };
  const auto make = [] { return WithLogprobs(RandomPrompt(300, 1), 20, {150}); };
  start();
  const Outcome plain = Run(make());
  EXPECT_EQ(plain.finish.usage.cached_tokens, 0);
  start();
  EXPECT_GT(engine_->stats().stored_files, 9u);
  const Outcome again = Run(make());
  EXPECT_EQ(again.finish.usage.cached_tokens, 299);
  EXPECT_EQ(again.tokens, plain.tokens);
  EXPECT_EQ(again.logprobs, plain.logprobs);
  engine_.reset();
  // One file after another is damaged: found out when it is read, and made anew.
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".kv") files.push_back(entry.path());
  }
  uint64_t rejected = 0;
  for (size_t i = 0; i < files.size(); i += 2) {
    std::string contents = *ReadTextFile(files[i].string());
    contents[contents.size() / 2] ^= 4;
    ASSERT_TRUE(WriteFileAtomically(files[i].string(), contents).ok());
    start();
    const Outcome healed = Run(make());
    EXPECT_EQ(healed.tokens, plain.tokens) << i;
    EXPECT_EQ(healed.logprobs, plain.logprobs) << i;
    rejected += engine_->stats().stored_rejected;
  }
  EXPECT_GT(rejected, 3u);
  // Other kernels are another model.
  start(&ReferenceOps());
  EXPECT_EQ(Run(make()).finish.usage.cached_tokens, 0);
  engine_.reset();
  EXPECT_EQ(Engine::Create(*loaded_->runner, {.cache_dir = folder}).status().code(), StatusCode::kInvalidArgument);
  std::filesystem::remove_all(folder);
}

/// An agent: a preamble with tools, then turns of a user, in each a few calls of tools with their results, and
/// reasoning in between, which is dropped when the turn is over. The engine computes what is new, and little else.
TEST_F(PrefixCacheModelTest, AnAgentsTurnsCostWhatIsNewInThem) {
  StartCached(kPlenty, nullptr, 4000);
  Tokens history = RandomPrompt(600, 1);  // as a next turn sees it: without reasoning
  int known = 0;                          // tokens that the prompt shares with what was computed before
  for (int turn = 0; turn < 8; ++turn) {
    history = Join(history, RandomPrompt(40 + 3 * turn, 100 + turn));
    const int branch = static_cast<int>(history.size());
    Tokens prompt = history, kept;  // with this turn's reasoning; what the turn leaves behind
    int prefilled = 0, fresh = 0;
    for (int call = 0; call < 3; ++call) {
      const Outcome out = Run(WithLogprobs(prompt, 30, {branch}));
      ASSERT_EQ(out.tokens.size(), 30u);
      prefilled += static_cast<int>(prompt.size()) - out.finish.usage.cached_tokens;
      fresh += static_cast<int>(prompt.size()) - known;
      const Tokens result = RandomPrompt(50, 1000 + turn * 10 + call);
      prompt = Join(Join(prompt, out.tokens), result);
      kept = Join(Join(kept, {out.tokens.begin() + 15, out.tokens.end()}), result);
      known = static_cast<int>(prompt.size() - result.size());
    }
    EXPECT_LE(prefilled, fresh * 1.1) << "turn " << turn;
    history = Join(history, kept);
    known = branch;  // here the next turn's prompt leaves the way of this one's
  }
  EXPECT_GT(engine_->stats().cached_tokens, 15000u);
}

}  // namespace
}  // namespace gptoss
