// What the engine's tests share: listeners that collect, requests, an engine on the micro model.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "base/rng.h"
#include "engine/engine.h"
#include "golden_model.h"

namespace gptoss {

using Clock = std::chrono::steady_clock;
inline constexpr int kVocab = 640;
inline constexpr int kMaxContext = 1000;

inline std::vector<int32_t> RandomPrompt(int length, uint64_t seed) {
  const RandomStream random(seed, 5);
  std::vector<int32_t> tokens;
  for (int i = 0; i < length; ++i) tokens.push_back(static_cast<int32_t>(random.Word(i) % kVocab));
  return tokens;
}

/// Collects what it hears; Wait returns after OnFinish.
class Collector : public EngineListener {
 public:
  /// False from OnToken after `limit` tokens.
  explicit Collector(size_t limit = SIZE_MAX) : limit_(limit) {}
  bool OnToken(const SampledToken& token) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_FALSE(finish_.has_value());
    tokens_.push_back(token.id);
    logprobs_.push_back(token.logprob);
    for (const TokenLogprob& other : token.top) logprobs_.push_back(other.logprob);
    heard_.notify_all();
    return tokens_.size() < limit_;
  }
  void OnFinish(const EngineFinish& finish) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_FALSE(finish_.has_value()) << "the end is told once";
    finish_ = finish;
    heard_.notify_all();
  }
  EngineFinish Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    heard_.wait(lock, [&] { return finish_.has_value(); });
    return *finish_;
  }
  void WaitForTokens(size_t n) {
    std::unique_lock<std::mutex> lock(mutex_);
    heard_.wait(lock, [&] { return finish_.has_value() || tokens_.size() >= n; });
  }
  std::vector<int32_t> tokens() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return tokens_;
  }
  /// Of each token, and of the likeliest in its place, as many as were asked for.
  std::vector<float> logprobs() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return logprobs_;
  }

 private:
  const size_t limit_;
  mutable std::mutex mutex_;
  std::condition_variable heard_;
  std::vector<int32_t> tokens_;
  std::vector<float> logprobs_;
  std::optional<EngineFinish> finish_;
};

struct Outcome {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  EngineFinish finish;
};

class EngineTest : public testing::Test {
 protected:
  void Load(RunnerOptions options = {.max_context = kMaxContext, .max_sequences = 6, .chunk_tokens = 64},
            const Ops* ops = nullptr) {
    engine_.reset();
    if (ops == nullptr) ops = *CpuOps("", Precision::kFast);
    loaded_ = LoadGolden(GoldenCheckpoint("micro", "hf"), *ops, DensePrecision::kDefault, options);
    ASSERT_NE(loaded_, nullptr);
  }
  void Start(const EngineOptions& options = {.max_running = 6}) {
    auto engine = Engine::Create(*loaded_->runner, options);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    engine_ = *std::move(engine);
  }
  std::shared_ptr<Collector> Submit(EngineRequest request, size_t limit = SIZE_MAX) {
    auto listener = std::make_shared<Collector>(limit);
    const auto id = engine_->Submit(std::move(request), listener);
    EXPECT_TRUE(id.ok()) << id.status().message();
    if (id.ok()) last_id_ = *id;
    return listener;
  }
  Outcome Run(EngineRequest request, size_t limit = SIZE_MAX) {
    const auto listener = Submit(std::move(request), limit);
    const EngineFinish finish = listener->Wait();
    return {listener->tokens(), listener->logprobs(), finish};
  }

  std::unique_ptr<LoadedGolden> loaded_;
  std::unique_ptr<Engine> engine_;  // after the model: it ends first
  RequestId last_id_ = 0;
};

inline EngineRequest Request(std::vector<int32_t> prompt, double temperature, int max_tokens, uint64_t seed = 1) {
  EngineRequest request;
  request.prompt = std::move(prompt);
  request.sampling.temperature = temperature;
  request.sampling.seed = seed;
  request.max_tokens = max_tokens;
  request.detect_repetition = false;
  return request;
}

}  // namespace gptoss
