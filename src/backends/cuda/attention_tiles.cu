// Attention of many rows of a sequence on tensor cores. A block takes 64 query vectors that share a key/value head, 16
// for each of its four warps, and goes over the keys that any of them sees.
#include "backends/cuda/attention_fragments.cuh"
#include "base/check.h"

namespace gptoss::cuda {
namespace {

constexpr int kThreads = kTileVectors / kWarpVectors * kWarp;

__device__ Vector VectorOf(const AttentionArguments& a, const AttentionTile& tile, int kv_head, int half) {
  const int group = a.heads / a.kv_heads;
  const int index = tile.begin + kWarpVectors * WarpInBlock() + 8 * half + Lane() / 4;
  if (index >= tile.end) return {};
  const int row = index / group, last = a.places.position[row];
  return {row, kv_head * group + index % group, FirstSeen(a, last), last};
}

/// Grid: x tiles, y key/value heads.
template <int kDim>
__global__ void TiledAttentionKernel(AttentionArguments a, const AttentionTile* tiles) {
  GPTOSS_SHARED(SharedBlock<kDim>, block);
  const AttentionTile tile = tiles[blockIdx.x];
  const auto kv_head = static_cast<int>(blockIdx.y);
  const int group = a.heads / a.kv_heads, first_row = tile.begin / group, last_row = (tile.end - 1) / group;
  const int first = FirstSeen(a, a.places.position[first_row]), last = a.places.position[last_row];
  const int32_t* table = BlockTable(a, first_row);
  const Vector vectors[2] = {VectorOf(a, tile, kv_head, 0), VectorOf(a, tile, kv_head, 1)};
  const Queries<kDim> queries = LoadQueries<kDim>(a, vectors);
  Sums<kDim> sums = SumsOfSinks<kDim>(a, vectors);
  for (int b = first / kKvBlockSize; b <= last / kKvBlockSize; ++b) {
    const int position = b * kKvBlockSize;
    __syncthreads();
    LoadKeysAndValues(a, table[b], kv_head, first - position, last - position, static_cast<int>(threadIdx.x), kThreads,
                      *block);
    __syncthreads();
    AddBlock(*block, vectors, position, queries, sums);
  }
  CompleteSums(sums);
  WriteOut(a, vectors, sums);
}

}  // namespace

bool TiledAttentionTakes(DType kv_dtype, int head_dim) {
  return kv_dtype == DType::kBF16 && head_dim % 16 == 0 && head_dim <= kMaxHeadDim;
}

void TiledAttention(Stream stream, const AttentionArgs& args, const RowPlaces& places, const AttentionTile* tiles,
                    int64_t count) {
  if (count == 0) return;
  GPTOSS_CHECK(TiledAttentionTakes(args.kv.dtype, args.head_dim) && args.num_heads % args.num_kv_heads == 0);
  const AttentionArguments a = ArgumentsOf(args, places);
  const dim3 grid{static_cast<unsigned>(count), static_cast<unsigned>(args.num_kv_heads), 1};
  if (args.head_dim <= 64) {
    Launch(stream, grid, kThreads, sizeof(SharedBlock<64>), TiledAttentionKernel<64>, a, tiles);
  } else {
    Launch(stream, grid, kThreads, sizeof(SharedBlock<kMaxHeadDim>), TiledAttentionKernel<kMaxHeadDim>, a, tiles);
  }
}

}  // namespace gptoss::cuda
