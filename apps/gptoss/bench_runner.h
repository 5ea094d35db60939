// The measurements behind `gptoss bench`: every combination of prompt length, context and batch size on one model.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/traffic.h"
#include "model_session.h"

namespace gptoss::cli {

struct BenchPlan {
  std::vector<int> prompts = {512}, contexts = {0}, batches = {1};
  int gen = 64, repeat = 3;
  bool profile = false;        // stages are timed one by one, also where that makes a device wait
  bool noise_context = false;  // random keys and values instead of those of tokens: the same work, and no wait

  int longest() const;  // positions of one sequence at most
  int most_sequences() const;
};

/// What one combination took. Seconds, one entry a repetition unless it says otherwise.
struct BenchRun {
  int prompt = 0, context = 0, batch = 0;
  std::vector<double> prefill_s;  // of all sequences, one after the other
  std::vector<double> ttft_s;     // of the first sequence
  std::vector<double> decode_s;   // a step, on average
  std::vector<double> step_s;     // every single step
  StageReport prefill, decode;    // of all repetitions
};

class BenchRunner {
 public:
  /// Replaces the session's runner by one whose sequences can go back to their context without computing it anew.
  /// `session` must outlive the result. On failure: as ModelRunner::Create.
  static Result<std::unique_ptr<BenchRunner>> Create(ModelSession& session, const BenchPlan& plan);

  /// One BenchRun for each prompt × context × batch, the first of the plan's values first. `on_repetition` is called
  /// after each repetition. On failure: as ModelRunner::Compute.
  Result<std::vector<BenchRun>> MeasureAll(const std::function<void()>& on_repetition);

 private:
  BenchRunner(ModelSession& session, const BenchPlan& plan) : session_(session), plan_(plan) {}
  Status FillContext(int context);
  Status FillWithNoise(Sequence& sequence, int context);
  Status Measure(BenchRun* run, const std::function<void()>& on_repetition);
  Status PrefillAll(BenchRun* run, uint64_t round, Profiler* profiler);
  Status DecodeAll(BenchRun* run, uint64_t round, Profiler* profiler);
  void AppendRandom(Sequence& sequence, int count, uint64_t stream);

  ModelSession& session_;
  const BenchPlan plan_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
};

}  // namespace gptoss::cli
