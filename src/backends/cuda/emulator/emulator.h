// CUDA on the host, as far as the kernels of this folder use it, so that their arithmetic and their indices are tested
// without a GPU. Blocks run one after the other, and so do the threads of a block, which are fibers: each goes as far
// as it can before the next one does. Which goes first, CUDA leaves open: with GPTOSS_EMULATOR_BACKWARD in the
// environment it is the last one. Where a barrier is missing between a write and a read, one of the two orders gets a
// wrong value. Warp functions need all lanes that still run.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#include "parallel/device.h"

// The names below are CUDA's own and therefore global.
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

namespace gptoss::cuda {

/// Where the running thread is.
struct ThreadPlace {
  dim3 thread, block, block_size, grid_size;
};
extern ThreadPlace current_place;

void* SharedMemory();
/// Runs `kernel` once for each thread of the grid.
void RunGrid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);
/// A device of its own memory, which only kernels and copies can reach: the host faults when it touches it.
std::unique_ptr<Device> EmulatedDevice();

/// Waits for all threads of the block that have not ended.
void BlockBarrier();
/// Gives `bytes` bytes of each lane of the warp to all of them; `lanes` points at 32 slots of kLaneBytes afterwards,
/// valid until the warp's next exchange but one.
inline constexpr int kLaneBytes = 32;
const std::byte* WarpExchange(const void* value, size_t bytes);

template <typename T>
T LaneValue(const std::byte* lanes, int lane) {
  T value;
  std::memcpy(&value, lanes + lane * kLaneBytes, sizeof(T));
  return value;
}

}  // namespace gptoss::cuda

#define threadIdx (::gptoss::cuda::current_place.thread)
#define blockIdx (::gptoss::cuda::current_place.block)
#define blockDim (::gptoss::cuda::current_place.block_size)
#define gridDim (::gptoss::cuda::current_place.grid_size)

inline void __syncthreads() { gptoss::cuda::BlockBarrier(); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int lane_mask) {
  const std::byte* lanes = gptoss::cuda::WarpExchange(&value, sizeof(T));
  return gptoss::cuda::LaneValue<T>(lanes, static_cast<int>(threadIdx.x % 32) ^ lane_mask);
}
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  const std::byte* lanes = gptoss::cuda::WarpExchange(&value, sizeof(T));
  return gptoss::cuda::LaneValue<T>(lanes, lane);
}
inline void __syncwarp() {
  const int nothing = 0;
  gptoss::cuda::WarpExchange(&nothing, sizeof(nothing));
}
inline unsigned __ballot_sync(unsigned, int predicate) {
  const std::byte* lanes = gptoss::cuda::WarpExchange(&predicate, sizeof(predicate));
  unsigned ballot = 0;
  for (int i = 0; i < 32; ++i) ballot |= (gptoss::cuda::LaneValue<int>(lanes, i) != 0 ? 1u : 0u) << i;
  return ballot;
}

template <typename T>
T atomicAdd(T* at, T value) {
  return std::exchange(*at, *at + value);
}

inline float __uint_as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t __float_as_uint(float value) { return std::bit_cast<uint32_t>(value); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __ffs(unsigned bits) { return bits == 0 ? 0 : std::countr_zero(bits) + 1; }
inline int max(int a, int b) { return std::max(a, b); }
inline int min(int a, int b) { return std::min(a, b); }
