// What the kernels of attention share: their arguments, and which keys a row sees.
#pragma once

#include "backends/cuda/kernels.h"
#include "backends/cuda/launch.cuh"

namespace gptoss::cuda {

inline constexpr int kMaxHeadDim = 128;

/// Of AttentionArgs what kernels need.
struct AttentionArguments {
  const float* q;
  int heads, kv_heads, head_dim, window;
  const uint8_t *k, *v;
  RowPlaces places;
  const float* sinks;
  float* out;
};

inline AttentionArguments ArgumentsOf(const AttentionArgs& args, const RowPlaces& places) {
  return {args.q,           args.num_heads, args.num_kv_heads, args.head_dim, args.window, Bytes(args.kv.k),
          Bytes(args.kv.v), places,         args.sinks,        args.out};
}

/// Of rows that are taken one by one.
struct RowArguments : AttentionArguments {
  const int32_t* rows;  // [n] the rows of the batch that are wanted; null: all
  float* partial;       // [n, heads, chunks, head_dim + 2]: largest score, sum, values; null: chunks are not apart
  int chunks;
};

__device__ inline int64_t RowOf(const RowArguments& a, int64_t item) { return a.rows == nullptr ? item : a.rows[item]; }

/// The part of `item`'s results that `chunk` of its chunks has.
__device__ inline float* PartialOf(const RowArguments& a, int64_t item, int head, int chunk) {
  return a.partial + ((item * a.heads + head) * a.chunks + chunk) * (a.head_dim + 2);
}

/// How two sums of values weighted with exp(score - largest score) are joined; both stay finite where one or both are
/// empty, with a largest score of minus infinity.
struct JoinFactors {
  float largest, of_total, of_part;
};
__device__ inline JoinFactors FactorsOf(float total, float part) {
  const float largest = fmaxf(total, part), base = largest == -INFINITY ? 0.0f : largest;
  return {largest, expf(total - base), expf(part - base)};
}
__device__ inline float Joined(const JoinFactors& factors, float total, float part) {
  return __fmaf_rn(part, factors.of_part, __fmul_rn(total, factors.of_total));
}

/// On tensor cores, one block a row, key/value head and chunk (all chunks where they are not apart); for what
/// TiledAttentionTakes.
void RowsOnTensorCores(Stream stream, const RowArguments& a, int64_t n);

/// The first position that the row at `position` sees; the last is its own.
__device__ inline int FirstSeen(const AttentionArguments& a, int position) {
  return a.window == 0 || position < a.window ? 0 : position - a.window + 1;
}

/// Blocks of the cache that hold the positions of the sequence of row `row`.
__device__ inline const int32_t* BlockTable(const AttentionArguments& a, int64_t row) {
  return a.places.block_tables + static_cast<int64_t>(a.places.sequence[row]) * a.places.blocks_per_sequence;
}

}  // namespace gptoss::cuda
