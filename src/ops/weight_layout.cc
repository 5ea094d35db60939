#include "ops/weight_layout.h"

#include <cstring>

#include "base/check.h"

namespace gptoss {
namespace {

constexpr int64_t kWord = 4;  // bytes of a row that lie together

}  // namespace

bool LayoutHolds(WeightLayout layout, DType dtype, int64_t rows) {
  return layout == WeightLayout::kRowMajor || (HasScales(dtype) && rows % kRowGroup == 0);
}

void PackRows8(DType dtype, int64_t rows, int64_t cols, std::span<const std::byte> data,
               std::span<const std::byte> scales, std::span<std::byte> packed_data,
               std::span<std::byte> packed_scales) {
  GPTOSS_CHECK(HasScales(dtype) && rows % kRowGroup == 0 && cols % kBlockSize == 0);
  const auto row_bytes = static_cast<int64_t>(RowBytes(dtype, static_cast<uint64_t>(cols)));
  const auto scale_bytes = static_cast<int64_t>(RowScaleBytes(dtype, kBlockSize));
  const int64_t words = row_bytes / kWord, blocks = cols / kBlockSize;
  GPTOSS_CHECK(static_cast<int64_t>(data.size()) == rows * row_bytes && packed_data.size() == data.size());
  GPTOSS_CHECK(static_cast<int64_t>(scales.size()) == rows * blocks * scale_bytes &&
               packed_scales.size() == scales.size());
  for (int64_t first = 0; first < rows; first += kRowGroup) {
    const std::byte* from = data.data() + first * row_bytes;
    std::byte* to = packed_data.data() + first * row_bytes;
    for (int64_t w = 0; w < words; ++w) {
      for (int64_t r = 0; r < kRowGroup; ++r) {
        std::memcpy(to + (w * kRowGroup + r) * kWord, from + r * row_bytes + w * kWord, kWord);
      }
    }
    from = scales.data() + first * blocks * scale_bytes;
    to = packed_scales.data() + first * blocks * scale_bytes;
    for (int64_t b = 0; b < blocks; ++b) {
      for (int64_t r = 0; r < kRowGroup; ++r) {
        std::memcpy(to + (b * kRowGroup + r) * scale_bytes, from + (r * blocks + b) * scale_bytes,
                    static_cast<size_t>(scale_bytes));
      }
    }
  }
}

void UnpackRows8(const WeightMatrix& w, int64_t row, std::byte* data, std::byte* scales) {
  GPTOSS_CHECK(w.layout == WeightLayout::kRows8);
  const auto row_bytes = static_cast<int64_t>(RowBytes(w.dtype, static_cast<uint64_t>(w.cols)));
  const auto scale_bytes = static_cast<int64_t>(RowScaleBytes(w.dtype, kBlockSize));
  const int64_t first = row / kRowGroup * kRowGroup, lane = row % kRowGroup;
  const std::byte *from = w.Row(first), *from_scales = w.RowScales(first);
  for (int64_t i = 0; i < row_bytes / kWord; ++i) {
    std::memcpy(data + i * kWord, from + (i * kRowGroup + lane) * kWord, kWord);
  }
  for (int64_t b = 0; b < w.cols / kBlockSize; ++b) {
    std::memcpy(scales + b * scale_bytes, from_scales + (b * kRowGroup + lane) * scale_bytes,
                static_cast<size_t>(scale_bytes));
  }
}

}  // namespace gptoss
