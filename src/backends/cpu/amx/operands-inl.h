// Operands of tiles from rows of floats or BF16. Included once per target.
//
// A left operand is 16 rows of 32 columns as they are. A right operand has pairs of columns of its 16 rows side by
// side.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "backends/cpu/amx/tiles-inl.h"

#if defined(GPTOSS_BACKENDS_CPU_AMX_OPERANDS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GPTOSS_BACKENDS_CPU_AMX_OPERANDS_INL_H_
#undef GPTOSS_BACKENDS_CPU_AMX_OPERANDS_INL_H_
#else
#define GPTOSS_BACKENDS_CPU_AMX_OPERANDS_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// The BF16 nearest to `value` (ties to even) in the upper half of each lane, zeros below. Not-a-numbers stay so.
template <class V>
HWY_INLINE auto Bf16Bits(V value) {
  const hn::RebindToUnsigned<hn::DFromV<V>> du;
  const auto bits = hn::BitCast(du, value);
  const auto half = hn::Add(hn::Set(du, 0x7FFF), hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1)));
  const auto quiet = hn::Or(bits, hn::Set(du, 0x00400000));
  const auto is_number = hn::RebindMask(du, hn::Eq(value, value));
  return hn::And(hn::IfThenElse(is_number, hn::Add(bits, half), quiet), hn::Set(du, 0xFFFF0000));
}

/// `value` less the BF16 whose bits these are: exact, and what a second BF16 can add to it. Zero where that is no
/// number.
template <class V, class VU>
HWY_INLINE V WithoutBf16(V value, VU bits) {
  const hn::DFromV<V> d;
  const auto rest = hn::Sub(value, hn::BitCast(d, bits));
  return hn::IfThenElseZero(hn::Lt(hn::Abs(rest), hn::Set(d, HUGE_VALF)), rest);
}

/// Nearest even; not-a-numbers stay so. `count` is a multiple of 16.
inline void RoundToBf16(const float* HWY_RESTRICT from, int64_t count, uint16_t* HWY_RESTRICT to) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<uint16_t, decltype(d)> du16;
  for (int64_t i = 0; i < count; i += static_cast<int64_t>(hn::Lanes(d))) {
    const auto bits = hn::ShiftRight<16>(Bf16Bits(hn::LoadU(d, from + i)));
    hn::StoreU(hn::DemoteTo(du16, hn::BitCast(di, bits)), du16, to + i);
  }
}

/// As RoundToBf16, and what that leaves to `rest`.
inline void SplitToBf16(const float* HWY_RESTRICT from, int64_t count, uint16_t* HWY_RESTRICT to,
                        uint16_t* HWY_RESTRICT rest) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<uint16_t, decltype(d)> du16;
  for (int64_t i = 0; i < count; i += static_cast<int64_t>(hn::Lanes(d))) {
    const auto value = hn::LoadU(d, from + i);
    const auto first = Bf16Bits(value), second = Bf16Bits(WithoutBf16(value, first));
    hn::StoreU(hn::DemoteTo(du16, hn::BitCast(di, hn::ShiftRight<16>(first))), du16, to + i);
    hn::StoreU(hn::DemoteTo(du16, hn::BitCast(di, hn::ShiftRight<16>(second))), du16, rest + i);
  }
}

/// to[j][i] = from[i][j] for 4 x 4 values of 32 bits.
inline void Transpose4(const uint32_t* const* from, int64_t at, uint32_t* to, int64_t to_stride) {
  const hn::FixedTag<uint32_t, 4> d;
  const hn::FixedTag<uint64_t, 2> d64;
  const auto a = hn::LoadU(d, from[0] + at), b = hn::LoadU(d, from[1] + at);
  const auto c = hn::LoadU(d, from[2] + at), e = hn::LoadU(d, from[3] + at);
  const auto ab_low = hn::BitCast(d64, hn::InterleaveLower(d, a, b));
  const auto ab_high = hn::BitCast(d64, hn::InterleaveUpper(d, a, b));
  const auto ce_low = hn::BitCast(d64, hn::InterleaveLower(d, c, e));
  const auto ce_high = hn::BitCast(d64, hn::InterleaveUpper(d, c, e));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, ab_low, ce_low)), d, to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, ab_low, ce_low)), d, to + to_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, ab_high, ce_high)), d, to + 2 * to_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, ab_high, ce_high)), d, to + 3 * to_stride);
}

/// Right operands of 16 rows of `cols` BF16 values: tile s, at to + s * stride, holds columns 32 s … 32 s + 31, in its
/// row i column 2 i and 2 i + 1 of all 16 rows.
inline void PackTiles(const uint16_t* const* rows, int64_t cols, int64_t stride, uint16_t* to) {
  const uint32_t* pairs[kTileRows];
  for (int n = 0; n < kTileRows; ++n) pairs[n] = reinterpret_cast<const uint32_t*>(rows[n]);
  for (int64_t pair = 0; pair < cols / 2; pair += 4) {
    auto* out = reinterpret_cast<uint32_t*>(to + pair / kTileRows * stride) + pair % kTileRows * kTileRows;
    for (int n = 0; n < kTileRows; n += 4) Transpose4(pairs + n, pair, out + n, kTileRows);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif
