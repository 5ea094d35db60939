// The forward pass of gpt-oss over an op table. Source: gpt_oss/torch/model.py and the model card (arXiv 2508.10925).
#pragma once

#include <limits>
#include <span>

#include "model/adapter.h"
#include "model/kv_memory.h"
#include "model/rope_yarn.h"
#include "model/weights.h"
#include "ops/ops.h"

namespace gptoss {

/// Points of the forward pass at which a hook sees the activations, in paper order.
enum class Stage {
  kEmbedding,     // x [n, H]
  kAttnNorm,      // [n, H]
  kQuery,         // after rotation [n, heads * head_dim]
  kAttention,     // before the output projection [n, heads * head_dim]
  kAfterAttn,     // residual stream [n, H]
  kMlpNorm,       // [n, H]
  kRouterLogits,  // [n, E]
  kSwiglu,        // rows grouped by expert [n * k, I]
  kAfterMlp,      // residual stream [n, H]
  kFinalNorm,     // [logit rows, H]
};

/// Sees activations as they are made; for tests, verification and training. Layer is -1 outside the layers.
class ActivationHook {
 public:
  virtual ~ActivationHook() = default;
  virtual void OnActivation(int layer, Stage stage, std::span<const float> values) = 0;
  virtual void OnRouting(int layer, const Routing& routing) = 0;
};

class GptOss {
 public:
  /// `weights` and `adapter` must outlive the model. A null adapter: none.
  GptOss(const ModelWeights& weights, const Ops& ops, const AdapterWeights* adapter = nullptr)
      : weights_(weights), ops_(ops), rope_(MakeRopeTable(weights.config)), adapter_(adapter) {}

  /// From now on passes of `rows` rows or more bring the experts of layers that stay on the host to the device
  /// (Ops::bring_weights) instead of having the host compute them; with an adapter never.
  void BringExpertsFrom(int64_t rows) { bring_from_rows_ = rows; }
  /// Bytes of the device's scratch memory that this takes; 0: no pass does it.
  uint64_t brought_bytes() const;

  const ModelConfig& config() const { return weights_.config; }
  const Ops& ops() const { return ops_; }
  const ModelWeights& weights() const { return weights_; }
  const AdapterWeights* adapter() const { return adapter_; }
  /// Sequences differ in the adapters that take part: ForwardBatch::adapters must be there.
  bool has_adapter_choice() const { return adapter_ != nullptr && adapter_->owners() > 1; }

  /// Runs the batch through all layers, appending keys and values to `kv`, and writes the final-normed rows
  /// batch.logit_rows to `hidden` [logit rows, H]. Weights, `kv` and `hidden` are in memory of the context's device; a
  /// hook sees copies in the host's. Tokens must be below vocab_size, positions below max_context. With layers on the
  /// host (ModelWeights::host_layers) ops().host computes those, in scratch memory that the context must then have.
  void Forward(ExecContext& context, const ForwardBatch& batch, const KvMemory& kv, float* hidden,
               ActivationHook* hook = nullptr) const;

  /// logits [n, V] of final-normed rows [n, H], both on the device. adapters [n] as in ForwardBatch.
  void Unembed(ExecContext& context, const float* hidden, int64_t n, float* logits,
               std::span<const uint32_t> adapters = {}) const;

 private:
  class ExpertCount;
  struct Activations;
  void AttentionBlock(ExecContext& context, const ForwardBatch& batch, int n, const KvMemory& kv, Activations& a,
                      ActivationHook* hook) const;
  void MlpBlock(ExecContext& context, const Ops& ops, const LayerWeights& w, const ForwardBatch& batch, int n,
                Activations& a, ActivationHook* hook) const;
  void MlpBlockBrought(ExecContext& context, const ForwardBatch& batch, int n, Activations& a,
                       ActivationHook* hook) const;
  void MlpBlockOnHost(ExecContext& context, const ForwardBatch& batch, int n, Activations& a,
                      ActivationHook* hook) const;

  const ModelWeights& weights_;
  const Ops& ops_;
  AdapterWeights::Layer AdapterOf(int n, std::span<const uint32_t> active) const {
    return adapter_ == nullptr ? AdapterWeights::Layer() : adapter_->layer(n, active);
  }
  RopeTable rope_;
  const AdapterWeights* adapter_;
  int64_t bring_from_rows_ = std::numeric_limits<int64_t>::max();
};

}  // namespace gptoss
