#include "ops/reference/decode_row.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "tensor/float_convert.h"
#include "tensor/mxfp4.h"
#include "tensor/q8.h"
#include "tensor/weight_layout.h"

namespace gptoss {

void DecodeRow(const WeightMatrix& w, int64_t row, std::vector<float>* out) {
  if (w.layout == WeightLayout::kRows8) {
    std::vector<std::byte> data(RowBytes(w.dtype, w.cols)), scales(RowScaleBytes(w.dtype, w.cols));
    UnpackRows8(w.dtype, w.cols, w.data, w.scales, row, 1, data.data(), scales.data());
    return DecodeRow({.dtype = w.dtype, .rows = 1, .cols = w.cols, .data = data.data(), .scales = scales.data()}, 0,
                     out);
  }
  out->resize(w.cols);
  const size_t cols = static_cast<size_t>(w.cols);
  const auto* bytes = reinterpret_cast<const uint8_t*>(w.Row(row));
  const auto* scales = reinterpret_cast<const uint8_t*>(w.RowScales(row));
  const auto* halves = reinterpret_cast<const uint16_t*>(bytes);
  switch (w.dtype) {
    case DType::kF32:
      std::memcpy(out->data(), bytes, cols * sizeof(float));
      break;
    case DType::kF16:
      std::transform(halves, halves + cols, out->begin(), F16ToF32);
      break;
    case DType::kBF16:
      std::transform(halves, halves + cols, out->begin(), Bf16ToF32);
      break;
    case DType::kMxfp4:
      DecodeMxfp4({bytes, cols / 2}, {scales, cols / kBlockSize}, *out);
      break;
    case DType::kQ8_0:
      DecodeQ8({reinterpret_cast<const int8_t*>(bytes), cols},
               {reinterpret_cast<const uint16_t*>(scales), cols / kBlockSize}, *out);
      break;
    case DType::kU8:
      GPTOSS_CHECK(false);
      break;
  }
}

}  // namespace gptoss
