// Dot products of quantised activations with instructions that add four products of bytes to each 32-bit lane:
// AVX-VNNI, AVX-512 VNNI, and the dot products of AArch64. Once per target.
//
// An activation is two bytes, 256 high + low, with a 32-bit sum for either. x86's instructions take one unsigned and
// one signed byte: there weights carry an offset (12 for codes, 128 for Q8_0), and sums start from its negative times
// the sum of the activations. The integers are those of pair_formats-inl.h, so results have the same bits.
//
// Sources: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, VPDPBUSD; Arm Architecture Reference
// Manual for A-profile, SDOT (vector).

#include <cstdint>
#include <type_traits>

#include "backends/cpu/quantize-inl.h"

#if defined(GPTOSS_BACKENDS_CPU_DOTS_BYTE_FORMATS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GPTOSS_BACKENDS_CPU_DOTS_BYTE_FORMATS_INL_H_
#undef GPTOSS_BACKENDS_CPU_DOTS_BYTE_FORMATS_INL_H_
#else
#define GPTOSS_BACKENDS_CPU_DOTS_BYTE_FORMATS_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

// Each of these classes is one instruction: `sum` plus, in every 32-bit lane, the products of the lane's four bytes of
// `w` with the four bytes of `*x`. Assembly instead of intrinsics: it needs no compiler flags, so that the kernel is
// one template for all of them.

/// The instruction of x86 as ordinary code, for tests.
struct EmulatedByteDots {
  static constexpr bool kUnsignedWeights = true;

  static HWY_INLINE V32<1> Add(V32<1> sum, V8<1> w, const int32_t* x) {
    const D32<1> d32;
    const hn::RebindToUnsigned<D32<1>> du32;
    const V32<1> w32 = hn::BitCast(d32, w), x32 = hn::Set(d32, *x);
    const auto product = [&](auto shift) HWY_ATTR {
      constexpr int kUp = decltype(shift)::value;
      const auto a = hn::BitCast(d32, hn::ShiftRight<24>(hn::ShiftLeft<kUp>(hn::BitCast(du32, w32))));
      return hn::Mul(a, hn::ShiftRight<24>(hn::ShiftLeft<kUp>(x32)));
    };
    const auto low = hn::Add(product(std::integral_constant<int, 24>()), product(std::integral_constant<int, 16>()));
    const auto high = hn::Add(product(std::integral_constant<int, 8>()), product(std::integral_constant<int, 0>()));
    return hn::Add(sum, hn::Add(low, high));
  }
};

#if HWY_TARGET == HWY_AVX2

/// AVX-VNNI.
struct ProcessorByteDots {
  static constexpr bool kUnsignedWeights = true;

  static HWY_INLINE V32<1> Add(V32<1> sum, V8<1> w, const int32_t* x) {
    const V32<1> words = hn::Set(D32<1>(), *x);
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum.raw) : "x"(w.raw), "x"(words.raw));
    return sum;
  }
};

#elif HWY_TARGET == HWY_AVX3

/// AVX-512 VNNI, which repeats the word from memory by itself.
struct ProcessorByteDots {
  static constexpr bool kUnsignedWeights = true;

  template <class V, class W>
  static HWY_INLINE V Add(V sum, W w, const int32_t* x) {
    if constexpr (sizeof(sum.raw) == 32) {
      asm("vpdpbusd %2%{1to8%}, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "m"(*x));
    } else {
      asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "m"(*x));
    }
    return sum;
  }
};

#elif HWY_TARGET == HWY_NEON

/// The dot products of Armv8.2.
struct ProcessorByteDots {
  static constexpr bool kUnsignedWeights = false;

  static HWY_INLINE V32<1> Add(V32<1> sum, V8<1> w, const int32_t* x) {
    return V32<1>{vdotq_s32(sum.raw, w.raw, hn::BitCast(D8<1>(), hn::Set(D32<1>(), *x)).raw)};
  }
};

#endif

/// Stores a block's bytes, eight activations in the order `from` at a time, and what sums start from where weights
/// carry `offset`: its magnitude is at most 128 * 32 * 32639 < 2^27.
inline void ArrangeBytes(const int16_t* HWY_RESTRICT block, const int8_t* from, int32_t offset, ActivationBlock* out) {
  int32_t sum = 0;
  for (int j = 0; j < 4; ++j) StoreBytes(block + 8 * j, from, out->words + 4 * j);
  for (int i = 0; i < kBlockSize; ++i) sum += block[i];
  out->offsets[0] = -offset * sum;
  out->offsets[1] = 0;
}

/// As SumBlock for one token and one group, whose two sums would be chains of eight instructions with little beside
/// them to do: here they are four chains of four.
template <class ByteDots, class Load>
HWY_INLINE V32<1> SumAlone(const ActivationBlock& x, const Load& load) {
  const D32<1> d32;
  V32<1> high = hn::Zero(d32), low = hn::Set(d32, x.offsets[0]), second_high = high, second_low = high;
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const WeightPair<1> w = load(j);
    const int32_t* words = x.words + 4 * j;
    high = ByteDots::Add(high, w.first, words);
    second_high = ByteDots::Add(second_high, w.second, words + 1);
    low = ByteDots::Add(low, w.first, words + 2);
    second_low = ByteDots::Add(second_low, w.second, words + 3);
  }
  return hn::Add(hn::ShiftLeft<8>(hn::Add(high, second_high)), hn::Add(low, second_low));
}

/// Sums over one block, in four steps: load(j) gives the weights that step j multiplies with its first and second words
/// of high bytes, and with those of low bytes.
template <class ByteDots, size_t kGroups, int kTokens, class Load>
HWY_INLINE void SumBlock(const ActivationBlock* const (&x)[kTokens], const Load& load, V32<kGroups> (&sums)[kTokens]) {
  const D32<kGroups> d32;
  if constexpr (kTokens == 1 && kGroups == 1) {
    sums[0] = SumAlone<ByteDots>(*x[0], load);
    return;
  }
  V32<kGroups> high[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    high[t] = hn::Zero(d32);
    sums[t] = hn::Set(d32, x[t]->offsets[0]);
  }
  const auto step = [&](int j) HWY_ATTR {
    const WeightPair<kGroups> w = load(j);
    for (int t = 0; t < kTokens; ++t) {
      const int32_t* words = x[t]->words + 4 * j;
      high[t] = ByteDots::Add(ByteDots::Add(high[t], w.first, words), w.second, words + 1);
      sums[t] = ByteDots::Add(ByteDots::Add(sums[t], w.first, words + 2), w.second, words + 3);
    }
  };
  if constexpr (kGroups == 2) {
    step(0), step(1), step(2), step(3);  // unrolled: 1.06 times as fast with the 32 registers of AVX-512
  } else {
#pragma GCC unroll 1
    for (int j = 0; j < 4; ++j) step(j);
  }
  for (int t = 0; t < kTokens; ++t) sums[t] = hn::Add(hn::ShiftLeft<8>(high[t]), sums[t]);
}

template <class ByteDots>
struct Mxfp4Bytes : Mxfp4Weights {
  static constexpr int kOffset = ByteDots::kUnsignedWeights ? kCodeOffset : 0;

  /// For each 4 bytes of a row's codes the high bytes of the activations of the low nibbles, of the high nibbles, then
  /// the low bytes of both.
  static void Arrange(const int16_t* HWY_RESTRICT block, ActivationBlock* out) {
    ArrangeBytes(block, kMxfp4Order, kOffset, out);
  }

  /// As Mxfp4Pairs::Dot.
  template <int kTokens, size_t kGroups>
  static HWY_INLINE void Dot(const std::array<const uint8_t*, kGroups>& codes,
                             const ActivationBlock* const (&x)[kTokens], V32<kGroups> (&sums)[kTokens]) {
    const auto table = hn::LoadDup128(D8<kGroups>(), kCodes<kOffset>.data());
    SumBlock<ByteDots, kGroups>(
        x, [&](int j) HWY_ATTR { return LoadCodes(codes, j, table); }, sums);
  }
};

template <class ByteDots>
struct Q8Bytes : Q8Weights {
  static constexpr int kOffset = ByteDots::kUnsignedWeights ? 128 : 0;

  /// For each 8 weights the high bytes of the first four activations and of the others, then the low bytes.
  static void Arrange(const int16_t* HWY_RESTRICT block, ActivationBlock* out) {
    static constexpr int8_t kOrder[16] = {1, 3, 5, 7, 9, 11, 13, 15, 0, 2, 4, 6, 8, 10, 12, 14};
    ArrangeBytes(block, kOrder, kOffset, out);
  }

  /// As Q8Pairs::Dot.
  template <int kTokens, size_t kGroups>
  static HWY_INLINE void Dot(const std::array<const uint8_t*, kGroups>& quants,
                             const ActivationBlock* const (&x)[kTokens], V32<kGroups> (&sums)[kTokens]) {
    const auto load = [&](int j) HWY_ATTR {
      const D8<kGroups> d8;
      const DU8<kGroups> du8;
      const auto offset = hn::Set(du8, static_cast<uint8_t>(kOffset));
      const int64_t from = 2 * j * kRowGroup * 4;
      return WeightPair<kGroups>{hn::BitCast(d8, hn::Xor(LoadGroups(du8, quants, from), offset)),
                                 hn::BitCast(d8, hn::Xor(LoadGroups(du8, quants, from + kRowGroup * 4), offset))};
    };
    SumBlock<ByteDots, kGroups>(x, load, sums);
  }
};

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif
