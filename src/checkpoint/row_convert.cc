#include "checkpoint/row_convert.h"

#include <cmath>
#include <cstring>

#include "tensor/float_convert.h"
#include "tensor/mxfp4.h"
#include "tensor/q8.h"

namespace gptoss {
namespace {

template <typename To, typename From>
std::span<To> Cast(std::span<From> bytes) {
  return {reinterpret_cast<To*>(bytes.data()), bytes.size() / sizeof(To)};
}

void Copy(std::span<const std::byte> from, std::span<std::byte> to) {
  if (!to.empty()) std::memcpy(to.data(), from.data(), to.size());
}

/// `to_f32(to_16(v))` must give v back, bit for bit; NaNs count as kept.
template <typename To16, typename ToF32>
bool EncodeHalf(std::span<const float> values, std::span<uint16_t> out, To16 to_16, ToF32 to_f32) {
  bool exact = true;
  for (size_t i = 0; i < values.size(); ++i) {
    out[i] = to_16(values[i]);
    exact &= to_f32(out[i]) == values[i] || std::isnan(values[i]);
  }
  return exact;
}

}  // namespace

bool IsDenseMatrix(const TensorSpec& spec) {
  return spec.shape.size() == 2 && !spec.is_expert_weight && !spec.name.ends_with(".bias") &&
         !spec.name.ends_with("router.weight");
}

bool IsAlwaysExact(DType from, DType to) {
  return from == to || (to == DType::kF32 && from != DType::kU8);  // an int8 times a binary16 has 19 bits
}

RowConverter::RowConverter(DType from, DType to, uint64_t cols, bool allow_lossy)
    : from_(from), to_(to), cols_(cols), allow_lossy_(allow_lossy) {
  if (from == to) return;
  values_.resize(cols);
  data_scratch_.resize(RowBytes(to, cols));
  scales_scratch_.resize(RowScaleBytes(to, cols));
}

void RowConverter::Decode(std::span<const std::byte> data, std::span<const std::byte> scales) {
  switch (from_) {
    case DType::kF32:
      std::memcpy(values_.data(), data.data(), cols_ * 4);
      break;
    case DType::kF16:
      for (size_t i = 0; i < cols_; ++i) values_[i] = F16ToF32(Cast<const uint16_t>(data)[i]);
      break;
    case DType::kBF16:
      for (size_t i = 0; i < cols_; ++i) values_[i] = Bf16ToF32(Cast<const uint16_t>(data)[i]);
      break;
    case DType::kMxfp4:
      DecodeMxfp4(Cast<const uint8_t>(data), Cast<const uint8_t>(scales), values_);
      break;
    case DType::kQ8_0:
      DecodeQ8(Cast<const int8_t>(data), Cast<const uint16_t>(scales), values_);
      break;
    case DType::kU8:
      GPTOSS_CHECK(false && "no weights are plain bytes");
      break;
  }
}

bool RowConverter::Encode(std::span<std::byte> out_data, std::span<std::byte> out_scales) {
  switch (to_) {
    case DType::kF32:
      std::memcpy(out_data.data(), values_.data(), cols_ * 4);
      return true;
    case DType::kF16:
      return EncodeHalf(values_, Cast<uint16_t>(out_data), F32ToF16, F16ToF32);
    case DType::kBF16:
      return EncodeHalf(values_, Cast<uint16_t>(out_data), F32ToBf16, Bf16ToF32);
    case DType::kMxfp4: {
      EncodeMxfp4(values_, Cast<uint8_t>(out_data), Cast<uint8_t>(out_scales));
      std::vector<float> back(cols_);
      DecodeMxfp4(Cast<const uint8_t>(out_data), Cast<const uint8_t>(out_scales), back);
      return back == values_;
    }
    case DType::kQ8_0:
      EncodeQ8(values_, Cast<int8_t>(out_data), Cast<uint16_t>(out_scales));
      return true;
    case DType::kU8:
      GPTOSS_CHECK(false && "no weights are plain bytes");
      break;
  }
  return false;
}

Status RowConverter::Row(std::span<const std::byte> data, std::span<const std::byte> scales,
                         std::span<std::byte> out_data, std::span<std::byte> out_scales) {
  if (from_ == to_) {
    Copy(data, out_data);
    Copy(scales, out_scales);
    return Status();
  }
  Decode(data, scales);
  if (to_ == DType::kQ8_0 || to_ == DType::kMxfp4) {
    for (const float v : values_) {
      if (!std::isfinite(v)) return Unsupported("holds a value that is not finite; it cannot be quantised");
    }
  }
  // Both parts are always computed: the encoders give them together.
  const std::span<std::byte> data_to = out_data.empty() ? std::span(data_scratch_) : out_data;
  const std::span<std::byte> scales_to = out_scales.empty() ? std::span(scales_scratch_) : out_scales;
  if (Encode(data_to, scales_to) || allow_lossy_) return Status();
  return Unsupported("holds values that " + std::string(DTypeName(to_)) + " cannot represent exactly (stored as " +
                     std::string(DTypeName(from_)) + "); allow losses, or choose a wider type");
}

}  // namespace gptoss
