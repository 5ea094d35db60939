// Speculation must not change a single token: with proposals that hold, that fail, that are drawn at random, across the
// window border at 128, with every sampling control, and in the state that a sequence is left in.

#include <gtest/gtest.h>

#include <algorithm>

#include "backends/cpu/amx/amx_kernels.h"
#include "base/rng.h"
#include "engine/generator.h"
#include "golden_model.h"

namespace gptoss {
namespace {

constexpr int kVocab = 640;

std::vector<int32_t> RepetitivePrompt(int length) {
  const std::vector<int32_t> phrase = {17, 230, 45, 9, 611, 45, 302};
  std::vector<int32_t> tokens;
  for (int i = 0; i < length; ++i) tokens.push_back(phrase[i % phrase.size()]);
  return tokens;
}

std::vector<int32_t> RandomPrompt(int length, uint64_t seed) {
  const RandomStream random(seed, 3);
  std::vector<int32_t> tokens;
  for (int i = 0; i < length; ++i) tokens.push_back(static_cast<int32_t>(random.Word(i) % kVocab));
  return tokens;
}

SpeculationOptions Always(int max_tokens) { return {.max_tokens = max_tokens, .adaptive = false}; }

/// Proposes what plain decoding gave, with token i changed where wrong(i).
SpeculationOptions FromOutput(const std::vector<int32_t>& prompt, const std::vector<int32_t>& output, int max_tokens,
                              std::function<bool(size_t)> wrong = nullptr) {
  SpeculationOptions options = Always(max_tokens);
  options.propose = [=](std::span<const int32_t> history, int count) {
    Proposal proposal{.tokens = {}, .matched = 4};
    for (size_t i = history.size() - prompt.size(); i < output.size() && count > 0; ++i, --count) {
      proposal.tokens.push_back(wrong != nullptr && wrong(i) ? (output[i] + 1) % kVocab : output[i]);
    }
    return proposal;
  };
  return options;
}

class SpeculationTest : public testing::Test {
 protected:
  void Load(const Ops& ops, Precision precision, int chunk = 64, int max_context = 1000) {
    loaded_ = LoadGolden(GoldenCheckpoint("micro", "hf"), ops,
                         precision == Precision::kExact ? DensePrecision::kAsStored : DensePrecision::kDefault,
                         {.max_context = max_context,
                          .max_sequences = 1,
                          .chunk_tokens = chunk,
                          .kv_dtype = precision == Precision::kExact ? DType::kF32 : DType::kBF16});
    ASSERT_NE(loaded_, nullptr);
  }

  GenerateResult Run(const std::vector<int32_t>& prompt, GenerateRequest request, SpeculationOptions speculation) {
    request.speculation = std::move(speculation);
    auto sequence = loaded_->runner->NewSequence();
    sequence->Append(prompt);
    auto result = Generate(*loaded_->runner, *sequence, request, nullptr);
    EXPECT_TRUE(result.ok()) << result.status().message();
    if (!result.ok()) return {};
    // The sequence ends as without speculation, whatever was proposed.
    std::vector<int32_t> all = prompt;
    all.insert(all.end(), result->tokens.begin(), result->tokens.end());
    EXPECT_EQ(sequence->tokens(), all);
    EXPECT_EQ(sequence->computed(), static_cast<int>(all.size()) - 1);
    return *std::move(result);
  }

  std::unique_ptr<LoadedGolden> loaded_;
};

GenerateRequest Request(double temperature, int max_tokens, uint64_t seed = 1) {
  GenerateRequest request;
  request.sampling.temperature = temperature;
  request.sampling.seed = seed;
  request.max_tokens = max_tokens;
  return request;
}

TEST_F(SpeculationTest, GivesTheSameTokensOnEveryTargetAtEveryLength) {
  for (const Precision precision : {Precision::kExact, Precision::kFast}) {
    for (const NamedOps& ops : AllOps(precision)) {
      if (ops.name == "reference") continue;  // slow, and one row at a time
      Load(*ops.ops, precision);
      for (const auto& prompt : {RepetitivePrompt(30), RepetitivePrompt(120), RandomPrompt(115, 1)}) {
        for (const double temperature : {0.0, 0.7}) {
          const GenerateRequest request = Request(temperature, 40);
          const auto plain = Run(prompt, request, {});
          EXPECT_EQ(plain.tokens.size(), 40u);
          EXPECT_EQ(plain.timings.passes, 39);
          for (const int most : {1, 3, 8}) {
            const int k = std::min(most, ops.ops->invariant_rows - 1);
            EXPECT_EQ(Run(prompt, request, Always(most)).tokens, plain.tokens) << ops.name << " k " << k;
            const auto perfect = Run(prompt, request, FromOutput(prompt, plain.tokens, most));
            EXPECT_EQ(perfect.tokens, plain.tokens) << ops.name << " k " << k;
            EXPECT_EQ(perfect.timings.proposed_tokens, perfect.timings.accepted_tokens);
            EXPECT_EQ(perfect.timings.passes, (39 + k) / (k + 1)) << ops.name << " k " << k;
          }
        }
      }
    }
  }
}

/// Tiles round otherwise than the kernels for few rows: no pass may reach the number of rows from which they are used.
TEST_F(SpeculationTest, GivesTheSameTokensWhereLargeBatchesRoundOtherwise) {
  const Ops* ops = cpu::EmulatedAmxOps();
  if (ops == nullptr) GTEST_SKIP() << "this machine can run none of the targets that emulate AMX";
  ASSERT_LT(ops->invariant_rows, 16);
  Load(*ops, Precision::kFast);
  const auto prompt = RepetitivePrompt(30);
  for (const double temperature : {0.0, 0.7}) {
    const auto plain = Run(prompt, Request(temperature, 40), {});
    const auto perfect = Run(prompt, Request(temperature, 40), FromOutput(prompt, plain.tokens, 16));
    EXPECT_EQ(perfect.tokens, plain.tokens);
    EXPECT_EQ(perfect.timings.passes, (39 + ops->invariant_rows - 1) / ops->invariant_rows);
  }
}

TEST_F(SpeculationTest, WrongProposalsCostPassesOnly) {
  Load(**CpuOps("", Precision::kFast), Precision::kFast, 40);
  const auto prompt = RandomPrompt(100, 2);
  for (const double temperature : {0.0, 1.0}) {
    const GenerateRequest request = Request(temperature, 60, 9);
    const auto plain = Run(prompt, request, {});
    const auto all_wrong = Run(prompt, request, FromOutput(prompt, plain.tokens, 6, [](size_t) { return true; }));
    EXPECT_EQ(all_wrong.tokens, plain.tokens);
    EXPECT_EQ(all_wrong.timings.accepted_tokens, 0);
    EXPECT_GT(all_wrong.timings.proposed_tokens, 200);
    EXPECT_EQ(all_wrong.timings.passes, 59);
    const auto some_wrong =
        Run(prompt, request, FromOutput(prompt, plain.tokens, 6, [](size_t i) { return i % 4 == 3; }));
    EXPECT_EQ(some_wrong.tokens, plain.tokens);
    EXPECT_LT(some_wrong.timings.passes, 30);
  }
}

TEST_F(SpeculationTest, RandomProposalsOfAnyKindGiveTheSameTokens) {
  Load(**CpuOps("", Precision::kFast), Precision::kFast, 33);
  for (uint64_t round = 0; round < 30; ++round) {
    const RandomStream random(round, 17);
    const auto prompt = RandomPrompt(static_cast<int>(90 + random.Word(0) % 60), round);
    const GenerateRequest request = Request(round % 3 == 0 ? 0.0 : 0.8, 50, round);
    const auto plain = Run(prompt, request, {});
    uint64_t draw = 1;
    SpeculationOptions options = Always(static_cast<int>(1 + random.Word(1000) % 32));
    options.propose = [&](std::span<const int32_t> history, int count) {
      Proposal proposal{.tokens = {}, .matched = 2};
      const auto length = static_cast<size_t>(random.Word(draw++) % 40);  // more than was asked for, sometimes
      for (size_t i = 0; i < length; ++i) {
        const size_t at = history.size() - prompt.size() + i;
        const uint64_t kind = random.Word(draw++) % 16;
        const auto any = static_cast<int32_t>(random.Word(draw++) % kVocab);
        proposal.tokens.push_back(kind == 0                  ? any
                                  : kind == 1 && any < 64    ? kVocab + any  // outside the vocabulary
                                  : at < plain.tokens.size() ? plain.tokens[at]
                                                             : any);
      }
      EXPECT_GT(count, 0);
      return proposal;
    };
    const auto got = Run(prompt, request, options);
    EXPECT_EQ(got.tokens, plain.tokens) << round;
    EXPECT_LT(got.timings.passes, 49) << round;
  }
}

/// Everything that the callback was told.
struct Told {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  std::vector<int32_t> top;
  bool operator==(const Told&) const = default;
};

TEST_F(SpeculationTest, SamplingControlsLogprobsAndStopsWorkAsWithout) {
  Load(**CpuOps("", Precision::kFast), Precision::kFast);
  const auto prompt = RepetitivePrompt(110);
  GenerateRequest request = Request(0.9, 50, 4);
  request.sampling.repetition_penalty = 1.2;
  request.sampling.frequency_penalty = 0.6;
  request.sampling.presence_penalty = 0.4;
  request.sampling.top_p = 0.95;
  request.sampling.top_k = 100;
  request.sampling.logit_bias = {{5, 2.0f}, {17, -1.0f}};
  request.sampling.top_logprobs = 3;
  const auto plain = Run(prompt, request, {});
  const auto stop_at = plain.tokens[33];
  const auto tell = [&](const SpeculationOptions& speculation, size_t limit, StopReason* reason) {
    Told told;
    GenerateRequest r = request;
    r.speculation = speculation;
    auto sequence = loaded_->runner->NewSequence();
    sequence->Append(prompt);
    const auto result = Generate(*loaded_->runner, *sequence, r, [&](const SampledToken* token) {
      if (token == nullptr) return true;
      told.ids.push_back(token->id);
      told.logprobs.push_back(token->logprob);
      for (const TokenLogprob& top : token->top) told.top.push_back(top.id);
      return told.ids.size() < limit;
    });
    EXPECT_TRUE(result.ok());
    *reason = result->reason;
    EXPECT_EQ(sequence->tokens().size(), prompt.size() + told.ids.size());
    return told;
  };
  const auto speculative = FromOutput(prompt, plain.tokens, 7, [](size_t i) { return i % 5 == 4; });
  for (const size_t limit : {size_t{1000}, size_t{22}}) {
    StopReason want = {}, got = {};
    EXPECT_EQ(tell(speculative, limit, &got), tell({}, limit, &want));
    EXPECT_EQ(got, want);
    EXPECT_EQ(got, limit == 22 ? StopReason::kCallback : StopReason::kMaxTokens);
  }
  request.stop_tokens = {stop_at};
  StopReason want = {}, got = {};
  const Told stopped = tell(speculative, 1000, &got);
  EXPECT_EQ(stopped, tell({}, 1000, &want));
  EXPECT_EQ(got, StopReason::kStopToken);
  EXPECT_EQ(want, got);
  EXPECT_EQ(stopped.ids.back(), stop_at);
}

TEST_F(SpeculationTest, EndsAtTheContextAndGoesOnInTheNextTurn) {
  Load(**CpuOps("", Precision::kFast), Precision::kFast, 64, 160);
  const auto prompt = RandomPrompt(100, 5);
  const GenerateRequest request = Request(0.0, 1000);
  const auto plain = Run(prompt, request, {});
  EXPECT_EQ(plain.reason, StopReason::kContextFull);
  EXPECT_EQ(plain.tokens.size(), 61u);
  const auto fast = Run(prompt, request, FromOutput(prompt, plain.tokens, 8));
  EXPECT_EQ(fast.tokens, plain.tokens);
  EXPECT_EQ(fast.reason, StopReason::kContextFull);

  // Two turns: the cache that a speculative turn leaves behind serves the next one.
  std::vector<std::vector<int32_t>> outputs;
  for (const int k : {0, 8}) {
    auto sequence = loaded_->runner->NewSequence();
    sequence->Append(prompt);
    GenerateRequest first = Request(0.0, 20), second = Request(0.6, 20, 3);
    if (k > 0) first.speculation = FromOutput(prompt, plain.tokens, k, [](size_t i) { return i % 7 == 6; });
    if (k > 0) second.speculation = Always(k);
    ASSERT_TRUE(Generate(*loaded_->runner, *sequence, first, nullptr).ok());
    sequence->Append(RandomPrompt(6, 8));
    const auto result = Generate(*loaded_->runner, *sequence, second, nullptr);
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result->timings.prompt_tokens, 7) << "nothing is computed twice";
    outputs.push_back(result->tokens);
  }
  EXPECT_EQ(outputs[0], outputs[1]);
}

TEST_F(SpeculationTest, TheAdaptiveModeGivesTheSameTokensToo) {
  Load(**CpuOps("", Precision::kFast), Precision::kFast);
  const auto prompt = RepetitivePrompt(60);
  const GenerateRequest request = Request(0.0, 200);
  const auto plain = Run(prompt, request, {});
  EXPECT_EQ(Run(prompt, request, {.max_tokens = 8}).tokens, plain.tokens);
  EXPECT_EQ(Run(prompt, request, FromOutput(prompt, plain.tokens, 8)).tokens, plain.tokens);
}

}  // namespace
}  // namespace gptoss
