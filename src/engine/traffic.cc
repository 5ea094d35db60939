#include "engine/traffic.h"

#include <algorithm>
#include <cmath>

namespace gptoss {
namespace {

double MatrixBytes(const WeightMatrix& w) {
  return static_cast<double>(w.rows) * static_cast<double>(RowBytes(w.dtype, static_cast<uint64_t>(w.cols)) +
                                                           RowScaleBytes(w.dtype, static_cast<uint64_t>(w.cols)));
}

double Elements(const WeightMatrix& w) { return static_cast<double>(w.rows) * static_cast<double>(w.cols); }

/// Multiply-adds of one token in all layers, attention over the cache aside.
double LayerMacs(const ModelConfig& c) {
  const double h = c.hidden_size, i = c.intermediate_size, q = c.q_size(), kv = c.kv_size();
  return c.num_layers * (h * (q + 2 * kv) + q * h + h * c.num_experts + c.experts_per_token * 3 * h * i);
}

/// Positions that a query at `position` sees in layer n.
double Visible(const ModelConfig& c, int layer, double position) {
  return c.IsSliding(layer) ? std::min<double>(position + 1, c.sliding_window) : position + 1;
}

}  // namespace

Traffic DecodeTraffic(const ModelWeights& weights, int batch, int context, DType kv_dtype) {
  const ModelConfig& c = weights.config;
  const double share = static_cast<double>(c.experts_per_token) / c.num_experts;
  const double experts = c.num_experts * (1 - std::pow(1 - share, batch));
  Traffic t;
  for (const LayerWeights& w : weights.layers) {
    t.weight_bytes += MatrixBytes(w.qkv) + MatrixBytes(w.out) + MatrixBytes(w.router) +
                      experts * (MatrixBytes(w.gate_up) + MatrixBytes(w.down));
  }
  t.weight_bytes += MatrixBytes(weights.unembedding);
  double positions = 0;
  for (int n = 0; n < c.num_layers; ++n) positions += Visible(c, n, context);
  t.kv_bytes = batch * positions * 2.0 * c.kv_size() * static_cast<double>(RowBytes(kv_dtype, 1));
  t.flop = 2.0 * batch * (LayerMacs(c) + Elements(weights.unembedding) + positions * 2.0 * c.q_size());
  return t;
}

double PrefillFlop(const ModelConfig& c, int tokens) {
  double positions = 0;
  for (int n = 0; n < c.num_layers; ++n) {
    for (int p = 0; p < tokens; ++p) positions += Visible(c, n, p);
  }
  return 2.0 *
         (tokens * LayerMacs(c) + positions * 2.0 * c.q_size() + static_cast<double>(c.vocab_size) * c.hidden_size);
}

}  // namespace gptoss
