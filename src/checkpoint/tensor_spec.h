// The one canonical set of tensors of a gpt-oss model. Every format maps its names and layouts onto these.
//
// Canonical names, with N the layer; weights are [outputs, inputs], row-major:
//   embedding [V, H] · final_norm [H] · unembedding [V, H]
//   layers.N.attn_norm [H] · layers.N.{q,k,v}.{weight,bias} · layers.N.sinks [heads] · layers.N.out.{weight,bias}
//   layers.N.mlp_norm [H] · layers.N.router.{weight,bias}
//   layers.N.gate_up.weight [E, 2I, H] (row 2i = gate i, row 2i+1 = up i) · layers.N.gate_up.bias [E, 2I]
//   layers.N.down.weight [E, H, I] · layers.N.down.bias [E, H]
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/model_config.h"
#include "tensor/dtype.h"

namespace gptoss {

struct TensorSpec {
  std::string name;               // canonical
  std::vector<uint64_t> shape;    // outermost first
  bool is_expert_weight = false;  // MXFP4 in the published files

  uint64_t cols() const { return shape.back(); }
  uint64_t rows() const {
    uint64_t n = 1;
    for (size_t i = 0; i + 1 < shape.size(); ++i) n *= shape[i];
    return n;
  }
};

/// All tensors of the model: the embedding, then layer by layer in order of use, then final norm and unembedding.
/// A vector such as a bias has one row.
std::vector<TensorSpec> CanonicalTensors(const ModelConfig& config);

}  // namespace gptoss
