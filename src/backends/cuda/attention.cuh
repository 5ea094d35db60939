// What the two kernels of attention share: their arguments, and which keys a row sees.
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

/// The first position that the row at `position` sees; the last is its own.
__device__ inline int FirstSeen(const AttentionArguments& a, int position) {
  return a.window == 0 || position < a.window ? 0 : position - a.window + 1;
}

/// Blocks of the cache that hold the positions of the sequence of row `row`.
__device__ inline const int32_t* BlockTable(const AttentionArguments& a, int64_t row) {
  return a.places.block_tables + static_cast<int64_t>(a.places.sequence[row]) * a.places.blocks_per_sequence;
}

}  // namespace gptoss::cuda
