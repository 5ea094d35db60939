#include <string_view>
#include <utility>

#include "checkpoint/name_map.h"
#include "checkpoint/tensor_spec.h"

namespace gptoss {
namespace {

constexpr std::pair<std::string_view, std::string_view> kLayerNames[] = {
    {"attn_norm", "input_layernorm.weight"},
    {"q.weight", "self_attn.q_proj.weight"},
    {"k.weight", "self_attn.k_proj.weight"},
    {"v.weight", "self_attn.v_proj.weight"},
    {"q.bias", "self_attn.q_proj.bias"},
    {"k.bias", "self_attn.k_proj.bias"},
    {"v.bias", "self_attn.v_proj.bias"},
    {"sinks", "self_attn.sinks"},
    {"out.weight", "self_attn.o_proj.weight"},
    {"out.bias", "self_attn.o_proj.bias"},
    {"mlp_norm", "post_attention_layernorm.weight"},
    {"router.weight", "mlp.router.weight"},
    {"router.bias", "mlp.router.bias"},
    {"gate_up.weight", "mlp.experts.gate_up_proj"},
    {"gate_up.bias", "mlp.experts.gate_up_proj_bias"},
    {"down.weight", "mlp.experts.down_proj"},
    {"down.bias", "mlp.experts.down_proj_bias"},
};

std::string HfName(const std::string& canonical) {
  if (canonical == "embedding") return "model.embed_tokens.weight";
  if (canonical == "final_norm") return "model.norm.weight";
  if (canonical == "unembedding") return "lm_head.weight";
  const size_t end_of_prefix = canonical.find('.', canonical.find('.') + 1) + 1;  // after "layers.N."
  for (const auto& [from, to] : kLayerNames) {
    if (std::string_view(canonical).substr(end_of_prefix) == from) {
      return "model." + canonical.substr(0, end_of_prefix) + std::string(to);
    }
  }
  GPTOSS_CHECK(!"a canonical tensor without a name in this layout");
}

}  // namespace

std::vector<LayoutTensor> HfLayout(const ModelConfig& config, bool plain_experts) {
  std::vector<LayoutTensor> layout;
  for (const TensorSpec& spec : CanonicalTensors(config)) {
    LayoutTensor tensor{.name = HfName(spec.name), .shape = spec.shape};
    if (spec.is_expert_weight && plain_experts) {
      std::swap(tensor.shape[1], tensor.shape[2]);
      tensor.transposed = true;
    } else if (spec.is_expert_weight) {
      const uint64_t blocks = spec.cols() / kBlockSize;
      tensor.scales_name = tensor.name + "_scales";
      tensor.name += "_blocks";
      tensor.scales_shape = {spec.shape[0], spec.shape[1], blocks};
      tensor.shape = {spec.shape[0], spec.shape[1], blocks, kBlockSize / 2};
    }
    layout.push_back(std::move(tensor));
  }
  return layout;
}

bool IsIgnorableTensor(const std::string& name) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with("rotary_emb.original_inv_freq");
}

}  // namespace gptoss
