#include "model/gpt_oss.h"

#include <algorithm>
#include <vector>

#include "base/check.h"

namespace gptoss {

namespace {

/// Experts with a row, by the offsets of one layer.
int64_t DistinctExperts(std::span<const int32_t> offsets) {
  int64_t distinct = 0;
  for (size_t e = 0; e + 1 < offsets.size(); ++e) distinct += offsets[e + 1] > offsets[e] ? 1 : 0;
  return distinct;
}

}  // namespace

/// Counts the experts of all layers for a profiler. A device is asked once, at the end of the pass: a question in every
/// layer would let it wait.
class GptOss::ExpertCount {
 public:
  ExpertCount(ExecContext& context, const ModelConfig& c)
      : device_(context.device()), counts_(context.profiler == nullptr ? nullptr : &context.profiler->counts()) {
    if (counts_ == nullptr || device_.is_host()) return;
    size_ = static_cast<size_t>(c.num_experts) + 1;
    offsets_ = context.scratch.Allocate<int32_t>(static_cast<size_t>(c.num_layers) * size_);
  }
  ~ExpertCount() {
    if (layers_ == 0) return;
    std::vector<int32_t> offsets(layers_ * size_);
    device_.Download(offsets.data(), offsets_, offsets.size() * sizeof(int32_t));
    const std::span<const int32_t> all = offsets;
    for (size_t i = 0; i < layers_; ++i) counts_->experts += DistinctExperts(all.subspan(i * size_, size_));
  }
  ExpertCount(const ExpertCount&) = delete;
  ExpertCount& operator=(const ExpertCount&) = delete;

  void Add(const Device& where, const Routing& routing) {
    if (counts_ == nullptr) return;
    if (where.is_host()) {
      counts_->experts += DistinctExperts(routing.expert_offsets);
      return;
    }
    device_.Copy(offsets_ + layers_++ * size_, routing.expert_offsets.data(), size_ * sizeof(int32_t));
  }

 private:
  Device& device_;
  PassCounts* counts_;
  int32_t* offsets_ = nullptr;  // [layers_, size_], on the device
  size_t layers_ = 0, size_ = 0;
};

/// Buffers of one forward pass, in the scratch arena. Where only a layer's second half is computed, there are none for
/// attention.
struct GptOss::Activations {
  int64_t n;
  float* x;              // [n, H] residual stream
  float* normed;         // [n, H]
  float* cos = nullptr;  // [n, head_dim / 2]
  float* sin = nullptr;
  float* q = nullptr;          // [n, heads * head_dim]
  float* attention = nullptr;  // [n, heads * head_dim]
  float* router_logits;        // [n, E]
  float* h;                    // [n * k, I]
  Routing routing;
  std::unique_ptr<BatchOnDevice> on_device;  // null where that is the host
  ExpertCount* experts = nullptr;

  Activations(ScratchArena& scratch, const ModelConfig& c, int64_t rows, bool with_attention = true) : n(rows) {
    const int64_t choices = n * c.experts_per_token;
    x = scratch.Allocate<float>(n * c.hidden_size);
    normed = scratch.Allocate<float>(n * c.hidden_size);
    if (with_attention) {
      cos = scratch.Allocate<float>(n * c.head_dim / 2);
      sin = scratch.Allocate<float>(n * c.head_dim / 2);
      q = scratch.Allocate<float>(n * c.q_size());
      attention = scratch.Allocate<float>(n * c.q_size());
    }
    router_logits = scratch.Allocate<float>(n * c.num_experts);
    h = scratch.Allocate<float>(choices * c.intermediate_size);
    routing.n = n;
    routing.num_experts = c.num_experts;
    routing.experts_per_token = c.experts_per_token;
    const auto ints = [&](int64_t count) {
      return std::span(scratch.Allocate<int32_t>(count), static_cast<size_t>(count));
    };
    routing.expert = ints(choices);
    routing.weight = std::span(scratch.Allocate<float>(choices), static_cast<size_t>(choices));
    routing.expert_offsets = ints(c.num_experts + 1);
    routing.grouped_token = ints(choices);
    routing.grouped_row = ints(choices);
  }
};

namespace {

void CountBatch(const ModelConfig& c, const ForwardBatch& batch, PassCounts* counts) {
  int64_t sliding_layers = 0;
  for (int n = 0; n < c.num_layers; ++n) sliding_layers += c.IsSliding(n) ? 1 : 0;
  ++counts->passes;
  counts->rows += batch.rows();
  for (const SequenceSpan& span : batch.sequences) {
    const int64_t all = span.first_position + span.num_rows;
    const int64_t windowed = std::min<int64_t>(all, c.sliding_window - 1 + span.num_rows);
    counts->kv_positions += sliding_layers * windowed + (c.num_layers - sliding_layers) * all;
  }
}

/// Shows activations to a hook, by way of a copy where the host cannot read them.
void Show(ExecContext& context, ActivationHook* hook, int layer, Stage stage, const float* values, size_t count) {
  if (context.device().is_host()) return hook->OnActivation(layer, stage, {values, count});
  std::vector<float> copy(count);
  context.device().Download(copy.data(), values, count * sizeof(float));
  hook->OnActivation(layer, stage, copy);
}

template <typename T>
std::span<T> Downloaded(Device& device, std::span<T> values, std::vector<T>* copy) {
  copy->resize(values.size());
  device.Download(copy->data(), values.data(), values.size_bytes());
  return *copy;
}

void ShowRouting(ExecContext& context, ActivationHook* hook, int layer, const Routing& routing) {
  if (context.device().is_host()) return hook->OnRouting(layer, routing);
  std::vector<int32_t> expert, offsets, token, row;
  std::vector<float> weight;
  Routing copy = routing;
  copy.expert = Downloaded(context.device(), routing.expert, &expert);
  copy.weight = Downloaded(context.device(), routing.weight, &weight);
  copy.expert_offsets = Downloaded(context.device(), routing.expert_offsets, &offsets);
  copy.grouped_token = Downloaded(context.device(), routing.grouped_token, &token);
  copy.grouped_row = Downloaded(context.device(), routing.grouped_row, &row);
  hook->OnRouting(layer, copy);
}

/// Computed by the host: a few values a row.
void PlaceAngles(ExecContext& context, const RopeTable& rope, std::span<const int32_t> positions, float* cos,
                 float* sin) {
  if (context.device().is_host()) return rope.Angles(positions, cos, sin);
  const size_t count = positions.size() * rope.inverse_frequencies.size();
  std::vector<float> angles(2 * count);
  rope.Angles(positions, angles.data(), angles.data() + count);
  context.device().Upload(cos, angles.data(), count * sizeof(float));
  context.device().Upload(sin, angles.data() + count, count * sizeof(float));
}

}  // namespace

void GptOss::Forward(ExecContext& context, const ForwardBatch& batch, const KvMemory& kv, float* hidden,
                     ActivationHook* hook) const {
  const ModelConfig& c = weights_.config;
  ScratchFrame frame(context.scratch);
  Activations a(context.scratch, c, batch.rows());
  ExpertCount experts(context, c);
  a.experts = &experts;
  if (context.profiler != nullptr) CountBatch(c, batch, &context.profiler->counts());

  {
    ProfileScope scope(context, "embedding");
    ops_.embed_lookup(context, {weights_.embedding, batch.tokens, a.x});
    PlaceAngles(context, rope_, batch.positions, a.cos, a.sin);
    if (ops_.bring_batch != nullptr) {
      a.on_device = ops_.bring_batch(context, {batch, c.num_heads, c.num_kv_heads, c.head_dim, kv.layer(0).dtype});
    }
  }
  if (hook != nullptr) Show(context, hook, -1, Stage::kEmbedding, a.x, static_cast<size_t>(a.n) * c.hidden_size);

  for (int n = 0; n < c.num_layers; ++n) {
    AttentionBlock(context, batch, n, kv, a, hook);
    if (n >= weights_.host_layers) {
      MlpBlock(context, ops_, weights_.layers[n], batch, n, a, hook);
    } else if (adapter_ == nullptr && a.n >= bring_from_rows_) {
      MlpBlockBrought(context, batch, n, a, hook);
    } else {
      MlpBlockOnHost(context, batch, n, a, hook);
    }
  }

  const auto rows = static_cast<int64_t>(batch.logit_rows.size());
  if (rows == 0) return;
  ProfileScope scope(context, "norm");
  for (int64_t i = 0; i < rows; ++i) {
    context.device().Copy(hidden + i * c.hidden_size, a.x + batch.logit_rows[i] * static_cast<int64_t>(c.hidden_size),
                          static_cast<size_t>(c.hidden_size) * sizeof(float));
  }
  ops_.rms_norm(context, {hidden, weights_.final_norm, c.rms_eps, rows, c.hidden_size, hidden});
  if (hook != nullptr) {
    Show(context, hook, -1, Stage::kFinalNorm, hidden, static_cast<size_t>(rows) * c.hidden_size);
  }
}

/// x += out(attention(rope(qkv(rmsnorm(x))), sinks, window))
void GptOss::AttentionBlock(ExecContext& context, const ForwardBatch& batch, int n, const KvMemory& kv, Activations& a,
                            ActivationHook* hook) const {
  const ModelConfig& c = weights_.config;
  const LayerWeights& w = weights_.layers[n];
  const AdapterWeights::Layer adapter = AdapterOf(n, batch.adapters);
  const KvGroup kv_group = c.IsSliding(n) ? KvGroup::kSliding : KvGroup::kFull;
  const KvGroupBatch& group = batch.kv[static_cast<int>(kv_group)];
  {
    ProfileScope scope(context, "norm");
    ops_.rms_norm(context, {a.x, w.attn_norm, c.rms_eps, a.n, c.hidden_size, a.normed});
  }
  {
    ProfileScope scope(context, "qkv");
    ops_.qkv_rope(context, {a.normed, a.n, w.qkv, w.qkv_bias, c.num_heads, c.num_kv_heads, c.head_dim, a.cos, a.sin,
                            group.slots, kv.layer(n), a.q, adapter.qkv, a.on_device.get(), kv_group});
  }
  {
    ProfileScope scope(context, "attention");
    ops_.attention(context, {a.q, c.num_heads, c.num_kv_heads, c.head_dim, batch.sequences, &group, kv.layer(n),
                             c.IsSliding(n) ? c.sliding_window : 0, w.sinks, a.attention, a.on_device.get(), kv_group});
  }
  {
    ProfileScope scope(context, "out");
    ops_.linear(context, {a.attention, a.n, w.out, w.out_bias, /*accumulate=*/true, a.x, adapter.out});
  }
  if (hook == nullptr) return;
  const auto rows = static_cast<size_t>(a.n);
  Show(context, hook, n, Stage::kAttnNorm, a.normed, rows * c.hidden_size);
  Show(context, hook, n, Stage::kQuery, a.q, rows * c.q_size());
  Show(context, hook, n, Stage::kAttention, a.attention, rows * c.q_size());
  Show(context, hook, n, Stage::kAfterAttn, a.x, rows * c.hidden_size);
}

/// x += experts(rmsnorm(x))
void GptOss::MlpBlock(ExecContext& context, const Ops& ops, const LayerWeights& w, const ForwardBatch& batch, int n,
                      Activations& a, ActivationHook* hook) const {
  const ModelConfig& c = weights_.config;
  const AdapterWeights::Layer adapter = AdapterOf(n, batch.adapters);
  {
    ProfileScope scope(context, "norm");
    ops.rms_norm(context, {a.x, w.mlp_norm, c.rms_eps, a.n, c.hidden_size, a.normed});
  }
  {
    ProfileScope scope(context, "router");
    ops.router(context, {a.normed, w.router, w.router_bias, a.router_logits, &a.routing, adapter.router});
  }
  a.experts->Add(context.device(), a.routing);
  {
    ProfileScope scope(context, "gate_up");
    ops.moe_gate_up(context, {a.normed, w.gate_up, w.gate_up_bias, c.swiglu_limit, &a.routing, a.h, adapter.gate_up});
  }
  {
    ProfileScope scope(context, "down");
    ops.moe_down(context, {a.h, w.down, w.down_bias, &a.routing, a.x, adapter.down});
  }
  if (hook == nullptr) return;
  const auto rows = static_cast<size_t>(a.n);
  Show(context, hook, n, Stage::kMlpNorm, a.normed, rows * c.hidden_size);
  Show(context, hook, n, Stage::kRouterLogits, a.router_logits, rows * c.num_experts);
  ShowRouting(context, hook, n, a.routing);
  Show(context, hook, n, Stage::kSwiglu, a.h, rows * c.experts_per_token * c.intermediate_size);
  Show(context, hook, n, Stage::kAfterMlp, a.x, rows * c.hidden_size);
}

/// The same where the weights are: only the residual stream changes sides, which is little beside the experts.
void GptOss::MlpBlockOnHost(ExecContext& context, const ForwardBatch& batch, int n, Activations& a,
                            ActivationHook* hook) const {
  GPTOSS_CHECK(ops_.host != nullptr && context.host_scratch != nullptr);
  ScratchFrame frame(*context.host_scratch);
  ExecContext host{context.pool, *context.host_scratch, context.profiler};
  Activations there(*context.host_scratch, weights_.config, a.n, /*with_attention=*/false);
  there.experts = a.experts;
  const size_t bytes = static_cast<size_t>(a.n) * weights_.config.hidden_size * sizeof(float);
  {
    ProfileScope scope(context, "transfer");
    context.device().Download(there.x, a.x, bytes);
  }
  MlpBlock(host, *ops_.host, weights_.layers[n], batch, n, there, hook);
  ProfileScope scope(context, "transfer");
  context.device().Upload(a.x, there.x, bytes);
}

uint64_t GptOss::brought_bytes() const {
  if (weights_.host_layers == 0 || adapter_ != nullptr || bring_from_rows_ == std::numeric_limits<int64_t>::max()) {
    return 0;
  }
  const ModelConfig& c = weights_.config;
  const LayerWeights& w = weights_.layers[0];
  const auto experts = static_cast<uint64_t>(c.num_experts), hidden = static_cast<uint64_t>(c.hidden_size);
  const uint64_t floats = hidden + experts * (1 + 2 * static_cast<uint64_t>(c.intermediate_size) + hidden);
  return BroughtBytes(w.router, 1) + BroughtBytes(w.gate_up, c.num_experts) + BroughtBytes(w.down, c.num_experts) +
         floats * sizeof(float) + 7 * 64;  // each of the seven may be aligned
}

/// The same on the device, with weights that come for this pass alone: with many rows that takes less time.
void GptOss::MlpBlockBrought(ExecContext& context, const ForwardBatch& batch, int n, Activations& a,
                             ActivationHook* hook) const {
  const ModelConfig& c = weights_.config;
  ScratchFrame frame(context.scratch);
  LayerWeights w = weights_.layers[n];
  {
    ProfileScope scope(context, "transfer");
    const auto bring = [&](WeightMatrix* matrix, int64_t count) {
      auto* memory = context.scratch.Allocate<std::byte>(BroughtBytes(*matrix, count));
      ops_.bring_weights(context, {*matrix, count, memory, matrix});
    };
    const auto bring_floats = [&](const float** values, int64_t count) {
      float* copy = context.scratch.Allocate<float>(static_cast<size_t>(count));
      context.device().Upload(copy, *values, static_cast<size_t>(count) * sizeof(float));
      *values = copy;
    };
    bring_floats(&w.mlp_norm, c.hidden_size);
    bring(&w.router, 1);
    bring_floats(&w.router_bias, c.num_experts);
    bring(&w.gate_up, c.num_experts);
    bring_floats(&w.gate_up_bias, int64_t{c.num_experts} * 2 * c.intermediate_size);
    bring(&w.down, c.num_experts);
    bring_floats(&w.down_bias, int64_t{c.num_experts} * c.hidden_size);
  }
  MlpBlock(context, ops_, w, batch, n, a, hook);
}

void GptOss::Unembed(ExecContext& context, const float* hidden, int64_t n, float* logits,
                     std::span<const uint32_t> adapters) const {
  ProfileScope scope(context, "head");
  if (context.profiler != nullptr) ++context.profiler->counts().head_passes;
  ops_.linear(context, {hidden, n, weights_.unembedding, /*bias=*/nullptr, /*accumulate=*/false, logits,
                        adapter_ == nullptr ? LowRankUpdate() : adapter_->unembedding(adapters)});
}

}  // namespace gptoss
