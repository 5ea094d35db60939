#include <string_view>
#include <utility>

#include "checkpoint/name_map.h"
#include "checkpoint/tensor_spec.h"

namespace gptoss {
namespace {

constexpr std::pair<std::string_view, std::string_view> kLayerNames[] = {
    {"attn_norm", "attn.norm.scale"},  {"q.weight", "attn.qkv.weight"},
    {"k.weight", "attn.qkv.weight"},   {"v.weight", "attn.qkv.weight"},
    {"q.bias", "attn.qkv.bias"},       {"k.bias", "attn.qkv.bias"},
    {"v.bias", "attn.qkv.bias"},       {"sinks", "attn.sinks"},
    {"out.weight", "attn.out.weight"}, {"out.bias", "attn.out.bias"},
    {"mlp_norm", "mlp.norm.scale"},    {"router.weight", "mlp.gate.weight"},
    {"router.bias", "mlp.gate.bias"},  {"gate_up.weight", "mlp.mlp1_weight"},
    {"gate_up.bias", "mlp.mlp1_bias"}, {"down.weight", "mlp.mlp2_weight"},
    {"down.bias", "mlp.mlp2_bias"},
};

std::string OriginalName(std::string_view canonical) {
  if (canonical == "embedding") return "embedding.weight";
  if (canonical == "final_norm") return "norm.scale";
  if (canonical == "unembedding") return "unembedding.weight";
  const size_t number = canonical.find('.') + 1;
  const size_t rest = canonical.find('.', number) + 1;
  for (const auto& [from, to] : kLayerNames) {
    if (canonical.substr(rest) == from) {
      return "block." + std::string(canonical.substr(number, rest - number)) + std::string(to);
    }
  }
  GPTOSS_CHECK(!"a canonical tensor without a name in this layout");
}

}  // namespace

std::vector<LayoutTensor> OriginalLayout(const ModelConfig& config) {
  const uint64_t q = static_cast<uint64_t>(config.q_size()), kv = static_cast<uint64_t>(config.kv_size());
  std::vector<LayoutTensor> layout;
  for (const TensorSpec& spec : CanonicalTensors(config)) {
    LayoutTensor tensor{.name = OriginalName(spec.name), .shape = spec.shape};
    if (spec.is_expert_weight) {
      const uint64_t blocks = spec.cols() / kBlockSize;
      tensor.scales_name = tensor.name + ".scales";
      tensor.name += ".blocks";
      tensor.scales_shape = {spec.shape[0], spec.shape[1], blocks};
      tensor.shape = {spec.shape[0], spec.shape[1], blocks, kBlockSize / 2};
    } else if (tensor.name.find(".attn.qkv.") != std::string::npos) {
      // The rows of q, k and v are stacked in this order.
      tensor.shape[0] = q + 2 * kv;
      const char part = spec.name[spec.name.rfind('.') - 1];
      const uint64_t first_row = part == 'q' ? 0 : part == 'k' ? q : q + kv;
      tensor.first_element = first_row * (spec.shape.size() == 2 ? spec.shape[1] : 1);
    }
    layout.push_back(std::move(tensor));
  }
  return layout;
}

}  // namespace gptoss
