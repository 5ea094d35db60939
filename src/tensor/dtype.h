// Element types of weights and caches, as they lie in memory.
#pragma once

#include <cstdint>
#include <string_view>

namespace gptoss {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kU8,
  kMxfp4,  // 32 values share one E8M0 scale: codes and scales in two arrays (tensor/mxfp4.h)
  kQ8_0,   // 32 values share one F16 scale: int8 quants and scales in two arrays (tensor/q8.h)
};

/// Values that share one scale, for the two block formats.
inline constexpr int kBlockSize = 32;

std::string_view DTypeName(DType dtype);

constexpr bool HasScales(DType d) { return d == DType::kMxfp4 || d == DType::kQ8_0; }

/// Bytes of a row of `cols` values without scales. For the block formats cols must be a multiple of 32.
constexpr uint64_t RowBytes(DType d, uint64_t cols) {
  switch (d) {
    case DType::kF32:
      return cols * 4;
    case DType::kF16:
    case DType::kBF16:
      return cols * 2;
    case DType::kU8:
    case DType::kQ8_0:
      return cols;
    case DType::kMxfp4:
      return cols / 2;
  }
  return 0;
}

/// Bytes of a row's scales: one byte a block for MXFP4, two for Q8_0, none otherwise.
constexpr uint64_t RowScaleBytes(DType d, uint64_t cols) {
  switch (d) {
    case DType::kMxfp4:
      return cols / kBlockSize;
    case DType::kQ8_0:
      return cols / kBlockSize * 2;
    default:
      return 0;
  }
}

}  // namespace gptoss
