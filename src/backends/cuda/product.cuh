// What the kernels of products share: their arguments, how a block finds the group and the rows that are its own
// (offsets are on the device only), and how results are written.
#pragma once

#include "backends/cuda/kernels.h"
#include "backends/cuda/launch.cuh"
#include "backends/cuda/rope.cuh"

namespace gptoss::cuda {

/// Of a Product what kernels need.
struct ProductArguments {
  const float* x;
  const int32_t* gather;
  int64_t n;
  const int32_t* offsets;
  int groups;
  const uint8_t* weight;
  const uint8_t* scales;
  int64_t rows, cols;
  const float* bias;
  Epilogue epilogue;  // no template parameter: the branch costs nothing at the end of a row, each kernel compiles long
  float limit;
  float* y;
  RopeArguments rope;  // of kRope
};

inline ProductArguments ArgumentsOf(const Product& p) {
  return {p.x,
          p.gather,
          p.n,
          p.offsets,
          p.groups,
          Bytes(p.weight.data),
          Bytes(p.weight.scales),
          p.weight.rows,
          p.weight.cols,
          p.bias,
          p.epilogue,
          p.limit,
          p.y,
          p.rope == nullptr ? RopeArguments{} : ArgumentsOf(*p.rope, p.slots)};
}

/// Weight rows that a warp or a lane has together, whose results are written together.
struct RowPair {
  int64_t first, second;
};

/// Pair number `pair`: neighbours, or with kRope the two rows of a head that are turned together.
__device__ inline RowPair PairOfRows(const ProductArguments& a, int64_t pair) {
  if (a.epilogue != Epilogue::kRope) return {2 * pair, 2 * pair + 1};
  const int64_t half = a.rope.head_dim / 2, first = pair / half * a.rope.head_dim + pair % half;
  return {first, first + half};
}

/// Rows begin … end - 1 of group `group`; empty when there is nothing left to do.
struct GroupRows {
  int group = 0;
  int64_t begin = 0, end = 0;
};

/// Tile number `wanted`, counted over all groups, each of which has ceil(rows / tile_rows) tiles. Called by all lanes
/// of a warp; the groups are scanned 32 at a time.
__device__ inline GroupRows FindTile(const int32_t* offsets, int groups, int64_t n, int64_t tile_rows, int64_t wanted) {
  if (offsets == nullptr) {
    const int64_t begin = wanted * tile_rows;
    return {0, begin < n ? begin : n, begin + tile_rows < n ? begin + tile_rows : n};
  }
  int64_t before = 0;
  for (int first = 0; first < groups; first += kWarp) {
    const int group = first + Lane();
    const int64_t begin = group < groups ? offsets[group] : 0, end = group < groups ? offsets[group + 1] : 0;
    const auto tiles = static_cast<int>((end - begin + tile_rows - 1) / tile_rows);
    int sum = tiles;  // inclusive over the lanes
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const int other = __shfl_sync(kAllLanes, sum, (Lane() - distance) & (kWarp - 1));
      if (Lane() >= distance) sum += other;
    }
    const unsigned holders = __ballot_sync(kAllLanes, wanted < before + sum ? 1 : 0);
    if (holders != 0) {
      const int lane = __ffs(holders) - 1;
      const int64_t in_group = wanted - before - __shfl_sync(kAllLanes, sum - tiles, lane);
      const int64_t from = __shfl_sync(kAllLanes, begin, lane) + in_group * tile_rows;
      const int64_t to = __shfl_sync(kAllLanes, end, lane);
      return {first + lane, from, from + tile_rows < to ? from + tile_rows : to};
    }
    before += __shfl_sync(kAllLanes, sum, kWarp - 1);
  }
  return {};
}

/// At most this many tiles, whatever the offsets are.
inline int64_t MostTiles(int64_t n, int groups, int64_t tile_rows, bool grouped) {
  const int64_t whole = (n + tile_rows - 1) / tile_rows;
  return grouped ? whole + (groups < n ? groups : n) : whole;
}

/// Results of a pair of weight rows for row r of y; the second row may be past the end.
__device__ inline void WritePair(const ProductArguments& a, int group, int64_t r, RowPair pair, float first,
                                 float second) {
  const int64_t row = pair.first;
  if (a.bias != nullptr) {
    first += a.bias[group * a.rows + row];
    if (pair.second < a.rows) second += a.bias[group * a.rows + pair.second];
  }
  if (a.epilogue == Epilogue::kRope) {
    TurnAndStore(a.rope, r, row / a.rope.head_dim, row % a.rope.head_dim, first, second);
    return;
  }
  if (a.epilogue == Epilogue::kSwiglu) {
    a.y[r * (a.rows / 2) + row / 2] = Swiglu(first, second, a.limit);
    return;
  }
  float* y = a.y + r * a.rows + row;
  y[0] = a.epilogue == Epilogue::kAdd ? y[0] + first : first;
  if (row + 1 < a.rows) y[1] = a.epilogue == Epilogue::kAdd ? y[1] + second : second;
}

}  // namespace gptoss::cuda
