// Dot products of quantised activations with instructions that sum pairs of products. Once per target.
//
// MXFP4: codes become 8-bit values 0 to 24, twice the weight plus 12, and an activation is two bytes; sums of products
// of bytes stay in 16-bit lanes. They start from -12 times the sum of the activations, which takes the offset out
// again: the whole sum fits 16 bits, so it may wrap on the way.
// Q8_0: bytes are widened to 16 bits and multiplied with the 16-bit activations.

#include <cstdint>

#include "backends/cpu/quantize-inl.h"

#if defined(GPTOSS_BACKENDS_CPU_PAIR_FORMATS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GPTOSS_BACKENDS_CPU_PAIR_FORMATS_INL_H_
#undef GPTOSS_BACKENDS_CPU_PAIR_FORMATS_INL_H_
#else
#define GPTOSS_BACKENDS_CPU_PAIR_FORMATS_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

/// Sums of the products of pairs of bytes, as 16-bit integers: `a` in [0, 24], `x` signed.
template <class V>
HWY_INLINE auto MultiplyBytePairs(V a, V x) {
  const hn::RepartitionToWide<hn::DFromV<V>> d;
#if HWY_TARGET == HWY_SSE4
  return hn::VFromD<decltype(d)>{_mm_maddubs_epi16(a.raw, x.raw)};
#elif HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
  if constexpr (sizeof(a.raw) == 16) {
    return hn::VFromD<decltype(d)>{_mm_maddubs_epi16(a.raw, x.raw)};
  } else if constexpr (sizeof(a.raw) == 32) {
    return hn::VFromD<decltype(d)>{_mm256_maddubs_epi16(a.raw, x.raw)};
#if HWY_TARGET == HWY_AVX3
  } else {
    return hn::VFromD<decltype(d)>{_mm512_maddubs_epi16(a.raw, x.raw)};
#endif
  }
#else
  const auto low = [&](auto v) HWY_ATTR { return hn::ShiftRight<8>(hn::ShiftLeft<8>(v)); };
  const auto a16 = hn::BitCast(d, a), x16 = hn::BitCast(d, x);
  return hn::Add(hn::Mul(low(a16), low(x16)), hn::Mul(hn::ShiftRight<8>(a16), hn::ShiftRight<8>(x16)));
#endif
}

struct Mxfp4Pairs : Mxfp4Weights {
  /// For each 4 bytes of a row's codes the high bytes of the activations of the low nibbles, of the high nibbles, then
  /// the low bytes of both. offsets: what the 16-bit sums of high and of low bytes start from.
  static void Arrange(const int16_t* HWY_RESTRICT block, ActivationBlock* out) {
    const hn::CappedTag<int16_t, 8> d16;
    const hn::Repartition<int8_t, decltype(d16)> d8;
    const hn::Repartition<int32_t, decltype(d16)> d32;
    auto sums = hn::Zero(d16);
    for (int j = 0; j < 4; ++j) {
      StoreBytes(block + 8 * j, kMxfp4Order, out->words + 4 * j);
      const auto bytes = hn::BitCast(d8, hn::Load(d32, out->words + 4 * j));
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

  /// Sums over one block of the rows of a vector, for kTokens tokens. |sum| < 2^24: exact as a float.
  template <int kTokens, size_t kGroups>
  static HWY_INLINE void Dot(const std::array<const uint8_t*, kGroups>& codes,
                             const ActivationBlock* const (&x)[kTokens], V32<kGroups> (&sums)[kTokens]) {
    const D8<kGroups> d8;
    const D16<kGroups> d16;
    const D32<kGroups> d32;
    const auto table = hn::LoadDup128(d8, kCodes<kCodeOffset>.data());
    V16<kGroups> high[kTokens], low[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      high[t] = hn::BitCast(d16, hn::Set(d32, x[t]->offsets[0]));
      low[t] = hn::BitCast(d16, hn::Set(d32, x[t]->offsets[1]));
    }
    // Not unrolled: g++ 12 would move all multiplications ahead and spill their results, at half the speed.
#pragma GCC unroll 1
    for (int j = 0; j < 4; ++j) {
      const auto w = LoadCodes(codes, j, table);
      for (int t = 0; t < kTokens; ++t) {
        const int32_t* words = x[t]->words + 4 * j;
        const auto add = [&](V16<kGroups>& sum, V8<kGroups> weights, int32_t word) HWY_ATTR {
          sum = hn::Add(sum, MultiplyBytePairs(weights, hn::BitCast(d8, hn::Set(d32, word))));
        };
        add(high[t], w.first, words[0]);
        add(high[t], w.second, words[1]);
        add(low[t], w.first, words[2]);
        add(low[t], w.second, words[3]);
      }
    }
    for (int t = 0; t < kTokens; ++t) {
      sums[t] = hn::Add(MultiplyPairs(high[t], hn::Set(d16, 256)), MultiplyPairs(low[t], hn::Set(d16, 1)));
    }
  }
};

struct Q8Pairs : Q8Weights {
  /// For each 4 weights activations 0 and 2, then 1 and 3, as 16-bit integers.
  static void Arrange(const int16_t* HWY_RESTRICT block, ActivationBlock* out) {
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

  /// As above: |sum| <= 32 * 32639 * 128 < 2^27.
  template <int kTokens, size_t kGroups>
  static HWY_INLINE void Dot(const std::array<const uint8_t*, kGroups>& quants,
                             const ActivationBlock* const (&x)[kTokens], V32<kGroups> (&sums)[kTokens]) {
    const D16<kGroups> d16;
    const DU8<kGroups> du8;
    const D32<kGroups> d32;
    for (int t = 0; t < kTokens; ++t) sums[t] = hn::Zero(d32);
#pragma GCC unroll 1
    for (int j = 0; j < 8; ++j) {
      const auto bytes = hn::BitCast(d16, LoadGroups(du8, quants, j * kRowGroup * 4));
      const auto even = hn::ShiftRight<8>(hn::ShiftLeft<8>(bytes)), odd = hn::ShiftRight<8>(bytes);
      for (int t = 0; t < kTokens; ++t) {
        const int32_t* words = x[t]->words + 2 * j;
        sums[t] = hn::Add(sums[t], MultiplyPairs(even, hn::BitCast(d16, hn::Set(d32, words[0]))));
        sums[t] = hn::Add(sums[t], MultiplyPairs(odd, hn::BitCast(d16, hn::Set(d32, words[1]))));
      }
    }
  }
};

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif
