// AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2), in one pass over a tensor.
#pragma once

#include <cstdint>
#include <span>

namespace gptoss {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.0;
};

/// One update of `values`, with moments `m` and `v`, all of one size. `step` counts updates from 1; `gradient` is
/// multiplied by `gradient_scale` (clipping). Elementwise: the same bits whatever is updated together.
void AdamWUpdate(const AdamWOptions& options, int64_t step, double learning_rate, double gradient_scale, bool decay,
                 std::span<const float> gradient, std::span<float> m, std::span<float> v, std::span<float> values);

}  // namespace gptoss
