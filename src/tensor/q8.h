// Q8_0 as this program holds it: per row of K values, K int8 quants and K/32 binary16 scales, in two arrays.
// Value = quant * scale. Same numbers as ggml's block_q8_0, other order in memory.
#pragma once

#include <cstdint>
#include <span>

namespace gptoss {

/// Quantises values.size() floats (a multiple of 32): scale = absmax / 127 rounded to binary16, quants = round to
/// nearest (ties away from zero) of value * 127 / absmax, as ggml's reference does. Values must be finite.
void EncodeQ8(std::span<const float> values, std::span<int8_t> quants, std::span<uint16_t> scales);

void DecodeQ8(std::span<const int8_t> quants, std::span<const uint16_t> scales, std::span<float> values);

}  // namespace gptoss
