// Attention of many rows of a sequence on tensor cores. A block takes 64 query vectors that share a key/value head, 16
// for each of its four warps, and goes over the keys that any of them sees, 32 positions at a time, with a running
// maximum. Keys and values are BF16 as the cache has them; queries, and the weights of the softmax, are the sum of two
// BF16. Blocks of keys begin at multiples of 32, and a key that a row does not see has a weight of zero, so that a
// row's bits do not depend on the rows beside it.
#include "backends/cuda/attention.cuh"
#include "backends/cuda/mma.cuh"
#include "backends/cuda/scratch_plan.h"
#include "base/check.h"
#include "ops/forward_batch.h"

namespace gptoss::cuda {
namespace {

constexpr int kWarpVectors = 16;
constexpr int kThreads = kTileVectors / kWarpVectors * kWarp;
constexpr int kKeyTiles = kKvBlockSize / 8;     // products of 8 keys
constexpr int kValueSteps = kKvBlockSize / 16;  // products over 16 keys

/// Keys and values of 32 positions, kDim channels each, of which those past head_dim are zero. The strides let a
/// fragment's loads meet every bank once.
template <int kDim>
struct alignas(16) SharedBlock {
  static constexpr int kStride = kDim + 8;
  uint16_t keys[kKvBlockSize * kStride];
  uint32_t values[kKvBlockSize / 2 * kStride];  // of two neighbouring positions together, the earlier in the low half
};

/// A query vector. Of those past the tile's end nothing is read or written, and they see nothing.
struct Vector {
  int64_t row = 0;
  int head = 0;
  int first = 0, last = -1;  // positions that it sees
};

/// What a lane holds of two query vectors, Lane() / 4 and that plus 8 of its warp's: fragments as mma.cuh has them.
template <int kDim>
struct State {
  uint32_t high[kDim / 16][4], low[kDim / 16][4];  // queries, scaled
  float values[kDim / 8][4];                       // weighted sums
  float largest[2];                                // score so far, of all keys
  float sum[2];                                    // of exp(score - largest), of this lane's keys
};

__device__ Vector VectorOf(const AttentionArguments& a, const AttentionTile& tile, int kv_head, int half) {
  const int group = a.heads / a.kv_heads;
  const int index = tile.begin + kWarpVectors * WarpInBlock() + 8 * half + Lane() / 4;
  if (index >= tile.end) return {};
  const int row = index / group, last = a.places.position[row];
  return {row, kv_head * group + index % group, FirstSeen(a, last), last};
}

template <int kDim>
__device__ void Begin(const AttentionArguments& a, const Vector (&vectors)[2], State<kDim>& state) {
  const float scale = 1.0f / sqrtf(static_cast<float>(a.head_dim));
  GPTOSS_UNROLL
  for (int half = 0; half < 2; ++half) {
    const Vector& vector = vectors[half];
    const bool exists = vector.first <= vector.last;
    const float* q = a.q + (vector.row * a.heads + vector.head) * a.head_dim;
    GPTOSS_UNROLL
    for (int i = 0; i < kDim / 8; ++i) {
      const int channel = 8 * i + 2 * (Lane() % 4), part = half + i % 2 * 2;
      float2 two = {0.0f, 0.0f};
      if (exists && channel < a.head_dim) two = *reinterpret_cast<const float2*>(q + channel);
      SplitPair(two.x * scale, two.y * scale, state.high[i / 2][part], state.low[i / 2][part]);
      state.values[i][2 * half] = state.values[i][2 * half + 1] = 0.0f;
    }
    // The sink is counted by one of the four lanes that share a vector. One of minus infinity takes no part.
    state.largest[half] = exists ? a.sinks[vector.head] : -INFINITY;
    state.sum[half] = Lane() % 4 == 0 && state.largest[half] != -INFINITY ? 1.0f : 0.0f;
  }
}

/// The 32 positions of a block. Those before `first` or after `last`, counted from its begin, may be of a sequence's
/// future, where nobody has written, and stand as zeros: a weight of zero does not make a NaN harmless.
template <int kDim>
__device__ void LoadKeysAndValues(const AttentionArguments& a, int32_t cache_block, int kv_head, int first, int last,
                                  SharedBlock<kDim>& block) {
  constexpr int kParts = kDim / 8;  // of 8 channels, 16 bytes
  const int64_t index = (static_cast<int64_t>(cache_block) * a.kv_heads + kv_head) * kKvBlockSize * a.head_dim;
  const auto *k = reinterpret_cast<const uint16_t*>(a.k) + index, *v = reinterpret_cast<const uint16_t*>(a.v) + index;
  for (int i = static_cast<int>(threadIdx.x); i < kKvBlockSize / 2 * kParts; i += kThreads) {
    const int pair = i / kParts, channel = i % kParts * 8;
    uint4 values[2] = {};
    GPTOSS_UNROLL
    for (int j = 0; j < 2; ++j) {
      const int position = 2 * pair + j;
      uint4 key = {};
      if (position >= first && position <= last && channel < a.head_dim) {
        key = *reinterpret_cast<const uint4*>(k + position * a.head_dim + channel);
        values[j] = *reinterpret_cast<const uint4*>(v + position * a.head_dim + channel);
      }
      *reinterpret_cast<uint4*>(block.keys + position * block.kStride + channel) = key;
    }
    const auto even = [](uint32_t one, uint32_t two) { return (one & 0xFFFFu) | two << 16; };
    const auto odd = [](uint32_t one, uint32_t two) { return one >> 16 | (two & 0xFFFF0000u); };
    const uint4 &one = values[0], &two = values[1];
    auto* to = reinterpret_cast<uint4*>(block.values + pair * block.kStride + channel);
    to[0] = {even(one.x, two.x), odd(one.x, two.x), even(one.y, two.y), odd(one.y, two.y)};
    to[1] = {even(one.z, two.z), odd(one.z, two.z), even(one.w, two.w), odd(one.w, two.w)};
  }
}

template <int kDim>
__device__ void Scores(const SharedBlock<kDim>& block, const State<kDim>& state, float (&scores)[kKeyTiles][4]) {
  GPTOSS_UNROLL
  for (int k = 0; k < kDim / 16; ++k) {
    GPTOSS_UNROLL
    for (int n = 0; n < kKeyTiles; ++n) {
      const uint16_t* key = block.keys + (8 * n + Lane() / 4) * block.kStride + 16 * k + 2 * (Lane() % 4);
      const uint32_t b[2] = {Pair(key), Pair(key + 8)};
      Mma(scores[n], state.low[k], b);
      Mma(scores[n], state.high[k], b);
    }
  }
}

/// Turns the scores of one vector into weights, and fits what was summed before to a new maximum. `position` is that of
/// the block's first key.
template <int kDim>
__device__ void Weigh(const Vector& vector, int half, int position, float (&scores)[kKeyTiles][4], State<kDim>& state) {
  const auto most = [](float x, float y) { return fmaxf(x, y); };
  float largest = -INFINITY;
  GPTOSS_UNROLL
  for (int i = 0; i < 2 * kKeyTiles; ++i) {
    const int key = position + 8 * (i / 2) + 2 * (Lane() % 4) + i % 2;
    float& score = scores[i / 2][2 * half + i % 2];
    if (key < vector.first || key > vector.last) score = -INFINITY;
    largest = fmaxf(largest, score);
  }
  largest = fmaxf(state.largest[half], OverFour(largest, most));
  // While a vector has seen nothing, its weights and its sums are zero.
  const float base = largest == -INFINITY ? 0.0f : largest;
  const float factor = expf(state.largest[half] - base);
  float sum = 0.0f;
  GPTOSS_UNROLL
  for (int i = 0; i < 2 * kKeyTiles; ++i) {
    float& weight = scores[i / 2][2 * half + i % 2];
    weight = expf(weight - base);
    sum += weight;
  }
  state.sum[half] = __fmaf_rn(state.sum[half], factor, sum);
  state.largest[half] = largest;
  GPTOSS_UNROLL
  for (int n = 0; n < kDim / 8; ++n) {
    state.values[n][2 * half] = __fmul_rn(state.values[n][2 * half], factor);
    state.values[n][2 * half + 1] = __fmul_rn(state.values[n][2 * half + 1], factor);
  }
}

/// A product's results are laid out in the lanes as the next one wants its operand.
template <int kDim>
__device__ void AddValues(const SharedBlock<kDim>& block, const float (&weights)[kKeyTiles][4], State<kDim>& state) {
  GPTOSS_UNROLL
  for (int k = 0; k < kValueSteps; ++k) {
    uint32_t high[4], low[4];
    GPTOSS_UNROLL
    for (int part = 0; part < 4; ++part) {
      const float* two = weights[2 * k + part / 2] + part % 2 * 2;
      SplitPair(two[0], two[1], high[part], low[part]);
    }
    GPTOSS_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      const uint32_t* pair = block.values + (8 * k + Lane() % 4) * block.kStride + 8 * n + Lane() / 4;
      const uint32_t b[2] = {pair[0], pair[4 * block.kStride]};
      Mma(state.values[n], low, b);
      Mma(state.values[n], high, b);
    }
  }
}

template <int kDim>
__device__ void WriteOut(const AttentionArguments& a, const Vector& vector, int half, const State<kDim>& state) {
  const float sum = OverFour(state.sum[half], [](float x, float y) { return x + y; });
  if (vector.first > vector.last) return;
  float* out = a.out + (vector.row * a.heads + vector.head) * a.head_dim;
  GPTOSS_UNROLL
  for (int n = 0; n < kDim / 8; ++n) {
    const int channel = 8 * n + 2 * (Lane() % 4);
    const float2 two = {state.values[n][2 * half] / sum, state.values[n][2 * half + 1] / sum};
    if (channel < a.head_dim) *reinterpret_cast<float2*>(out + channel) = two;
  }
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
  State<kDim> state;
  Begin(a, vectors, state);
  for (int b = first / kKvBlockSize; b <= last / kKvBlockSize; ++b) {
    const int position = b * kKvBlockSize;
    __syncthreads();
    LoadKeysAndValues(a, table[b], kv_head, first - position, last - position, *block);
    __syncthreads();
    float scores[kKeyTiles][4] = {};
    Scores(*block, state, scores);
    Weigh(vectors[0], 0, position, scores, state);
    Weigh(vectors[1], 1, position, scores, state);
    AddValues(*block, scores, state);
  }
  WriteOut(a, vectors[0], 0, state);
  WriteOut(a, vectors[1], 1, state);
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
