#include "engine/traffic.h"

#include <algorithm>

namespace gptoss {
namespace {

/// Of one expert's matrix where there are several.
double MatrixBytes(const WeightMatrix& w) {
  return static_cast<double>(w.rows) * static_cast<double>(RowBytes(w.dtype, static_cast<uint64_t>(w.cols)) +
                                                           RowScaleBytes(w.dtype, static_cast<uint64_t>(w.cols)));
}

/// Multiply-adds of one token in all layers, attention over the cache aside.
double LayerMacs(const ModelConfig& c) {
  const double h = c.hidden_size, i = c.intermediate_size, q = c.q_size(), kv = c.kv_size();
  return c.num_layers * (h * (q + 2 * kv) + q * h + h * c.num_experts + c.experts_per_token * 3 * h * i);
}

double HeadMacs(const ModelConfig& c) { return static_cast<double>(c.vocab_size) * c.hidden_size; }

/// Positions that a query at `position` sees, summed over layers.
double Visible(const ModelConfig& c, double position) {
  double sum = 0;
  for (int n = 0; n < c.num_layers; ++n) {
    sum += c.IsSliding(n) ? std::min<double>(position + 1, c.sliding_window) : position + 1;
  }
  return sum;
}

}  // namespace

double DecodeFlop(const ModelConfig& c, int batch, int context) {
  return 2.0 * batch * (LayerMacs(c) + HeadMacs(c) + Visible(c, context) * 2.0 * c.q_size());
}

double PrefillFlop(const ModelConfig& c, int first, int end) {
  double positions = 0;
  for (int p = first; p < end; ++p) positions += Visible(c, p);
  return 2.0 * ((end - first) * LayerMacs(c) + positions * 2.0 * c.q_size() + HeadMacs(c));
}

StageReport ReportStages(const Profiler& profiler, const ModelWeights& weights, DType kv_dtype, double wall_s) {
  const ModelConfig& c = weights.config;
  const PassCounts& counts = profiler.counts();
  double qkv = 0, out = 0, router = 0, gate_up = 0, down = 0;
  for (const LayerWeights& w : weights.layers) {
    qkv += MatrixBytes(w.qkv);
    out += MatrixBytes(w.out);
    router += MatrixBytes(w.router);
    gate_up += MatrixBytes(w.gate_up) / c.num_layers;
    down += MatrixBytes(w.down) / c.num_layers;
  }
  const auto passes = static_cast<double>(counts.passes), experts = static_cast<double>(counts.experts);
  StageReport report;
  report.wall_s = wall_s;
  report.waiting_s = profiler.waiting();
  report.counts = counts;
  report.kv_bytes =
      static_cast<double>(counts.kv_positions) * 2.0 * c.kv_size() * static_cast<double>(RowBytes(kv_dtype, 1));
  report.stages = {{"qkv", 0, passes * qkv},
                   {"attention", 0, report.kv_bytes},
                   {"router", 0, passes * router},
                   {"gate_up", 0, experts * gate_up},
                   {"down", 0, experts * down},
                   {"out", 0, passes * out},
                   {"head", 0, static_cast<double>(counts.head_passes) * MatrixBytes(weights.unembedding)},
                   {"other", 0, 0}};
  double named = 0, bytes = 0;
  for (StageCost& stage : report.stages) {
    const auto seconds = profiler.seconds().find(stage.stage);
    if (seconds != profiler.seconds().end()) stage.seconds = seconds->second;
    named += stage.seconds;
    bytes += stage.bytes;
  }
  report.stages.back().seconds += std::max(0.0, wall_s - named);
  report.weight_bytes = bytes - report.kv_bytes;
  if (counts.passes > 0) report.experts_per_layer = experts / (passes * c.num_layers);
  return report;
}

}  // namespace gptoss
