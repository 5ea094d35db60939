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
// Four more than 32: loads of four floats are aligned, and eight lanes that read the same columns of their blocks,
// which is what shared memory serves at once, meet different banks.
constexpr int kBlockStride = 36;
constexpr int kPart = 8;  // columns at a time, which bounds what stands in registers

/// Columns 1024 * tile … of the activations of `rows`, zeros past their end.
template <int kRows>
__device__ void LoadTile(const ProductArguments& a, const GroupRows& rows, int64_t tile, float* shared) {
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kTileBlocks * 8; i += kWarps * kWarp) {
    const int row = i / (kTileBlocks * 8), in_tile = i % (kTileBlocks * 8) * 4;
    const int64_t column = tile * kTileBlocks * 32 + in_tile, r = rows.begin + row;
    float4 four = {0.0f, 0.0f, 0.0f, 0.0f};
    if (r < rows.end && column < a.cols) {
      four = *reinterpret_cast<const float4*>(a.x + (a.gather == nullptr ? r : a.gather[r]) * a.cols + column);
    }
    *reinterpret_cast<float4*>(shared + (row * kTileBlocks + in_tile / 32) * kBlockStride + in_tile % 32) = four;
  }
}

/// Adds the products of a block of each of two weight rows with the same columns of all rows of activations, whose
/// first is at x.
template <DType kDType, int kRows>
__device__ void AddBlocks(const StoredBlock<kDType>& first, const StoredBlock<kDType>& second, const float* x,
                          float (&first_sums)[kRows], float (&second_sums)[kRows]) {
  float one[kRows] = {}, two[kRows] = {};
  GPTOSS_UNROLL
  for (int part = 0; part < 32; part += kPart) {
    float w[2][kPart];
    GPTOSS_UNROLL
    for (int i = 0; i < kPart; ++i) {
      w[0][i] = ValueOf(first, part + i);
      w[1][i] = ValueOf(second, part + i);
    }
    GPTOSS_UNROLL
    for (int r = 0; r < kRows; ++r) {
      GPTOSS_UNROLL
      for (int i = 0; i < kPart; i += 4) {
        const float4 four = *reinterpret_cast<const float4*>(x + r * kTileBlocks * kBlockStride + part + i);
        const float values[4] = {four.x, four.y, four.z, four.w};
        GPTOSS_UNROLL
        for (int j = 0; j < 4; ++j) {
          one[r] = __fmaf_rn(w[0][i + j], values[j], one[r]);
          two[r] = __fmaf_rn(w[1][i + j], values[j], two[r]);
        }
      }
    }
  }
  GPTOSS_UNROLL
  for (int r = 0; r < kRows; ++r) {
    first_sums[r] = __fmaf_rn(one[r], first.scale, first_sums[r]);
    second_sums[r] = __fmaf_rn(two[r], second.scale, second_sums[r]);
  }
}

/// Blocks that a multiprocessor shall hold at least: the more, the more is under way from memory. Their registers
/// suffice for the weights at hand, except where those are float.
template <DType kDType, int kRows>
constexpr int BlocksTogether() {
  if (kRows > 1 || StoredBlock<kDType>::kWords > 16) return 2;
  return StoredBlock<kDType>::kWords > 8 ? 3 : 4;
}

/// Grid: x pairs of weight rows by kWarps, y tiles of kRows activation rows.
template <DType kDType, int kRows>
__global__ void __launch_bounds__(kWarps* kWarp, BlocksTogether<kDType, kRows>()) FewRowsKernel(ProductArguments a) {
  GPTOSS_SHARED(float, shared);
  const GroupRows rows = FindTile(a.offsets, a.groups, a.n, kRows, blockIdx.y);
  if (rows.begin >= rows.end) return;
  const RowPair pair = PairOfRows(a, static_cast<int64_t>(blockIdx.x) * kWarps + WarpInBlock());
  const int64_t blocks = a.cols / 32, before = rows.group * a.rows;
  float first[kRows] = {}, second[kRows] = {};
  for (int64_t tile = 0; tile * kTileBlocks < blocks; ++tile) {
    const int64_t block = tile * kTileBlocks + Lane();
    const bool has_first = block < blocks && pair.first < a.rows, has_second = block < blocks && pair.second < a.rows;
    // Asked for before the activations, so that both are on their way together.
    StoredBlock<kDType> one = {}, two = {};
    if (has_first) one = LoadStored<kDType>(a.weight, a.scales, (before + pair.first) * blocks + block);
    if (has_second) two = LoadStored<kDType>(a.weight, a.scales, (before + pair.second) * blocks + block);
    __syncthreads();
    LoadTile<kRows>(a, rows, tile, shared);
    __syncthreads();
    if (has_first) AddBlocks<kDType, kRows>(one, two, shared + Lane() * kBlockStride, first, second);
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
