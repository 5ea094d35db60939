#include "model/gpt_oss_backward.h"

#include <algorithm>

#include "ops/balance_loss.h"

namespace gptoss {

/// Buffers of one layer's passes, in the scratch arena.
template <typename T>
struct GptOssBackward<T>::Activations {
  int64_t n;
  T* attn_normed;    // [n, H]
  T* mlp_normed;     // [n, H]
  T* middle;         // [n, H] the stream between the two blocks
  T* cos;            // [n, head_dim / 2], all layers'
  T* sin;            //
  T* qkv;            // [n, qkv_size]
  T* lse;            // [n, heads]
  T* attention;      // [n, heads * head_dim]
  T* logits;         // [n, E]
  T* expert_weight;  // [n, k]
  T* pre;            // [n * k, 2I]
  T* h;              // [n * k, I]
  Routing routing;

  Activations(ScratchArena& scratch, const ModelConfig& c, int64_t rows, T* cosines, T* sines)
      : n(rows), cos(cosines), sin(sines) {
    const int64_t choices = n * c.experts_per_token;
    const auto allocate = [&](int64_t count) { return scratch.Allocate<T>(static_cast<size_t>(count)); };
    attn_normed = allocate(n * c.hidden_size);
    mlp_normed = allocate(n * c.hidden_size);
    middle = allocate(n * c.hidden_size);
    qkv = allocate(n * (c.q_size() + 2 * c.kv_size()));
    lse = allocate(n * c.num_heads);
    attention = allocate(n * c.q_size());
    logits = allocate(n * c.num_experts);
    expert_weight = allocate(choices);
    pre = allocate(choices * 2 * c.intermediate_size);
    h = allocate(choices * c.intermediate_size);
    routing.n = n;
    routing.num_experts = c.num_experts;
    routing.experts_per_token = c.experts_per_token;
    const auto ints = [&](int64_t count) {
      return std::span(scratch.Allocate<int32_t>(static_cast<size_t>(count)), static_cast<size_t>(count));
    };
    routing.expert = ints(choices);
    routing.expert_offsets = ints(c.num_experts + 1);
    routing.grouped_token = ints(choices);
    routing.grouped_row = ints(choices);
  }
};

template <typename T>
uint64_t GptOssBackward<T>::LayerActivationBytes(const ModelConfig& c, int64_t rows) {
  const int64_t choice = 3 * c.intermediate_size + 1;
  const int64_t row = 4 * c.hidden_size + 2 * (c.q_size() + c.kv_size()) + c.num_heads + c.num_experts;
  return static_cast<uint64_t>(rows * (row + c.experts_per_token * choice)) * sizeof(T);
}

/// What a forward pass leaves behind: the streams that enter each layer and leave the last, and the activations of all
/// layers, or of the last one only.
template <typename T>
struct GptOssBackward<T>::Kept {
  std::vector<T*> inputs;
  std::vector<Activations> layers;
  bool all() const { return layers.size() + 1 == inputs.size(); }
  Activations& Of(int layer) { return layers[all() ? static_cast<size_t>(layer) : 0]; }
};

template <typename T>
typename GptOssBackward<T>::Kept GptOssBackward<T>::MakeKept(ScratchArena& scratch, const TrainingBatch& batch,
                                                             bool all) const {
  const int64_t n = batch.rows();
  const auto size = static_cast<size_t>(n * config_.hidden_size);
  const size_t angles = batch.positions.size() * rope_.inverse_frequencies.size();
  Kept kept;
  for (int i = 0; i <= config_.num_layers; ++i) kept.inputs.push_back(scratch.Allocate<T>(size));
  T *cos = scratch.Allocate<T>(angles), *sin = scratch.Allocate<T>(angles);
  for (int i = 0; i < (all ? config_.num_layers : 1); ++i) kept.layers.emplace_back(scratch, config_, n, cos, sin);
  ScratchFrame frame(scratch);
  // Angles are float numbers, as in the forward pass.
  float *c = scratch.Allocate<float>(angles), *s = scratch.Allocate<float>(angles);
  rope_.Angles(batch.positions, c, s);
  std::copy_n(c, angles, cos);
  std::copy_n(s, angles, sin);
  return kept;
}

template <typename T>
void GptOssBackward<T>::Forward(ExecContext& context, const ModelParameters<T>& parameters, const TrainingBatch& batch,
                                Kept& kept) const {
  const int64_t size = batch.rows() * config_.hidden_size;
  ops_.embed(context, {parameters.embedding, batch.tokens, kept.inputs[0]});
  for (int n = 0; n < config_.num_layers; ++n) {
    const LayerParameters<T>& w = parameters.layers[static_cast<size_t>(n)];
    Activations& a = kept.Of(n);
    T* x = kept.inputs[static_cast<size_t>(n) + 1];
    std::copy_n(kept.inputs[static_cast<size_t>(n)], size, a.middle);
    AttentionBlock(context, w, batch, n, a.middle, a);
    std::copy_n(a.middle, size, x);
    MlpBlock(context, w, x, a);
  }
}

/// x += out(attention(rope(qkv(rmsnorm(x))), sinks, window))
template <typename T>
void GptOssBackward<T>::AttentionBlock(ExecContext& context, const LayerParameters<T>& w, const TrainingBatch& batch,
                                       int n, T* x, Activations& a) const {
  ops_.rms_norm(context, {x, w.attn_norm, static_cast<T>(config_.rms_eps), a.n, config_.hidden_size, a.attn_normed});
  ops_.qkv_rope(context, {a.attn_normed, a.n, w.qkv, w.qkv_bias, heads(), a.cos, a.sin, a.qkv, w.qkv_adapter});
  ops_.attention(context, {a.qkv, heads(), batch.sequences, Window(n), w.sinks, a.attention, a.lse});
  ops_.linear(context, {a.attention, a.n, w.out, w.out_bias, /*accumulate=*/true, x, w.out_adapter});
}

/// The experts' inner half, of the residual stream x: all that the backward pass has to compute again.
template <typename T>
void GptOssBackward<T>::MlpBlockInside(ExecContext& context, const LayerParameters<T>& w, const T* x,
                                       Activations& a) const {
  ops_.rms_norm(context, {x, w.mlp_norm, static_cast<T>(config_.rms_eps), a.n, config_.hidden_size, a.mlp_normed});
  ops_.router(context,
              {a.mlp_normed, w.router, w.router_bias, a.logits, a.expert_weight, &a.routing, w.router_adapter});
  ops_.moe_gate_up(context, {a.mlp_normed, w.gate_up, w.gate_up_bias, static_cast<T>(config_.swiglu_limit), &a.routing,
                             a.pre, a.h, w.gate_up_adapter});
}

/// x += experts(rmsnorm(x))
template <typename T>
void GptOssBackward<T>::MlpBlock(ExecContext& context, const LayerParameters<T>& w, T* x, Activations& a) const {
  MlpBlockInside(context, w, x, a);
  ops_.moe_down(context, {a.h, w.down, w.down_bias, &a.routing, a.expert_weight, x, w.down_adapter});
}

/// `x` [n, H] entered the block; `a` holds what MlpBlockInside left. dx: of the block's output, then of its input.
/// `balance`: factor of this layer's balance loss.
template <typename T>
void GptOssBackward<T>::MlpBlockBackward(ExecContext& context, const LayerParameters<T>& w, const T* x, Activations& a,
                                         T* dx, const LayerGradients<T>& g, double balance) const {
  ScratchFrame frame(context.scratch);
  const int64_t choices = a.n * config_.experts_per_token;
  T* dh = context.scratch.Allocate<T>(static_cast<size_t>(choices * config_.intermediate_size));
  T* dexpert_weight = context.scratch.Allocate<T>(static_cast<size_t>(choices));
  T* dnormed = context.scratch.Allocate<T>(static_cast<size_t>(a.n * config_.hidden_size));
  std::fill_n(dnormed, a.n * config_.hidden_size, T(0));
  ops_.moe_down_backward(context, {a.h, w.down, w.down_bias, &a.routing, a.expert_weight, dx, dh, dexpert_weight,
                                   g.down, g.down_bias, w.down_adapter, g.down_adapter});
  ops_.moe_gate_up_backward(context, {a.mlp_normed, w.gate_up, static_cast<T>(config_.swiglu_limit), &a.routing, a.pre,
                                      dh, dnormed, g.gate_up, g.gate_up_bias, w.gate_up_adapter, g.gate_up_adapter});
  ops_.router_backward(context, {a.mlp_normed, w.router, &a.routing, a.expert_weight, dexpert_weight, dnormed, g.router,
                                 g.router_bias, w.router_adapter, g.router_adapter, a.logits, balance});
  ops_.rms_norm_backward(
      context, {x, w.mlp_norm, static_cast<T>(config_.rms_eps), a.n, config_.hidden_size, dnormed, dx, g.mlp_norm});
}

/// Likewise; `a` holds what AttentionBlock left.
template <typename T>
void GptOssBackward<T>::AttentionBlockBackward(ExecContext& context, const LayerParameters<T>& w,
                                               const TrainingBatch& batch, int n, const T* x, Activations& a, T* dx,
                                               const LayerGradients<T>& g) const {
  ScratchFrame frame(context.scratch);
  T* dattention = context.scratch.Allocate<T>(static_cast<size_t>(a.n * config_.q_size()));
  T* dqkv = context.scratch.Allocate<T>(static_cast<size_t>(a.n * heads().qkv_size()));
  T* dnormed = context.scratch.Allocate<T>(static_cast<size_t>(a.n * config_.hidden_size));
  std::fill_n(dattention, a.n * config_.q_size(), T(0));
  std::fill_n(dnormed, a.n * config_.hidden_size, T(0));
  ops_.linear_backward(context,
                       {a.attention, a.n, w.out, dx, dattention, g.out, g.out_bias, w.out_adapter, g.out_adapter});
  ops_.attention_backward(
      context, {a.qkv, heads(), batch.sequences, Window(n), w.sinks, a.attention, a.lse, dattention, dqkv, g.sinks});
  ops_.qkv_rope_backward(context, {a.attn_normed, a.n, w.qkv, heads(), a.cos, a.sin, dqkv, dnormed, g.qkv, g.qkv_bias,
                                   w.qkv_adapter, g.qkv_adapter});
  ops_.rms_norm_backward(
      context, {x, w.attn_norm, static_cast<T>(config_.rms_eps), a.n, config_.hidden_size, dnormed, dx, g.attn_norm});
}

/// Final norm, unembedding and loss of the target rows of x [n, H]; dx [n, H] is zero on entry.
template <typename T>
double GptOssBackward<T>::HeadLoss(ExecContext& context, const ModelParameters<T>& parameters,
                                   const TrainingBatch& batch, double scale, const T* x, T* dx,
                                   ModelGradients<T>* gradients) const {
  const auto rows = static_cast<int64_t>(batch.target_rows.size());
  const int64_t width = config_.hidden_size;
  ScratchFrame frame(context.scratch);
  const auto allocate = [&](int64_t count) { return context.scratch.Allocate<T>(static_cast<size_t>(count)); };
  T *picked = allocate(rows * width), *hidden = allocate(rows * width), *factor = allocate(rows);
  T *row_loss = allocate(rows), *dhidden = allocate(rows * width), *dpicked = allocate(rows * width);
  for (int64_t i = 0; i < rows; ++i) {
    std::copy_n(x + batch.target_rows[static_cast<size_t>(i)] * width, width, picked + i * width);
    factor[i] = static_cast<T>(scale * static_cast<double>(batch.weights[static_cast<size_t>(i)]));
  }
  const T eps = static_cast<T>(config_.rms_eps);
  ops_.rms_norm(context, {picked, parameters.final_norm, eps, rows, width, hidden});
  std::fill_n(dhidden, rows * width, T(0));
  std::fill_n(dpicked, rows * width, T(0));
  const bool wanted = gradients != nullptr;
  ops_.cross_entropy(
      context,
      {hidden, rows, parameters.unembedding, batch.targets, std::span<const T>(factor, static_cast<size_t>(rows)),
       row_loss, wanted ? dhidden : nullptr, wanted ? gradients->unembedding : nullptr, parameters.unembedding_adapter,
       wanted ? gradients->unembedding_adapter : LowRankGradient<T>()});
  double loss = 0;
  for (int64_t i = 0; i < rows; ++i) loss += static_cast<double>(factor[i]) * static_cast<double>(row_loss[i]);
  if (!wanted) return loss;
  ops_.rms_norm_backward(context,
                         {picked, parameters.final_norm, eps, rows, width, dhidden, dpicked, gradients->final_norm});
  for (int64_t i = 0; i < rows; ++i) {
    T* to = dx + batch.target_rows[static_cast<size_t>(i)] * width;
    for (int64_t c = 0; c < width; ++c) to[c] += dpicked[i * width + c];
  }
  return loss;
}

template <typename T>
double GptOssBackward<T>::Loss(ExecContext& context, const ModelParameters<T>& parameters, const TrainingBatch& batch,
                               double scale, ModelGradients<T>* gradients, BalanceTerm* balance) const {
  ScratchFrame frame(context.scratch);
  const uint64_t all = LayerActivationBytes(config_, batch.rows()) * static_cast<uint64_t>(config_.num_layers);
  Kept kept = MakeKept(context.scratch, batch, gradients != nullptr && all <= activation_bytes_);
  Forward(context, parameters, batch, kept);

  const int64_t size = batch.rows() * config_.hidden_size;
  T* dx = context.scratch.Allocate<T>(static_cast<size_t>(size));
  std::fill_n(dx, size, T(0));
  const double loss = HeadLoss(context, parameters, batch, scale, kept.inputs.back(), dx, gradients);
  if (gradients == nullptr) return loss;

  const double balance_factor = balance == nullptr ? 0.0 : balance->factor / config_.num_layers;
  for (int n = config_.num_layers - 1; n >= 0; --n) {
    const LayerParameters<T>& w = parameters.layers[static_cast<size_t>(n)];
    const LayerGradients<T>& g = gradients->layers[static_cast<size_t>(n)];
    const T* x = kept.inputs[static_cast<size_t>(n)];
    Activations& a = kept.Of(n);
    if (!kept.all()) {
      std::copy_n(x, size, a.middle);
      AttentionBlock(context, w, batch, n, a.middle, a);
      MlpBlockInside(context, w, a.middle, a);
    }
    if (balance != nullptr) balance->loss += BalanceLoss(a.routing, a.logits) / config_.num_layers;
    MlpBlockBackward(context, w, a.middle, a, dx, g, balance_factor);
    AttentionBlockBackward(context, w, batch, n, x, a, dx, g);
  }
  if (gradients->embedding != nullptr) {
    ops_.embed_backward(context, {batch.tokens, config_.hidden_size, dx, gradients->embedding});
  }
  return loss;
}

template <typename T>
void GptOssBackward<T>::Logits(ExecContext& context, const ModelParameters<T>& parameters, const TrainingBatch& batch,
                               std::span<const int32_t> rows, T* logits) const {
  ScratchFrame frame(context.scratch);
  Kept kept = MakeKept(context.scratch, batch, false);
  Forward(context, parameters, batch, kept);
  T* hidden = context.scratch.Allocate<T>(static_cast<size_t>(config_.hidden_size));
  for (size_t i = 0; i < rows.size(); ++i) {
    ops_.rms_norm(context, {kept.inputs.back() + rows[i] * static_cast<int64_t>(config_.hidden_size),
                            parameters.final_norm, static_cast<T>(config_.rms_eps), 1, config_.hidden_size, hidden});
    ops_.linear(context, {hidden, 1, parameters.unembedding, nullptr, false,
                          logits + static_cast<int64_t>(i) * config_.vocab_size, parameters.unembedding_adapter});
  }
}

template class GptOssBackward<float>;
template class GptOssBackward<double>;

}  // namespace gptoss
