// Adapters of low rank (LoRA, Hu et al., arXiv 2106.09685) beside the frozen matrices of a model: which tensors they
// have, and how the passes of training and of inference read them.
//
// A target is a canonical weight's name without layer and ".weight": q, k, v, out, router, gate_up, down, unembedding.
// With W [rows, cols] of a target, `lora_a` is [rank, cols] and `lora_b` [rows, rank]; experts have one pair each, as
// [E, rank, cols] and [E, rows, rank]. The layer computes W x + bias + alpha / rank * lora_b (lora_a x).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/flat_parameters.h"
#include "ops/ops.h"
#include "parallel/device.h"

namespace gptoss {

struct AdapterOptions {
  int rank = 8;
  double alpha = 16;
  std::vector<std::string> targets = {"q", "k", "v", "out", "gate_up", "down"};
  double scale() const { return alpha / rank; }
  bool operator==(const AdapterOptions&) const = default;
};

/// Replaces the groups "attention" (q, k, v, out), "experts" (gate_up, down), "all", and the names of the Hugging Face
/// layout (q_proj, o_proj, gate_up_proj, lm_head, …) by targets, in the model's order and once each.
/// On failure: kInvalidArgument naming what is no target, a rank outside [1, 1024], or an alpha that is not above 0.
Result<AdapterOptions> CheckAdapter(AdapterOptions options);

/// All tensors of an adapter, one after the other in one array. `options` have been checked.
class AdapterLayout {
 public:
  AdapterLayout(const ModelConfig& config, const AdapterOptions& options);
  const ModelConfig& config() const { return config_; }
  const AdapterOptions& options() const { return options_; }
  /// "layers.N.TARGET.lora_a", "layers.N.TARGET.lora_b", "unembedding.lora_a", …
  const std::vector<FlatTensor>& tensors() const { return tensors_; }
  size_t size() const { return size_; }
  bool Has(std::string_view target) const;
  /// Null when the adapter has no such tensor.
  const FlatTensor* Find(std::string_view name) const;

 private:
  void Add(const std::string& name, std::vector<uint64_t> shape);
  ModelConfig config_;
  AdapterOptions options_;
  std::vector<FlatTensor> tensors_;
  size_t size_ = 0;
};

/// lora_a uniform within 1 / sqrt(cols), lora_b 0, so that the adapted model begins as the frozen one.
std::vector<float> InitialAdapter(const AdapterLayout& layout, uint64_t seed);

/// How a pass of training reads an adapter. q, k and v are one matrix there: their lora_b become one block-diagonal
/// matrix, which this object holds. T: float or double.
template <typename T>
class AdapterBinding {
 public:
  explicit AdapterBinding(const AdapterLayout& layout);
  /// Puts the adapter of `values` [layout.size()] into `parameters`; to be called again when values have changed. Both
  /// this object and `values` must outlive the use of `parameters`.
  void Bind(const T* values, ModelParameters<T>* parameters);
  /// Likewise for gradients; afterwards CollectGradients puts those of q, k and v into their places.
  void BindGradients(T* gradient, ModelGradients<T>* gradients);
  void CollectGradients(T* gradient);

 private:
  struct Part {
    size_t offset;  // of lora_b in the array
    int64_t first_row, rows, first_col;
  };
  /// Where the first matrix (a) of q, k and v together begins in layer n.
  size_t FusedA(int n) const;
  LowRank<T> Of(const T* values, const std::string& name) const;
  LowRankGradient<T> GradientOf(T* gradient, const std::string& name) const;

  AdapterLayout layout_;
  int64_t fused_rank_ = 0;                // of q, k and v together
  std::vector<std::vector<Part>> parts_;  // [layers]
  std::vector<T> fused_b_, fused_db_;     // [layers, qkv_size, fused_rank]
};

/// Adapters as inference reads them: the ranks of each owner padded to a multiple of kRankStep, the scale inside b.
/// Those of one owner add up; each row of a batch says which owners take part in it.
class AdapterWeights {
 public:
  struct Layer {
    LowRankUpdate qkv, out, router, gate_up, down;
  };
  static constexpr int kMaxOwners = 32;

  /// `values` are those of the layouts, all of one model. At least one. owners [layouts], ascending and below
  /// kMaxOwners; empty: all of owner 0.
  static std::unique_ptr<AdapterWeights> Make(std::span<const AdapterLayout> layouts,
                                              std::span<const std::vector<float>> values,
                                              std::span<const uint8_t> owners = {});
  /// Copies everything to `device`, which must outlive this object; the ops of that device read it from then on. What
  /// belongs to router and experts of the first `host_layers` layers (ModelWeights) stays. On failure:
  /// kResourceExhausted.
  Status MoveTo(Device& device, int host_layers = 0);

  /// `active` as in LowRankUpdate.
  Layer layer(int n, std::span<const uint32_t> active = {}) const;
  LowRankUpdate unembedding(std::span<const uint32_t> active = {}) const;
  /// One more than the last owner.
  int owners() const { return num_owners_; }
  /// Of all updates; a multiple of kRankStep.
  int64_t largest_rank() const;
  std::span<const float> values() const { return memory_; }
  uint64_t bytes() const { return memory_.size() * sizeof(float); }

 private:
  std::vector<float> memory_;
  int num_owners_ = 1;
  std::vector<std::vector<uint8_t>> owners_;  // of the updates
  std::vector<Layer> layers_;
  LowRankUpdate unembedding_;
  DeviceBuffer on_device_;  // values, then owners
};

}  // namespace gptoss
