// Attention with sinks over the paged cache, in float. One block takes a row, a key/value head and up to eight of the
// query heads that share it, one warp each; keys and values of 32 positions stand in shared memory as float, read once
// for all eight. Positions are taken in chunks of kAttentionChunk, aligned to absolute positions, whose results are
// joined in order by one and the same function, be it in the block or, for few rows, by a second kernel after the
// chunks were computed side by side. So a row's bits depend neither on the batch nor on the way taken.
#include "backends/cuda/attention.cuh"
#include "base/check.h"

namespace gptoss::cuda {
namespace {

constexpr int kLaneDims = kMaxHeadDim / kWarp;

/// Softmax over some keys of one query: largest score, sum of exp(score - largest), and the values so weighted, of
/// which a lane has columns lane, lane + 32, …
struct State {
  float largest, sum;
  float values[kLaneDims];
};

__device__ State Nothing(float largest, float sum) {
  State state{largest, sum, {}};
  return state;
}

__device__ void Join(const State& part, State& total) {
  const JoinFactors factors = FactorsOf(total.largest, part.largest);
  total.sum = Joined(factors, total.sum, part.sum);
  GPTOSS_UNROLL
  for (int i = 0; i < kLaneDims; ++i) total.values[i] = Joined(factors, total.values[i], part.values[i]);
  total.largest = factors.largest;
}

/// What a row sees before its own keys: the sink, which has no value. A sink of minus infinity takes no part.
__device__ State SinkOf(const RowArguments& a, int head) {
  const float sink = a.sinks[head];
  return Nothing(sink, sink == -INFINITY ? 0.0f : 1.0f);
}

__device__ void WriteOut(const RowArguments& a, int64_t row, int head, const State& total) {
  float* out = a.out + (row * a.heads + head) * a.head_dim;
  GPTOSS_UNROLL
  for (int i = 0; i < kLaneDims; ++i) {
    const int column = Lane() + kWarp * i;
    if (column < a.head_dim) out[column] = total.values[i] / total.sum;
  }
}

template <typename T>
__device__ float FromCache(T value) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return value;
  } else {
    return Bf16ToFloat(value);
  }
}

/// Shared memory: keys [32][dim + 1], values [32][dim], queries [8][dim], weights [8][32]. Keys have a stride of one
/// more, so that lanes that read the same column of different keys meet different banks.
struct Shared {
  float *keys, *values, *queries, *weights;
  __device__ Shared(float* memory, int dim)
      : keys(memory),
        values(memory + kKvBlockSize * (dim + 1)),
        queries(values + kKvBlockSize * dim),
        weights(queries + kHeadsInBlock * dim) {}
};
size_t SharedBytes(int dim) {
  return sizeof(float) * static_cast<size_t>(kKvBlockSize * (2 * dim + 1) + kHeadsInBlock * (dim + kWarp));
}

template <typename T>
__device__ void LoadKeysAndValues(const RowArguments& a, int32_t cache_block, int kv_head, const Shared& s) {
  const int dim = a.head_dim;
  const int64_t index = (static_cast<int64_t>(cache_block) * a.kv_heads + kv_head) * kKvBlockSize * dim;
  const T *k = reinterpret_cast<const T*>(a.k) + index, *v = reinterpret_cast<const T*>(a.v) + index;
  for (int i = static_cast<int>(threadIdx.x); i < kKvBlockSize * dim; i += static_cast<int>(blockDim.x)) {
    s.keys[i / dim * (dim + 1) + i % dim] = FromCache(k[i]);
    s.values[i] = FromCache(v[i]);
  }
}

/// One lane a key: adds the 32 keys in shared memory, of which first … last take part. A barrier comes before the next.
__device__ void AddKeys(const RowArguments& a, const float* query, const Shared& s, int first, int last, State& state) {
  const int dim = a.head_dim;
  const bool seen = Lane() >= first && Lane() <= last;
  float score = 0.0f;
  const float* key = s.keys + Lane() * (dim + 1);
  for (int c = 0; c < dim; ++c) score = __fmaf_rn(query[c], key[c], score);
  const float largest = fmaxf(state.largest, WarpMax(seen ? score : -INFINITY));
  const float weight = seen ? expf(score - largest) : 0.0f;
  const float factor = expf(state.largest - largest);
  state.sum = __fmaf_rn(state.sum, factor, WarpSum(weight));
  GPTOSS_UNROLL
  for (int i = 0; i < kLaneDims; ++i) state.values[i] = __fmul_rn(state.values[i], factor);
  float* weights = s.weights + WarpInBlock() * kWarp;
  weights[Lane()] = weight;
  __syncwarp();
  // Keys outside first … last may lie in a block that nobody has written: they must not be multiplied with.
  for (int j = first; j <= last; ++j) {
    for (int i = 0; i < kLaneDims; ++i) {
      const int column = Lane() + kWarp * i;
      if (column < dim) state.values[i] = __fmaf_rn(weights[j], s.values[j * dim + column], state.values[i]);
    }
  }
  state.largest = largest;
}

/// Grid: GridOfRows.
template <typename T>
__global__ void AttentionKernel(RowArguments a) {
  GPTOSS_SHARED(float, memory);
  const Shared s(memory, a.head_dim);
  const int64_t item = blockIdx.x, row = RowOf(a, item);
  const int group = a.heads / a.kv_heads, parts = PartsOfGroup(a, kHeadsInBlock);
  const int kv_head = static_cast<int>(blockIdx.y) / parts;
  const int in_group = static_cast<int>(blockIdx.y) % parts * kHeadsInBlock + WarpInBlock();
  const int head = kv_head * group + in_group;
  const bool works = in_group < group;
  const SeenChunks seen = ChunksOf(a, row);
  const ChunkRange range = ChunksOfBlock(a, seen);
  if (range.from >= range.to) return;
  float* query = s.queries + WarpInBlock() * a.head_dim;
  const float scale = 1.0f / sqrtf(static_cast<float>(a.head_dim));
  if (works) {
    const float* q = a.q + (row * a.heads + head) * a.head_dim;
    for (int c = Lane(); c < a.head_dim; c += kWarp) query[c] = q[c] * scale;
  }
  const int32_t* table = BlockTable(a, row);
  State total = Nothing(-INFINITY, 0.0f);
  if (works && a.partial == nullptr) total = SinkOf(a, head);
  for (int chunk = range.from; chunk < range.to; ++chunk) {
    const int begin = seen.Begin(chunk), end = seen.End(chunk);
    State state = Nothing(-INFINITY, 0.0f);
    for (int b = begin / kKvBlockSize; b * kKvBlockSize < end; ++b) {
      __syncthreads();
      LoadKeysAndValues<T>(a, table[b], kv_head, s);
      __syncthreads();
      const int position = b * kKvBlockSize;
      if (works) AddKeys(a, query, s, max(begin - position, 0), min(end - 1 - position, kKvBlockSize - 1), state);
    }
    if (!works) continue;
    if (a.partial == nullptr) {
      Join(state, total);
      continue;
    }
    float* partial = PartialOf(a, item, head, chunk);
    if (Lane() == 0) {
      partial[0] = state.largest;
      partial[1] = state.sum;
    }
    for (int i = 0; i < kLaneDims; ++i) {
      if (Lane() + kWarp * i < a.head_dim) partial[2 + Lane() + kWarp * i] = state.values[i];
    }
  }
  if (works && a.partial == nullptr) WriteOut(a, row, head, total);
}

/// One warp a wanted row and head.
__global__ void JoinKernel(RowArguments a, int64_t count) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * (blockDim.x / kWarp) + WarpInBlock();
  if (item >= count) return;
  const int64_t row = RowOf(a, item / a.heads);
  const auto head = static_cast<int>(item % a.heads);
  const int chunks = ChunksOf(a, row).count;
  State total = SinkOf(a, head);
  GPTOSS_UNROLL_8
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const float* partial = PartialOf(a, item / a.heads, head, chunk);
    State part = Nothing(partial[0], partial[1]);
    for (int i = 0; i < kLaneDims; ++i) {
      if (Lane() + kWarp * i < a.head_dim) part.values[i] = partial[2 + Lane() + kWarp * i];
    }
    Join(part, total);
  }
  WriteOut(a, row, head, total);
}

template <typename T>
void LaunchRows(Stream stream, const RowArguments& a, int64_t n) {
  Launch(stream, GridOfRows(a, n, kHeadsInBlock), kHeadsInBlock * kWarp, SharedBytes(a.head_dim), AttentionKernel<T>,
         a);
}

}  // namespace

void Attention(Stream stream, const AttentionArgs& args, const RowPlaces& places, const int32_t* rows, int64_t n,
               int longest, bool tensor_cores, float* scratch) {
  GPTOSS_CHECK(args.head_dim <= kMaxHeadDim && args.num_heads % args.num_kv_heads == 0);
  if (n == 0) return;
  const bool split = AttentionScratch(args, n, longest) > 0;
  const RowArguments a{ArgumentsOf(args, places), rows, split ? scratch : nullptr, MostChunks(args, longest)};
  if (tensor_cores) {
    RowsOnTensorCores(stream, a, n);
  } else if (args.kv.dtype == DType::kF32) {
    LaunchRows<float>(stream, a, n);
  } else {
    LaunchRows<uint16_t>(stream, a, n);
  }
  if (!split) return;
  const int64_t items = n * args.num_heads;
  Launch(stream, dim3{BlocksFor(items, 4), 1, 1}, 4 * kWarp, 0, JoinKernel, a, items);
}

}  // namespace gptoss::cuda
