#include "model/rope_yarn.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace gptoss {

RopeTable MakeRopeTable(const ModelConfig& config) {
  const int half = config.head_dim / 2;
  RopeTable table;
  table.inverse_frequencies.resize(half);
  const bool scaled = config.rope_factor > 1.0;
  if (scaled) table.concentration = static_cast<float>(0.1 * std::log(config.rope_factor) + 1.0);
  // Dimension at which the rotation over the initial context makes `turns` full turns.
  const auto dimension_of = [&](double turns) {
    return half * std::log(config.rope_initial_context / (turns * 2 * std::numbers::pi)) / std::log(config.rope_theta);
  };
  const auto low = static_cast<float>(dimension_of(config.rope_beta_fast));
  const auto range = static_cast<float>(dimension_of(config.rope_beta_slow) - dimension_of(config.rope_beta_fast));
  for (int i = 0; i < half; ++i) {
    const auto exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    const auto frequency = static_cast<float>(std::pow(config.rope_theta, static_cast<double>(exponent)));
    const float extrapolated = 1.0f / frequency;
    const float interpolated = 1.0f / (static_cast<float>(config.rope_factor) * frequency);
    const float keep = 1.0f - std::clamp((static_cast<float>(i) - low) / range, 0.0f, 1.0f);
    table.inverse_frequencies[i] = scaled ? interpolated * (1.0f - keep) + extrapolated * keep : extrapolated;
  }
  return table;
}

void RopeTable::Angles(std::span<const int32_t> positions, float* cos, float* sin) const {
  const size_t half = inverse_frequencies.size();
  for (size_t t = 0; t < positions.size(); ++t) {
    for (size_t i = 0; i < half; ++i) {
      // The angle is rounded to float, as in the official code; its cosine is then correctly rounded through double.
      const double angle = static_cast<double>(static_cast<float>(positions[t]) * inverse_frequencies[i]);
      cos[t * half + i] = static_cast<float>(std::cos(angle)) * concentration;
      sin[t * half + i] = static_cast<float>(std::sin(angle)) * concentration;
    }
  }
}

}  // namespace gptoss
