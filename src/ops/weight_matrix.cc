#include "ops/ops.h"

namespace gptoss {
namespace {

constexpr uint64_t kAlignment = 64;  // of the scales behind the codes

}  // namespace

uint64_t BroughtBytes(const WeightMatrix& weight, int64_t count) {
  const uint64_t rows = static_cast<uint64_t>(count) * static_cast<uint64_t>(weight.rows);
  const auto cols = static_cast<uint64_t>(weight.cols);
  const uint64_t codes = rows * RowBytes(weight.dtype, cols);
  return (codes + kAlignment - 1) / kAlignment * kAlignment + rows * RowScaleBytes(weight.dtype, cols);
}

}  // namespace gptoss
