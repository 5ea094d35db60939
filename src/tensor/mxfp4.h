// MXFP4 as this program holds it: per row of K values, K/2 bytes of codes and K/32 scale bytes, in two arrays.
// Value = FP4[code] * 2^(scale - 127), FP4 = {0, .5, 1, 1.5, 2, 3, 4, 6}, bit 3 of a code is the sign. Byte j of a
// block holds element 2j in its low nibble and 2j+1 in its high nibble (the order of the published safetensors; GGUF
// differs and is reordered by its reader). Source: OCP Microscaling Formats v1.0, and gpt_oss/torch/weights.py.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <span>

namespace gptoss {

/// Twice the value of each code: small integers, so that integer kernels can use them as they are.
inline constexpr std::array<int8_t, 16> kFp4Doubled = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// FP4[code]; code 8 is -0.0.
inline constexpr std::array<float, 16> kFp4Values = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                                     -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

/// 2^(scale - 127) as float: exact, subnormal for 0; 255 gives infinity, as the official code does (the OCP text: NaN).
inline float E8m0ToF32(uint8_t scale) {
  return scale == 0 ? 0x1.0p-127f : std::bit_cast<float>(static_cast<uint32_t>(scale) << 23);
}

/// Decodes values.size() values (a multiple of 32) from codes (half as many bytes) and scales (one for 32).
void DecodeMxfp4(std::span<const uint8_t> codes, std::span<const uint8_t> scales, std::span<float> values);

/// Nearest MXFP4 of `values` (multiple of 32). The scale follows OCP v1.0: 2^(floor(log2(amax)) - 2); codes are rounded
/// to nearest, ties to even code, and saturate at 6. Values must be finite.
void EncodeMxfp4(std::span<const float> values, std::span<uint8_t> codes, std::span<uint8_t> scales);

}  // namespace gptoss
