// Where the canonical tensors lie in the two safetensors layouts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/model_config.h"

namespace gptoss {

/// One canonical tensor's place: all of the file's tensor `name`, or a part of it.
struct LayoutTensor {
  std::string name;                         // values, or MXFP4 codes
  std::vector<uint64_t> shape;              // of `name` in the file
  std::string scales_name = {};             // MXFP4 scales; empty for plain tensors
  std::vector<uint64_t> scales_shape = {};  // of `scales_name`
  uint64_t first_element = 0;               // the canonical tensor begins here within `name`, in row-major order
  bool transposed = false;                  // each expert's matrix lies as [cols, rows]
};

/// Both give one element for each of CanonicalTensors(config), in that order.
/// Source: transformers' modeling_gpt_oss.py; the released model.safetensors.index.json.
/// `plain_experts`: as Transformers saves a model whose experts are not quantised, [E, inputs, outputs].
std::vector<LayoutTensor> HfLayout(const ModelConfig& config, bool plain_experts = false);
/// Source: gpt_oss/torch/weights.py and model.py of github.com/openai/gpt-oss.
std::vector<LayoutTensor> OriginalLayout(const ModelConfig& config);

/// Tensors that some savers add and that hold no weights (precomputed rotary frequencies); they are ignored.
bool IsIgnorableTensor(const std::string& name);

}  // namespace gptoss
