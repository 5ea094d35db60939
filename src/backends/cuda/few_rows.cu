// Products with few rows, bound by reading the weights: each warp takes two rows of weights and all rows of activations
// of its block's tile, which stand in shared memory column tile by column tile. Float throughout; a row's sum runs over
// its lane's blocks of 32 columns in order, then over the lanes.
#include <algorithm>

#include "backends/cuda/launch.cuh"
#include "backends/cuda/product.cuh"
#include "base/check.h"

namespace gptoss::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kTileBlocks = kWarp;  // blocks of 32 columns in a tile: one a lane
// One more than 32, so that lanes that read the same column of different blocks meet different banks.
constexpr int kBlockStride = 33;

/// Columns 1024 * tile … of the activations of `rows`, zeros past their end.
template <int kRows>
__device__ void LoadTile(const ProductArguments& a, const GroupRows& rows, int64_t tile, float* shared) {
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kTileBlocks * 32; i += kWarps * kWarp) {
    const int row = i / (kTileBlocks * 32), in_tile = i % (kTileBlocks * 32);
    const int64_t column = tile * kTileBlocks * 32 + in_tile, r = rows.begin + row;
    float value = 0.0f;
    if (r < rows.end && column < a.cols) value = a.x[(a.gather == nullptr ? r : a.gather[r]) * a.cols + column];
    shared[(row * kTileBlocks + in_tile / 32) * kBlockStride + in_tile % 32] = value;
  }
}

template <DType kDType, int kRows>
__device__ void AddBlock(const ProductArguments& a, int64_t block, const float* x, float (&sums)[kRows]) {
  float weights[32];
  const float scale = LoadBlock<kDType>(a.weight, a.scales, block, weights);
  GPTOSS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    float sum = 0.0f;
    GPTOSS_UNROLL
    for (int i = 0; i < 32; ++i) sum = __fmaf_rn(weights[i], x[r * kTileBlocks * kBlockStride + i], sum);
    sums[r] = __fmaf_rn(sum, scale, sums[r]);
  }
}

/// Grid: x pairs of weight rows by kWarps, y tiles of kRows activation rows.
template <DType kDType, int kRows>
__global__ void FewRowsKernel(ProductArguments a) {
  GPTOSS_SHARED(float, shared);
  const GroupRows rows = FindTile(a.offsets, a.groups, a.n, kRows, blockIdx.y);
  if (rows.begin >= rows.end) return;
  const RowPair pair = PairOfRows(a, static_cast<int64_t>(blockIdx.x) * kWarps + WarpInBlock());
  const int64_t blocks = a.cols / 32, first_block = (rows.group * a.rows + pair.first) * blocks,
                second_block = (rows.group * a.rows + pair.second) * blocks;
  float first[kRows] = {}, second[kRows] = {};
  for (int64_t tile = 0; tile * kTileBlocks < blocks; ++tile) {
    __syncthreads();
    LoadTile<kRows>(a, rows, tile, shared);
    __syncthreads();
    const int64_t block = tile * kTileBlocks + Lane();
    if (block >= blocks || pair.first >= a.rows) continue;
    const float* x = shared + Lane() * kBlockStride;
    AddBlock<kDType, kRows>(a, first_block + block, x, first);
    if (pair.second < a.rows) AddBlock<kDType, kRows>(a, second_block + block, x, second);
  }
  if (pair.first >= a.rows) return;
  GPTOSS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const float one = WarpSum(first[r]), two = WarpSum(second[r]);
    if (Lane() == 0 && rows.begin + r < rows.end) WritePair(a, rows.group, rows.begin + r, pair, one, two);
  }
}

template <DType kDType, int kRows>
void LaunchFewRows(Stream stream, const Product& p) {
  const ProductArguments a = ArgumentsOf(p);
  const dim3 grid{BlocksFor(p.weight.rows, 2 * kWarps),
                  static_cast<unsigned>(MostTiles(p.n, p.groups, kRows, p.offsets != nullptr)), 1};
  const size_t shared = sizeof(float) * kRows * kTileBlocks * kBlockStride;
  Launch(stream, grid, kWarps * kWarp, shared, FewRowsKernel<kDType, kRows>, a);
}

template <DType kDType>
void ChooseRows(Stream stream, const Product& p) {
  if (p.most_in_group <= 1) return LaunchFewRows<kDType, 1>(stream, p);
  if (p.most_in_group <= 4) return LaunchFewRows<kDType, 4>(stream, p);
  LaunchFewRows<kDType, 8>(stream, p);
}

}  // namespace

void FewRows(Stream stream, const Product& product) {
  if (product.n == 0) return;
  switch (product.weight.dtype) {
    case DType::kF32:
      return ChooseRows<DType::kF32>(stream, product);
    case DType::kF16:
      return ChooseRows<DType::kF16>(stream, product);
    case DType::kBF16:
      return ChooseRows<DType::kBF16>(stream, product);
    case DType::kQ8_0:
      return ChooseRows<DType::kQ8_0>(stream, product);
    case DType::kMxfp4:
      return ChooseRows<DType::kMxfp4>(stream, product);
    case DType::kU8:
      GPTOSS_CHECK(false);
  }
}

}  // namespace gptoss::cuda
