// Products with many rows on tensor cores (mma.sync, from sm_80 on). A block computes 64 rows of activations by 128
// rows of weights, 64 columns at a time, in eight warps of 32 by 32; what the next columns need is on its way into
// registers meanwhile. Weights become BF16 without their scales, which is exact for MXFP4's and Q8_0's integers and for
// BF16; the product of a block of 32 columns is scaled when it is added to the sum. Activations become two BF16 that
// add up to 16 bits of mantissa.
#include <algorithm>

#include "backends/cuda/launch.cuh"
#include "backends/cuda/mma.cuh"
#include "backends/cuda/product.cuh"
#include "base/check.h"

namespace gptoss::cuda {
namespace {

constexpr int kTile = 64;         // rows of activations
constexpr int kWeightTile = 128;  // rows of weights
constexpr int kThreads = 256;
constexpr int kBlocks = kThreads / kWeightTile;  // of 32 columns at a time: a thread decodes one of a weight row
constexpr int kDepth = 32 * kBlocks;
constexpr int kStride = kDepth + 8;  // of a row in shared memory, so that a fragment's loads meet all banks once
constexpr int kQuads = kTile * kDepth / 4 / kThreads;  // four activations each, of a thread

struct alignas(16) SharedTiles {
  uint16_t high[kTile * kStride];  // activations
  uint16_t low[kTile * kStride];
  uint16_t weight[kWeightTile * kStride];
  float scale[kBlocks][kWeightTile];  // by block of columns and weight row
};

/// Where a thread's share comes from.
struct Sources {
  int rows[kQuads];     // of x; -1 past the end
  int64_t first_block;  // of the weights, counted from the matrix's start; -1 past the end
};

__device__ Sources FindSources(const ProductArguments& a, const GroupRows& rows, int64_t first_row) {
  const auto thread = static_cast<int>(threadIdx.x);
  Sources sources = {};
  GPTOSS_UNROLL
  for (int q = 0; q < kQuads; ++q) {
    const int64_t r = rows.begin + (thread + q * kThreads) / (kDepth / 4);
    sources.rows[q] = r >= rows.end ? -1 : a.gather == nullptr ? static_cast<int>(r) : a.gather[r];
  }
  const int64_t row = first_row + thread % kWeightTile;
  sources.first_block = row < a.rows ? (rows.group * a.rows + row) * (a.cols / 32) : -1;
  return sources;
}

/// A thread's share of the columns at hand, as it comes from memory.
template <DType kDType>
struct Fetched {
  float4 activations[kQuads];
  StoredBlock<kDType> weights;
};

/// Columns kDepth * step …; zeros past the end of columns and of rows.
template <DType kDType>
__device__ Fetched<kDType> Fetch(const ProductArguments& a, const Sources& sources, int step) {
  const auto thread = static_cast<int>(threadIdx.x);
  const int cols = static_cast<int>(a.cols), column = step * kDepth + thread % (kDepth / 4) * 4,
            block = step * kBlocks + thread / kWeightTile;
  Fetched<kDType> fetched = {};
  GPTOSS_UNROLL
  for (int q = 0; q < kQuads; ++q) {
    if (column >= cols || sources.rows[q] < 0) continue;
    fetched.activations[q] = *reinterpret_cast<const float4*>(a.x + sources.rows[q] * a.cols + column);
  }
  if (sources.first_block >= 0 && block < cols / 32) {
    fetched.weights = LoadStored<kDType>(a.weight, a.scales, sources.first_block + block);
  }
  return fetched;
}

template <DType kDType>
__device__ void Store(const Fetched<kDType>& fetched, SharedTiles& tiles) {
  const auto thread = static_cast<int>(threadIdx.x);
  GPTOSS_UNROLL
  for (int q = 0; q < kQuads; ++q) {
    const int i = thread + q * kThreads, at = i / (kDepth / 4) * kStride + i % (kDepth / 4) * 4;
    const float4& four = fetched.activations[q];
    uint2 high, low;
    SplitPair(four.x, four.y, high.x, low.x);
    SplitPair(four.z, four.w, high.y, low.y);
    *reinterpret_cast<uint2*>(tiles.high + at) = high;
    *reinterpret_cast<uint2*>(tiles.low + at) = low;
  }
  const int row = thread % kWeightTile, block = thread / kWeightTile;
  auto* weights = reinterpret_cast<uint4*>(tiles.weight + row * kStride + 32 * block);
  GPTOSS_UNROLL
  for (int part = 0; part < 4; ++part) {
    const auto pair = [&](int i) {
      return RoundedPair(ValueOf(fetched.weights, 8 * part + i), ValueOf(fetched.weights, 8 * part + i + 1));
    };
    weights[part] = {pair(0), pair(2), pair(4), pair(6)};
  }
  tiles.scale[block][row] = fetched.weights.scale;
}

/// Adds the product of a block of 32 columns to a warp's sums [2 tiles of 16 rows][4 tiles of 8 weight rows].
__device__ void AddTiles(const SharedTiles& tiles, int block, int row0, int column0, float (&sums)[2][4][4]) {
  const int group = Lane() / 4, pair = 2 * (Lane() % 4);
  GPTOSS_UNROLL
  for (int m = 0; m < 2; ++m) {
    uint32_t x[2][2][4];  // low and high, of 16 columns each
    GPTOSS_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int offset = (row0 + 16 * m + group) * kStride + 32 * block + 16 * (i % 2) + pair;
      const uint16_t* from = (i < 2 ? tiles.low : tiles.high) + offset;
      const uint32_t fragment[4] = {Pair(from), Pair(from + 8 * kStride), Pair(from + 8), Pair(from + 8 * kStride + 8)};
      for (int j = 0; j < 4; ++j) x[i / 2][i % 2][j] = fragment[j];
    }
    GPTOSS_UNROLL
    for (int n = 0; n < 4; ++n) {
      const uint16_t* w = tiles.weight + (column0 + 8 * n + group) * kStride + 32 * block + pair;
      const uint32_t weights[2][2] = {{Pair(w), Pair(w + 8)}, {Pair(w + 16), Pair(w + 24)}};
      float product[4] = {};
      GPTOSS_UNROLL
      for (int i = 0; i < 4; ++i) Mma(product, x[i / 2][i % 2], weights[i % 2]);  // low before high: small terms first
      GPTOSS_UNROLL
      for (int i = 0; i < 4; ++i) {
        sums[m][n][i] = __fmaf_rn(product[i], tiles.scale[block][column0 + 8 * n + pair + i % 2], sums[m][n][i]);
      }
    }
  }
}

/// Grid: x tiles of weight rows, y tiles of activation rows.
template <DType kDType>
__global__ void __launch_bounds__(kThreads, 2) ManyRowsKernel(ProductArguments a) {
  GPTOSS_SHARED(SharedTiles, tiles);
  const GroupRows rows = FindTile(a.offsets, a.groups, a.n, kTile, blockIdx.y);
  if (rows.begin >= rows.end) return;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kWeightTile;
  const int row0 = WarpInBlock() % 2 * 32, column0 = WarpInBlock() / 2 * 32;
  float sums[2][4][4] = {};
  const Sources sources = FindSources(a, rows, first_row);
  Fetched<kDType> fetched = Fetch<kDType>(a, sources, 0);
  for (int step = 0; step * kDepth < a.cols; ++step) {
    __syncthreads();
    Store(fetched, *tiles);
    __syncthreads();
    fetched = Fetch<kDType>(a, sources, step + 1);
    for (int block = 0; block < kBlocks; ++block) AddTiles(*tiles, block, row0, column0, sums);
  }
  GPTOSS_UNROLL
  for (int m = 0; m < 2; ++m) {
    for (int n = 0; n < 4; ++n) {
      for (int half = 0; half < 2; ++half) {
        const int64_t r = rows.begin + row0 + 16 * m + 8 * half + Lane() / 4;
        const int64_t row = first_row + column0 + 8 * n + 2 * (Lane() % 4);
        if (r >= rows.end || row >= a.rows) continue;
        WritePair(a, rows.group, r, {row, row + 1}, sums[m][n][2 * half], sums[m][n][2 * half + 1]);
      }
    }
  }
}

template <DType kDType>
void LaunchManyRows(Stream stream, const Product& p) {
  const ProductArguments a = ArgumentsOf(p);
  const dim3 grid{BlocksFor(p.weight.rows, kWeightTile),
                  static_cast<unsigned>(MostTiles(p.n, p.groups, kTile, p.offsets != nullptr)), 1};
  Launch(stream, grid, kThreads, sizeof(SharedTiles), ManyRowsKernel<kDType>, a);
}

__global__ void MultiplyRegistersKernel(int rounds, float* sums) {
  constexpr uint32_t kOnes = 0x3F803F80u;  // two BF16
  const uint32_t a[4] = {kOnes, kOnes, kOnes, kOnes}, b[2] = {kOnes, kOnes};
  float chains[kRateChains][4] = {};
  for (int round = 0; round < rounds; ++round) {
    GPTOSS_UNROLL
    for (int c = 0; c < kRateChains; ++c) Mma(chains[c], a, b);
  }
  float sum = 0.0f;
  for (int c = 0; c < kRateChains; ++c) {
    for (int i = 0; i < 4; ++i) sum += chains[c][i];
  }
  sums[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

}  // namespace

bool ManyRowsTakes(const WeightMatrix& weight) {
  return weight.dtype == DType::kMxfp4 || weight.dtype == DType::kQ8_0 || weight.dtype == DType::kBF16;
}

void ManyRows(Stream stream, const Product& product) {
  GPTOSS_CHECK(ManyRowsTakes(product.weight) && product.epilogue != Epilogue::kRope);
  if (product.n == 0) return;
  switch (product.weight.dtype) {
    case DType::kMxfp4:
      return LaunchManyRows<DType::kMxfp4>(stream, product);
    case DType::kQ8_0:
      return LaunchManyRows<DType::kQ8_0>(stream, product);
    default:
      return LaunchManyRows<DType::kBF16>(stream, product);
  }
}

void MultiplyRegisters(Stream stream, int blocks, int rounds, float* sums) {
  Launch(stream, dim3{static_cast<unsigned>(blocks), 1, 1}, kRateThreads, 0, MultiplyRegistersKernel, rounds, sums);
}

}  // namespace gptoss::cuda
