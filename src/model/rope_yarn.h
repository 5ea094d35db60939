// Rotary angles with YaRN scaling: "NTK by parts" (arXiv 2309.00071, section 3.2), bounds not rounded, in float as the
// official code computes them (gpt_oss/torch/model.py, RotaryEmbedding).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "checkpoint/model_config.h"

namespace gptoss {

struct RopeTable {
  std::vector<float> inverse_frequencies;  // [head_dim / 2]
  float concentration = 1.0f;              // factor of cos and sin: 0.1 ln(factor) + 1

  /// cos and sin of every position, concentration included: [positions, head_dim / 2] each.
  void Angles(std::span<const int32_t> positions, float* cos, float* sin) const;
};

RopeTable MakeRopeTable(const ModelConfig& config);

}  // namespace gptoss
