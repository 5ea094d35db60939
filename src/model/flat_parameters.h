// All trained parameters of a model in one array, tensor after tensor in canonical order. q, k and v lie side by side
// there, so that they are one matrix (and one bias) without being copied.
#pragma once

#include <cstddef>
#include <functional>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/gpt_oss_backward.h"

namespace gptoss {

struct FlatTensor {
  TensorSpec spec;  // canonical
  size_t offset = 0;
  size_t count = 0;
};

class FlatLayout {
 public:
  explicit FlatLayout(const ModelConfig& config);

  const ModelConfig& config() const { return config_; }
  const std::vector<FlatTensor>& tensors() const { return tensors_; }  // as CanonicalTensors
  size_t size() const { return size_; }
  /// The tensor of this canonical name, which must exist.
  const FlatTensor& Find(std::string_view name) const;

 private:
  ModelConfig config_;
  std::vector<FlatTensor> tensors_;
  size_t size_ = 0;
};

/// `values` has layout.size() elements and must outlive the result. T: float or double.
template <typename T>
ModelParameters<T> BindParameters(const FlatLayout& layout, const T* values);

/// Gradients go to the places that their parameters have; tensors for which `wanted` is false are left out. q, k and v
/// of a layer count as one: if any of them is wanted, all are computed.
template <typename T>
ModelGradients<T> BindGradients(const FlatLayout& layout, T* values,
                                const std::function<bool(const TensorSpec&)>& wanted);

/// All tensors of the checkpoint widened to float, exactly. On failure: the checkpoint's error.
Result<std::vector<float>> ReadFlatParameters(const Checkpoint& checkpoint, const FlatLayout& layout);

}  // namespace gptoss
