// Weights of any dtype widened to float, exactly. Included once per target.

#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "ops/ops.h"
#include "tensor/float_convert.h"
#include "tensor/mxfp4.h"
#include "tensor/weight_layout.h"

#if defined(GPTOSS_BACKENDS_CPU_UNPACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GPTOSS_BACKENDS_CPU_UNPACK_INL_H_
#undef GPTOSS_BACKENDS_CPU_UNPACK_INL_H_
#else
#define GPTOSS_BACKENDS_CPU_UNPACK_INL_H_
#endif

#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// How far ahead 16-bit weights are fetched; see kPrefetchBytes in matmul_fast.cc.
inline constexpr int64_t kPrefetchValues = 4096;

/// `ahead`: how many values further on memory is fetched meanwhile.
inline void UnpackBf16(const uint16_t* HWY_RESTRICT from, int64_t count, float* HWY_RESTRICT to,
                       int64_t ahead = kPrefetchValues) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> du32;
  const hn::Rebind<uint16_t, decltype(d)> du16;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto unpack = [&](int64_t i) HWY_ATTR {
    const auto bits = hn::ShiftLeft<16>(hn::PromoteTo(du32, hn::LoadU(du16, from + i)));
    hn::StoreU(hn::BitCast(d, bits), d, to + i);
  };
  constexpr int64_t kLine = 32;  // values of a cache line
  int64_t i = 0;
  for (; i + kLine <= count; i += kLine) {
    hwy::Prefetch(from + i + ahead);
    for (int64_t j = 0; j < kLine; j += lanes) unpack(i + j);
  }
  for (; i + lanes <= count; i += lanes) unpack(i);
  for (; i < count; ++i) to[i] = Bf16ToF32(from[i]);
}

inline void UnpackF16(const uint16_t* HWY_RESTRICT from, int64_t count, float* HWY_RESTRICT to) {
  int64_t i = 0;
#if !(HWY_TARGET & GPTOSS_CPU_EMULATED_TARGETS)
  const hn::ScalableTag<float> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> df16;
  const hn::Rebind<uint16_t, decltype(d)> du16;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(hn::PromoteTo(d, hn::BitCast(df16, hn::LoadU(du16, from + i))), d, to + i);
  }
#endif
  for (; i < count; ++i) to[i] = F16ToF32(from[i]);
}

/// 32 int8 times `scale`. The product is exact: 7 bits times at most 11.
inline void ScaleBlock(const int8_t* HWY_RESTRICT from, float scale, float* HWY_RESTRICT to) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di32;
  const hn::Rebind<int8_t, decltype(d)> di8;
  const auto s = hn::Set(d, scale);
  for (size_t i = 0; i < kBlockSize; i += hn::Lanes(d)) {
    const auto values = hn::ConvertTo(d, hn::PromoteTo(di32, hn::LoadU(di8, from + i)));
    hn::StoreU(hn::Mul(values, s), d, to + i);
  }
}

/// The 32 codes of a block as twice their values, in order of the elements.
inline void DoubledCodes(const uint8_t* HWY_RESTRICT codes, int8_t* HWY_RESTRICT to) {
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < 16; ++i) {
    to[2 * i] = kFp4Doubled[codes[i] & 15];
    to[2 * i + 1] = kFp4Doubled[codes[i] >> 4];
  }
#else
  const hn::CappedTag<uint8_t, 16> du8;
  const hn::RebindToSigned<decltype(du8)> di8;
  const auto table = hn::LoadU(di8, kFp4Doubled.data());
  const auto bytes = hn::LoadU(du8, codes);
  const auto low = hn::TableLookupBytes(table, hn::BitCast(di8, hn::And(bytes, hn::Set(du8, 15))));
  const auto high = hn::TableLookupBytes(table, hn::BitCast(di8, hn::ShiftRight<4>(bytes)));
  hn::StoreU(hn::InterleaveLower(di8, low, high), di8, to);
  hn::StoreU(hn::InterleaveUpper(di8, low, high), di8, to + 16);
#endif
}

/// Half of E8M0's value, which goes with the doubled codes: exact down to 2^-128 as a subnormal.
inline float HalfE8m0(uint8_t scale) {
  return scale < 2 ? (scale == 0 ? 0x1.0p-128f : 0x1.0p-127f) : E8m0ToF32(static_cast<uint8_t>(scale - 1));
}

/// The block formats' 32 values from one block of codes and its scale.
inline void UnpackMxfp4Block(const uint8_t* codes, uint8_t scale, float* to) {
  HWY_ALIGN int8_t block[kBlockSize];
  DoubledCodes(codes, block);
  // 255 is infinity (tensor/mxfp4.h); halving it would make it finite.
  ScaleBlock(block, scale == 255 ? E8m0ToF32(scale) : HalfE8m0(scale), to);
}

inline void UnpackQ8Block(const uint8_t* quants, uint16_t scale, float* to) {
  ScaleBlock(reinterpret_cast<const int8_t*>(quants), F16ToF32(scale), to);
}

/// UnpackRow of a matrix that lies as kRows8.
inline void UnpackGroupedRow(const WeightMatrix& w, int64_t row, int64_t begin, int64_t count, float* to) {
  GPTOSS_CHECK(HasScales(w.dtype));
  const int64_t lane = row % kRowGroup, words = static_cast<int64_t>(RowBytes(w.dtype, kBlockSize)) / 4;
  const auto* codes = reinterpret_cast<const uint8_t*>(w.Row(row - lane));
  const auto* scales = reinterpret_cast<const uint8_t*>(w.RowScales(row - lane));
  HWY_ALIGN uint8_t block[kBlockSize];
  for (int64_t i = begin / kBlockSize; i < (begin + count) / kBlockSize; ++i, to += kBlockSize) {
    for (int64_t j = 0; j < words; ++j) std::memcpy(block + 4 * j, codes + ((i * words + j) * kRowGroup + lane) * 4, 4);
    if (w.dtype == DType::kMxfp4) {
      UnpackMxfp4Block(block, scales[i * kRowGroup + lane], to);
    } else {
      uint16_t scale;
      std::memcpy(&scale, scales + (i * kRowGroup + lane) * 2, 2);
      UnpackQ8Block(block, scale, to);
    }
  }
}

/// Columns begin … begin + count - 1 of row `row` (counted through all matrices). begin and count are multiples of 32
/// for the block formats.
inline void UnpackRow(const WeightMatrix& w, int64_t row, int64_t begin, int64_t count, float* to) {
  if (w.layout == WeightLayout::kRows8) return UnpackGroupedRow(w, row, begin, count, to);
  const auto* bytes = reinterpret_cast<const uint8_t*>(w.Row(row));
  const auto* scales = reinterpret_cast<const uint8_t*>(w.RowScales(row));
  switch (w.dtype) {
    case DType::kF32:
      std::memcpy(to, bytes + begin * 4, static_cast<size_t>(count) * sizeof(float));
      return;
    case DType::kBF16:
      return UnpackBf16(reinterpret_cast<const uint16_t*>(bytes) + begin, count, to);
    case DType::kF16:
      return UnpackF16(reinterpret_cast<const uint16_t*>(bytes) + begin, count, to);
    case DType::kQ8_0:
      for (int64_t i = begin; i < begin + count; i += kBlockSize) {
        uint16_t scale;
        std::memcpy(&scale, scales + i / kBlockSize * 2, 2);
        UnpackQ8Block(bytes + i, scale, to + (i - begin));
      }
      return;
    case DType::kMxfp4:
      for (int64_t i = begin; i < begin + count; i += kBlockSize) {
        UnpackMxfp4Block(bytes + i / 2, scales[i / kBlockSize], to + (i - begin));
      }
      return;
    case DType::kU8:
      GPTOSS_CHECK(false);
  }
}

/// The same values where they lie, if that is as floats, else unpacked to `buffer` [count].
inline const float* FloatRow(const WeightMatrix& w, int64_t row, int64_t begin, int64_t count, float* buffer) {
  if (w.dtype == DType::kF32) return reinterpret_cast<const float*>(w.Row(row)) + begin;
  UnpackRow(w, row, begin, count, buffer);
  return buffer;
}

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif
