#include "training/adamw.h"

#include <cmath>
#include <cstddef>

namespace gptoss {

void AdamWUpdate(const AdamWOptions& options, int64_t step, double learning_rate, double gradient_scale, bool decay,
                 std::span<const float> gradient, std::span<float> m, std::span<float> v, std::span<float> values) {
  const auto beta1 = static_cast<float>(options.beta1), beta2 = static_cast<float>(options.beta2);
  const auto scale = static_cast<float>(gradient_scale), eps = static_cast<float>(options.eps);
  const auto t = static_cast<double>(step);
  // The bias corrections of both moments, folded into the rate and the second moment's factor.
  const auto rate = static_cast<float>(learning_rate / (1.0 - std::pow(options.beta1, t)));
  const auto v_scale = static_cast<float>(1.0 / (1.0 - std::pow(options.beta2, t)));
  const auto keep = static_cast<float>(1.0 - (decay ? learning_rate * options.weight_decay : 0.0));
  for (size_t i = 0; i < values.size(); ++i) {
    const float g = gradient[i] * scale;
    m[i] = beta1 * m[i] + (1.0f - beta1) * g;
    v[i] = beta2 * v[i] + (1.0f - beta2) * g * g;
    values[i] = keep * values[i] - rate * m[i] / (std::sqrt(v[i] * v_scale) + eps);
  }
}

}  // namespace gptoss
