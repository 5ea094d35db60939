#include "tensor/q8.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "tensor/float_convert.h"

namespace gptoss {

void EncodeQ8(std::span<const float> values, std::span<int8_t> quants, std::span<uint16_t> scales) {
  constexpr size_t kBlock = 32;
  for (size_t b = 0; b < values.size() / kBlock; ++b) {
    const float* v = values.data() + b * kBlock;
    float amax = 0.0f;
    for (size_t j = 0; j < kBlock; ++j) amax = std::max(amax, std::abs(v[j]));
    const float scale = amax / 127.0f;
    const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    scales[b] = F32ToF16(scale);
    for (size_t j = 0; j < kBlock; ++j) {
      // copysign(0.5) and truncation is round-half-away without a library call, so that the loop vectorises.
      const float scaled = v[j] * inverse;
      quants[b * kBlock + j] = static_cast<int8_t>(static_cast<int32_t>(scaled + std::copysign(0.5f, scaled)));
    }
  }
}

void DecodeQ8(std::span<const int8_t> quants, std::span<const uint16_t> scales, std::span<float> values) {
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(quants[i]) * F16ToF32(scales[i / 32]);
}

}  // namespace gptoss
