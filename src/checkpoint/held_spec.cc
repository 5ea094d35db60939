#include "checkpoint/held_spec.h"

#include <utility>

namespace gptoss {

std::vector<HeldSpec> HeldTensors(const ModelConfig& config) {
  const std::vector<TensorSpec> canonical = CanonicalTensors(config);
  std::vector<HeldSpec> held;
  held.reserve(canonical.size());
  for (size_t i = 0; i < canonical.size(); ++i) {
    const TensorSpec& spec = canonical[i];
    const bool is_weight = spec.name.ends_with(".q.weight");
    if (!is_weight && !spec.name.ends_with(".q.bias")) {
      if (held.empty() || i > held.back().parts.back()) held.push_back({spec, {i}});
      continue;
    }
    // The canonical order is q, k, v.
    const std::string stem = spec.name.substr(0, spec.name.rfind(".q."));
    const uint64_t outputs = canonical[i].shape[0] + canonical[i + 1].shape[0] + canonical[i + 2].shape[0];
    if (is_weight) {
      held.push_back({{stem + ".qkv.weight", {outputs, spec.cols()}}, {i, i + 1, i + 2}});
    } else {
      held.push_back({{stem + ".qkv.bias", {outputs}}, {i, i + 1, i + 2}});
    }
  }
  return held;
}

bool IsHeldAsFloat(const TensorSpec& spec) {
  if (spec.name == "embedding" || spec.name == "unembedding" || spec.is_expert_weight) return false;
  return !spec.name.ends_with(".weight") || spec.name.ends_with("router.weight");
}

}  // namespace gptoss
