// What a trainer trains: the values that change, as one array of named tensors, and how a model's passes read them and
// give their gradients. Either all weights of a model (or some), or an adapter beside frozen ones.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/adapter.h"
#include "model/flat_parameters.h"
#include "model/weights.h"

namespace gptoss {

class TrainedModel {
 public:
  virtual ~TrainedModel() = default;
  const ModelConfig& config() const { return layout_.config(); }
  /// Of the whole model, trained or not.
  const FlatLayout& layout() const { return layout_; }

  /// Tensors of the trained array, and its size.
  virtual const std::vector<FlatTensor>& tensors() const = 0;
  virtual size_t size() const = 0;
  /// Whether a tensor of that array changes.
  virtual bool IsTrained(const TensorSpec& spec) const = 0;
  /// What a resumed run must have in common with the one before, besides configuration and data.
  virtual Json Identity() const = 0;

  /// The parameters of a pass with these values after `step` updates; valid until the next call. `values` [size()] must
  /// outlive their use. On failure: kInvalidArgument when values are not finite and have to be rounded.
  virtual Result<ModelParameters<float>> Parameters(std::span<const float> values, int64_t step) = 0;
  /// Where a pass adds gradients. `gradient` is [size()].
  virtual ModelGradients<float> Gradients(float* gradient) = 0;
  /// To be called after the passes of one step: completes `gradient`.
  virtual void Collect(float* /*gradient*/) {}

 protected:
  explicit TrainedModel(const ModelConfig& config) : layout_(config) {}
  FlatLayout layout_;
};

/// All weights in float. `trained`: ends of canonical names that change; empty: all. With `round_experts` passes see
/// the experts as MXFP4 from update `round_from` on. On failure: kInvalidArgument naming an end that no tensor has.
Result<std::unique_ptr<TrainedModel>> TrainWeights(const ModelConfig& config, const std::vector<std::string>& trained,
                                                   bool round_experts, int64_t round_from);

/// An adapter beside frozen weights of any type, which must outlive the model. `options` have been checked;
/// `base` names the weights in states.
std::unique_ptr<TrainedModel> TrainAdapter(const ModelWeights& weights, const AdapterOptions& options,
                                           const std::string& base);

/// The weights as a pass of training reads them.
ModelParameters<float> FrozenParameters(const ModelWeights& weights);

}  // namespace gptoss
