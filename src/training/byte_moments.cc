#include "training/byte_moments.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace gptoss {
namespace {

constexpr int kLargestSigned = 127, kLargestUnsigned = 255;

/// (c / largest)^4 for every code.
template <int kLargest>
constexpr std::array<float, kLargest + 1> MakePowers() {
  std::array<float, kLargest + 1> powers{};
  for (int c = 0; c <= kLargest; ++c) {
    const double share = static_cast<double>(c) / kLargest;
    powers[static_cast<size_t>(c)] = static_cast<float>(share * share * share * share);
  }
  return powers;
}
constexpr auto kSigned = MakePowers<kLargestSigned>();
constexpr auto kUnsigned = MakePowers<kLargestUnsigned>();

float LargestMagnitude(std::span<const float> values) {
  float largest = 0.0f;
  for (const float v : values) largest = std::max(largest, std::abs(v));
  return largest;
}

/// Nearest in the fourth root, of a magnitude in [0, scale].
int Code(float magnitude, float scale, int largest) {
  const float root = std::sqrt(std::sqrt(magnitude / scale));
  return std::min(largest, static_cast<int>(root * static_cast<float>(largest) + 0.5f));
}

}  // namespace

void EncodeSigned(std::span<const float> values, std::span<int8_t> codes, float* scale) {
  *scale = LargestMagnitude(values);
  for (size_t i = 0; i < values.size(); ++i) {
    const int code = *scale > 0.0f ? Code(std::abs(values[i]), *scale, kLargestSigned) : 0;
    codes[i] = static_cast<int8_t>(values[i] < 0.0f ? -code : code);
  }
}

void EncodeUnsigned(std::span<const float> values, std::span<uint8_t> codes, float* scale) {
  *scale = LargestMagnitude(values);
  for (size_t i = 0; i < values.size(); ++i) {
    codes[i] = values[i] > 0.0f ? static_cast<uint8_t>(std::max(1, Code(values[i], *scale, kLargestUnsigned))) : 0;
  }
}

void DecodeSigned(std::span<const int8_t> codes, float scale, std::span<float> values) {
  for (size_t i = 0; i < codes.size(); ++i) {
    const float magnitude = scale * kSigned[static_cast<size_t>(std::abs(codes[i]))];
    values[i] = codes[i] < 0 ? -magnitude : magnitude;
  }
}

void DecodeUnsigned(std::span<const uint8_t> codes, float scale, std::span<float> values) {
  for (size_t i = 0; i < codes.size(); ++i) values[i] = scale * kUnsigned[codes[i]];
}

void AdamWUpdate(const AdamWOptions& options, int64_t step, double learning_rate, double gradient_scale, bool decay,
                 std::span<const float> gradient, const ByteMoments& moments, std::span<float> values) {
  std::array<float, kMomentBlock> m, v;
  for (size_t block = 0; block < MomentBlocks(values.size()); ++block) {
    const size_t first = block * kMomentBlock, n = std::min(kMomentBlock, values.size() - first);
    const std::span<float> m_now(m.data(), n), v_now(v.data(), n);
    DecodeSigned(moments.m.subspan(first, n), moments.m_scale[block], m_now);
    DecodeUnsigned(moments.v.subspan(first, n), moments.v_scale[block], v_now);
    AdamWUpdate(options, step, learning_rate, gradient_scale, decay, gradient.subspan(first, n), m_now, v_now,
                values.subspan(first, n));
    EncodeSigned(m_now, moments.m.subspan(first, n), &moments.m_scale[block]);
    EncodeUnsigned(v_now, moments.v.subspan(first, n), &moments.v_scale[block]);
  }
}

}  // namespace gptoss
