// The weights of one model as the ops read them, in one block of memory.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "ops/ops.h"
#include "parallel/device.h"

namespace gptoss {

struct LayerWeights {
  const float* attn_norm;  // [H]
  WeightMatrix qkv;        // [(heads + 2 kv_heads) * head_dim, H]
  const float* qkv_bias;
  const float* sinks;  // [heads]
  WeightMatrix out;    // [H, heads * head_dim]
  const float* out_bias;
  const float* mlp_norm;  // [H]
  WeightMatrix router;    // [E, H], float
  const float* router_bias;
  WeightMatrix gate_up;  // E × [2I, H]
  const float* gate_up_bias;
  WeightMatrix down;  // E × [H, I]
  const float* down_bias;
};

/// How attention and output matrices are held. Experts are always held as stored.
enum class DensePrecision {
  /// Attention's output projection and the unembedding in Q8_0 (int8 in groups of 32, made at load unless stored so);
  /// q, k
  /// and v as stored, since rounding them alone costs most of what the accuracy gate allows (docs/numerics.md).
  kDefault,
  kInt8,      // q, k and v in Q8_0 too: smaller and faster, and beyond the gate
  kAsStored,  // nothing converted: BF16 for the published safetensors
};

/// Owns the memory. Everything points into `memory`, on `device`; on the host, too, into the mapped file of a packed
/// checkpoint, and the embedding into that of another one. The file is kept open then.
struct ModelWeights {
  ModelConfig config;
  WeightMatrix embedding;  // [V, H]
  std::vector<LayerWeights> layers;
  const float* final_norm;   // [H]
  WeightMatrix unembedding;  // [V, H]

  Device* device = &HostDevice();
  DeviceBuffer memory;
  /// Of the first `host_layers` layers the second half (mlp_norm to down_bias) is here, for the host to compute.
  int host_layers = 0;
  DeviceBuffer host_memory;
  std::shared_ptr<const Checkpoint> source;  // set only while something points into its mapping

  /// Lets go of the embedding rows that were read from the mapped file, so that they do not add up over a long run.
  void ReleaseMappedPages() const;
};

/// Bytes by purpose, known before anything is read. Those of a packed file count too: mapped pages that every token
/// needs are memory, whoever could reclaim them.
struct WeightPlan {
  uint64_t experts = 0;
  uint64_t attention = 0;
  uint64_t embedding = 0;         // 0 when the embedding is read from the mapped file
  uint64_t mapped_embedding = 0;  // then this; dropped as it is read, so not in total()
  uint64_t unembedding = 0;
  uint64_t small = 0;      // norms, biases, sinks, routers: all in float
  uint64_t layer_mlp = 0;  // of the above: norm, router and experts of one layer; all layers are alike
  uint64_t total() const { return experts + attention + embedding + unembedding + small; }
};
WeightPlan PlanWeights(const Checkpoint& checkpoint, DensePrecision dense);

/// Where weights go, and the arrangements that the ops there read fastest.
struct WeightPlacement {
  Device* device = &HostDevice();  // must outlive the weights
  WeightLayout layout = WeightLayout::kRowMajor;
  /// Beside another device than the host: layers, the first ones, whose norm, router and experts stay on the host.
  int host_layers = 0;
  WeightLayout host_layout = WeightLayout::kRowMajor;
};

/// Reads all weights, converting while reading, with a few threads for each of the pool's; they are never held twice.
/// On the host a packed checkpoint is mapped instead. On failure: the checkpoint's error, kResourceExhausted when
/// memory cannot be had, kCancelled by `progress`; kUnsupported when a packed file holds another precision than
/// `dense`, or a layout that this build cannot read.
Result<ModelWeights> LoadWeights(std::shared_ptr<const Checkpoint> checkpoint, DensePrecision dense, ThreadPool& pool,
                                 WriteProgress* progress = nullptr, const WeightPlacement& placement = {});

}  // namespace gptoss
