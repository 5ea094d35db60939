// The shape of a gpt-oss model, as every checkpoint form states it. Owner of the facts "which layers slide" and "what
// the rotary parameters are". Lives with the formats because their readers and writers need it; model/ only derives.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "json/json.h"

namespace gptoss {

struct ModelConfig {
  int num_layers = 24;
  int num_experts = 32;
  int experts_per_token = 4;
  int vocab_size = 201088;  // rows of the embedding and of the output matrix
  int hidden_size = 2880;
  int intermediate_size = 2880;
  int head_dim = 64;
  int num_heads = 64;
  int num_kv_heads = 8;
  int sliding_window = 128;  // keys with query_pos - key_pos < sliding_window are seen
  int max_context = 131072;
  float swiglu_limit = 7.0f;
  float rms_eps = 1e-5f;
  // YaRN (arXiv 2309.00071). Factor 1 means plain rotary embedding.
  double rope_theta = 150000.0;
  double rope_factor = 32.0;
  int rope_initial_context = 4096;
  double rope_beta_fast = 32.0;  // "ntk_beta" of the original layout
  double rope_beta_slow = 1.0;   // "ntk_alpha"

  /// Layers alternate, beginning with a sliding one.
  bool IsSliding(int layer) const { return layer % 2 == 0; }
  int q_size() const { return num_heads * head_dim; }
  int kv_size() const { return num_kv_heads * head_dim; }

  bool operator==(const ModelConfig&) const = default;
};

/// Checks what the kernels rely on: widths that are multiples of 32, even head_dim, heads divisible by kv heads, top-k
/// at most the number of experts, sizes within sane bounds. On failure: kUnsupported or kCorruptData naming the field.
Status ValidateConfig(const ModelConfig& config);

/// config.json of the Hugging Face layout. Accepts `rope_scaling` + `rope_theta` and the newer `rope_parameters`;
/// `layer_types`, when present, must alternate sliding and full. On failure: one error naming the field.
Result<ModelConfig> ParseHfConfig(const Json& json);
Json HfConfigJson(const ModelConfig& config);

/// config.json of the "original" layout.
Result<ModelConfig> ParseOriginalConfig(const Json& json);
Json OriginalConfigJson(const ModelConfig& config);

/// The two released shapes and a small one: "20b", "120b", "micro". On failure: kInvalidArgument listing the names.
Result<ModelConfig> NamedConfig(const std::string& name);

}  // namespace gptoss
