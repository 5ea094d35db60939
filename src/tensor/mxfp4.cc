#include "tensor/mxfp4.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace gptoss {
namespace {

constexpr size_t kBlock = 32;

/// Code of the nearest of {0, .5, 1, 1.5, 2, 3, 4, 6} to `a` >= 0; a tie goes to the even code.
uint8_t NearestMagnitude(float a) {
  constexpr float kMidpoints[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};
  uint8_t code = 0;
  for (uint8_t i = 0; i < 7; ++i) {
    const bool tie_goes_up = i % 2 == 1;  // between codes i and i+1 the even one is i+1
    if (a > kMidpoints[i] || (a == kMidpoints[i] && tie_goes_up)) code = i + 1;
  }
  return code;
}

}  // namespace

void DecodeMxfp4(std::span<const uint8_t> codes, std::span<const uint8_t> scales, std::span<float> values) {
  for (size_t i = 0; i < values.size(); ++i) {
    const uint8_t byte = codes[i / 2];
    // The official code scales with ldexp. A product with 2^128 (scale 255) differs for no code: 0 * inf is NaN in
    // both.
    values[i] = kFp4Values[i % 2 == 0 ? byte & 15 : byte >> 4] * E8m0ToF32(scales[i / kBlock]);
  }
}

void EncodeMxfp4(std::span<const float> values, std::span<uint8_t> codes, std::span<uint8_t> scales) {
  for (size_t block = 0; block < values.size() / kBlock; ++block) {
    const std::span<const float> in = values.subspan(block * kBlock, kBlock);
    float amax = 0.0f;
    for (float v : in) amax = std::max(amax, std::abs(v));
    const int exponent = amax == 0.0f ? -127 : std::clamp(std::ilogb(amax) - 2, -127, 127);
    scales[block] = static_cast<uint8_t>(exponent + 127);
    for (size_t j = 0; j < kBlock; ++j) {
      const uint8_t magnitude = NearestMagnitude(std::ldexp(std::abs(in[j]), -exponent));
      const uint8_t code = magnitude | (std::signbit(in[j]) ? 8 : 0);
      uint8_t& byte = codes[block * (kBlock / 2) + j / 2];
      byte = j % 2 == 0 ? code : static_cast<uint8_t>(byte | code << 4);
    }
  }
}

}  // namespace gptoss
