#include "engine/model_fingerprint.h"

#include <algorithm>
#include <bit>

#include "base/rng.h"
#include "checkpoint/xxh64.h"

namespace gptoss {
namespace {

class Fingerprint {
 public:
  void Add(uint64_t value) { hash_ = Mix64((hash_ ^ value) + kGoldenGamma); }
  void Add(double value) { Add(std::bit_cast<uint64_t>(value)); }
  void Add(const float* values, int64_t n) { Add(Xxh64(std::as_bytes(std::span(values, static_cast<size_t>(n))))); }
  /// Of `matrices` matrices one after the other.
  void Add(const WeightMatrix& weight, int64_t matrices) {
    Add(static_cast<uint64_t>(weight.dtype));
    Add(static_cast<uint64_t>(weight.layout));
    const int64_t row = static_cast<int64_t>(RowBytes(weight.dtype, weight.cols));
    const int64_t bytes = matrices * weight.rows * row;
    // Pieces spread over all of it. Training moves nearly every weight, so a few hundred tell.
    constexpr int64_t kPieces = 16, kPieceBytes = 256;
    const int64_t piece = std::min(bytes, kPieceBytes);
    for (int64_t i = 0; i < kPieces; ++i) {
      const int64_t at = (bytes - piece) / (kPieces - 1) * i;
      Add(Xxh64({weight.data + at, static_cast<size_t>(piece)}));
    }
  }
  uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0;
};

}  // namespace

uint64_t ModelFingerprint(const GptOss& model, DType kv_dtype) {
  const ModelConfig& c = model.config();
  const ModelWeights& w = model.weights();
  Fingerprint print;
  for (const int number : {c.num_layers, c.num_experts, c.experts_per_token, c.vocab_size, c.hidden_size,
                           c.intermediate_size, c.head_dim, c.num_heads, c.num_kv_heads, c.sliding_window,
                           c.max_context, c.rope_initial_context, static_cast<int>(kv_dtype)}) {
    print.Add(static_cast<uint64_t>(number));
  }
  for (const double number :
       {double{c.swiglu_limit}, double{c.rms_eps}, c.rope_theta, c.rope_factor, c.rope_beta_fast, c.rope_beta_slow}) {
    print.Add(number);
  }
  print.Add(Fnv1a64(model.ops().name));
  print.Add(w.embedding, 1);
  for (const LayerWeights& layer : w.layers) {
    print.Add(layer.attn_norm, c.hidden_size);
    print.Add(layer.mlp_norm, c.hidden_size);
    print.Add(layer.sinks, c.num_heads);
    print.Add(layer.router_bias, c.num_experts);
    print.Add(layer.qkv, 1);
    print.Add(layer.out, 1);
    print.Add(layer.router, 1);
    print.Add(layer.gate_up, c.num_experts);
    print.Add(layer.down, c.num_experts);
  }
  if (const AdapterWeights* adapter = model.adapter(); adapter != nullptr) {
    print.Add(adapter->values().data(), static_cast<int64_t>(adapter->values().size()));
    print.Add(static_cast<uint64_t>(adapter->owners()));
  }
  return print.value();
}

}  // namespace gptoss
