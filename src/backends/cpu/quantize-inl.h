// Activations as 16-bit integers per block of 32, for integer dot products with eight rows of weights side by side.
// Once per target.
//
// Weights of eight rows lie as tensor/weight_layout.h's kRows8: of each block of 32 columns, the rows' first four
// bytes, then their next four, and so on. Eight rows are the 32-bit lanes of a vector (of two, where vectors have 128
// bits), so a block's sum needs no operation across lanes and one multiplication applies the scales of all eight.
// Vectors of 512 bits hold two groups, from two places.
//
// A format says how a dtype's weights are multiplied: pair_formats-inl.h with instructions that every machine of a
// target has, dots/byte_formats-inl.h with those that sum four products of bytes. Both give the same integers.
//
// This header and those that build on it are in unnamed namespaces: sources for one target may have different compiler
// flags, and the linker must not give one the other's code.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

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
namespace {

/// Groups of eight rows that one vector may hold: two in 512 bits.
inline constexpr int kMostGroups = HWY_TARGET == HWY_AVX3 ? 2 : 1;

template <int kGroups>
using D16 = hn::CappedTag<int16_t, 2 * kRowGroup * kGroups>;
template <int kGroups>
using DU16 = hn::RebindToUnsigned<D16<kGroups>>;
template <int kGroups>
using D8 = hn::Repartition<int8_t, D16<kGroups>>;
template <int kGroups>
using DU8 = hn::RebindToUnsigned<D8<kGroups>>;
template <int kGroups>
using D32 = hn::Repartition<int32_t, D16<kGroups>>;
template <int kGroups>
using DF = hn::RebindToFloat<D32<kGroups>>;
template <int kGroups>
using V8 = hn::Vec<D8<kGroups>>;
template <int kGroups>
using V16 = hn::Vec<D16<kGroups>>;
template <int kGroups>
using V32 = hn::Vec<D32<kGroups>>;
template <int kGroups>
using VF = hn::Vec<DF<kGroups>>;

/// Of a vector of one group.
inline constexpr int kLanes32 = HWY_MIN(HWY_MAX_BYTES / 4, kRowGroup);
/// Vectors that hold one 32-bit value of each of eight rows.
inline constexpr int kGroupVectors = kRowGroup / kLanes32;

/// The same place in the memory of each group of a vector.
template <int kGroups>
using GroupPointers = std::array<const uint8_t*, kGroups>;

/// A vector of which each group has its part, from `offset` on.
template <class D, size_t kGroups>
HWY_INLINE hn::Vec<D> LoadGroups(D d, const std::array<const uint8_t*, kGroups>& from, int64_t offset) {
  using T = hn::TFromD<D>;
  const auto* first = reinterpret_cast<const T*>(from[0] + offset);
  if constexpr (kGroups == 1) {
    return hn::LoadU(d, first);
  } else {
    const hn::Half<D> half;
    return hn::Combine(d, hn::LoadU(half, reinterpret_cast<const T*>(from[1] + offset)), hn::LoadU(half, first));
  }
}

/// Sums of the products of pairs of 16-bit integers, modulo 2^32.
template <class V>
HWY_INLINE auto MultiplyPairs(V a, V b) {
  const hn::RepartitionToWide<hn::DFromV<V>> d;
#if HWY_TARGET == HWY_SSE4
  return hn::VFromD<decltype(d)>{_mm_madd_epi16(a.raw, b.raw)};
#elif HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  if constexpr (sizeof(a.raw) == 16) {
    return hn::VFromD<decltype(d)>{_mm_madd_epi16(a.raw, b.raw)};
  } else if constexpr (sizeof(a.raw) == 32) {
    return hn::VFromD<decltype(d)>{_mm256_madd_epi16(a.raw, b.raw)};
#if HWY_TARGET == HWY_AVX3
  } else {
    return hn::VFromD<decltype(d)>{_mm512_madd_epi16(a.raw, b.raw)};
#endif
  }
#else
  const auto low = [&](auto v) HWY_ATTR { return hn::ShiftRight<16>(hn::ShiftLeft<16>(v)); };
  const auto a32 = hn::BitCast(d, a), b32 = hn::BitCast(d, b);
  return hn::Add(hn::Mul(low(a32), low(b32)), hn::Mul(hn::ShiftRight<16>(a32), hn::ShiftRight<16>(b32)));
#endif
}

/// The largest magnitude whose two bytes, 256 high + low, both lie in [-128, 127].
inline constexpr float kActivationSteps = 127.0f * 257.0f;

/// 32 activations in the order in which the weights of a block come; its parts lie together so that one stream is read.
struct alignas(16) ActivationBlock {
  int32_t words[16];   // four bytes or two 16-bit integers each, as the format says
  int32_t offsets[2];  // what sums start from: weights may be stored with an offset, to be unsigned
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
  const DF<1> d;
  const D32<1> di;
  const hn::Rebind<int16_t, D32<1>> d16;
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

/// Quantises a row of `cols` activations for the weights of a format.
template <class Format>
void QuantizeRow(const float* x, int64_t cols, ActivationBlock* out) {
  HWY_ALIGN int16_t block[kBlockSize];
  for (int64_t b = 0; b < cols / kBlockSize; ++b) {
    const float step = QuantizeBlock(x + b * kBlockSize, block);
    Format::Arrange(block, out + b);
    out[b].scale = Format::kWeightUnit * step;
  }
}

/// Stores eight 16-bit integers as bytes in the order `from`: byte i is byte from[i] of `values` plus 128, less 128
/// where it is a low byte (8 <= i). Of v = 256 high + low the high byte is then the nearest quotient.
inline void StoreBytes(const int16_t* HWY_RESTRICT values, const int8_t* from, int32_t* HWY_RESTRICT out) {
  const hn::CappedTag<int16_t, 8> d16;
  const hn::Repartition<int8_t, decltype(d16)> d8;
  const hn::Repartition<int32_t, decltype(d16)> d32;
  alignas(16) static constexpr uint8_t kLowSigns[16] = {0, 0, 0, 0, 0, 0, 0, 0, 128, 128, 128, 128, 128, 128, 128, 128};
  const auto signs = hn::BitCast(d8, hn::Load(hn::RebindToUnsigned<decltype(d8)>(), kLowSigns));
  const auto shifted = hn::BitCast(d8, hn::Add(hn::LoadU(d16, values), hn::Set(d16, 128)));
  const auto bytes = hn::Xor(hn::TableLookupBytes(shifted, hn::LoadU(d8, from)), signs);
  hn::Store(hn::BitCast(d32, bytes), d32, out);
}

/// Where StoreBytes finds the bytes for MXFP4, whose bytes hold two columns: high bytes of the even and of the odd
/// columns, then the low bytes of both.
inline constexpr int8_t kMxfp4Order[16] = {1, 5, 9, 13, 3, 7, 11, 15, 0, 4, 8, 12, 2, 6, 10, 14};

/// How MXFP4 lies in memory.
struct Mxfp4Weights {
  static constexpr int64_t kBlockBytes = 16, kScaleBytes = 1;
  static constexpr float kWeightUnit = 0.5f;  // of the integers that stand for codes (tensor/mxfp4.h)

  /// 2^-127 for scale 0 is the subnormal whose bits are 0x00400000; 255 is infinity.
  template <size_t kGroups>
  static HWY_INLINE VF<kGroups> Scales(const std::array<const uint8_t*, kGroups>& scales) {
    const D32<kGroups> di;
    const hn::Rebind<uint8_t, D32<kGroups>> du8;
    const auto bits = hn::ShiftLeft<23>(hn::PromoteTo(di, LoadGroups(du8, scales, 0)));
    return hn::BitCast(DF<kGroups>(), hn::Max(bits, hn::Set(di, 0x00400000)));
  }
};

/// What codes carry where they must not be negative.
inline constexpr int kCodeOffset = 12;

/// Codes as twice their values, plus an offset.
template <int kOffset>
inline constexpr std::array<int8_t, 16> kCodes = [] {
  std::array<int8_t, 16> codes = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  for (int8_t& code : codes) code = static_cast<int8_t>(code + kOffset);
  return codes;
}();

/// Two vectors of weights.
template <int kGroups>
struct WeightPair {
  V8<kGroups> first, second;
};

/// The even and the odd columns of the rows' bytes number 4 j … 4 j + 3, as `table` has them.
template <size_t kGroups>
HWY_INLINE WeightPair<kGroups> LoadCodes(const std::array<const uint8_t*, kGroups>& codes, int j, V8<kGroups> table) {
  const D8<kGroups> d8;
  const DU8<kGroups> du8;
  const DU16<kGroups> du16;
  const auto nibble = hn::Set(du8, 15);
  const auto bytes = LoadGroups(du8, codes, j * kRowGroup * 4);
  const auto upper = hn::BitCast(du8, hn::ShiftRight<4>(hn::BitCast(du16, bytes)));
  return {hn::TableLookupBytes(table, hn::BitCast(d8, hn::And(bytes, nibble))),
          hn::TableLookupBytes(table, hn::BitCast(d8, hn::And(upper, nibble)))};
}

/// How Q8_0 lies in memory.
struct Q8Weights {
  static constexpr int64_t kBlockBytes = 32, kScaleBytes = 2;
  static constexpr float kWeightUnit = 1.0f;

  template <size_t kGroups>
  static HWY_INLINE VF<kGroups> Scales(const std::array<const uint8_t*, kGroups>& scales) {
    const hn::Rebind<uint16_t, D32<kGroups>> du16;
    const hn::Rebind<hwy::float16_t, D32<kGroups>> df16;
    return hn::PromoteTo(DF<kGroups>(), hn::BitCast(df16, LoadGroups(du16, scales, 0)));
  }
};

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif
