// The engine: what a request gets does not depend on who else is there, on chunks, on preemption; every request ends,
// for the right reason.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "engine/generator.h"
#include "engine_testing.h"
#include "grammar/json_schema.h"
#include "grammar/regex.h"

namespace gptoss {
namespace {

/// Requests of all kinds: short and long prompts, greedy and sampled, free and constrained.
class MixedRequests {
 public:
  MixedRequests() {
    tokens_ = *TokenIndex::Create(*Tokenizer::Embedded());
    schema_ = Machine::Create(*CompileJsonSchema(*ParseJson(R"({"type": "object", "required": ["n", "s"],
      "additionalProperties": false, "properties": {"n": {"type": "integer"}, "s": {"type": "string"}}})")),
                              tokens_);
    regex_ = Machine::Create(*CompileRegex("(ab|[0-9]{2})+"), tokens_);
  }
  static constexpr int kCount = 14;
  EngineRequest Make(int i) const {
    static constexpr int kLengths[] = {1, 40, 7, 128, 300, 64, 33, 500, 2, 127, 90, 65, 20, 260};
    EngineRequest request = Request(RandomPrompt(kLengths[i], 100 + i), i % 3 == 0 ? 0.0 : 1.0, 20 + 7 * (i % 5), i);
    if (i % 4 == 1) request.constraint = std::make_unique<GrammarConstraint>(schema_, std::vector<int32_t>{600});
    if (i % 4 == 3) request.constraint = std::make_unique<GrammarConstraint>(regex_, std::vector<int32_t>{600});
    if (i % 5 == 2) request.sampling.repetition_penalty = 1.3;
    request.stop_tokens = {600};
    return request;
  }

 private:
  std::shared_ptr<const TokenIndex> tokens_;
  std::shared_ptr<Machine> schema_, regex_;
};

TEST_F(EngineTest, AloneItGivesWhatGenerateGives) {
  Load();
  const auto prompt = RandomPrompt(150, 1);
  for (const double temperature : {0.0, 0.8}) {
    auto sequence = loaded_->runner->NewSequence();
    sequence->Append(prompt);
    GenerateRequest plain;
    plain.sampling = Request(prompt, temperature, 40).sampling;
    plain.max_tokens = 40;
    const auto want = Generate(*loaded_->runner, *sequence, plain, nullptr);
    ASSERT_TRUE(want.ok());
    sequence.reset();
    Start();
    const Outcome got = Run(Request(prompt, temperature, 40));
    EXPECT_EQ(got.tokens, want->tokens);
    EXPECT_EQ(got.finish.reason, FinishReason::kMaxTokens);
    EXPECT_EQ(got.finish.usage.prompt_tokens, 150);
    EXPECT_EQ(got.finish.usage.output_tokens, 40);
    engine_.reset();
  }
}

TEST_F(EngineTest, WhoElseIsThereChangesNothing) {
  const MixedRequests requests;
  for (const NamedOps& ops : AllOps(Precision::kFast)) {
    if (ops.name == "portable") continue;  // slow
    Load({.max_context = kMaxContext, .max_sequences = 6, .chunk_tokens = 64}, ops.ops);
    Start();
    std::vector<Outcome> alone;
    for (int i = 0; i < MixedRequests::kCount; ++i) alone.push_back(Run(requests.Make(i)));
    std::vector<std::shared_ptr<Collector>> listeners;
    for (int i = 0; i < MixedRequests::kCount; ++i) listeners.push_back(Submit(requests.Make(i)));
    for (int i = 0; i < MixedRequests::kCount; ++i) {
      EXPECT_EQ(listeners[i]->Wait().reason, alone[i].finish.reason) << ops.name << " " << i;
      EXPECT_EQ(listeners[i]->tokens(), alone[i].tokens) << ops.name << " " << i;
    }
    EXPECT_EQ(engine_->stats().finished, 2u * MixedRequests::kCount);
    EXPECT_EQ(engine_->stats().running, 0);
    EXPECT_EQ(engine_->stats().kv_blocks_used, 0);
  }
}

TEST_F(EngineTest, PreemptedRequestsGoOnAsIfNothingHadHappened) {
  constexpr int kCount = 9;
  const auto make = [](int i) {
    EngineRequest request = Request(RandomPrompt(20 + i, 200 + i), i % 2, 250, i);
    request.sampling.repetition_penalty = 1.1;
    return request;
  };
  Load();
  Start();
  std::vector<Outcome> alone;
  for (int i = 0; i < kCount; ++i) alone.push_back(Run(make(i)));
  EXPECT_EQ(engine_->stats().preemptions, 0u);
  // Room for one sequence of full length, shared by six of 270.
  Load({.max_context = kMaxContext, .max_sequences = 6, .chunk_tokens = 64, .total_context = kMaxContext});
  Start();
  std::vector<std::shared_ptr<Collector>> listeners;
  for (int i = 0; i < kCount; ++i) listeners.push_back(Submit(make(i)));
  for (int i = 0; i < kCount; ++i) {
    EXPECT_EQ(listeners[i]->Wait().reason, alone[i].finish.reason) << i;
    EXPECT_EQ(listeners[i]->tokens(), alone[i].tokens) << i;
  }
  EXPECT_GT(engine_->stats().preemptions, 0u);
  EXPECT_EQ(engine_->stats().kv_blocks_used, 0);
}

TEST_F(EngineTest, SpeculationChangesNoToken) {
  const MixedRequests requests;
  Load();
  Start();
  std::vector<Outcome> plain;
  for (int i = 0; i < MixedRequests::kCount; ++i) plain.push_back(Run(requests.Make(i)));
  const auto loop = [] {
    EngineRequest request = Request(RandomPrompt(10, 2), 1.0, 400);
    request.sampling.logit_bias = {{7, 100.0f}};
    request.stop_tokens = {8};
    return request;
  };
  const Outcome looped = Run(loop());
  Start({.max_running = 6, .max_speculation = 8});
  for (int i = 0; i < MixedRequests::kCount; ++i) {
    const Outcome got = Run(requests.Make(i));
    EXPECT_EQ(got.tokens, plain[i].tokens) << i;
    EXPECT_EQ(got.finish.reason, plain[i].finish.reason) << i;
  }
  const uint64_t before = engine_->stats().steps;
  EXPECT_EQ(Run(loop()).tokens, looped.tokens);
  EXPECT_LT(engine_->stats().steps - before, 400u) << "what repeats is proposed, and holds";
}

TEST_F(EngineTest, EndsForTheRightReason) {
  Load();
  Start({.max_running = 2, .max_waiting = 2});
  const auto prompt = RandomPrompt(10, 2);
  const auto free = Run(Request(prompt, 1.0, 30)).tokens;

  EngineRequest stops = Request(prompt, 1.0, 30);
  stops.stop_tokens = {free[12]};
  const Outcome stopped = Run(std::move(stops));
  const auto first = std::ranges::find(free, free[12]) - free.begin();
  EXPECT_EQ(stopped.finish.reason, FinishReason::kStopToken);
  EXPECT_EQ(stopped.tokens, std::vector<int32_t>(free.begin(), free.begin() + first + 1));

  const Outcome refused = Run(Request(prompt, 1.0, 30), 5);
  EXPECT_EQ(refused.finish.reason, FinishReason::kListener);
  EXPECT_EQ(refused.tokens, std::vector<int32_t>(free.begin(), free.begin() + 5));
  EXPECT_EQ(refused.finish.usage.output_tokens, 5);

  const Outcome full = Run(Request(RandomPrompt(kMaxContext - 3, 4), 1.0, 30));
  EXPECT_EQ(full.finish.reason, FinishReason::kContextFull);
  EXPECT_EQ(full.tokens.size(), 3u);

  EngineRequest late = Request(prompt, 1.0, 900);
  late.deadline = Clock::now();
  const Outcome expired = Run(std::move(late));
  EXPECT_EQ(expired.finish.reason, FinishReason::kDeadline);
  EXPECT_TRUE(expired.tokens.empty());

  EngineRequest loop = Request(prompt, 1.0, 900);
  loop.detect_repetition = true;
  loop.sampling.logit_bias = {{7, 100.0f}};
  EXPECT_EQ(Run(std::move(loop)).finish.reason, FinishReason::kRepetition);

  const auto cancelled = Submit(Request(prompt, 1.0, 900));
  cancelled->WaitForTokens(3);
  engine_->Cancel(last_id_);
  EXPECT_EQ(cancelled->Wait().reason, FinishReason::kCancelled);
  EXPECT_LT(cancelled->tokens().size(), 900u);
  engine_->Cancel(last_id_);  // over: nothing happens
  EXPECT_EQ(Run(Request(prompt, 1.0, 30)).tokens, free);
}

TEST_F(EngineTest, RefusesWhatItCannotDo) {
  Load();
  Start({.max_running = 1, .max_waiting = 1});
  const auto listener = std::make_shared<Collector>();
  const auto refusal = [&](EngineRequest request) {
    const auto id = engine_->Submit(std::move(request), listener);
    EXPECT_FALSE(id.ok());
    return id.status();
  };
  EXPECT_EQ(refusal(Request({}, 1, 1)).code(), StatusCode::kInvalidArgument);
  EXPECT_NE(refusal(Request({5, kVocab}, 1, 1)).message().find("token 640 at position 1"), std::string::npos);
  EXPECT_EQ(refusal(Request({5}, -1, 1)).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(Request({5}, 1, 0)).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(Request(RandomPrompt(kMaxContext, 1), 1, 1)).code(), StatusCode::kInvalidArgument);
  const auto a = Submit(Request({5}, 1, 900)), b = Submit(Request({6}, 1, 900));
  EXPECT_EQ(refusal(Request({7}, 1, 1)).code(), StatusCode::kResourceExhausted);
  engine_->Drain(Clock::now());
  EXPECT_EQ(a->Wait().reason, FinishReason::kCancelled);
  EXPECT_EQ(b->Wait().reason, FinishReason::kCancelled);
  EXPECT_EQ(refusal(Request({7}, 1, 1)).code(), StatusCode::kCancelled);
  EXPECT_EQ(Engine::Create(*loaded_->runner, {.max_running = 7}).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(EngineTest, DrainLetsRequestsEndAndTheDestructorTellsTheRest) {
  Load();
  Start();
  const auto a = Submit(Request(RandomPrompt(100, 1), 1, 20));
  engine_->Drain(Clock::now() + std::chrono::minutes(5));
  EXPECT_EQ(a->Wait().reason, FinishReason::kMaxTokens);
  Start();
  const auto b = Submit(Request(RandomPrompt(100, 1), 1, 900));
  engine_.reset();
  EXPECT_EQ(b->Wait().reason, FinishReason::kCancelled);
}

/// Submits, cancels (also from within the listener), asks for figures and drains, from several threads at once.
TEST_F(EngineTest, ThreadsMayDoAsTheyLike) {
  Load({.max_context = 300, .max_sequences = 4, .chunk_tokens = 32, .total_context = 600, .cache_bytes = 1 << 20});
  Start({.max_running = 4, .max_waiting = 6, .cache_bytes = 1 << 20});
  /// Cancels its own request at the third token.
  class Impatient : public Collector {
   public:
    explicit Impatient(Engine* engine) : engine_(engine) {}
    bool OnToken(const SampledToken& token) override {
      if (tokens().size() == 2) engine_->Cancel(id);
      return Collector::OnToken(token);
    }
    std::atomic<RequestId> id{0};

   private:
    Engine* const engine_;
  };
  std::atomic<int> accepted{0}, refused{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const RandomStream random(t, 9);
      std::vector<std::shared_ptr<Impatient>> mine;
      for (int i = 0; i < 12; ++i) {
        auto listener = std::make_shared<Impatient>(engine_.get());
        EngineRequest request = Request(RandomPrompt(1 + static_cast<int>(random.Word(i) % 90), i % 3), 1, 10, i);
        if (i % 5 == 4) request.deadline = Clock::now() + std::chrono::milliseconds(2);
        const auto id = engine_->Submit(std::move(request), listener);
        (id.ok() ? accepted : refused)++;
        if (!id.ok()) continue;
        if (i % 3 == 1) listener->id = *id;
        if (i % 4 == 3) engine_->Cancel(*id);
        const EngineStats stats = engine_->stats();
        EXPECT_LE(stats.running, 4);
        if (i % 2 == 0) listener->Wait();
        mine.push_back(std::move(listener));
      }
      for (const auto& listener : mine) listener->Wait();
    });
  }
  threads[0].join();
  std::thread drain([&] { engine_->Drain(Clock::now() + std::chrono::milliseconds(20)); });
  drain.join();
  for (size_t t = 1; t < threads.size(); ++t) threads[t].join();
  EXPECT_EQ(accepted + refused, 48);
  EXPECT_GT(accepted, 4);
  const EngineStats stats = engine_->stats();
  EXPECT_EQ(stats.finished, static_cast<uint64_t>(accepted));
  EXPECT_EQ(stats.running + stats.waiting, 0);
}

TEST_F(EngineTest, AnOutputThatIsWholeAtOnceHasNoToken) {
  Load();
  Start();
  const auto tokens = *TokenIndex::Create(*Tokenizer::Embedded());
  EngineRequest request = Request({1, 2, 3}, 1, 10);
  request.constraint =
      std::make_unique<GrammarConstraint>(Machine::Create(*CompileRegex(""), tokens), std::vector<int32_t>{});
  const Outcome outcome = Run(std::move(request));
  EXPECT_EQ(outcome.finish.reason, FinishReason::kConstraintEnd);
  EXPECT_TRUE(outcome.tokens.empty());
}

}  // namespace
}  // namespace gptoss
