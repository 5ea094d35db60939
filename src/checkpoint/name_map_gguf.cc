#include "checkpoint/name_map_gguf.h"

#include <string_view>
#include <utility>

#include "checkpoint/tensor_spec.h"

namespace gptoss {
namespace {

constexpr std::pair<std::string_view, std::string_view> kLayerNames[] = {
    {"attn_norm", "attn_norm.weight"},
    {"q.weight", "attn_q.weight"},
    {"k.weight", "attn_k.weight"},
    {"v.weight", "attn_v.weight"},
    {"q.bias", "attn_q.bias"},
    {"k.bias", "attn_k.bias"},
    {"v.bias", "attn_v.bias"},
    {"sinks", "attn_sinks.weight"},
    {"out.weight", "attn_output.weight"},
    {"out.bias", "attn_output.bias"},
    {"mlp_norm", "post_attention_norm.weight"},
    {"router.weight", "ffn_gate_inp.weight"},
    {"router.bias", "ffn_gate_inp.bias"},
    {"gate_up.weight", "ffn_gate_exps.weight"},
    {"gate_up.bias", "ffn_gate_exps.bias"},
    {"down.weight", "ffn_down_exps.weight"},
    {"down.bias", "ffn_down_exps.bias"},
};

std::string GgufName(std::string_view canonical) {
  if (canonical == "embedding") return "token_embd.weight";
  if (canonical == "final_norm") return "output_norm.weight";
  if (canonical == "unembedding") return "output.weight";
  const size_t number = canonical.find('.') + 1;
  const size_t rest = canonical.find('.', number) + 1;
  for (const auto& [from, to] : kLayerNames) {
    if (canonical.substr(rest) == from) {
      return "blk." + std::string(canonical.substr(number, rest - number)) + std::string(to);
    }
  }
  GPTOSS_CHECK(!"a canonical tensor without a name in this layout");
}

/// Reads keys under the architecture's prefix and remembers the first error.
class KeyReader {
 public:
  explicit KeyReader(const GgufHeader& header) : header_(header) {}

  int Int(const char* key) {
    const std::optional<int64_t> value = header_.Integer(Full(key));
    if (!value || *value < INT32_MIN || *value > INT32_MAX) return Fail(key, "integer"), 0;
    return static_cast<int>(*value);
  }
  int Int(const char* key, int fallback) { return Has(key) ? Int(key) : fallback; }
  double Real(const char* key) {
    const std::optional<double> value = header_.Real(Full(key));
    if (!value) return Fail(key, "number"), 0.0;
    return *value;
  }
  double Real(const char* key, double fallback) { return Has(key) ? Real(key) : fallback; }
  bool Has(const char* key) const { return header_.Find(Full(key)) != nullptr; }
  Status status() const { return status_; }

 private:
  static std::string Full(const char* key) { return std::string(kGgufArchitecture) + "." + key; }
  void Fail(const char* key, const char* what) {
    if (status_.ok()) status_ = CorruptData("metadata \"" + Full(key) + "\" is missing or not one " + what);
  }
  const GgufHeader& header_;
  Status status_;
};

Status ReadRope(const GgufHeader& header, KeyReader& in, ModelConfig* c) {
  c->rope_theta = in.Real("rope.freq_base", c->rope_theta);
  const std::string_view type = header.String("gpt-oss.rope.scaling.type").value_or("none");
  if (type == "none") {
    c->rope_factor = 1.0;
    c->rope_initial_context = in.Int("rope.scaling.original_context_length", c->rope_initial_context);
    return in.status();
  }
  if (type != "yarn") {
    return Unsupported("metadata \"gpt-oss.rope.scaling.type\" is \"" + std::string(type) +
                       "\", only yarn and none are supported");
  }
  c->rope_factor = in.Real("rope.scaling.factor");
  c->rope_initial_context = in.Int("rope.scaling.original_context_length");
  c->rope_beta_fast = in.Real("rope.scaling.yarn_beta_fast", 32.0);
  c->rope_beta_slow = in.Real("rope.scaling.yarn_beta_slow", 1.0);
  return in.status();
}

}  // namespace

std::vector<GgufLayoutTensor> GgufLayout(const ModelConfig& config) {
  std::vector<GgufLayoutTensor> layout;
  for (const TensorSpec& spec : CanonicalTensors(config)) {
    GgufLayoutTensor tensor{.name = GgufName(spec.name), .up_name = {}, .shape = spec.shape};
    if (const size_t gate = tensor.name.find("ffn_gate_exps"); gate != std::string::npos) {
      tensor.up_name = tensor.name;
      tensor.up_name.replace(gate, 13, "ffn_up_exps");
      tensor.shape[1] /= 2;
    }
    layout.push_back(std::move(tensor));
  }
  return layout;
}

Result<ModelConfig> ParseGgufConfig(const GgufHeader& header) {
  const std::string_view architecture = header.String("general.architecture").value_or("");
  if (architecture != kGgufArchitecture) {
    return Unsupported("metadata \"general.architecture\" is \"" + std::string(architecture) +
                       "\", only \"gpt-oss\" is read");
  }
  KeyReader in(header);
  ModelConfig c;
  c.num_layers = in.Int("block_count");
  c.num_experts = in.Int("expert_count");
  c.experts_per_token = in.Int("expert_used_count");
  c.hidden_size = in.Int("embedding_length");
  c.intermediate_size =
      in.Int(in.Has("expert_feed_forward_length") ? "expert_feed_forward_length" : "feed_forward_length");
  c.head_dim = in.Int("attention.key_length");
  c.num_heads = in.Int("attention.head_count");
  c.num_kv_heads = in.Int("attention.head_count_kv");
  c.sliding_window = in.Int("attention.sliding_window");
  c.max_context = in.Int("context_length");
  c.rms_eps = static_cast<float>(in.Real("attention.layer_norm_rms_epsilon"));
  // llama.cpp has the limit of 7 built in; the key is written here for models that differ.
  c.swiglu_limit = static_cast<float>(in.Real("swiglu_limit", 7.0));
  const int value_length = in.Int("attention.value_length", c.head_dim);
  GPTOSS_RETURN_IF_ERROR(in.status());
  if (value_length != c.head_dim) {
    return Unsupported("metadata \"gpt-oss.attention.value_length\" differs from \"gpt-oss.attention.key_length\"");
  }
  GPTOSS_RETURN_IF_ERROR(ReadRope(header, in, &c));
  const auto embedding = header.tensors.find("token_embd.weight");
  if (embedding == header.tensors.end()) return NotFound("tensor \"token_embd.weight\" is missing");
  const uint64_t rows = embedding->second.shape[0];
  if (embedding->second.shape.size() != 2 || rows > INT32_MAX) {
    return CorruptData("tensor \"token_embd.weight\" is not a matrix");
  }
  c.vocab_size = static_cast<int>(rows);
  GPTOSS_RETURN_IF_ERROR(ValidateConfig(c));
  return c;
}

}  // namespace gptoss
