#include "checkpoint/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "checkpoint/test_util.h"

namespace gptoss {
namespace {

using ::testing::HasSubstr;

Json Golden(const std::string& layout) {
  Result<Json> json = ParseJson(ReadFile(kMicro + layout + "/config.json"));
  EXPECT_TRUE(json.ok());
  return json.ok() ? *json : Json();
}

TEST(ModelConfig, GoldenConfigsAreTheMicroShape) {
  const Result<ModelConfig> hf = ParseHfConfig(Golden("hf")), original = ParseOriginalConfig(Golden("original"));
  ASSERT_TRUE(hf.ok()) << hf.status().message();
  ASSERT_TRUE(original.ok()) << original.status().message();
  EXPECT_EQ(*hf, *NamedConfig("micro"));
  EXPECT_EQ(*original, *hf);
  EXPECT_EQ(hf->rope_beta_fast, 32.0);
  EXPECT_EQ(hf->rope_beta_slow, 1.0);
  EXPECT_EQ(hf->rms_eps, 1e-5f);
  EXPECT_TRUE(hf->IsSliding(0));
  EXPECT_FALSE(hf->IsSliding(1));
}

TEST(ModelConfig, ReleasedShapes) {
  const Result<ModelConfig> small = NamedConfig("20b"), large = NamedConfig("120b");
  ASSERT_TRUE(small.ok() && large.ok());
  EXPECT_EQ(small->num_layers, 24);
  EXPECT_EQ(small->num_experts, 32);
  EXPECT_EQ(large->num_layers, 36);
  EXPECT_EQ(large->num_experts, 128);
  EXPECT_EQ(large->vocab_size, 201088);
  EXPECT_EQ(large->max_context, 131072);
  EXPECT_TRUE(ValidateConfig(*large).ok());
  const Result<ModelConfig> unknown = NamedConfig("7b");
  EXPECT_EQ(unknown.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(unknown.status().message(), HasSubstr("20b, 120b and micro"));
}

TEST(ModelConfig, BothFormsRoundTrip) {
  ModelConfig config = *NamedConfig("120b");
  config.sliding_window = 64;
  config.rope_theta = 10000.5;
  config.rope_beta_fast = 16.25;
  config.swiglu_limit = 6.1f;
  const Result<ModelConfig> original = ParseOriginalConfig(OriginalConfigJson(config));
  ASSERT_TRUE(original.ok()) << original.status().message();
  EXPECT_EQ(*original, config);
  config.rms_eps = 3e-6f;
  config.max_context = 5000;
  Result<ModelConfig> hf = ParseHfConfig(HfConfigJson(config));
  ASSERT_TRUE(hf.ok()) << hf.status().message();
  EXPECT_EQ(*hf, config);
  config.rope_factor = 1.0;
  config.rope_beta_fast = 32.0;
  hf = ParseHfConfig(HfConfigJson(config));
  ASSERT_TRUE(hf.ok()) << hf.status().message();
  EXPECT_EQ(*hf, config);
}

TEST(ModelConfig, NewerRopeParametersAreRead) {
  Json json = Golden("hf");
  Json rope = json["rope_scaling"];
  rope["rope_theta"] = 200000.0;
  json["rope_parameters"] = rope;
  json.erase("rope_scaling");
  json.erase("rope_theta");
  const Result<ModelConfig> config = ParseHfConfig(json);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->rope_theta, 200000.0);
  EXPECT_EQ(config->rope_factor, 32.0);
}

struct BadField {
  const char* layout;
  const char* pointer;   // JSON pointer of the field to replace
  const char* value;     // JSON; "" removes the field
  const char* expected;  // in the message
};

TEST(ModelConfig, EveryErrorNamesItsField) {
  const BadField cases[] = {
      {"hf", "/model_type", "\"llama\"", "\"model_type\" is \"llama\""},
      {"hf", "/hidden_size", "", "\"hidden_size\" is missing"},
      {"hf", "/hidden_size", "\"128\"", "\"hidden_size\" is not an integer"},
      {"hf", "/hidden_size", "100", "hidden_size is 100"},
      {"hf", "/hidden_size", "1e30", "\"hidden_size\""},
      {"hf", "/hidden_size", "99999999999", "\"hidden_size\" is out of range"},
      {"hf", "/intermediate_size", "-32", "intermediate_size is -32"},
      {"hf", "/num_attention_heads", "3", "3 query heads"},
      {"hf", "/num_key_value_heads", "0", "the number of key-value heads is 0"},
      {"hf", "/head_dim", "63", "head_dim is 63"},
      {"hf", "/num_local_experts", "2", "4 experts per token of only 2"},
      {"hf", "/vocab_size", "0", "the vocabulary size is 0"},
      {"hf", "/rms_norm_eps", "0", "the epsilon"},
      {"hf", "/layer_types/1", "\"sliding_attention\"", "\"layer_types\" of layer 1"},
      {"hf", "/layer_types", "[]", "\"layer_types\" must list all 4 layers"},
      {"hf", "/rope_scaling/rope_type", "\"linear\"", "\"rope_type\" is \"linear\""},
      {"hf", "/rope_scaling/factor", "\"big\"", "\"factor\" is not a number"},
      {"hf", "/rope_scaling/factor", "0.5", "the rotary scaling factor is 0.5"},
      {"hf", "/rope_scaling/truncate", "true", "\"truncate\" is true"},
      {"hf", "/rope_scaling/mscale", "1.0", "\"mscale\""},
      {"hf", "/quantization_config/quant_method", "\"gptq\"", "\"quant_method\" is \"gptq\""},
      {"hf", "/tie_word_embeddings", "true", "\"tie_word_embeddings\" is true"},
      {"hf", "/attention_bias", "false", "\"attention_bias\" is false"},
      {"original", "/rope_ntk_alpha", "", "\"rope_ntk_alpha\" is missing"},
      {"original", "/rope_scaling_factor", "1e300", "\"rope_scaling_factor\""},
      {"original", "/rope_ntk_beta", "0.5", "beta_fast must be larger"},
      {"original", "/num_experts", "null", "\"num_experts\" is not an integer"},
  };
  for (const BadField& bad : cases) {
    Json json = Golden(bad.layout);
    const Json::json_pointer pointer(bad.pointer);
    if (*bad.value == '\0') {
      json.erase(bad.pointer + 1);
    } else {
      json[pointer] = *ParseJson(bad.value);
    }
    const bool is_hf = std::string(bad.layout) == "hf";
    const Result<ModelConfig> config = is_hf ? ParseHfConfig(json) : ParseOriginalConfig(json);
    ASSERT_FALSE(config.ok()) << bad.pointer << " = " << bad.value;
    EXPECT_THAT(config.status().message(), HasSubstr(bad.expected));
    EXPECT_THAT(config.status().message(), HasSubstr("configuration: "));
  }
  EXPECT_FALSE(ParseHfConfig(Json::array()).ok());
  EXPECT_FALSE(ParseOriginalConfig(Json("text")).ok());
}

}  // namespace
}  // namespace gptoss
