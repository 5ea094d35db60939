#include "tensor/weight_layout.h"

#include <array>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace gptoss {
namespace {

constexpr int64_t kWord = 4;  // bytes of a row that lie together

constexpr std::array<std::pair<WeightLayout, std::string_view>, 2> kNames = {
    {{WeightLayout::kRowMajor, "row-major"}, {WeightLayout::kRows8, "rows8"}}};

}  // namespace

std::string_view WeightLayoutName(WeightLayout layout) {
  for (const auto& [id, name] : kNames) {
    if (id == layout) return name;
  }
  GPTOSS_CHECK(false && "every layout has a name");
  return {};
}

std::optional<WeightLayout> WeightLayoutOf(std::string_view name) {
  for (const auto& [id, own] : kNames) {
    if (own == name) return id;
  }
  return std::nullopt;
}

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

void UnpackRows8(DType dtype, int64_t cols, const std::byte* packed_data, const std::byte* packed_scales, int64_t first,
                 int64_t count, std::byte* data, std::byte* scales) {
  const auto row_bytes = static_cast<int64_t>(RowBytes(dtype, static_cast<uint64_t>(cols)));
  const auto scale_bytes = static_cast<int64_t>(RowScaleBytes(dtype, kBlockSize));
  const int64_t blocks = cols / kBlockSize;
  for (int64_t row = first; row < first + count; ++row) {
    const int64_t group = row / kRowGroup * kRowGroup, lane = row % kRowGroup;
    const std::byte* from = packed_data + group * row_bytes;
    for (int64_t i = 0; i < row_bytes / kWord; ++i, data += kWord) {
      std::memcpy(data, from + (i * kRowGroup + lane) * kWord, kWord);
    }
    from = packed_scales + group * blocks * scale_bytes;
    for (int64_t b = 0; b < blocks; ++b, scales += scale_bytes) {
      std::memcpy(scales, from + (b * kRowGroup + lane) * scale_bytes, static_cast<size_t>(scale_bytes));
    }
  }
}

}  // namespace gptoss
