// How many bytes and operations forward passes must move and do: the yardsticks that speeds are quoted against.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "model/weights.h"
#include "parallel/exec_context.h"

namespace gptoss {

/// Operations (multiplications and additions) of one decode step of `batch` sequences at `context` positions each.
double DecodeFlop(const ModelConfig& config, int batch, int context);

/// Operations of computing positions [first, end) of one sequence, with logits of the last one only.
double PrefillFlop(const ModelConfig& config, int first, int end);

/// One stage of the forward passes that a profiler has seen.
struct StageCost {
  std::string_view stage;
  double seconds = 0;
  double bytes = 0;  // that it had to read from memory: weights once a pass, of experts those with rows; keys, values
};

struct StageReport {
  double wall_s = 0;
  double waiting_s = 0;  // of the stages' seconds, those in which the calling thread waited for the other threads
  PassCounts counts;
  std::vector<StageCost> stages;  // qkv, attention, router, gate_up, down, out, head, other: they sum to wall_s
  double weight_bytes = 0, kv_bytes = 0;
  double bytes() const { return weight_bytes + kv_bytes; }
  /// Distinct experts of a layer in one pass, on average.
  double experts_per_layer = 0;
};

/// What `profiler` saw during `wall_s` seconds.
StageReport ReportStages(const Profiler& profiler, const ModelWeights& weights, DType kv_dtype, double wall_s);

}  // namespace gptoss
