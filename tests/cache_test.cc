// The paged cache must not change results: greedy decoding with the cache equals prefilling everything at once, at
// every chunk size, across the window border at 128 and past 4096 positions, alone and together with other sequences.

#include <gtest/gtest.h>

#include <algorithm>

#include "engine/generator.h"
#include "engine/logit_metrics.h"
#include "golden_model.h"

namespace gptoss {
namespace {

/// Fresh prefill of `tokens` in one piece; logits of the last position.
std::vector<float> WholePrefill(LoadedGolden& loaded, const std::vector<int32_t>& tokens) {
  return LastLogits(*loaded.runner, tokens, 1);
}

class CacheTest : public testing::Test {
 protected:
  std::unique_ptr<LoadedGolden> Load(const Ops& ops, int chunk, int sequences = 1) {
    return LoadGolden(
        GoldenCheckpoint("micro", "hf"), ops, DensePrecision::kAsStored,
        {.max_context = 6000, .max_sequences = sequences, .chunk_tokens = chunk, .kv_dtype = DType::kF32});
  }
};

/// Once for the reference and for every CPU target.
class CacheOfTarget : public CacheTest, public testing::WithParamInterface<NamedOps> {
 protected:
  const NamedOps ops = GetParam();
};

INSTANTIATE_TEST_SUITE_P(Targets, CacheOfTarget, testing::ValuesIn(AllOps(Precision::kExact)),
                         [](const auto& target) { return target.param.name; });

TEST_P(CacheOfTarget, ChunkSizesGiveTheSameLogits) {
  const auto tokens = GoldenTokens("micro", "s300");
  auto whole = Load(*ops.ops, 512);
  ASSERT_NE(whole, nullptr);
  const std::vector<float> want = LastLogits(*whole->runner, tokens, 300);
  for (int chunk : {1, 7, 128}) {
    auto chunked = Load(*ops.ops, chunk);
    ASSERT_NE(chunked, nullptr);
    const std::vector<float> got = LastLogits(*chunked->runner, tokens, 300);
    LogitMetrics m;
    for (size_t i = 0; i < 300; ++i) m.Add(std::span(want).subspan(i * 640, 640), std::span(got).subspan(i * 640, 640));
    EXPECT_LE(m.rel_l2(), 2e-5) << "chunk " << chunk;  // the bound between two float runs
    EXPECT_EQ(m.rows(), 300);
  }
}

TEST_P(CacheOfTarget, GreedyDecodingEqualsTheGreedyPathOfAFullPrefill) {
  if (ops.name == "reference") GTEST_SKIP() << "slow past 4096; the chunk test covers it";
  const struct {
    const char* sequence;
    int length;  // of the prompt: decoding crosses the window border, and the initial context of 4096
    int steps;
  } kCases[] = {{"s300", 120, 24}, {"s5000", 4090, 12}};
  auto loaded = Load(*ops.ops, 512, 2);
  ASSERT_NE(loaded, nullptr);
  for (const auto& c : kCases) {
    auto tokens = GoldenTokens("micro", c.sequence);
    tokens.resize(c.length);
    auto sequence = loaded->runner->NewSequence();
    sequence->Append(tokens);
    GenerateRequest request;
    request.sampling.temperature = 0;
    request.max_tokens = c.steps;
    const auto result = Generate(*loaded->runner, *sequence, request, nullptr);
    ASSERT_TRUE(result.ok()) << result.status().message();
    ASSERT_EQ(static_cast<int>(result->tokens.size()), c.steps);
    // One prefill tells what every step should have chosen.
    tokens.insert(tokens.end(), result->tokens.begin(), result->tokens.end() - 1);
    const std::vector<float> logits = LastLogits(*loaded->runner, tokens, c.steps);
    for (int step = 0; step < c.steps; ++step) {
      const auto row = std::span(logits).subspan(static_cast<size_t>(step) * 640, 640);
      const float best = *std::max_element(row.begin(), row.end());
      // Only a margin below the noise of float runs may decide otherwise.
      EXPECT_LT(best - row[static_cast<size_t>(result->tokens[step])], 1e-3f)
          << "after " << c.length + step << " tokens";
    }
  }
}

TEST_P(CacheOfTarget, SequencesDoNotDisturbEachOther) {
  auto loaded = Load(*ops.ops, 64, 3);
  ASSERT_NE(loaded, nullptr);
  const auto all = GoldenTokens("micro", "s300");
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<Sequence*> pointers;
  const std::vector<int> lengths = {5, 130, 200};
  for (int length : lengths) {
    sequences.push_back(loaded->runner->NewSequence());
    sequences.back()->Append(std::span(all).first(length));
    ASSERT_TRUE(loaded->runner->Compute(*sequences.back(), length, nullptr).ok());
    pointers.push_back(sequences.back().get());
  }
  std::vector<float> logits(3 * 640);
  for (int step = 0; step < 40; ++step) {
    for (size_t s = 0; s < 3; ++s) sequences[s]->Append(all[lengths[s] + step]);
    ASSERT_TRUE(ComputeLast(*loaded->runner, pointers, logits).ok());
  }
  for (size_t s = 0; s < 3; ++s) {
    auto alone = Load(*ops.ops, 512);
    const auto want = WholePrefill(*alone, {all.begin(), all.begin() + lengths[s] + 40});
    LogitMetrics m;
    m.Add(want, std::span(logits).subspan(s * 640, 640));
    EXPECT_LE(m.rel_l2(), 2e-5) << "sequence " << s;
  }
}

TEST_F(CacheTest, TruncatedSequencesGoOnAsIfNewlyMade) {
  auto loaded = Load(ReferenceOps(), 64, 2);
  ASSERT_NE(loaded, nullptr);
  const auto all = GoldenTokens("micro", "s300");
  auto sequence = loaded->runner->NewSequence();
  sequence->Append(all);
  ASSERT_TRUE(loaded->runner->Compute(*sequence, 300, nullptr).ok());
  for (int keep : {290, 40, 0}) {  // within the window kept; far behind it; everything
    loaded->runner->Truncate(*sequence, keep);
    sequence->Append(std::span(all).subspan(10, 20));
    std::vector<float> got;
    ASSERT_TRUE(loaded->runner
                    ->Compute(*sequence, keep + 19,
                              [&](int, LogitRow& row) {
                                const std::span<float> logits = *row.OnHost();
                                got.assign(logits.begin(), logits.end());
                                return Status();
                              })
                    .ok());
    LogitMetrics m;
    m.Add(WholePrefill(*loaded, sequence->tokens()), got);
    EXPECT_LE(m.rel_l2(), 2e-5) << keep;
  }
}

TEST_F(CacheTest, ErrorsNameWhatIsWrong) {
  auto loaded = Load(ReferenceOps(), 64);
  ASSERT_NE(loaded, nullptr);
  auto sequence = loaded->runner->NewSequence();
  sequence->Append(640);
  const Status bad_token = loaded->runner->Compute(*sequence, 1, nullptr);
  EXPECT_EQ(bad_token.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(bad_token.message().find("640"), std::string::npos);
  auto longer = loaded->runner->NewSequence();
  longer->Append(std::vector<int32_t>(6001, 1));
  EXPECT_EQ(loaded->runner->Compute(*longer, 6001, nullptr).code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gptoss
