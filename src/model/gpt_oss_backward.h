// The backward pass of gpt-oss: the mirror of gpt_oss.cc over the op table of training. What a layer computed is kept
// for the backward pass where memory allows; else only the residual stream that enters each layer is, and the rest is
// computed again when its turn comes (activation checkpointing). Both give the same bits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/rope_yarn.h"
#include "ops/backward_ops.h"

namespace gptoss {

/// What the passes read. In float the matrices may be of any type (MatrixOf), so that frozen ones stay as stored.
template <typename T>
struct LayerParameters {
  const T* attn_norm;  // [H]
  MatrixOf<T> qkv;     // [(heads + 2 kv_heads) * head_dim, H]
  const T* qkv_bias;
  const T* sinks;   // [heads]
  MatrixOf<T> out;  // [H, heads * head_dim]
  const T* out_bias;
  const T* mlp_norm;   // [H]
  MatrixOf<T> router;  // [E, H]
  const T* router_bias;
  MatrixOf<T> gate_up;    // E × [2I, H]
  const T* gate_up_bias;  // [E, 2I]
  MatrixOf<T> down;       // E × [H, I]
  const T* down_bias;     // [E, H]
  LowRank<T> qkv_adapter = {}, out_adapter = {}, router_adapter = {}, gate_up_adapter = {}, down_adapter = {};
};

template <typename T>
struct ModelParameters {
  MatrixOf<T> embedding;  // [V, H]
  std::vector<LayerParameters<T>> layers;
  const T* final_norm;      // [H]
  MatrixOf<T> unembedding;  // [V, H]
  LowRank<T> unembedding_adapter = {};
};

/// Where gradients are added, each of its parameter's shape; null: not wanted.
template <typename T>
struct LayerGradients {
  T* attn_norm = nullptr;
  T* qkv = nullptr;
  T* qkv_bias = nullptr;
  T* sinks = nullptr;
  T* out = nullptr;
  T* out_bias = nullptr;
  T* mlp_norm = nullptr;
  T* router = nullptr;
  T* router_bias = nullptr;
  T* gate_up = nullptr;
  T* gate_up_bias = nullptr;
  T* down = nullptr;
  T* down_bias = nullptr;
  LowRankGradient<T> qkv_adapter = {}, out_adapter = {}, router_adapter = {}, gate_up_adapter = {}, down_adapter = {};
};

template <typename T>
struct ModelGradients {
  T* embedding = nullptr;
  std::vector<LayerGradients<T>> layers;  // one for each layer
  T* final_norm = nullptr;
  T* unembedding = nullptr;
  LowRankGradient<T> unembedding_adapter = {};
};

/// Several whole sequences, one after the other; none sees another.
struct TrainingBatch {
  std::vector<int32_t> tokens;          // [n]
  std::vector<int32_t> positions;       // [n], from 0 in each sequence
  std::vector<SequenceSpan> sequences;  // cover all rows, first_position 0
  std::vector<int32_t> target_rows;     // rows with a loss, ascending; several times for several targets
  std::vector<int32_t> targets;         // [target rows] the token that follows
  std::vector<float> weights;           // [target rows]

  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
};

/// The loss that keeps all experts in use (ops/balance_loss.h), as a mean over the layers.
struct BalanceTerm {
  double factor = 0;  // what its gradient is multiplied by
  double loss = 0;    // out, without the factor
};

/// T is float or double; both are instantiated.
template <typename T>
class GptOssBackward {
 public:
  /// `ops` must outlive the object. Activations of all layers are kept if they take at most `activation_bytes`.
  GptOssBackward(const ModelConfig& config, const TrainingOps<T>& ops, uint64_t activation_bytes = 0)
      : config_(config), ops_(ops), rope_(MakeRopeTable(config)), activation_bytes_(activation_bytes) {}

  /// What one layer's passes over `rows` rows take.
  static uint64_t LayerActivationBytes(const ModelConfig& config, int64_t rows);

  /// scale * the sum over the batch's target rows of weight * -log p(target), and its gradients when `gradients` is
  /// given. Tokens and targets must be below vocab_size, positions below max_context. With `balance` and `gradients`,
  /// the gradients are those of the sum and of balance->factor * balance->loss together.
  double Loss(ExecContext& context, const ModelParameters<T>& parameters, const TrainingBatch& batch, double scale,
              ModelGradients<T>* gradients, BalanceTerm* balance = nullptr) const;

  /// logits [rows, V] of `rows` of the batch.
  void Logits(ExecContext& context, const ModelParameters<T>& parameters, const TrainingBatch& batch,
              std::span<const int32_t> rows, T* logits) const;

 private:
  struct Activations;
  struct Kept;
  Kept MakeKept(ScratchArena& scratch, const TrainingBatch& batch, bool all) const;
  void Forward(ExecContext& context, const ModelParameters<T>& parameters, const TrainingBatch& batch,
               Kept& kept) const;
  void AttentionBlock(ExecContext& context, const LayerParameters<T>& w, const TrainingBatch& batch, int n, T* x,
                      Activations& a) const;
  void MlpBlockInside(ExecContext& context, const LayerParameters<T>& w, const T* x, Activations& a) const;
  void MlpBlock(ExecContext& context, const LayerParameters<T>& w, T* x, Activations& a) const;
  void MlpBlockBackward(ExecContext& context, const LayerParameters<T>& w, const T* x, Activations& a, T* dx,
                        const LayerGradients<T>& g, double balance) const;
  void AttentionBlockBackward(ExecContext& context, const LayerParameters<T>& w, const TrainingBatch& batch, int n,
                              const T* x, Activations& a, T* dx, const LayerGradients<T>& g) const;
  double HeadLoss(ExecContext& context, const ModelParameters<T>& parameters, const TrainingBatch& batch, double scale,
                  const T* x, T* dx, ModelGradients<T>* gradients) const;
  int Window(int layer) const { return config_.IsSliding(layer) ? config_.sliding_window : 0; }
  HeadShape heads() const { return {config_.num_heads, config_.num_kv_heads, config_.head_dim}; }

  ModelConfig config_;
  const TrainingOps<T>& ops_;
  RopeTable rope_;
  uint64_t activation_bytes_;
};

}  // namespace gptoss
