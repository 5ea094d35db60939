// One row of a matrix of any type and layout, for the plain implementations.
#pragma once

#include <vector>

#include "ops/ops.h"

namespace gptoss {

/// Row `row` (of experts' matrices counted through all of them), widened to float. Exact for every dtype.
void DecodeRow(const WeightMatrix& w, int64_t row, std::vector<float>* out);

}  // namespace gptoss
