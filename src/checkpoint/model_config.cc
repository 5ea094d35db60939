#include "checkpoint/model_config.h"

#include <charconv>
#include <cmath>
#include <utility>

#include "tensor/dtype.h"

namespace gptoss {
namespace {

struct IntRange {
  const char* name;
  int value;
  int min;
  int max;
};

Status CheckRange(const IntRange& r) {
  if (r.value >= r.min && r.value <= r.max) return Status();
  return CorruptData(std::string("configuration: ") + r.name + " is " + std::to_string(r.value) +
                     ", it must lie between " + std::to_string(r.min) + " and " + std::to_string(r.max));
}

Status CheckMultiple(const char* name, int value, int divisor) {
  if (value % divisor == 0) return Status();
  return Unsupported(std::string("configuration: ") + name + " is " + std::to_string(value) +
                     ", the kernels need a multiple of " + std::to_string(divisor));
}

Status CheckReal(const char* name, double value, double min, double max) {
  if (value >= min && value <= max) return Status();  // false for NaN
  return CorruptData(std::string("configuration: ") + name + " is " + Json(value).dump() + ", it must lie between " +
                     Json(min).dump() + " and " + Json(max).dump());
}

/// Reads typed fields and remembers the first error, so that a list of fields stays a list.
class FieldReader {
 public:
  explicit FieldReader(const Json& json) : json_(json) {}

  int Int(const char* key) {
    const Result<int64_t> value = GetInt(json_, key);
    if (!value.ok()) return Fail(value.status()), 0;
    if (*value < INT32_MIN || *value > INT32_MAX) return Fail(CorruptData(Quoted(key) + " is out of range")), 0;
    return static_cast<int>(*value);
  }
  int Int(const char* key, int fallback) { return Has(key) ? Int(key) : fallback; }
  double Real(const char* key) {
    const Result<double> value = GetDouble(json_, key);
    if (!value.ok()) return Fail(value.status()), 0;
    return *value;
  }
  double Real(const char* key, double fallback) { return Has(key) ? Real(key) : fallback; }
  /// Fails unless the field is absent, null or equal to `expected`.
  void Require(const char* key, const Json& expected) {
    if (Has(key) && *FindField(json_, key) != expected) {
      Fail(Unsupported(Quoted(key) + " is " + WriteJson(*FindField(json_, key)) + ", only " + WriteJson(expected) +
                       " is supported"));
    }
  }
  bool Has(const char* key) const {
    const Json* field = FindField(json_, key);
    return field != nullptr && !field->is_null();
  }
  void Fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  Status status() const { return status_.WithContext("configuration"); }

 private:
  static std::string Quoted(const char* key) { return "\"" + std::string(key) + "\""; }
  const Json& json_;
  Status status_;
};

Status ParseRopeScaling(const Json& scaling, const char* key, ModelConfig* config) {
  FieldReader in(scaling);
  const std::string* type = FindString(scaling, "rope_type");
  if (type == nullptr) type = FindString(scaling, "type");
  if (type == nullptr) return CorruptData("configuration: \"" + std::string(key) + "\" has no \"rope_type\"");
  config->rope_theta = in.Real("rope_theta", config->rope_theta);
  if (*type == "default") {
    config->rope_factor = 1.0;
    return in.status();
  }
  if (*type != "yarn") {
    return Unsupported("configuration: \"rope_type\" is \"" + *type + "\", only yarn and default are supported");
  }
  config->rope_factor = in.Real("factor");
  config->rope_beta_fast = in.Real("beta_fast", 32.0);
  config->rope_beta_slow = in.Real("beta_slow", 1.0);
  config->rope_initial_context = in.Int("original_max_position_embeddings", config->rope_initial_context);
  in.Require("truncate", false);
  // Absent in the released files; they would replace the concentration 0.1 ln(factor) + 1.
  for (const char* other : {"attention_factor", "mscale", "mscale_all_dim"}) {
    if (in.Has(other)) in.Fail(Unsupported("\"" + std::string(other) + "\" in \"" + key + "\" is not supported"));
  }
  return in.status();
}

Status CheckLayerTypes(const Json& json, const ModelConfig& config) {
  const Json* types = FindField(json, "layer_types");
  if (types == nullptr || types->is_null()) return Status();
  if (!types->is_array() || types->size() != static_cast<size_t>(config.num_layers)) {
    return CorruptData("configuration: \"layer_types\" must list all " + std::to_string(config.num_layers) + " layers");
  }
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const char* expected = config.IsSliding(layer) ? "sliding_attention" : "full_attention";
    if ((*types)[static_cast<size_t>(layer)] != expected) {
      return Unsupported("configuration: \"layer_types\" of layer " + std::to_string(layer) + " must be \"" + expected +
                         "\": layers alternate, beginning with a sliding one");
    }
  }
  return Status();
}

/// The double that prints as the shortest decimal of `value`: 1e-5f as 1e-05, not as 9.999999747378752e-06.
double ShortestDecimal(float value) {
  char text[32];
  const auto printed = std::to_chars(text, text + sizeof(text), value);
  double result = value;
  std::from_chars(text, printed.ptr, result);
  return result;
}

/// As the published files have it: whole numbers without a fraction.
Json WholeOrReal(double value) {
  if (value == std::floor(value) && std::abs(value) < 0x1.0p53) return static_cast<int64_t>(value);
  return value;
}

}  // namespace

Status ValidateConfig(const ModelConfig& c) {
  const IntRange ranges[] = {
      {"the number of layers", c.num_layers, 1, 1024},
      {"the number of experts", c.num_experts, 1, 4096},
      {"the number of experts per token", c.experts_per_token, 1, 64},
      {"the vocabulary size", c.vocab_size, 1, 1 << 22},
      {"hidden_size", c.hidden_size, 32, 1 << 16},
      {"intermediate_size", c.intermediate_size, 32, 1 << 17},
      {"head_dim", c.head_dim, 2, 512},
      {"the number of query heads", c.num_heads, 1, 1024},
      {"the number of key-value heads", c.num_kv_heads, 1, 1024},
      {"sliding_window", c.sliding_window, 1, 1 << 24},
      {"the maximum context", c.max_context, 1, 1 << 24},
      {"the initial context of the rotary embedding", c.rope_initial_context, 1, 1 << 24},
  };
  for (const IntRange& range : ranges) GPTOSS_RETURN_IF_ERROR(CheckRange(range));
  GPTOSS_RETURN_IF_ERROR(CheckMultiple("hidden_size", c.hidden_size, kBlockSize));
  GPTOSS_RETURN_IF_ERROR(CheckMultiple("intermediate_size", c.intermediate_size, kBlockSize));
  GPTOSS_RETURN_IF_ERROR(CheckMultiple("head_dim", c.head_dim, 2));
  GPTOSS_RETURN_IF_ERROR(CheckMultiple("query heads times head_dim", c.q_size(), kBlockSize));
  GPTOSS_RETURN_IF_ERROR(CheckMultiple("key-value heads times head_dim", c.kv_size(), kBlockSize));
  if (c.num_heads % c.num_kv_heads != 0) {
    return CorruptData("configuration: " + std::to_string(c.num_heads) + " query heads cannot be shared out among " +
                       std::to_string(c.num_kv_heads) + " key-value heads");
  }
  if (c.experts_per_token > c.num_experts) {
    return CorruptData("configuration: " + std::to_string(c.experts_per_token) + " experts per token of only " +
                       std::to_string(c.num_experts) + " experts");
  }
  GPTOSS_RETURN_IF_ERROR(CheckReal("swiglu_limit", c.swiglu_limit, 1e-3, 1e6));
  GPTOSS_RETURN_IF_ERROR(CheckReal("the epsilon of the RMS norm", c.rms_eps, 1e-20, 1.0));
  GPTOSS_RETURN_IF_ERROR(CheckReal("rope_theta", c.rope_theta, 1.0 + 1e-6, 1e12));
  GPTOSS_RETURN_IF_ERROR(CheckReal("the rotary scaling factor", c.rope_factor, 1.0, 1e6));
  GPTOSS_RETURN_IF_ERROR(CheckReal("beta_fast", c.rope_beta_fast, 1e-6, 1e6));
  GPTOSS_RETURN_IF_ERROR(CheckReal("beta_slow", c.rope_beta_slow, 1e-6, 1e6));
  if (c.rope_factor > 1.0 && c.rope_beta_fast <= c.rope_beta_slow) {
    return CorruptData("configuration: beta_fast must be larger than beta_slow");
  }
  return Status();
}

Result<ModelConfig> ParseHfConfig(const Json& json) {
  if (!json.is_object()) return CorruptData("configuration: not a JSON object");
  FieldReader in(json);
  ModelConfig c;
  in.Require("model_type", "gpt_oss");
  c.num_layers = in.Int("num_hidden_layers");
  c.num_experts = in.Int("num_local_experts");
  c.experts_per_token = in.Int(in.Has("num_experts_per_tok") ? "num_experts_per_tok" : "experts_per_token");
  c.vocab_size = in.Int("vocab_size");
  c.hidden_size = in.Int("hidden_size");
  c.intermediate_size = in.Int("intermediate_size");
  c.num_heads = in.Int("num_attention_heads");
  c.num_kv_heads = in.Int("num_key_value_heads");
  c.head_dim = in.Int("head_dim", c.head_dim);
  c.sliding_window = in.Int("sliding_window", c.sliding_window);
  c.max_context = in.Int("max_position_embeddings", c.max_context);
  c.swiglu_limit = static_cast<float>(in.Real("swiglu_limit", 7.0));
  c.rms_eps = static_cast<float>(in.Real("rms_norm_eps", 1e-5));
  c.rope_theta = in.Real("rope_theta", c.rope_theta);
  c.rope_initial_context = in.Int("initial_context_length", c.rope_initial_context);
  c.rope_factor = 1.0;
  in.Require("attention_bias", true);
  in.Require("tie_word_embeddings", false);
  if (const Json* quantization = FindField(json, "quantization_config"); quantization && quantization->is_object()) {
    const std::string* method = FindString(*quantization, "quant_method");
    if (method != nullptr && *method != "mxfp4") {
      in.Fail(Unsupported("\"quant_method\" is \"" + *method + "\", only mxfp4 is supported"));
    }
  }
  GPTOSS_RETURN_IF_ERROR(in.status());
  for (const char* key : {"rope_scaling", "rope_parameters"}) {  // transformers 5 renamed it
    if (in.Has(key)) GPTOSS_RETURN_IF_ERROR(ParseRopeScaling(*FindField(json, key), key, &c));
  }
  GPTOSS_RETURN_IF_ERROR(ValidateConfig(c));
  GPTOSS_RETURN_IF_ERROR(CheckLayerTypes(json, c));
  return c;
}

Json HfConfigJson(const ModelConfig& c) {
  Json json = {{"architectures", Json::array({"GptOssForCausalLM"})},
               {"attention_bias", true},
               {"attention_dropout", 0.0},
               {"eos_token_id", 200002},
               {"experts_per_token", c.experts_per_token},
               {"head_dim", c.head_dim},
               {"hidden_act", "silu"},
               {"hidden_size", c.hidden_size},
               {"initial_context_length", c.rope_initial_context},
               {"initializer_range", 0.02},
               {"intermediate_size", c.intermediate_size}};
  Json types = Json::array();
  for (int layer = 0; layer < c.num_layers; ++layer) {
    types.push_back(c.IsSliding(layer) ? "sliding_attention" : "full_attention");
  }
  json["layer_types"] = std::move(types);
  json["max_position_embeddings"] = c.max_context;
  json["model_type"] = "gpt_oss";
  json["num_attention_heads"] = c.num_heads;
  json["num_experts_per_tok"] = c.experts_per_token;
  json["num_hidden_layers"] = c.num_layers;
  json["num_key_value_heads"] = c.num_kv_heads;
  json["num_local_experts"] = c.num_experts;
  json["output_router_logits"] = false;
  json["pad_token_id"] = 199999;
  json["quantization_config"] = {
      {"modules_to_not_convert",
       {"model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"}},
      {"quant_method", "mxfp4"}};
  json["rms_norm_eps"] = ShortestDecimal(c.rms_eps);
  if (c.rope_factor == 1.0) {
    json["rope_scaling"] = nullptr;
  } else {
    json["rope_scaling"] = {
        {"beta_fast", c.rope_beta_fast}, {"beta_slow", c.rope_beta_slow},
        {"factor", c.rope_factor},       {"original_max_position_embeddings", c.rope_initial_context},
        {"rope_type", "yarn"},           {"truncate", false}};
  }
  json["rope_theta"] = WholeOrReal(c.rope_theta);
  json["router_aux_loss_coef"] = 0.9;
  json["sliding_window"] = c.sliding_window;
  json["swiglu_limit"] = ShortestDecimal(c.swiglu_limit);
  json["tie_word_embeddings"] = false;
  json["transformers_version"] = "4.55.0.dev0";
  json["use_cache"] = true;
  json["vocab_size"] = c.vocab_size;
  return json;
}

Result<ModelConfig> ParseOriginalConfig(const Json& json) {
  if (!json.is_object()) return CorruptData("configuration: not a JSON object");
  FieldReader in(json);
  ModelConfig c;
  c.num_layers = in.Int("num_hidden_layers");
  c.num_experts = in.Int("num_experts");
  c.experts_per_token = in.Int("experts_per_token");
  c.vocab_size = in.Int("vocab_size");
  c.hidden_size = in.Int("hidden_size");
  c.intermediate_size = in.Int("intermediate_size");
  c.swiglu_limit = static_cast<float>(in.Real("swiglu_limit", 7.0));
  c.head_dim = in.Int("head_dim");
  c.num_heads = in.Int("num_attention_heads");
  c.num_kv_heads = in.Int("num_key_value_heads");
  c.sliding_window = in.Int("sliding_window");
  c.rope_initial_context = in.Int("initial_context_length");
  c.rope_theta = in.Real("rope_theta");
  c.rope_factor = in.Real("rope_scaling_factor");
  c.rope_beta_slow = in.Real("rope_ntk_alpha");
  c.rope_beta_fast = in.Real("rope_ntk_beta");
  GPTOSS_RETURN_IF_ERROR(in.status());
  // This form states no maximum: YaRN stretches the initial context by its factor.
  const double context = c.rope_initial_context * c.rope_factor;
  GPTOSS_RETURN_IF_ERROR(CheckReal("\"initial_context_length\" times \"rope_scaling_factor\"", context, 1, 1 << 24));
  c.max_context = static_cast<int>(context);
  GPTOSS_RETURN_IF_ERROR(ValidateConfig(c));
  return c;
}

Json OriginalConfigJson(const ModelConfig& c) {
  return {{"num_hidden_layers", c.num_layers},
          {"num_experts", c.num_experts},
          {"experts_per_token", c.experts_per_token},
          {"vocab_size", c.vocab_size},
          {"hidden_size", c.hidden_size},
          {"intermediate_size", c.intermediate_size},
          {"swiglu_limit", ShortestDecimal(c.swiglu_limit)},
          {"head_dim", c.head_dim},
          {"num_attention_heads", c.num_heads},
          {"num_key_value_heads", c.num_kv_heads},
          {"sliding_window", c.sliding_window},
          {"initial_context_length", c.rope_initial_context},
          {"rope_theta", WholeOrReal(c.rope_theta)},
          {"rope_scaling_factor", c.rope_factor},
          {"rope_ntk_alpha", WholeOrReal(c.rope_beta_slow)},
          {"rope_ntk_beta", WholeOrReal(c.rope_beta_fast)}};
}

Result<ModelConfig> NamedConfig(const std::string& name) {
  ModelConfig c;
  if (name == "20b") return c;
  if (name == "120b") {
    c.num_layers = 36;
    c.num_experts = 128;
    return c;
  }
  if (name == "micro") {
    c.num_layers = 4;
    c.num_experts = 8;
    c.vocab_size = 640;
    c.hidden_size = 128;
    c.intermediate_size = 128;
    c.num_heads = 8;
    c.num_kv_heads = 2;
    return c;
  }
  return InvalidArgument("no model shape is called \"" + name + "\"; there are 20b, 120b and micro");
}

}  // namespace gptoss
