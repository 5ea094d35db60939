// Arrangements of weights other than row by row.
//
// kRows8, for MXFP4 and Q8_0: eight rows side by side. Group g holds rows 8g … 8g + 7; in it, block after block of 32
// columns; of a block, bytes 0 to 3 of row 8g, of row 8g + 1 … 8g + 7, then bytes 4 to 7 of all eight, and so on.
// Scales lie as [group][block][8]. A group takes the same bytes of codes and of scales as its rows would row by row, at
// the same place, so an array can be packed in parts of whole groups. Rows must be a multiple of 8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "tensor/dtype.h"

namespace gptoss {

/// How a matrix lies in memory. A kernel checks the id before it reads.
enum class WeightLayout : uint8_t {
  kRowMajor,  // canonical: rows of codes, then a separate array of scales (tensor/dtype.h)
  kRows8,     // eight rows side by side
};

/// "row-major" and "rows8", the names in packed files. An unknown name gives none.
std::string_view WeightLayoutName(WeightLayout layout);
std::optional<WeightLayout> WeightLayoutOf(std::string_view name);

/// Rows that lie side by side in kRows8.
inline constexpr int kRowGroup = 8;

/// `layout` can hold matrices of this type and size. Columns are a multiple of 32 for the block formats.
bool LayoutHolds(WeightLayout layout, DType dtype, int64_t rows);

/// Rearranges `rows` rows (a multiple of kRowGroup) of `cols` columns from row by row to kRows8. Inputs and outputs
/// have the same sizes, rows * RowBytes and rows * RowScaleBytes, and do not overlap. dtype: kMxfp4 or kQ8_0.
void PackRows8(DType dtype, int64_t rows, int64_t cols, std::span<const std::byte> data,
               std::span<const std::byte> scales, std::span<std::byte> packed_data, std::span<std::byte> packed_scales);

/// The opposite for rows `first` … first + count - 1 of a matrix that lies as kRows8 from `packed_data` and
/// `packed_scales` on. Writes count * RowBytes and count * RowScaleBytes.
void UnpackRows8(DType dtype, int64_t cols, const std::byte* packed_data, const std::byte* packed_scales, int64_t first,
                 int64_t count, std::byte* data, std::byte* scales);

}  // namespace gptoss
