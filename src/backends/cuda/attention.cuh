// What the kernels of attention share: their arguments, and which keys a row sees.
#pragma once

#include "backends/cuda/kernels.h"
#include "backends/cuda/launch.cuh"
#include "backends/cuda/scratch_plan.h"
#include "ops/forward_batch.h"

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

/// What exponents are taken relative to: the largest score, or 0 while there is none, so that all of them stay finite.
__device__ inline float BaseOf(float largest) { return largest == -INFINITY ? 0.0f : largest; }

/// How two sums of values weighted with exp(score - largest score) are joined, of which one or both may be empty, with
/// a largest score of minus infinity.
struct JoinFactors {
  float largest, of_total, of_part;
};
__device__ inline JoinFactors FactorsOf(float total, float part) {
  const float largest = fmaxf(total, part), base = BaseOf(largest);
  return {largest, expf(total - base), expf(part - base)};
}
__device__ inline float Joined(const JoinFactors& factors, float total, float part) {
  return __fmaf_rn(part, factors.of_part, __fmul_rn(total, factors.of_total));
}

/// The first position that the row at `position` sees; the last is its own.
__device__ inline int FirstSeen(const AttentionArguments& a, int position) {
  return a.window == 0 || position < a.window ? 0 : position - a.window + 1;
}

/// Blocks of the cache that hold the positions of the sequence of row `row`.
__device__ inline const int32_t* BlockTable(const AttentionArguments& a, int64_t row) {
  return a.places.block_tables + static_cast<int64_t>(a.places.sequence[row]) * a.places.blocks_per_sequence;
}

/// The positions that a row sees, in chunks of kAttentionChunk that are aligned to absolute positions.
struct SeenChunks {
  int first, last;  // positions
  int first_chunk, count;
  __device__ int Begin(int chunk) const { return max((first_chunk + chunk) * kAttentionChunk, first); }
  __device__ int End(int chunk) const { return min((first_chunk + chunk + 1) * kAttentionChunk, last + 1); }
};

__device__ inline SeenChunks ChunksOf(const AttentionArguments& a, int64_t row) {
  const int last = a.places.position[row], first = FirstSeen(a, last), first_chunk = first / kAttentionChunk;
  return {first, last, first_chunk, last / kAttentionChunk - first_chunk + 1};
}

/// Chunks from … to - 1 of a row.
struct ChunkRange {
  int from, to;
};

/// Those that are this block's: one where chunks are apart, or none past the row's last; else all.
__device__ inline ChunkRange ChunksOfBlock(const RowArguments& a, const SeenChunks& seen) {
  if (a.partial == nullptr) return {0, seen.count};
  const auto chunk = static_cast<int>(blockIdx.z);
  return {chunk, min(chunk + 1, seen.count)};
}

/// Blocks among which the query heads of a key/value head are shared out.
__host__ __device__ inline int PartsOfGroup(const AttentionArguments& a, int heads_in_block) {
  return (a.heads / a.kv_heads + heads_in_block - 1) / heads_in_block;
}

/// Grid: x wanted rows, y key/value heads by parts of their query heads, z chunks (1 when a block takes them all).
inline dim3 GridOfRows(const RowArguments& a, int64_t n, int heads_in_block) {
  return {static_cast<unsigned>(n), static_cast<unsigned>(a.kv_heads * PartsOfGroup(a, heads_in_block)),
          a.partial != nullptr ? static_cast<unsigned>(a.chunks) : 1u};
}

/// On tensor cores, one block a row, key/value head and chunk (all chunks where they are not apart); for what
/// TiledAttentionTakes.
void RowsOnTensorCores(Stream stream, const RowArguments& a, int64_t n);

}  // namespace gptoss::cuda
