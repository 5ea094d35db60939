// Many requests at once on one model, by hand: engine_load MODEL [OUTPUT_TOKENS].
//
// For 1, 4 and 16 requests with short prompts that start together: tokens a second of all while every one decodes, and
// the ratio to one. Then 4 decode while a prompt of 128 tokens arrives: the longest gap between two tokens of one
// request against the median gap. The last line is JSON.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "backends/registry.h"
#include "base/rng.h"
#include "checkpoint/checkpoint.h"
#include "engine/engine.h"

namespace gptoss {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kShortPrompt = 4;

double Seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

class Times : public EngineListener {
 public:
  bool OnToken(const SampledToken&) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    times_.push_back(Clock::now());
    changed_.notify_all();
    return true;
  }
  void OnFinish(const EngineFinish& finish) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    finish_ = finish;
    finished_ = true;
    changed_.notify_all();
  }
  void WaitForTokens(size_t n) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return finished_ || times_.size() >= n; });
  }
  /// When each token came; after the end.
  const std::vector<Clock::time_point>& Wait() {
    WaitForTokens(SIZE_MAX);
    return times_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Clock::time_point> times_;
  EngineFinish finish_;
  bool finished_ = false;
};

std::shared_ptr<Times> Submit(Engine& engine, int vocab, int prompt, int output, uint64_t seed) {
  EngineRequest request;
  const RandomStream random(seed, 1);
  for (int i = 0; i < prompt; ++i) {
    request.prompt.push_back(
        static_cast<int32_t>(random.Word(static_cast<uint64_t>(i)) % static_cast<uint64_t>(vocab)));
  }
  request.sampling.seed = seed;
  request.max_tokens = output;
  request.detect_repetition = false;
  auto times = std::make_shared<Times>();
  const auto id = engine.Submit(std::move(request), times);
  if (!id.ok()) {
    std::fprintf(stderr, "%s\n", id.status().message().c_str());
    std::exit(1);
  }
  return times;
}

/// The requests' rates added up, each from its first to its last token while all of them decode.
double Together(Engine& engine, int vocab, int requests, int output) {
  std::vector<std::shared_ptr<Times>> all;
  for (int i = 0; i < requests; ++i) all.push_back(Submit(engine, vocab, kShortPrompt, output, 1000u + i));
  Clock::time_point begin = Clock::time_point::min(), end = Clock::time_point::max();
  for (const auto& times : all) {
    const auto& t = times->Wait();
    begin = std::max(begin, t.front());
    end = std::min(end, t.back());
  }
  double rate = 0;
  for (const auto& times : all) {
    const auto& t = times->Wait();
    const auto first = std::ranges::lower_bound(t, begin), last = std::ranges::upper_bound(t, end) - 1;
    if (first < last) rate += static_cast<double>(last - first) / Seconds(*last - *first);
  }
  return rate;
}

/// The median and the largest gap between tokens of `requests` requests while a prompt of `prompt` tokens arrives.
std::pair<double, double> Gaps(Engine& engine, int vocab, int requests, int prompt, int output) {
  std::vector<std::shared_ptr<Times>> all;
  for (int i = 0; i < requests; ++i) all.push_back(Submit(engine, vocab, kShortPrompt, output, 2000u + i));
  for (const auto& times : all) times->WaitForTokens(3);
  Submit(engine, vocab, prompt, 1, 3000)->Wait();
  std::vector<double> gaps;
  for (const auto& times : all) {
    const auto& t = times->Wait();
    for (size_t i = 1; i < t.size(); ++i) gaps.push_back(Seconds(t[i] - t[i - 1]));
  }
  std::ranges::sort(gaps);
  return {gaps[gaps.size() / 2], gaps.back()};
}

Status Run(const std::string& path, int output) {
  ThreadPool pool(std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
  GPTOSS_ASSIGN_OR_RETURN(const Ops* const ops, CpuOps("", Precision::kFast));
  GPTOSS_ASSIGN_OR_RETURN(auto checkpoint, OpenCheckpoint(path));
  GPTOSS_ASSIGN_OR_RETURN(const ModelWeights weights,
                          LoadWeights(std::shared_ptr<const Checkpoint>(std::move(checkpoint)),
                                      DensePrecision::kDefault, pool, nullptr, {.layout = ops->weight_layout}));
  const GptOss model(weights, *ops);
  GPTOSS_ASSIGN_OR_RETURN(
      const auto runner,
      ModelRunner::Create(model, pool, {.max_context = 512, .max_sequences = 16, .chunk_tokens = 256}));
  GPTOSS_ASSIGN_OR_RETURN(const auto engine, Engine::Create(*runner, {.max_running = 16}));
  const int vocab = model.config().vocab_size;
  Together(*engine, vocab, 1, 4);  // the first steps touch memory for the first time
  double alone = 0;
  std::string json;
  for (const int requests : {1, 4, 16}) {
    const double rate = Together(*engine, vocab, requests, requests == 1 ? 2 * output : output);
    if (requests == 1) alone = rate;
    std::printf("%2d requests: %.1f tok/s, %.2f times one\n", requests, rate, rate / alone);
    json += "\"tok_s_" + std::to_string(requests) + "\": " + std::to_string(rate) + ", ";
  }
  const auto [median, largest] = Gaps(*engine, vocab, 4, 128, output + 20);
  std::printf("4 requests beside a prompt of 128 tokens: median gap %.3f s, largest %.3f s, %.2f times\n", median,
              largest, largest / median);
  std::printf("{%s\"gap_median_s\": %f, \"gap_largest_s\": %f}\n", json.c_str(), median, largest);
  return Status();
}

}  // namespace
}  // namespace gptoss

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: %s MODEL [OUTPUT_TOKENS]\n", argv[0]);
    return 2;
  }
  const gptoss::Status status = gptoss::Run(argv[1], argc > 2 ? std::atoi(argv[2]) : 10);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}
