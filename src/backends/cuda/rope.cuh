// Rotation of queries and keys, and the append to the cache: at the end of a product with few rows, or on its own.
#pragma once

#include "backends/cuda/kernels.h"
#include "backends/cuda/launch.cuh"
#include "ops/forward_batch.h"

namespace gptoss::cuda {

/// Of QkvRopeArgs what kernels need.
struct RopeArguments {
  int heads, kv_heads, head_dim;
  const float *cos, *sin;  // [n, head_dim / 2]
  const int32_t* slots;    // [n], on the device
  DType cache;
  std::byte *k, *v;
  float* q;
};

inline RopeArguments ArgumentsOf(const QkvRopeArgs& args, const int32_t* slots) {
  return {args.num_heads, args.num_kv_heads, args.head_dim, args.cos,  args.sin,
          slots,          args.kv.dtype,     args.kv.k,     args.kv.v, args.q};
}

/// Values `pair` and `pair` + head_dim / 2 of a head of a row: turned, where the head is one of q or k, and put where
/// they belong. Heads are numbered through: those of q, then of k, then of v.
__device__ inline void TurnAndStore(const RopeArguments& a, int64_t row, int64_t head, int64_t pair, float first,
                                    float second) {
  const int64_t dim = a.head_dim, half = dim / 2;
  if (head < a.heads + a.kv_heads) {
    const float c = a.cos[row * half + pair], s = a.sin[row * half + pair], turned = first * c - second * s;
    second = second * c + first * s;
    first = turned;
  }
  if (head < a.heads) {
    float* to = a.q + (row * a.heads + head) * dim;
    to[pair] = first;
    to[pair + half] = second;
    return;
  }
  const bool is_key = head < a.heads + a.kv_heads;
  const int64_t kv_head = (head - a.heads) % a.kv_heads;
  const int64_t cache_block = a.slots[row] / kKvBlockSize, offset = a.slots[row] % kKvBlockSize;
  const int64_t to = ((cache_block * a.kv_heads + kv_head) * kKvBlockSize + offset) * dim + pair;
  std::byte* cache = is_key ? a.k : a.v;
  if (a.cache == DType::kF32) {
    reinterpret_cast<float*>(cache)[to] = first;
    reinterpret_cast<float*>(cache)[to + half] = second;
  } else {
    reinterpret_cast<uint16_t*>(cache)[to] = FloatToBf16(first);
    reinterpret_cast<uint16_t*>(cache)[to + half] = FloatToBf16(second);
  }
}

}  // namespace gptoss::cuda
