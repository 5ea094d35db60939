// Attention on tensor cores as a warp does it: 16 query vectors that share a key/value head go over keys and values, 32
// positions at a time, with a running maximum. Keys and values are BF16 as the cache has them; queries, and the weights
// of the softmax, are the sum of two BF16. Blocks of keys begin at multiples of 32, and a key that a vector does not
// see has a weight of zero, so that a vector's bits do not depend on those beside it.
#pragma once

#include "backends/cuda/attention.cuh"
#include "backends/cuda/mma.cuh"

namespace gptoss::cuda {

inline constexpr int kWarpVectors = 16;
inline constexpr int kKeyTiles = kKvBlockSize / 8;     // products of 8 keys
inline constexpr int kValueSteps = kKvBlockSize / 16;  // products over 16 keys

/// Keys and values of 32 positions, kDim channels each, of which those past head_dim are zero. The strides let a
/// fragment's loads meet every bank once.
template <int kDim>
struct alignas(16) SharedBlock {
  static constexpr int kStride = kDim + 8;
  uint16_t keys[kKvBlockSize * kStride];
  uint32_t values[kKvBlockSize / 2 * kStride];  // of two neighbouring positions together, the earlier in the low half
};

/// A query vector. Of those that do not exist nothing is read or written, and they see nothing.
struct Vector {
  int64_t row = 0;
  int head = 0;
  int first = 0, last = -1;  // positions that it sees
  __device__ bool exists() const { return first <= last; }
};

// What a lane holds of two vectors, number Lane() / 4 and that plus 8 of its warp's, in fragments as mma.cuh has them.

/// Scaled.
template <int kDim>
struct Queries {
  uint32_t high[kDim / 16][4], low[kDim / 16][4];
};

template <int kDim>
struct Sums {
  float values[kDim / 8][4];  // weighted
  float largest[2];           // score so far, of all keys
  float sum[2];               // of exp(score - largest), of this lane's keys until CompleteSums
};

template <int kDim>
__device__ Queries<kDim> LoadQueries(const AttentionArguments& a, const Vector (&vectors)[2]) {
  const float scale = 1.0f / sqrtf(static_cast<float>(a.head_dim));
  Queries<kDim> queries;
  GPTOSS_UNROLL
  for (int half = 0; half < 2; ++half) {
    const float* q = a.q + (vectors[half].row * a.heads + vectors[half].head) * a.head_dim;
    GPTOSS_UNROLL
    for (int i = 0; i < kDim / 8; ++i) {
      const int channel = 8 * i + 2 * (Lane() % 4), part = half + i % 2 * 2;
      float2 two = {0.0f, 0.0f};
      if (vectors[half].exists() && channel < a.head_dim) two = *reinterpret_cast<const float2*>(q + channel);
      SplitPair(two.x * scale, two.y * scale, queries.high[i / 2][part], queries.low[i / 2][part]);
    }
  }
  return queries;
}

template <int kDim>
__device__ Sums<kDim> NoSums() {
  Sums<kDim> sums = {};
  sums.largest[0] = sums.largest[1] = -INFINITY;
  return sums;
}

/// What a vector sees before its own keys: the sink, which has no value. One of the four lanes that share a vector
/// counts it; one of minus infinity takes no part.
template <int kDim>
__device__ Sums<kDim> SumsOfSinks(const AttentionArguments& a, const Vector (&vectors)[2]) {
  Sums<kDim> sums = NoSums<kDim>();
  GPTOSS_UNROLL
  for (int half = 0; half < 2; ++half) {
    if (vectors[half].exists()) sums.largest[half] = a.sinks[vectors[half].head];
    sums.sum[half] = Lane() % 4 == 0 && sums.largest[half] != -INFINITY ? 1.0f : 0.0f;
  }
  return sums;
}

/// The 32 positions of a block, by `threads` threads. Those before `first` or after `last`, counted from its begin, may
/// be of a sequence's future, where nobody has written, and stand as zeros: a weight of zero does not make a NaN
/// harmless.
template <int kDim>
__device__ void LoadKeysAndValues(const AttentionArguments& a, int32_t cache_block, int kv_head, int first, int last,
                                  int thread, int threads, SharedBlock<kDim>& block) {
  constexpr int kParts = kDim / 8;  // of 8 channels, 16 bytes
  const int64_t index = (static_cast<int64_t>(cache_block) * a.kv_heads + kv_head) * kKvBlockSize * a.head_dim;
  const auto *k = reinterpret_cast<const uint16_t*>(a.k) + index, *v = reinterpret_cast<const uint16_t*>(a.v) + index;
  for (int i = thread; i < kKvBlockSize / 2 * kParts; i += threads) {
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
__device__ void Scores(const SharedBlock<kDim>& block, const Queries<kDim>& queries, float (&scores)[kKeyTiles][4]) {
  GPTOSS_UNROLL
  for (int k = 0; k < kDim / 16; ++k) {
    GPTOSS_UNROLL
    for (int n = 0; n < kKeyTiles; ++n) {
      const uint16_t* key = block.keys + (8 * n + Lane() / 4) * block.kStride + 16 * k + 2 * (Lane() % 4);
      const uint32_t b[2] = {Pair(key), Pair(key + 8)};
      Mma(scores[n], queries.low[k], b);
      Mma(scores[n], queries.high[k], b);
    }
  }
}

/// Turns the scores of one vector into weights, and fits what was summed before to a new maximum. `position` is that of
/// the block's first key.
template <int kDim>
__device__ void Weigh(const Vector& vector, int half, int position, float (&scores)[kKeyTiles][4], Sums<kDim>& sums) {
  const auto most = [](float x, float y) { return fmaxf(x, y); };
  float largest = -INFINITY;
  GPTOSS_UNROLL
  for (int i = 0; i < 2 * kKeyTiles; ++i) {
    const int key = position + 8 * (i / 2) + 2 * (Lane() % 4) + i % 2;
    float& score = scores[i / 2][2 * half + i % 2];
    if (key < vector.first || key > vector.last) score = -INFINITY;
    largest = fmaxf(largest, score);
  }
  largest = fmaxf(sums.largest[half], OverFour(largest, most));
  // While a vector has seen nothing, its weights and its sums are zero.
  const float base = BaseOf(largest), factor = expf(sums.largest[half] - base);
  float sum = 0.0f;
  GPTOSS_UNROLL
  for (int i = 0; i < 2 * kKeyTiles; ++i) {
    float& weight = scores[i / 2][2 * half + i % 2];
    weight = expf(weight - base);
    sum += weight;
  }
  sums.sum[half] = __fmaf_rn(sums.sum[half], factor, sum);
  sums.largest[half] = largest;
  GPTOSS_UNROLL
  for (int n = 0; n < kDim / 8; ++n) {
    sums.values[n][2 * half] = __fmul_rn(sums.values[n][2 * half], factor);
    sums.values[n][2 * half + 1] = __fmul_rn(sums.values[n][2 * half + 1], factor);
  }
}

/// A product's results are laid out in the lanes as the next one wants its operand.
template <int kDim>
__device__ void AddValues(const SharedBlock<kDim>& block, const float (&weights)[kKeyTiles][4], Sums<kDim>& sums) {
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
      Mma(sums.values[n], low, b);
      Mma(sums.values[n], high, b);
    }
  }
}

/// Adds the 32 keys and values at hand, the first of which is at `position`.
template <int kDim>
__device__ void AddBlock(const SharedBlock<kDim>& block, const Vector (&vectors)[2], int position,
                         const Queries<kDim>& queries, Sums<kDim>& sums) {
  float scores[kKeyTiles][4] = {};
  Scores(block, queries, scores);
  Weigh(vectors[0], 0, position, scores, sums);
  Weigh(vectors[1], 1, position, scores, sums);
  AddValues(block, scores, sums);
}

template <int kDim>
__device__ void CompleteSums(Sums<kDim>& sums) {
  for (float& sum : sums.sum) sum = OverFour(sum, [](float x, float y) { return x + y; });
}

/// Of complete sums.
template <int kDim>
__device__ void WriteOut(const AttentionArguments& a, const Vector (&vectors)[2], const Sums<kDim>& sums) {
  GPTOSS_UNROLL
  for (int half = 0; half < 2; ++half) {
    if (!vectors[half].exists()) continue;
    float* out = a.out + (vectors[half].row * a.heads + vectors[half].head) * a.head_dim;
    GPTOSS_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      const int channel = 8 * n + 2 * (Lane() % 4);
      const float2 two = {sums.values[n][2 * half] / sums.sum[half], sums.values[n][2 * half + 1] / sums.sum[half]};
      if (channel < a.head_dim) *reinterpret_cast<float2*>(out + channel) = two;
    }
  }
}

}  // namespace gptoss::cuda
