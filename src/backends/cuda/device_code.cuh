// What every kernel of this folder is written with: CUDA itself under nvcc, its emulator on the host otherwise
// (emulator/emulator.h), the number formats, and sums over a warp. Warp functions are called by whole warps only.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
/// The dynamic shared memory of the block as an array of `type`.
#define GPTOSS_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char gptoss_shared[]; \
  type* const name = reinterpret_cast<type*>(gptoss_shared)
/// Before a loop over an array that shall stay in registers.
#define GPTOSS_UNROLL _Pragma("unroll")
/// Before a loop whose loads shall be under way eight rounds at a time.
#define GPTOSS_UNROLL_8 _Pragma("unroll 8")
#else
#include "backends/cuda/emulator/emulator.h"
#define GPTOSS_SHARED(type, name) type* const name = static_cast<type*>(::gptoss::cuda::SharedMemory())
#define GPTOSS_UNROLL
#define GPTOSS_UNROLL_8
#endif

namespace gptoss::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;

__device__ inline int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int WarpInBlock() { return static_cast<int>(threadIdx.x) / kWarp; }

/// `value` joined over all lanes by a butterfly, the same bits in each.
template <typename T, typename Join>
__device__ inline T OverWarp(T value, Join join) {
#if defined(__CUDACC__)
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value = join(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
#else
  // The same joins after one exchange: an exchange is what costs time in the emulator.
  const std::byte* lanes = WarpExchange(&value, sizeof(value));
  T values[kWarp];
  for (int i = 0; i < kWarp; ++i) values[i] = LaneValue<T>(lanes, i);
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    for (int i = 0; i < distance; ++i) values[i] = join(values[i], values[i + distance]);
  }
  return values[0];
#endif
}

__device__ inline float WarpSum(float value) {
  return OverWarp(value, [](float a, float b) { return a + b; });
}

__device__ inline float WarpMax(float value) {
  return OverWarp(value, [](float a, float b) { return fmaxf(a, b); });
}

/// `value` joined over lanes 4i … 4i + 3, the same bits in each.
template <typename Join>
__device__ inline float OverFour(float value, Join join) {
  for (int distance = 1; distance <= 2; distance *= 2) {
    value = join(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// Number formats, by their bits.

__device__ inline float Bf16ToFloat(uint16_t bits) { return __uint_as_float(static_cast<uint32_t>(bits) << 16); }

/// Round to nearest even; what is not a number stays that.
__device__ inline uint16_t FloatToBf16(float value) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

/// Exact for every binary16: the exponent's bias is mended by a product with a power of two, subnormals included.
__device__ inline float HalfToFloat(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16, rest = static_cast<uint32_t>(bits & 0x7FFFu) << 13;
  if (rest >= 0x0F800000u) return __uint_as_float(sign | 0x7F800000u | (rest & 0x007FFFFFu));
  return __uint_as_float(sign | __float_as_uint(__uint_as_float(rest) * 0x1.0p112f));
}

/// 2^(scale - 127), as tensor/mxfp4.h has it.
__device__ inline float E8m0ToFloat(uint8_t scale) {
  return scale == 0 ? 0x1.0p-127f : __uint_as_float(static_cast<uint32_t>(scale) << 23);
}

/// FP4 of the low four bits. The three bits of magnitude are exponent and mantissa of a float 2^-126 times the value.
__device__ inline float Fp4ToFloat(uint32_t code) {
  return __uint_as_float((code & 7u) << 22 | (code & 8u) << 28) * 0x1.0p126f;
}

/// 32 consecutive values of a matrix as they are stored, in registers.
template <DType kDType>
struct StoredBlock {
  static constexpr int kWords = kDType == DType::kMxfp4  ? 4
                                : kDType == DType::kQ8_0 ? 8
                                : kDType == DType::kF32  ? 32
                                                         : 16;
  uint32_t words[kWords];
  float scale;  // 1 for formats that have none
};

/// `block` counts blocks of 32 values from the start of the matrix. data is aligned to 16 bytes, as are rows of whole
/// blocks.
template <DType kDType>
__device__ inline StoredBlock<kDType> LoadStored(const uint8_t* data, const uint8_t* scales, int64_t block) {
  constexpr int kQuads = StoredBlock<kDType>::kWords / 4;
  StoredBlock<kDType> stored;
  GPTOSS_UNROLL
  for (int i = 0; i < kQuads; ++i) {
    const uint4 four = reinterpret_cast<const uint4*>(data)[kQuads * block + i];
    stored.words[4 * i] = four.x;
    stored.words[4 * i + 1] = four.y;
    stored.words[4 * i + 2] = four.z;
    stored.words[4 * i + 3] = four.w;
  }
  stored.scale = 1.0f;
  if constexpr (kDType == DType::kMxfp4) stored.scale = E8m0ToFloat(scales[block]);
  if constexpr (kDType == DType::kQ8_0) stored.scale = HalfToFloat(reinterpret_cast<const uint16_t*>(scales)[block]);
  return stored;
}

/// Value i of a block without the block's scale.
template <DType kDType>
__device__ inline float ValueOf(const StoredBlock<kDType>& stored, int i) {
  if constexpr (kDType == DType::kMxfp4) {
    return Fp4ToFloat(stored.words[i / 8] >> (4 * (i % 8)));
  } else if constexpr (kDType == DType::kQ8_0) {
    return static_cast<float>(static_cast<int8_t>(stored.words[i / 4] >> (8 * (i % 4)) & 0xFFu));
  } else if constexpr (kDType == DType::kF32) {
    return __uint_as_float(stored.words[i]);
  } else {
    static_assert(kDType == DType::kF16 || kDType == DType::kBF16);
    const auto bits = static_cast<uint16_t>(stored.words[i / 2] >> (16 * (i % 2)) & 0xFFFFu);
    return kDType == DType::kF16 ? HalfToFloat(bits) : Bf16ToFloat(bits);
  }
}

/// gate * sigmoid(1.702 gate) * (up + 1) after the clamps of the model.
__device__ inline float Swiglu(float gate, float up, float limit) {
  gate = fminf(gate, limit);
  up = fminf(fmaxf(up, -limit), limit);
  return gate / (1.0f + expf(-1.702f * gate)) * (up + 1.0f);
}

}  // namespace gptoss::cuda
