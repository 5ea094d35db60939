// The tensors as a loaded model holds them: the canonical ones, with q, k and v of a layer as one matrix and one bias.
// The packed form stores these; loading the public forms makes them.
#pragma once

#include <cstddef>
#include <vector>

#include "checkpoint/tensor_spec.h"

namespace gptoss {

struct HeldSpec {
  /// A canonical name, or layers.N.qkv.weight [(heads + 2 kv_heads) * head_dim, H] and layers.N.qkv.bias.
  TensorSpec spec;
  /// Indices into CanonicalTensors of the tensors whose rows (of a bias: elements) follow one another in this one.
  std::vector<size_t> parts;
};

/// All of them in the order of use: the embedding, layer by layer, final norm, unembedding.
std::vector<HeldSpec> HeldTensors(const ModelConfig& config);

/// True for what is always held as float: norms, biases, sinks, routers.
bool IsHeldAsFloat(const TensorSpec& spec);

}  // namespace gptoss
