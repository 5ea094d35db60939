#include "checkpoint/ggml_blocks.h"

#include <array>
#include <cstring>
#include <string_view>

#include "base/check.h"

namespace gptoss {
namespace {

constexpr size_t kMxfp4Block = 17;
constexpr size_t kQ8Block = 34;

constexpr uint32_t kGgmlF32 = 0, kGgmlF16 = 1, kGgmlQ8_0 = 8, kGgmlBF16 = 30, kGgmlMxfp4 = 39;

/// Names by id, for messages about files that were quantised otherwise.
constexpr std::array<std::string_view, 40> kTypeNames = {
    "F32",    "F16",   "Q4_0",  "Q4_1",   "",      "",      "Q5_0",    "Q5_1",   "Q8_0",    "Q8_1",
    "Q2_K",   "Q3_K",  "Q4_K",  "Q5_K",   "Q6_K",  "Q8_K",  "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S",
    "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8",    "I16",   "I32",     "I64",    "F64",     "IQ1_M",
    "BF16",   "",      "",      "",       "TQ1_0", "TQ2_0", "",        "",       "",        "MXFP4"};

/// The four bytes made of the low nibbles of 8 bytes, in order.
uint32_t PackLowNibbles(uint64_t x) {
  x &= 0x0F0F0F0F0F0F0F0F;
  x = (x | x >> 4) & 0x00FF00FF00FF00FF;
  x = (x | x >> 8) & 0x0000FFFF0000FFFF;
  return static_cast<uint32_t>(x | x >> 16);
}

/// The inverse: 8 nibbles spread over the low halves of 8 bytes.
uint64_t SpreadNibbles(uint32_t nibbles) {
  uint64_t x = nibbles;
  x = (x | x << 16) & 0x0000FFFF0000FFFF;
  x = (x | x << 8) & 0x00FF00FF00FF00FF;
  return (x | x << 4) & 0x0F0F0F0F0F0F0F0F;
}

/// 16 bytes of values (j, j + 16) to 16 bytes of values (2j, 2j + 1).
void UnpackMxfp4Codes(const std::byte* in, std::byte* out) {
  std::array<uint64_t, 2> x;
  std::memcpy(x.data(), in, 16);
  const std::array<uint32_t, 4> codes = {PackLowNibbles(x[0]), PackLowNibbles(x[1]), PackLowNibbles(x[0] >> 4),
                                         PackLowNibbles(x[1] >> 4)};
  std::memcpy(out, codes.data(), 16);
}

void PackMxfp4Codes(const std::byte* in, std::byte* out) {
  std::array<uint32_t, 4> codes;
  std::memcpy(codes.data(), in, 16);
  const std::array<uint64_t, 2> x = {SpreadNibbles(codes[0]) | SpreadNibbles(codes[2]) << 4,
                                     SpreadNibbles(codes[1]) | SpreadNibbles(codes[3]) << 4};
  std::memcpy(out, x.data(), 16);
}

}  // namespace

std::optional<DType> DTypeOfGgml(uint32_t type_id) {
  switch (type_id) {
    case kGgmlF32:
      return DType::kF32;
    case kGgmlF16:
      return DType::kF16;
    case kGgmlQ8_0:
      return DType::kQ8_0;
    case kGgmlBF16:
      return DType::kBF16;
    case kGgmlMxfp4:
      return DType::kMxfp4;
    default:
      return std::nullopt;
  }
}

uint32_t GgmlTypeOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return kGgmlF32;
    case DType::kF16:
      return kGgmlF16;
    case DType::kQ8_0:
      return kGgmlQ8_0;
    case DType::kBF16:
      return kGgmlBF16;
    case DType::kMxfp4:
      return kGgmlMxfp4;
    case DType::kU8:
      break;
  }
  GPTOSS_CHECK(false && "no weights are plain bytes");
  return 0;
}

std::string GgmlTypeText(uint32_t type_id) {
  const std::string number = std::to_string(type_id);
  if (type_id >= kTypeNames.size() || kTypeNames[type_id].empty()) return "type " + number;
  return std::string(kTypeNames[type_id]) + " (" + number + ")";
}

uint64_t GgmlRowBytes(DType dtype, uint64_t cols) { return RowBytes(dtype, cols) + RowScaleBytes(dtype, cols); }

void UnpackGgml(DType dtype, std::span<const std::byte> blocks, std::span<std::byte> data,
                std::span<std::byte> scales) {
  if (dtype == DType::kMxfp4) {
    for (size_t b = 0; b < blocks.size() / kMxfp4Block; ++b) {
      const std::byte* block = blocks.data() + b * kMxfp4Block;
      if (!scales.empty()) scales[b] = block[0];
      if (!data.empty()) UnpackMxfp4Codes(block + 1, data.data() + b * 16);
    }
  } else if (dtype == DType::kQ8_0) {
    for (size_t b = 0; b < blocks.size() / kQ8Block; ++b) {
      const std::byte* block = blocks.data() + b * kQ8Block;
      if (!scales.empty()) std::memcpy(scales.data() + b * 2, block, 2);
      if (!data.empty()) std::memcpy(data.data() + b * 32, block + 2, 32);
    }
  } else if (!data.empty()) {
    std::memcpy(data.data(), blocks.data(), data.size());
  }
}

void PackGgml(DType dtype, std::span<const std::byte> data, std::span<const std::byte> scales,
              std::span<std::byte> blocks) {
  if (dtype == DType::kMxfp4) {
    for (size_t b = 0; b < scales.size(); ++b) {
      std::byte* block = blocks.data() + b * kMxfp4Block;
      block[0] = scales[b];
      PackMxfp4Codes(data.data() + b * 16, block + 1);
    }
  } else if (dtype == DType::kQ8_0) {
    for (size_t b = 0; b < scales.size() / 2; ++b) {
      std::byte* block = blocks.data() + b * kQ8Block;
      std::memcpy(block, scales.data() + b * 2, 2);
      std::memcpy(block + 2, data.data() + b * 32, 32);
    }
  } else if (!data.empty()) {
    std::memcpy(blocks.data(), data.data(), data.size());
  }
}

}  // namespace gptoss
