// Activations as 16-bit integers and weights eight rows side by side, for integer dot products. Once per target.
//
// Weights of eight rows lie as tensor/weight_layout.h's kRows8: of each block of 32 columns, the rows' first four
// bytes, then their next four, and so on. Eight rows are the 32-bit lanes of a vector (of two, where vectors have 128
// bits), so a block's sum needs no operation across lanes and one multiplication applies the scales of all eight.
//
// MXFP4: a byte holds two columns. Codes become 8-bit values 0 to 24, twice the weight plus 12, and an activation is
// two bytes, 256 high + low; sums of products of bytes stay in 16-bit lanes. They start from -12 times the sum of the
// activations, which takes the offset out again: the whole sum fits 16 bits, so it may wrap on the way.
// Q8_0: bytes are widened to 16 bits and multiplied with the 16-bit activations.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "ops/ops.h"
#include "tensor/float_convert.h"
#include "tensor/mxfp4.h"
#include "tensor/weight_layout.h"

#if defined(GPTOSS_BACKENDS_CPU_QUANTIZE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GPTOSS_BACKENDS_CPU_QUANTIZE_INL_H_
#undef GPTOSS_BACKENDS_CPU_QUANTIZE_INL_H_
#else
#define GPTOSS_BACKENDS_CPU_QUANTIZE_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D16 = hn::CappedTag<int16_t, 16>;
using DU16 = hn::RebindToUnsigned<D16>;
using D8 = hn::Repartition<int8_t, D16>;
using DU8 = hn::RebindToUnsigned<D8>;
using D32 = hn::Repartition<int32_t, D16>;
using DF = hn::RebindToFloat<D32>;
using V8 = hn::Vec<D8>;
using V16 = hn::Vec<D16>;
using V32 = hn::Vec<D32>;
using VF = hn::Vec<DF>;

inline constexpr int kLanes32 = HWY_MIN(HWY_MAX_BYTES / 4, 8);
/// Vectors that hold one 32-bit value of each of eight rows.
inline constexpr int kGroupVectors = kRowGroup / kLanes32;

/// The largest magnitude whose two bytes, 256 high + low, both lie in [-128, 127].
inline constexpr float kActivationSteps = 127.0f * 257.0f;

inline constexpr int kCodeOffset = 12;
/// Codes as twice their values (tensor/mxfp4.h) plus kCodeOffset.
inline constexpr std::array<int8_t, 16> kOffsetCodes = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

/// 32 activations in the order in which the weights of a block come; its parts lie together so that one stream is read.
struct alignas(16) ActivationBlock {
  /// MXFP4: for each 4 bytes of a row's codes the high bytes of the activations of the low nibbles, of the high
  /// nibbles, then the low bytes of both. Q8_0: for each 4 weights activations 0 and 2, then 1 and 3, as 16-bit
  /// integers.
  int32_t words[16];
  int32_t offsets[2];  // MXFP4: what the 16-bit sums of high and of low bytes start from
  float scale;
  float unused;
};

/// Rows of quantised activations.
struct QuantizedRows {
  ActivationBlock* data;  // [rows, blocks]
  int64_t blocks;

  ActivationBlock* Row(int64_t row) const { return data + row * blocks; }
};

/// 32 floats to integers of at most kActivationSteps steps; returns the size of a step. Not-a-numbers give a step that
/// is one.
inline float QuantizeBlock(const float* HWY_RESTRICT x, int16_t* HWY_RESTRICT out) {
  const DF d;
  const D32 di;
  const hn::Rebind<int16_t, D32> d16;
  // Magnitudes compare as integers, where not-a-numbers are the largest of all.
  auto largest_bits = hn::Zero(di);
  for (int i = 0; i < kBlockSize; i += kLanes32) {
    largest_bits = hn::Max(largest_bits, hn::And(hn::BitCast(di, hn::LoadU(d, x + i)), hn::Set(di, 0x7FFFFFFF)));
  }
  const float largest = hn::GetLane(hn::BitCast(d, hn::MaxOfLanes(di, largest_bits)));
  // Steps below the smallest normal number would have no inverse.
  const bool usable = largest >= kActivationSteps * 0x1.0p-126f && largest <= 0x1.FFFFFEp127f;
  const auto inverse = hn::Set(d, usable ? kActivationSteps / largest : 0.0f);
  for (int i = 0; i < kBlockSize; i += kLanes32) {
    hn::StoreU(hn::DemoteTo(d16, hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), inverse))), d16, out + i);
  }
  if (usable) return largest / kActivationSteps;
  if (largest < 1.0f) return 0.0f;
  std::fill_n(out, kBlockSize, int16_t{1});  // infinite or not a number: let it show
  return largest;
}

/// Sums of the products of pairs of bytes, as 16-bit integers: `a` in [0, 24], `x` signed. For vectors of 128 and 256
/// bits.
template <class V>
HWY_INLINE auto MultiplyBytePairs(V a, V x) {
  const hn::RepartitionToWide<hn::DFromV<V>> d;
#if HWY_TARGET == HWY_SSE4
  return hn::VFromD<decltype(d)>{_mm_maddubs_epi16(a.raw, x.raw)};
#elif HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  if constexpr (sizeof(a.raw) == 32) {
    return hn::VFromD<decltype(d)>{_mm256_maddubs_epi16(a.raw, x.raw)};
  } else {
    return hn::VFromD<decltype(d)>{_mm_maddubs_epi16(a.raw, x.raw)};
  }
#else
  const auto low = [&](auto v) HWY_ATTR { return hn::ShiftRight<8>(hn::ShiftLeft<8>(v)); };
  const auto a16 = hn::BitCast(d, a), x16 = hn::BitCast(d, x);
  return hn::Add(hn::Mul(low(a16), low(x16)), hn::Mul(hn::ShiftRight<8>(a16), hn::ShiftRight<8>(x16)));
#endif
}

/// Sums of the products of pairs of 16-bit integers.
HWY_INLINE V32 MultiplyPairs(V16 a, V16 b) {
#if HWY_TARGET == HWY_SSE4
  return V32{_mm_madd_epi16(a.raw, b.raw)};
#elif HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  return V32{_mm256_madd_epi16(a.raw, b.raw)};
#else
  const D32 d;
  const auto low = [&](V32 v) HWY_ATTR { return hn::ShiftRight<16>(hn::ShiftLeft<16>(v)); };
  const V32 a32 = hn::BitCast(d, a), b32 = hn::BitCast(d, b);
  return hn::Add(hn::Mul(low(a32), low(b32)), hn::Mul(hn::ShiftRight<16>(a32), hn::ShiftRight<16>(b32)));
#endif
}

/// The 32 integers `block` as MXFP4's products need them.
inline void ArrangeForMxfp4(const int16_t* HWY_RESTRICT block, ActivationBlock* out) {
  const hn::CappedTag<int16_t, 8> d16;
  const hn::Repartition<int8_t, decltype(d16)> d8;
  // High bytes of the even and of the odd columns, then the low bytes.
  alignas(16) static constexpr int8_t kOrder[16] = {1, 5, 9, 13, 3, 7, 11, 15, 0, 4, 8, 12, 2, 6, 10, 14};
  alignas(16) static constexpr uint8_t kLowSigns[16] = {0, 0, 0, 0, 0, 0, 0, 0, 128, 128, 128, 128, 128, 128, 128, 128};
  const auto signs = hn::BitCast(d8, hn::Load(hn::RebindToUnsigned<decltype(d8)>(), kLowSigns));
  auto sums = hn::Zero(d16);
  for (int j = 0; j < 4; ++j) {
    // After adding 128 the high byte is the rounded quotient and the low byte the rest plus 128.
    const auto shifted = hn::Add(hn::LoadU(d16, block + 8 * j), hn::Set(d16, 128));
    const auto bytes = hn::Xor(hn::TableLookupBytes(hn::BitCast(d8, shifted), hn::Load(d8, kOrder)), signs);
    hn::Store(hn::BitCast(hn::Repartition<int32_t, decltype(d8)>(), bytes), hn::Repartition<int32_t, decltype(d8)>(),
              out->words + 4 * j);
    sums = hn::Add(sums, MultiplyBytePairs(hn::Set(d8, kCodeOffset), bytes));
  }
  alignas(16) int16_t s[8];
  hn::Store(sums, d16, s);
  const auto pair = [&](int i) {
    const auto low = static_cast<uint16_t>(-(s[i] + s[i + 2])), high = static_cast<uint16_t>(-(s[i + 1] + s[i + 3]));
    return static_cast<int32_t>(static_cast<uint32_t>(high) << 16 | low);
  };
  out->offsets[0] = pair(0);
  out->offsets[1] = pair(4);
}

/// The 32 integers `block` as Q8_0's products need them.
inline void ArrangeForQ8(const int16_t* HWY_RESTRICT block, ActivationBlock* out) {
  const hn::CappedTag<int16_t, 8> d16;
  const hn::Repartition<int8_t, decltype(d16)> d8;
  alignas(16) static constexpr int8_t kOrder[16] = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15};
  for (int j = 0; j < 4; ++j) {
    const auto words = hn::TableLookupBytes(hn::BitCast(d8, hn::LoadU(d16, block + 8 * j)), hn::Load(d8, kOrder));
    const hn::Repartition<int32_t, decltype(d8)> d32;
    hn::Store(hn::BitCast(d32, words), d32, out->words + 4 * j);
  }
  out->offsets[0] = out->offsets[1] = 0;
}

/// Quantises a row of `cols` activations for MXFP4 or Q8_0 weights.
inline void QuantizeRow(const float* x, int64_t cols, bool mxfp4, ActivationBlock* out) {
  HWY_ALIGN int16_t block[kBlockSize];
  for (int64_t b = 0; b < cols / kBlockSize; ++b) {
    const float step = QuantizeBlock(x + b * kBlockSize, block);
    mxfp4 ? ArrangeForMxfp4(block, out + b) : ArrangeForQ8(block, out + b);
    out[b].scale = mxfp4 ? 0.5f * step : step;  // MXFP4 weights are twice their values
  }
}

/// How MXFP4 lies in memory and is multiplied.
struct Mxfp4Format {
  static constexpr int64_t kBlockBytes = 16, kScaleBytes = 1;
  static constexpr bool kIsMxfp4 = true;

  /// Sums over one block of kGroupVectors-th parts of eight rows, for kTokens tokens. |sum| < 2^24: exact as a float.
  template <int kTokens>
  static HWY_INLINE void Dot(const uint8_t* HWY_RESTRICT codes, const ActivationBlock* const (&x)[kTokens],
                             V32 (&sums)[kTokens]) {
    const D8 d8;
    const DU8 du8;
    const D16 d16;
    const DU16 du16;
    const D32 d32;
    const V8 table = hn::LoadDup128(d8, kOffsetCodes.data());
    const auto nibble = hn::Set(du8, 15);
    V16 high[kTokens], low[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      high[t] = hn::BitCast(d16, hn::Set(d32, x[t]->offsets[0]));
      low[t] = hn::BitCast(d16, hn::Set(d32, x[t]->offsets[1]));
    }
    // Not unrolled: g++ 12 would move all multiplications ahead and spill their results, at half the speed.
#pragma GCC unroll 1
    for (int j = 0; j < 4; ++j) {
      const auto bytes = hn::LoadU(du8, codes + j * kRowGroup * 4);
      const auto upper = hn::BitCast(du8, hn::ShiftRight<4>(hn::BitCast(du16, bytes)));
      const V8 even = hn::TableLookupBytes(table, hn::BitCast(d8, hn::And(bytes, nibble)));
      const V8 odd = hn::TableLookupBytes(table, hn::BitCast(d8, hn::And(upper, nibble)));
      for (int t = 0; t < kTokens; ++t) {
        const int32_t* words = x[t]->words + 4 * j;
        const auto add = [&](V16& sum, V8 w, int32_t word) HWY_ATTR {
          sum = hn::Add(sum, MultiplyBytePairs(w, hn::BitCast(d8, hn::Set(d32, word))));
        };
        add(high[t], even, words[0]);
        add(high[t], odd, words[1]);
        add(low[t], even, words[2]);
        add(low[t], odd, words[3]);
      }
    }
    for (int t = 0; t < kTokens; ++t) {
      sums[t] = hn::Add(MultiplyPairs(high[t], hn::Set(d16, 256)), MultiplyPairs(low[t], hn::Set(d16, 1)));
    }
  }

  /// 2^-127 for scale 0 is the subnormal whose bits are 0x00400000; 255 is infinity.
  static HWY_INLINE VF Scales(const uint8_t* HWY_RESTRICT scales) {
    const D32 di;
    const hn::Rebind<uint8_t, D32> du8;
    const auto bits = hn::ShiftLeft<23>(hn::PromoteTo(di, hn::LoadU(du8, scales)));
    return hn::BitCast(DF(), hn::Max(bits, hn::Set(di, 0x00400000)));
  }
};

struct Q8Format {
  static constexpr int64_t kBlockBytes = 32, kScaleBytes = 2;
  static constexpr bool kIsMxfp4 = false;

  /// As above: |sum| <= 32 * 32639 * 128 < 2^27.
  template <int kTokens>
  static HWY_INLINE void Dot(const uint8_t* HWY_RESTRICT quants, const ActivationBlock* const (&x)[kTokens],
                             V32 (&sums)[kTokens]) {
    const D16 d16;
    const DU8 du8;
    const D32 d32;
    for (int t = 0; t < kTokens; ++t) sums[t] = hn::Zero(d32);
#pragma GCC unroll 1
    for (int j = 0; j < 8; ++j) {
      const V16 bytes = hn::BitCast(d16, hn::LoadU(du8, quants + j * kRowGroup * 4));
      const V16 even = hn::ShiftRight<8>(hn::ShiftLeft<8>(bytes)), odd = hn::ShiftRight<8>(bytes);
      for (int t = 0; t < kTokens; ++t) {
        const int32_t* words = x[t]->words + 2 * j;
        sums[t] = hn::Add(sums[t], MultiplyPairs(even, hn::BitCast(d16, hn::Set(d32, words[0]))));
        sums[t] = hn::Add(sums[t], MultiplyPairs(odd, hn::BitCast(d16, hn::Set(d32, words[1]))));
      }
    }
  }

  static HWY_INLINE VF Scales(const uint8_t* HWY_RESTRICT scales) {
    const hn::Rebind<uint16_t, D32> du16;
    const hn::Rebind<hwy::float16_t, D32> df16;
    return hn::PromoteTo(DF(), hn::BitCast(df16, hn::LoadU(du16, reinterpret_cast<const uint16_t*>(scales))));
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif
