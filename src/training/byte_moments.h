// AdamW's moments in eight bits (after Dettmers et al., arXiv 2110.02861): blocks of 256 values with a float scale
// each, codes that are dense near zero. A weight's two moments take 2.03 bytes instead of 8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "training/adamw.h"

namespace gptoss {

inline constexpr size_t kMomentBlock = 256;
constexpr size_t MomentBlocks(size_t count) { return (count + kMomentBlock - 1) / kMomentBlock; }

/// Code c stands for scale * (c / largest code)^4, of m with c's sign; scale is the block's largest magnitude. Relative
/// errors of m are below 3 % from a tenth of the scale up and below 20 % from 1e-4 of it up; of v half as much.
struct ByteMoments {
  std::span<int8_t> m;                // [n]
  std::span<uint8_t> v;               // [n]; 0 for zero only, so that no step is divided by what was rounded away
  std::span<float> m_scale, v_scale;  // [MomentBlocks(n)]
};

/// values [n] of one block to codes, and back. n is at most kMomentBlock.
void EncodeSigned(std::span<const float> values, std::span<int8_t> codes, float* scale);
void EncodeUnsigned(std::span<const float> values, std::span<uint8_t> codes, float* scale);
void DecodeSigned(std::span<const int8_t> codes, float scale, std::span<float> values);
void DecodeUnsigned(std::span<const uint8_t> codes, float scale, std::span<float> values);

/// AdamWUpdate with such moments: the same bits whatever is updated together, as long as it begins at a block.
void AdamWUpdate(const AdamWOptions& options, int64_t step, double learning_rate, double gradient_scale, bool decay,
                 std::span<const float> gradient, const ByteMoments& moments, std::span<float> values);

}  // namespace gptoss
