// Constrained output of a model of random weights: whatever it would rather say, what it finishes is in the language,
// and speculation does not change a token of it.
#include <gtest/gtest.h>

#include <regex>
#include <set>

#include "engine/generator.h"
#include "golden_model.h"
#include "grammar/json_schema.h"
#include "grammar/regex.h"

namespace gptoss {
namespace {

constexpr int32_t kStop = 600;    // an ordinary token of the vocabulary, which the grammars must not let in as text
constexpr int32_t kBeyond = 700;  // a token that the model does not have

constexpr char kSchema[] = R"({"type": "object", "additionalProperties": false, "required": ["name", "tags", "n"],
  "properties": {"name": {"type": "string", "maxLength": 6}, "n": {"type": "integer", "minimum": -3, "maximum": 250},
                 "tags": {"type": "array", "maxItems": 3, "items": {"enum": ["red", "green", null]}}}})";

const std::vector<int32_t> kPrompt = {17, 230, 45, 9, 611, 45, 302};

/// By hand, not by the grammar: the document is what kSchema allows.
void ExpectValid(const std::string& text) {
  const auto json = ParseJson(text);
  ASSERT_TRUE(json.ok()) << text;
  ASSERT_TRUE(json->is_object() && json->size() == 3) << text;
  ASSERT_TRUE(json->at("name").is_string()) << text;
  size_t characters = 0;
  for (const char c : json->at("name").get<std::string>()) characters += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
  EXPECT_LE(characters, 6u) << text;
  ASSERT_TRUE(json->at("n").is_number_integer()) << text;
  EXPECT_GE(json->at("n").get<int>(), -3) << text;
  EXPECT_LE(json->at("n").get<int>(), 250) << text;
  ASSERT_TRUE(json->at("tags").is_array() && json->at("tags").size() <= 3) << text;
  for (const Json& tag : json->at("tags")) EXPECT_TRUE(tag == "red" || tag == "green" || tag.is_null()) << text;
}

class ConstrainedTest : public testing::Test {
 protected:
  void SetUp() override {
    loaded_ = LoadGolden(GoldenCheckpoint("micro", "hf"), **CpuOps("", Precision::kFast), DensePrecision::kDefault,
                         {.max_context = 1000, .max_sequences = 1, .chunk_tokens = 64, .kv_dtype = DType::kBF16});
    ASSERT_NE(loaded_, nullptr);
    // The model has the first 640 tokens of the vocabulary, every single byte among them.
    tokens_ = *TokenIndex::Create(*Tokenizer::Embedded());
  }

  std::shared_ptr<Machine> Of(Result<Automaton> automaton) {
    EXPECT_TRUE(automaton.ok()) << automaton.status().message();
    return Machine::Create(*std::move(automaton), tokens_);
  }

  GenerateResult Run(const std::shared_ptr<Machine>& machine, uint64_t seed, const SpeculationOptions& speculation,
                     const std::vector<int32_t>& stops = {}, const TokenCallback& callback = nullptr) {
    GrammarConstraint constraint(machine, stops);
    GenerateRequest request;
    request.sampling.seed = seed;
    request.max_tokens = 200;
    request.speculation = speculation;
    request.stop_tokens = stops;
    request.constraint = &constraint;
    auto sequence = loaded_->runner->NewSequence();
    sequence->Append(kPrompt);
    auto result = Generate(*loaded_->runner, *sequence, request, callback);
    EXPECT_TRUE(result.ok()) << result.status().message();
    if (!result.ok()) return {};
    // The constraint stands exactly after what was given out: taking that back leads to the start.
    const auto start_mask = [&](const TokenConstraint& c) {
      std::vector<uint64_t> mask(c.mask_words());
      EXPECT_TRUE(c.FillMask(mask).ok());
      return mask;
    };
    constraint.Rollback(result->tokens.size());
    EXPECT_EQ(start_mask(constraint), start_mask(GrammarConstraint(machine, stops)));
    return *std::move(result);
  }

  std::string Text(const GenerateResult& result) const { return tokens_->tokenizer().Decode(result.tokens); }

  std::unique_ptr<LoadedGolden> loaded_;
  std::shared_ptr<const TokenIndex> tokens_;
};

TEST_F(ConstrainedTest, DocumentsAreValidAndSpeculationChangesNothing) {
  const auto machine = Of(CompileJsonSchema(*ParseJson(kSchema)));
  std::set<std::string> texts;
  int proposed = 0, accepted = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const GenerateResult plain = Run(machine, seed, {});
    ASSERT_EQ(plain.reason, StopReason::kConstraintEnd) << Text(plain);
    ExpectValid(Text(plain));
    texts.insert(Text(plain));
    for (const int k : {1, 8}) {
      const GenerateResult fast = Run(machine, seed, {.max_tokens = k, .adaptive = false});
      EXPECT_EQ(fast.tokens, plain.tokens) << seed;
      EXPECT_EQ(fast.reason, plain.reason) << seed;
      EXPECT_EQ(fast.timings.passes + fast.timings.accepted_tokens, static_cast<int>(fast.tokens.size()) - 1);
      proposed += fast.timings.proposed_tokens;
      accepted += fast.timings.accepted_tokens;
    }
  }
  EXPECT_GT(texts.size(), 15u) << "the model chooses what the schema leaves open";
  EXPECT_GT(accepted, 0);
  EXPECT_GT(proposed, accepted);
}

TEST_F(ConstrainedTest, PenaltiesAndSpeculationTogether) {
  const auto machine = Of(CompileJsonSchema(*ParseJson(kSchema)));
  SamplingParams penalised;
  penalised.temperature = 0.8;
  penalised.top_p = 0.95;
  penalised.repetition_penalty = 1.2;
  penalised.frequency_penalty = 0.7;
  penalised.presence_penalty = -0.4;
  penalised.logit_bias = {{kBeyond - 100, 100.0f}};  // likely, and not allowed by the grammar
  penalised.top_logprobs = 3;
  penalised.masked_logprobs = true;
  int changed = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    penalised.seed = seed;
    GenerateResult results[2];
    std::vector<float> logprobs[2];
    for (const int k : {0, 8}) {
      GrammarConstraint constraint(machine, {});
      GenerateRequest request{.sampling = penalised, .max_tokens = 200, .stop_tokens = {}, .speculation = {}};
      request.speculation = {.max_tokens = k, .adaptive = false};
      request.constraint = &constraint;
      auto sequence = loaded_->runner->NewSequence();
      sequence->Append(kPrompt);
      auto result = Generate(*loaded_->runner, *sequence, request, [&](const SampledToken* token) {
        if (token == nullptr) return true;
        logprobs[k > 0].push_back(token->logprob);
        EXPECT_LE(token->top.size(), 3u);
        EXPECT_GE(token->top[0].logprob, token->logprob);
        return true;
      });
      ASSERT_TRUE(result.ok()) << result.status().message();
      results[k > 0] = *std::move(result);
    }
    ASSERT_EQ(results[0].reason, StopReason::kConstraintEnd);
    ExpectValid(Text(results[0]));
    EXPECT_EQ(results[0].tokens, results[1].tokens) << seed;
    EXPECT_EQ(logprobs[0], logprobs[1]) << seed;
    changed += Run(machine, seed, {}).tokens != results[0].tokens;
  }
  EXPECT_GT(changed, 0) << "the penalties change what is drawn";
}

TEST_F(ConstrainedTest, SequencesOfABatchKeepToTheirOwnGrammars) {
  loaded_ = LoadGolden(GoldenCheckpoint("micro", "hf"), **CpuOps("", Precision::kFast), DensePrecision::kDefault,
                       {.max_context = 1000, .max_sequences = 3, .chunk_tokens = 64, .kv_dtype = DType::kBF16});
  ASSERT_NE(loaded_, nullptr);
  const auto schema = Of(CompileJsonSchema(*ParseJson(kSchema)));
  const std::shared_ptr<Machine> machines[] = {schema, Of(CompileRegex("(ab|[0-9]{2}){9}")), schema};
  struct Running {
    std::unique_ptr<Sequence> sequence;
    GrammarConstraint constraint;
    Sampler sampler;
    std::vector<int32_t> tokens;
  };
  std::vector<Running> running;
  const auto vocab = static_cast<size_t>(loaded_->runner->model().config().vocab_size);
  std::vector<float> logits(3 * vocab);
  std::vector<uint64_t> mask(tokens_->mask_words());
  const auto sample = [&](Running& r, std::span<float> row) {
    ASSERT_TRUE(r.constraint.FillMask(mask).ok());
    for (size_t w = vocab / 64; w < mask.size(); ++w) mask[w] = 0;  // 640 tokens: whole words
    const int32_t token = r.sampler.Sample(row, r.tokens.size(), mask).id;
    // Another one was proposed before, and taken back.
    const std::vector<int32_t> forced = r.constraint.Forced();
    if (!forced.empty()) {
      ASSERT_TRUE(*r.constraint.Accept(forced[0]));
      r.constraint.Rollback(1);
    }
    ASSERT_TRUE(*r.constraint.Accept(token));
    r.sampler.Accept(token);
    r.tokens.push_back(token);
    r.sequence->Append(token);
  };
  for (uint64_t seed = 0; seed < 3; ++seed) {
    SamplingParams params;
    params.seed = seed;
    running.push_back({loaded_->runner->NewSequence(), GrammarConstraint(machines[seed], {}), Sampler(params), {}});
    Running& r = running.back();
    r.sequence->Append(kPrompt);
    r.sampler.SetPrompt(kPrompt);
    ASSERT_TRUE(loaded_->runner
                    ->Compute(*r.sequence, static_cast<int>(kPrompt.size()) - 1,
                              [&](int, LogitRow& row) {
                                std::ranges::copy(*row.OnHost(), logits.begin());
                                return Status();
                              })
                    .ok());
    sample(r, std::span(logits).first(vocab));
  }
  for (int step = 0; step < 200; ++step) {
    std::vector<Sequence*> live;
    std::vector<Running*> owners;
    for (Running& r : running) {
      if (r.constraint.Ended()) continue;
      live.push_back(r.sequence.get());
      owners.push_back(&r);
    }
    if (live.empty()) break;
    ASSERT_TRUE(ComputeLast(*loaded_->runner, live, std::span(logits).first(live.size() * vocab)).ok());
    for (size_t i = 0; i < owners.size(); ++i) sample(*owners[i], std::span(logits).subspan(i * vocab, vocab));
  }
  for (uint64_t seed = 0; seed < 3; ++seed) {
    EXPECT_TRUE(running[seed].constraint.Ended());
    EXPECT_EQ(running[seed].tokens, Run(machines[seed], seed, {.max_tokens = 8, .adaptive = false}).tokens) << seed;
  }
  ExpectValid(tokens_->tokenizer().Decode(running[0].tokens));
}

TEST_F(ConstrainedTest, LoopsEndTheOutputWhenTheyAreLookedFor) {
  GenerateRequest request;
  request.sampling.temperature = 0;
  request.sampling.logit_bias = {{7, 100.0f}};
  request.max_tokens = 400;
  for (const bool detect : {true, false}) {
    request.detect_repetition = detect;
    auto sequence = loaded_->runner->NewSequence();
    sequence->Append(kPrompt);
    const auto result = Generate(*loaded_->runner, *sequence, request, nullptr);
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result->reason, detect ? StopReason::kRepetition : StopReason::kMaxTokens);
    EXPECT_EQ(result->tokens.size(), detect ? 256u : 400u);
    EXPECT_EQ(StopReasonName(result->reason), detect ? "repetition" : "max_tokens");
  }
}

TEST_F(ConstrainedTest, StopTokensEndOnlyWholeTexts) {
  const auto machine = Of(CompileRegex("(ab|[0-9]{2})+"));
  const std::regex whole("(ab|[0-9]{2})+");
  int stopped = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const GenerateResult plain = Run(machine, seed, {}, {kStop, kBeyond});
    EXPECT_EQ(Run(machine, seed, {.max_tokens = 8, .adaptive = false}, {kStop, kBeyond}).tokens, plain.tokens);
    if (plain.reason != StopReason::kStopToken) continue;
    ++stopped;
    EXPECT_EQ(plain.tokens.back(), kStop);
    const std::vector<int32_t> before(plain.tokens.begin(), plain.tokens.end() - 1);
    EXPECT_TRUE(std::regex_match(tokens_->tokenizer().Decode(before), whole));
  }
  EXPECT_GT(stopped, 0);
}

TEST_F(ConstrainedTest, ACallerMayStopWithinAPass) {
  const auto machine = Of(CompileRegex("[a-e]{20,60}"));
  const GenerateResult plain = Run(machine, 3, {}, {kStop});
  ASSERT_GT(plain.tokens.size(), 10u);
  // Proposes what comes, and goes on past the end.
  SpeculationOptions known{.max_tokens = 8, .adaptive = false};
  known.propose = [&](std::span<const int32_t> history, int count) {
    Proposal proposal{.tokens = {}, .matched = 4};
    for (size_t i = history.size() - kPrompt.size(); count > 0; ++i, --count) {
      proposal.tokens.push_back(i < plain.tokens.size() ? plain.tokens[i] : 64);
    }
    return proposal;
  };
  for (size_t limit = 1; limit <= plain.tokens.size(); ++limit) {
    size_t told = 0;
    const GenerateResult cut = Run(machine, 3, known, {kStop}, [&](const SampledToken* token) {
      told += token != nullptr;
      return told < limit;
    });
    EXPECT_EQ(cut.reason, limit < plain.tokens.size() || plain.reason != StopReason::kStopToken
                              ? StopReason::kCallback
                              : StopReason::kStopToken);
    EXPECT_EQ(cut.tokens, std::vector<int32_t>(plain.tokens.begin(), plain.tokens.begin() + static_cast<int>(limit)));
    EXPECT_LE(cut.timings.passes, static_cast<int>(limit + 7) / 9 + 1);
  }
  const GenerateResult whole = Run(machine, 3, known, {kStop});
  EXPECT_EQ(whole.tokens, plain.tokens);
  EXPECT_EQ(whole.reason, plain.reason);
}

TEST_F(ConstrainedTest, WhatMustComeIsProposedWithoutAskingAnybody) {
  const auto machine = Of(CompileRegex("zq{40}"));
  SpeculationOptions nothing{.max_tokens = 8, .adaptive = false};
  nothing.propose = [](std::span<const int32_t>, int) { return Proposal(); };
  const GenerateResult plain = Run(machine, 1, {}), fast = Run(machine, 1, nothing);
  EXPECT_EQ(Text(plain), "z" + std::string(40, 'q'));
  EXPECT_EQ(fast.tokens, plain.tokens);
  EXPECT_GT(fast.timings.proposed_tokens, 0);
}

TEST_F(ConstrainedTest, SaysWhenTheModelHasNoTokenForIt) {
  class OnlyBeyond : public GrammarConstraint {
   public:
    using GrammarConstraint::GrammarConstraint;
    Status FillMask(std::span<uint64_t> mask) const override {
      std::fill(mask.begin(), mask.end(), 0);
      mask[kBeyond / 64] |= uint64_t{1} << (kBeyond % 64);
      return Status();
    }
  } only_beyond(Of(CompileRegex("a")), {});
  GenerateRequest request;
  request.constraint = &only_beyond;
  auto sequence = loaded_->runner->NewSequence();
  sequence->Append(std::vector<int32_t>{1, 2, 3});
  const auto result = Generate(*loaded_->runner, *sequence, request, nullptr);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), StatusCode::kUnsupported);
  EXPECT_NE(result.status().message().find("640"), std::string::npos);
}

}  // namespace
}  // namespace gptoss
