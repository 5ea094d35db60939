// Activations as 16-bit integers and weights in the same arrangement, for integer dot products. Once per target.
//
// A group is as many blocks of 32 columns as fit the 128-bit parts of a vector: one, or two with 256-bit vectors, one
// in each part. A group has four vectors of 16-bit integers; vector v holds, of each block, the 8 columns
//   MXFP4: v, v + 4, v + 8 …
//   Q8_0:  v, v + 2, v + 4 … of columns 0 to 15 for v = 0 and 1, of columns 16 to 31 for v = 2 and 3,
// which shifts and masks of the stored bytes give without any shuffle.
// A multiply-add of pairs then keeps each block in its own part, where one multiplication applies both scales.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "ops/ops.h"
#include "tensor/float_convert.h"
#include "tensor/mxfp4.h"

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
using D32 = hn::Repartition<int32_t, D16>;
using DF = hn::RebindToFloat<D32>;
using V16 = hn::Vec<D16>;
using VF = hn::Vec<DF>;

inline constexpr int kLanes16 = HWY_MIN(HWY_MAX_BYTES / 2, 16);
inline constexpr int kLanes32 = kLanes16 / 2;
inline constexpr int kGroupBlocks = kLanes16 / 8;  // blocks of 32 columns per group
inline constexpr int kGroupValues = 4 * kLanes16;  // columns per group
inline constexpr int kBatchGroups = 4;             // groups whose scales fill one vector
inline constexpr int kBatchBlocks = kBatchGroups * kGroupBlocks;
static_assert(kBatchBlocks == kLanes32);

inline constexpr float kActivationSteps = 32767.0f;

/// Decoded MXFP4 weights are 256 times the doubled codes.
inline constexpr float kMxfp4Unit = 1.0f / 512.0f;

constexpr int64_t GroupsOf(int64_t cols) { return (cols / kBlockSize + kGroupBlocks - 1) / kGroupBlocks; }

/// One group of activations or of decoded weights, with each block's scale in all lanes of its part. Values and scales
/// lie together so that a tile reads one stream of activations and one of weights: separate arrays for every row and
/// their scales measured 20 % slower.
struct alignas(2 * kLanes16) Group {
  int16_t values[kGroupValues];
  float scales[kLanes32];
};

/// Rows of quantised activations.
struct QuantizedRows {
  Group* data;  // [rows, groups]
  int64_t groups;

  Group* Row(int64_t row) const { return data + row * groups; }
};

/// 32 floats to integers of at most 32767 steps; returns the size of a step. Not-a-numbers give a step that is one.
inline float QuantizeBlock(const float* HWY_RESTRICT x, int32_t* HWY_RESTRICT out) {
  const DF d;
  const D32 di;
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
    hn::StoreU(hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), inverse)), di, out + i);
  }
  if (usable) return largest / kActivationSteps;
  if (largest < 1.0f) return 0.0f;
  std::fill_n(out, kBlockSize, 1);  // infinite or not a number: let it show
  return largest;
}

/// Quantises a row of `cols` activations for MXFP4 or Q8_0 weights.
inline void QuantizeRow(const float* x, int64_t cols, bool mxfp4, int64_t groups, Group* out) {
  HWY_ALIGN int32_t block[kBlockSize];
  for (int64_t b = 0; b < groups * kGroupBlocks; ++b) {
    const int64_t part = b % kGroupBlocks;
    Group& group = out[b / kGroupBlocks];
    float scale = 0.0f;
    if (b * kBlockSize < cols) {
      scale = QuantizeBlock(x + b * kBlockSize, block) * (mxfp4 ? kMxfp4Unit : 1.0f);
    } else {  // past the end, in the last group
      std::fill_n(block, kBlockSize, 0);
    }
    std::fill_n(group.scales + part * 4, 4, scale);
    for (int v = 0; v < 4; ++v) {
      int16_t* to = group.values + v * kLanes16 + part * 8;
      for (int i = 0; i < 8; ++i) to[i] = static_cast<int16_t>(block[mxfp4 ? 4 * i + v : v / 2 * 16 + 2 * i + v % 2]);
    }
  }
}

/// Four vectors of weights.
struct WeightGroup {
  V16 v[4];
};

/// How MXFP4 lies in memory and becomes vectors.
struct Mxfp4Format {
  static constexpr int64_t kBlockBytes = 16, kScaleBytes = 1;

  static HWY_INLINE WeightGroup Load(const uint8_t* HWY_RESTRICT codes) {
    const DU16 du;
    const D16 d;
    const D8 d8;
    const auto table = hn::LoadDup128(d8, kFp4Doubled.data());
    const auto bits = hn::LoadU(du, reinterpret_cast<const uint16_t*>(codes));
    const auto nibbles = hn::Set(du, 0x0F0F);
    const auto look_up = [&](hn::Vec<DU16> index) HWY_ATTR {
      return hn::BitCast(d, hn::TableLookupBytes(table, hn::BitCast(d8, hn::And(index, nibbles))));
    };
    const auto even = look_up(bits), odd = look_up(hn::ShiftRight<4>(bits));
    // Left in the high byte, a value keeps its sign and is 256 times as large.
    const auto high = hn::Set(d, static_cast<int16_t>(0xFF00));
    return {{hn::ShiftLeft<8>(even), hn::ShiftLeft<8>(odd), hn::And(even, high), hn::And(odd, high)}};
  }

  /// kBatchBlocks scales. 2^-127 for scale 0 is the subnormal whose bits are 0x00400000; 255 is infinity.
  static HWY_INLINE VF Scales(const uint8_t* HWY_RESTRICT scales) {
    const D32 di;
    const hn::Rebind<uint8_t, D32> du8;
    const auto bits = hn::ShiftLeft<23>(hn::PromoteTo(di, hn::LoadU(du8, scales)));
    return hn::BitCast(DF(), hn::Max(bits, hn::Set(di, 0x00400000)));
  }
};

struct Q8Format {
  static constexpr int64_t kBlockBytes = 32, kScaleBytes = 2;

  static HWY_INLINE WeightGroup Load(const uint8_t* HWY_RESTRICT quants) {
    const D8 d8;
    const D16 d;
    const auto* q = reinterpret_cast<const int8_t*>(quants);
    const auto a = hn::LoadU(d8, q), b = hn::LoadU(d8, q + hn::Lanes(d8));
#if HWY_MAX_BYTES >= 32
    // a and b are two blocks; each part of a vector takes one.
    const auto low = hn::ConcatLowerLower(d8, b, a), high = hn::ConcatUpperUpper(d8, b, a);
#else
    const auto low = a, high = b;
#endif
    const auto w_low = hn::BitCast(d, low), w_high = hn::BitCast(d, high);
    return {{hn::ShiftRight<8>(hn::ShiftLeft<8>(w_low)), hn::ShiftRight<8>(w_low),
             hn::ShiftRight<8>(hn::ShiftLeft<8>(w_high)), hn::ShiftRight<8>(w_high)}};
  }

  static HWY_INLINE VF Scales(const uint8_t* HWY_RESTRICT scales) {
    const hn::Rebind<uint16_t, D32> du16;
    const hn::Rebind<hwy::float16_t, D32> df16;
    return hn::PromoteTo(DF(), hn::BitCast(df16, hn::LoadU(du16, reinterpret_cast<const uint16_t*>(scales))));
  }
};

/// Of kBatchBlocks scales those of group kGroup of the batch, each in all lanes of its part.
template <int kGroup>
HWY_INLINE VF SpreadScales(VF scales) {
#if HWY_MAX_BYTES >= 32
  const DF d;
  constexpr int32_t a = 2 * kGroup, b = 2 * kGroup + 1;
  alignas(32) static constexpr int32_t kIndices[8] = {a, a, a, a, b, b, b, b};
  return hn::TableLookupLanes(scales, hn::SetTableIndices(d, kIndices));
#else
  return hn::Broadcast<kGroup>(scales);
#endif
}

/// acc plus the products of one group: integer sums over 4 (2 parts) or 8 columns per lane, exact, at most
/// 8 * 32767 * 12 * 256 < 2^30 for MXFP4 and 8 * 32767 * 127 for Q8_0; then one rounding to float, the scales, the sum.
HWY_INLINE VF AddGroup(const WeightGroup& w, VF weight_scale, const Group& x, VF acc) {
  const D16 d16;
  const D32 d32;
  const DF df;
  auto sum0 = hn::Zero(d32), sum1 = hn::Zero(d32);
  for (int v = 0; v < 4; ++v) {
    sum0 = hn::ReorderWidenMulAccumulate(d32, w.v[v], hn::Load(d16, x.values + v * kLanes16), sum0, sum1);
  }
  // In this order nothing underflows: the scales of weights and activations may be far apart.
  const auto sum = hn::Mul(hn::ConvertTo(df, hn::Add(sum0, sum1)), hn::Load(df, x.scales));
  return hn::MulAdd(sum, weight_scale, acc);
}

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif
