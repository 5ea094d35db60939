// Attention of single rows on tensor cores: what decoding does, bound by reading keys and values. A block takes a row,
// a key/value head, up to 16 of the query heads that share it, and a chunk of positions; its four warps go over blocks
// of 32 of them side by side, each with memory of its own, and are joined in order at the chunk's end. Chunks are as
// attention.cu has them, and are joined by the same function, in the block or by a second kernel.
#include "backends/cuda/attention_fragments.cuh"

namespace gptoss::cuda {
namespace {

constexpr int kWarps = 4;

template <int kDim>
__device__ void Join(const Sums<kDim>& part, Sums<kDim>& total) {
  GPTOSS_UNROLL
  for (int half = 0; half < 2; ++half) {
    const JoinFactors factors = FactorsOf(total.largest[half], part.largest[half]);
    total.largest[half] = factors.largest;
    total.sum[half] = Joined(factors, total.sum[half], part.sum[half]);
    GPTOSS_UNROLL
    for (int i = 0; i < kDim / 4; ++i) {
      float& value = total.values[i / 2][2 * half + i % 2];
      value = Joined(factors, value, part.values[i / 2][2 * half + i % 2]);
    }
  }
}

/// Joins the warps' complete sums to those of warp 0. The memory of each is used for that, and is free again
/// afterwards.
template <int kDim>
__device__ void JoinWarps(SharedBlock<kDim>* blocks, Sums<kDim>& sums) {
  static_assert(kWarp * sizeof(Sums<kDim>) <= sizeof(SharedBlock<kDim>));
  __syncwarp();
  reinterpret_cast<Sums<kDim>*>(blocks + WarpInBlock())[Lane()] = sums;
  __syncthreads();
  for (int w = 1; WarpInBlock() == 0 && w < kWarps; ++w) {
    Join(reinterpret_cast<const Sums<kDim>*>(blocks + w)[Lane()], sums);
  }
  __syncthreads();
}

/// As JoinKernel of attention.cu reads it.
template <int kDim>
__device__ void WritePartial(const RowArguments& a, int64_t item, int chunk, const Vector (&vectors)[2],
                             const Sums<kDim>& sums) {
  GPTOSS_UNROLL
  for (int half = 0; half < 2; ++half) {
    if (!vectors[half].exists()) continue;
    float* partial = PartialOf(a, item, vectors[half].head, chunk);
    if (Lane() % 4 == 0) {
      partial[0] = sums.largest[half];
      partial[1] = sums.sum[half];
    }
    GPTOSS_UNROLL
    for (int n = 0; n < kDim / 8; ++n) {
      const int channel = 8 * n + 2 * (Lane() % 4);
      const float2 two = {sums.values[n][2 * half], sums.values[n][2 * half + 1]};
      if (channel < a.head_dim) *reinterpret_cast<float2*>(partial + 2 + channel) = two;
    }
  }
}

/// Grid: GridOfRows.
template <int kDim>
__global__ void RowsKernel(RowArguments a) {
  GPTOSS_SHARED(SharedBlock<kDim>, blocks);
  const int64_t item = blockIdx.x, row = RowOf(a, item);
  const int group = a.heads / a.kv_heads, parts = PartsOfGroup(a, kWarpVectors);
  const int kv_head = static_cast<int>(blockIdx.y) / parts;
  const SeenChunks seen = ChunksOf(a, row);
  const ChunkRange range = ChunksOfBlock(a, seen);
  if (range.from >= range.to) return;
  const bool apart = a.partial != nullptr;
  Vector vectors[2];
  for (int half = 0; half < 2; ++half) {
    const int in_group = static_cast<int>(blockIdx.y) % parts * kWarpVectors + 8 * half + Lane() / 4;
    if (in_group < group) vectors[half] = {row, kv_head * group + in_group, seen.first, seen.last};
  }
  const Queries<kDim> queries = LoadQueries<kDim>(a, vectors);
  const int32_t* table = BlockTable(a, row);
  SharedBlock<kDim>& block = blocks[WarpInBlock()];
  Sums<kDim> total = SumsOfSinks<kDim>(a, vectors);
  CompleteSums(total);
  for (int chunk = range.from; chunk < range.to; ++chunk) {
    const int end = seen.End(chunk);
    Sums<kDim> sums = NoSums<kDim>();
    for (int b = seen.Begin(chunk) / kKvBlockSize + WarpInBlock(); b * kKvBlockSize < end; b += kWarps) {
      const int position = b * kKvBlockSize;
      __syncwarp();
      LoadKeysAndValues(a, table[b], kv_head, seen.first - position, seen.last - position, Lane(), kWarp, block);
      __syncwarp();
      AddBlock(block, vectors, position, queries, sums);
    }
    CompleteSums(sums);
    JoinWarps(blocks, sums);
    if (WarpInBlock() != 0) continue;
    if (apart) {
      WritePartial(a, item, chunk, vectors, sums);
    } else {
      Join(sums, total);
    }
  }
  if (!apart && WarpInBlock() == 0) WriteOut(a, vectors, total);
}

template <int kDim>
void LaunchRows(Stream stream, const RowArguments& a, int64_t n) {
  Launch(stream, GridOfRows(a, n, kWarpVectors), kWarps * kWarp, kWarps * sizeof(SharedBlock<kDim>), RowsKernel<kDim>,
         a);
}

}  // namespace

void RowsOnTensorCores(Stream stream, const RowArguments& a, int64_t n) {
  if (a.head_dim <= 64) {
    LaunchRows<64>(stream, a, n);
  } else {
    LaunchRows<kMaxHeadDim>(stream, a, n);
  }
}

}  // namespace gptoss::cuda
