// Products with many rows on tensor cores (mma.sync, from sm_80 on). A block computes 64 rows of activations by 64 rows
// of weights, 32 columns at a time, in four warps of 32 by 32. Weights become BF16 without their scales, which is exact
// for MXFP4's and Q8_0's integers and for BF16; the product of a block of 32 columns is scaled when it is added to the
// sum. Activations become two BF16 that add up to 16 bits of mantissa.
#include <algorithm>

#include "backends/cuda/launch.cuh"
#include "backends/cuda/mma.cuh"
#include "backends/cuda/product.cuh"
#include "base/check.h"

namespace gptoss::cuda {
namespace {

constexpr int kTile = 64;      // rows of activations, and rows of weights
constexpr int kDepth = 32;     // columns at a time
constexpr int kStride = 40;    // of a row in shared memory: 80 bytes, so that a fragment's loads meet all banks once
constexpr int kThreads = 128;  // four warps

struct SharedTiles {
  uint16_t high[kTile * kStride];  // activations
  uint16_t low[kTile * kStride];
  uint16_t weight[kTile * kStride];
  float scale[kTile];  // of the 32 columns at hand, by weight row
};

/// Columns kDepth * step … of the tile's activations, zeros for rows past the end.
__device__ void LoadActivations(const ProductArguments& a, const GroupRows& rows, int64_t step, SharedTiles& tiles) {
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kDepth / 4; i += kThreads) {
    const int row = i / (kDepth / 4), part = i % (kDepth / 4);
    const int64_t r = rows.begin + row;
    float4 four = {0.0f, 0.0f, 0.0f, 0.0f};
    if (r < rows.end) {
      const int64_t from = a.gather == nullptr ? r : a.gather[r];
      four = reinterpret_cast<const float4*>(a.x + from * a.cols + step * kDepth)[part];
    }
    const float values[4] = {four.x, four.y, four.z, four.w};
    for (int j = 0; j < 4; ++j) {
      const uint16_t high = FloatToBf16(values[j]);
      tiles.high[row * kStride + 4 * part + j] = high;
      tiles.low[row * kStride + 4 * part + j] = FloatToBf16(values[j] - Bf16ToFloat(high));
    }
  }
}

/// One thread a row of weights.
template <DType kDType>
__device__ void LoadWeights(const ProductArguments& a, int group, int64_t first_row, int64_t step, SharedTiles& tiles) {
  const auto row = static_cast<int>(threadIdx.x);
  if (row >= kTile) return;
  float values[32] = {}, scale = 0.0f;
  if (first_row + row < a.rows) {
    const int64_t block = (group * a.rows + first_row + row) * (a.cols / kDepth) + step;
    scale = LoadBlock<kDType>(a.weight, a.scales, block, values);
  }
  for (int i = 0; i < 32; ++i) tiles.weight[row * kStride + i] = FloatToBf16(values[i]);
  tiles.scale[row] = scale;
}

/// Adds the product of the 32 columns at hand to a warp's sums [2 tiles of 16 rows][4 tiles of 8 weight rows].
__device__ void AddTiles(const SharedTiles& tiles, int row0, int column0, float (&sums)[2][4][4]) {
  const int group = Lane() / 4, pair = 2 * (Lane() % 4);
  GPTOSS_UNROLL
  for (int n = 0; n < 4; ++n) {
    uint32_t b[2][2];
    const uint16_t* w = tiles.weight + (column0 + 8 * n + group) * kStride + pair;
    for (int k = 0; k < 2; ++k) {
      b[k][0] = Pair(w + 16 * k);
      b[k][1] = Pair(w + 16 * k + 8);
    }
    GPTOSS_UNROLL
    for (int m = 0; m < 2; ++m) {
      float product[4] = {};
      for (int part = 0; part < 4; ++part) {  // low before high: small terms first
        const int k = part % 2, offset = (row0 + 16 * m + group) * kStride + 16 * k + pair;
        const uint16_t* x = (part < 2 ? tiles.low : tiles.high) + offset;
        const uint32_t a[4] = {Pair(x), Pair(x + 8 * kStride), Pair(x + 8), Pair(x + 8 * kStride + 8)};
        Mma(product, a, b[k]);
      }
      for (int i = 0; i < 4; ++i) {
        sums[m][n][i] = __fmaf_rn(product[i], tiles.scale[column0 + 8 * n + pair + i % 2], sums[m][n][i]);
      }
    }
  }
}

/// Grid: x tiles of weight rows, y tiles of activation rows.
template <DType kDType>
__global__ void ManyRowsKernel(ProductArguments a) {
  GPTOSS_SHARED(SharedTiles, tiles);
  const GroupRows rows = FindTile(a.offsets, a.groups, a.n, kTile, blockIdx.y);
  if (rows.begin >= rows.end) return;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kTile;
  const int row0 = WarpInBlock() / 2 * 32, column0 = WarpInBlock() % 2 * 32;
  float sums[2][4][4] = {};
  for (int64_t step = 0; step < a.cols / kDepth; ++step) {
    __syncthreads();
    LoadActivations(a, rows, step, *tiles);
    LoadWeights<kDType>(a, rows.group, first_row, step, *tiles);
    __syncthreads();
    AddTiles(*tiles, row0, column0, sums);
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
  const dim3 grid{BlocksFor(p.weight.rows, kTile),
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
