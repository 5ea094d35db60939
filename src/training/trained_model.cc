#include "training/trained_model.h"

#include <algorithm>
#include <utility>

#include "training/export.h"

namespace gptoss {
namespace {

class WholeModel final : public TrainedModel {
 public:
  WholeModel(const ModelConfig& config, std::vector<std::string> trained, bool round_experts, int64_t round_from)
      : TrainedModel(config), trained_(std::move(trained)), round_from_(round_from) {
    if (round_experts) rounded_.resize(layout_.size());
  }
  const std::vector<FlatTensor>& tensors() const override { return layout_.tensors(); }
  size_t size() const override { return layout_.size(); }
  bool IsTrained(const TensorSpec& spec) const override {
    return trained_.empty() || std::any_of(trained_.begin(), trained_.end(),
                                           [&](const std::string& end) { return spec.name.ends_with(end); });
  }
  Json Identity() const override {
    return {{"round_experts", !rounded_.empty()}, {"round_from", round_from_}, {"trained", trained_}};
  }
  Result<ModelParameters<float>> Parameters(std::span<const float> values, int64_t step) override {
    if (rounded_.empty() || step < round_from_) return BindParameters<float>(layout_, values.data());
    GPTOSS_RETURN_IF_ERROR(RoundExperts(layout_, values, rounded_));
    return BindParameters<float>(layout_, rounded_.data());
  }
  ModelGradients<float> Gradients(float* gradient) override {
    return BindGradients<float>(layout_, gradient, [this](const TensorSpec& spec) { return IsTrained(spec); });
  }

 private:
  std::vector<std::string> trained_;
  int64_t round_from_;
  std::vector<float> rounded_;  // empty unless experts are rounded
};

class AdaptedModel final : public TrainedModel {
 public:
  AdaptedModel(const ModelWeights& weights, const AdapterOptions& options, std::string base)
      : TrainedModel(weights.config),
        adapter_(weights.config, options),
        binding_(adapter_),
        frozen_(FrozenParameters(weights)),
        base_(std::move(base)) {}
  const std::vector<FlatTensor>& tensors() const override { return adapter_.tensors(); }
  size_t size() const override { return adapter_.size(); }
  bool IsTrained(const TensorSpec&) const override { return true; }
  Json Identity() const override {
    const AdapterOptions& o = adapter_.options();
    return {{"base", base_}, {"rank", o.rank}, {"alpha", o.alpha}, {"targets", o.targets}};
  }
  Result<ModelParameters<float>> Parameters(std::span<const float> values, int64_t /*step*/) override {
    ModelParameters<float> parameters = frozen_;
    binding_.Bind(values.data(), &parameters);
    return parameters;
  }
  ModelGradients<float> Gradients(float* gradient) override {
    ModelGradients<float> gradients;
    binding_.BindGradients(gradient, &gradients);
    return gradients;
  }
  void Collect(float* gradient) override { binding_.CollectGradients(gradient); }

 private:
  AdapterLayout adapter_;
  AdapterBinding<float> binding_;
  ModelParameters<float> frozen_;
  std::string base_;
};

}  // namespace

Result<std::unique_ptr<TrainedModel>> TrainWeights(const ModelConfig& config, const std::vector<std::string>& trained,
                                                   bool round_experts, int64_t round_from) {
  GPTOSS_RETURN_IF_ERROR(ValidateConfig(config));
  const std::vector<TensorSpec> specs = CanonicalTensors(config);
  for (const std::string& end : trained) {
    if (std::none_of(specs.begin(), specs.end(), [&](const TensorSpec& s) { return s.name.ends_with(end); })) {
      return InvalidArgument("trained: no tensor's name ends in \"" + end + "\"; see gptoss inspect for the names");
    }
  }
  return std::unique_ptr<TrainedModel>(std::make_unique<WholeModel>(config, trained, round_experts, round_from));
}

std::unique_ptr<TrainedModel> TrainAdapter(const ModelWeights& weights, const AdapterOptions& options,
                                           const std::string& base) {
  return std::make_unique<AdaptedModel>(weights, options, base);
}

ModelParameters<float> FrozenParameters(const ModelWeights& weights) {
  ModelParameters<float> p;
  p.embedding = weights.embedding;
  p.unembedding = weights.unembedding;
  p.final_norm = weights.final_norm;
  for (const LayerWeights& w : weights.layers) {
    LayerParameters<float> layer;
    layer.attn_norm = w.attn_norm;
    layer.qkv = w.qkv;
    layer.qkv_bias = w.qkv_bias;
    layer.sinks = w.sinks;
    layer.out = w.out;
    layer.out_bias = w.out_bias;
    layer.mlp_norm = w.mlp_norm;
    layer.router = w.router;
    layer.router_bias = w.router_bias;
    layer.gate_up = w.gate_up;
    layer.gate_up_bias = w.gate_up_bias;
    layer.down = w.down;
    layer.down_bias = w.down_bias;
    p.layers.push_back(layer);
  }
  return p;
}

}  // namespace gptoss
