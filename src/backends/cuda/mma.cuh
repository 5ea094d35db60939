// Tensor cores (mma.sync, from sm_80 on), and floats as the sum of two BF16, which has 16 bits of mantissa: an error of
// at most 2^-16 of the value.
//
// Fragments of m16n8k16 as the PTX manual has them ("Matrix Fragments for mma.m16n8k16 with floating point type"). With
// g = lane / 4 and t = lane % 4: a holds rows g, g + 8, g, g + 8 at columns 2t and 2t + 1, in the last two registers
// 8 columns further; b holds rows 2t and 2t + 1, in the second register 8 rows further, of column g; d holds row g at
// columns 2t and 2t + 1, then row g + 8.
#pragma once

#include "backends/cuda/device_code.cuh"

namespace gptoss::cuda {

#if defined(__CUDACC__)
/// d += a b, a [16, 16], b [16, 8].
__device__ inline void Mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
inline void Mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  struct Registers {
    uint32_t a[4], b[2];
  };
  const Registers mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const std::byte* lanes = WarpExchange(&mine, sizeof(mine));
  const auto half = [](uint32_t pair, int which) {
    return Bf16ToFloat(static_cast<uint16_t>(pair >> (16 * which) & 0xFFFFu));
  };
  for (int i = 0; i < 4; ++i) {
    const int row = Lane() / 4 + 8 * (i / 2), column = 2 * (Lane() % 4) + i % 2;
    for (int k = 0; k < 16; ++k) {
      // The lane and register that hold a[row, k] and b[k, column].
      const auto holder = LaneValue<Registers>(lanes, 4 * (row % 8) + k % 8 / 2);
      const auto other = LaneValue<Registers>(lanes, 4 * column + k % 8 / 2);
      d[i] += half(holder.a[row / 8 + 2 * (k / 8)], k % 2) * half(other.b[k / 8], k % 2);
    }
  }
}
#endif

/// Two neighbours of a row of BF16 in shared memory, as fragments have them: the first in the low half.
__device__ inline uint32_t Pair(const uint16_t* values) { return *reinterpret_cast<const uint32_t*>(values); }

__device__ inline uint32_t RoundedPair(float first, float second) {
#if defined(__CUDACC__)
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
#else
  return FloatToBf16(first) | static_cast<uint32_t>(FloatToBf16(second)) << 16;
#endif
}

/// Pairs `high` and `low` that add up to `first` and `second`.
__device__ inline void SplitPair(float first, float second, uint32_t& high, uint32_t& low) {
  high = RoundedPair(first, second);
  low = RoundedPair(first - __uint_as_float(high << 16), second - __uint_as_float(high & 0xFFFF0000u));
}

}  // namespace gptoss::cuda
