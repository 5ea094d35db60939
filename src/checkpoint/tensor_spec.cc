#include "checkpoint/tensor_spec.h"

#include <utility>

namespace gptoss {

std::vector<TensorSpec> CanonicalTensors(const ModelConfig& config) {
  const auto u = [](int v) { return static_cast<uint64_t>(v); };
  const uint64_t hidden = u(config.hidden_size), inter = u(config.intermediate_size), experts = u(config.num_experts);
  const uint64_t vocab = u(config.vocab_size), q = u(config.q_size()), kv = u(config.kv_size());

  std::vector<TensorSpec> specs;
  specs.reserve(3 + 17 * static_cast<size_t>(config.num_layers));
  specs.push_back({"embedding", {vocab, hidden}});
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    const auto add = [&](const char* name, std::vector<uint64_t> shape, bool is_expert_weight = false) {
      specs.push_back({prefix + name, std::move(shape), is_expert_weight});
    };
    add("attn_norm", {hidden});
    add("q.weight", {q, hidden});
    add("k.weight", {kv, hidden});
    add("v.weight", {kv, hidden});
    add("q.bias", {q});
    add("k.bias", {kv});
    add("v.bias", {kv});
    add("sinks", {u(config.num_heads)});
    add("out.weight", {hidden, q});
    add("out.bias", {hidden});
    add("mlp_norm", {hidden});
    add("router.weight", {experts, hidden});
    add("router.bias", {experts});
    add("gate_up.weight", {experts, 2 * inter, hidden}, true);
    add("gate_up.bias", {experts, 2 * inter});
    add("down.weight", {experts, hidden, inter}, true);
    add("down.bias", {experts, hidden});
  }
  specs.push_back({"final_norm", {hidden}});
  specs.push_back({"unembedding", {vocab, hidden}});
  return specs;
}

}  // namespace gptoss
