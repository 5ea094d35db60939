// The three products of a linear layer's training (products.cc) with both operands rounded to BF16, on AMX tiles or by
// AVX-512's dot products of pairs: sums in float, weights and gradients in float as they are.
//
// The left operand A is packed once for all tiles of C, as rows of BF16 along the depth. A worker packs the right
// operand of a tile of C for kDepth of the depth at a time and multiplies it by the tile's rows of A, 32 by 32 sums at
// once. Such a sum is one chain over kDepth, and these are added up in order: neither the cut into tiles nor the number
// of threads changes a bit.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/training/products_bf16.cc"
#include <algorithm>
#include <cstdint>
#include <vector>

#include "backends/cpu/amx/amx_kernels.h"
#include "backends/cpu/training/product_tiles.h"
#include "backends/cpu/training/training_kernels.h"
#include "hwy/foreach_target.h"
// After foreach_target: included once per target.
#include "hwy/highway.h"
#if !(HWY_TARGET & GPTOSS_CPU_EMULATED_TARGETS)
#include "backends/cpu/amx/operands-inl.h"
#include "backends/cpu/amx/tiles-inl.h"
#include "backends/cpu/unpack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr int64_t kBlock = 2 * kTileRows;           // rows and columns of C of one call of MultiplyBlock
constexpr int64_t kDepth = 1024;                    // of one packed right operand
constexpr int64_t kSteps = kDepth / kStepCols;      // of the tile instruction
constexpr TileSize kTile = {1024, kBlock, 4 * 32};  // 256 KB of right operand: in the second-level cache

int64_t RoundedUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

/// With fewer rows or columns than a tile has, most of its work would be for nothing.
bool TooSmall(int64_t rows, int64_t cols, std::span<const int32_t> offsets) {
  return std::min({rows, cols, int64_t{offsets.back()}}) < kTileRows;
}

/// The left operand of a group: [rows rounded up to kBlock][depth rounded up to kStepCols], what is past the ends zero.
struct Left {
  uint16_t* data;
  int64_t stride;
  int64_t rows, depth;
};

/// A worker's memory.
struct Scratch {
  uint16_t* right;  // [columns / kTileRows][steps of the tile instruction][kTileValues]
  float* values;    // a row of weights: [kDepth]
  uint16_t* rows;   // [kTileRows, kDepth]: rows before they are packed
  float* sums;      // [kBlock, kBlock]
};

/// to [padded] of from [count]: BF16, then zeros.
void RoundRow(const float* from, int64_t count, int64_t padded, uint16_t* to) {
  const int64_t whole = count / 16 * 16;
  RoundToBf16(from, whole, to);
  for (int64_t i = whole; i < count; ++i) to[i] = F32ToBf16(from[i]);
  std::fill(to + count, to + padded, uint16_t{0});
}

/// sums [kBlock][kBlock] = 32 rows of A times 32 columns of B.
template <class Tiles>
HWY_NOINLINE void MultiplyBlock(Tiles& tiles, const uint16_t* a, int64_t a_stride, const uint16_t* b, int64_t steps,
                                float* sums) {
  tiles.template Zero<0>();
  tiles.template Zero<1>();
  tiles.template Zero<2>();
  tiles.template Zero<3>();
  const uint16_t *lower = a + kTileRows * a_stride, *next = b + steps * kTileValues;
  for (int64_t s = 0; s < steps; ++s) {
    tiles.template Load<4>(a + s * kStepCols, a_stride * 2);
    tiles.template Load<5>(lower + s * kStepCols, a_stride * 2);
    tiles.template Load<6>(b + s * kTileValues, kTileRowBytes);
    tiles.template Load<7>(next + s * kTileValues, kTileRowBytes);
    tiles.template MultiplyAdd<0, 4, 6>();
    tiles.template MultiplyAdd<1, 4, 7>();
    tiles.template MultiplyAdd<2, 5, 6>();
    tiles.template MultiplyAdd<3, 5, 7>();
  }
  constexpr int64_t kStride = kBlock * sizeof(float);
  tiles.template Store<0>(sums, kStride);
  tiles.template Store<1>(sums + kTileRows, kStride);
  tiles.template Store<2>(sums + kTileRows * kBlock, kStride);
  tiles.template Store<3>(sums + kTileRows * kBlock + kTileRows, kStride);
}

#if HWY_TARGET == HWY_AVX3 && HWY_ARCH_X86_64

/// AVX512_BF16 instead of tiles: `sum` plus, in every lane, the products of two pairs of BF16. Assembly instead of
/// intrinsics: it needs no compiler flags. Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume
/// 2, VDPBF16PS.
struct PairDots {
  template <class V, class P>
  static HWY_INLINE V Add(V sum, P a, P b) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
  }
};

/// As above, the rows of A in groups whose sums stay in registers.
HWY_NOINLINE void MultiplyBlock(PairDots&, const uint16_t* a, int64_t a_stride, const uint16_t* b, int64_t steps,
                                float* sums) {
  constexpr int kRows = 8;  // 16 sums: more than enough for a latency of 6
  const hn::CappedTag<float, kTileRows> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const auto* left = reinterpret_cast<const uint32_t*>(b);
  const auto* right = reinterpret_cast<const uint32_t*>(b + steps * kTileValues);
  for (int64_t row = 0; row < kBlock; row += kRows) {
    hn::Vec<decltype(d)> acc[kRows][2];
    const uint32_t* pairs[kRows];
    for (int r = 0; r < kRows; ++r) {
      acc[r][0] = acc[r][1] = hn::Zero(d);
      pairs[r] = reinterpret_cast<const uint32_t*>(a + (row + r) * a_stride);
    }
    for (int64_t k = 0; k < steps * kTileRows; ++k) {
      const auto b0 = hn::LoadU(du, left + k * kTileRows), b1 = hn::LoadU(du, right + k * kTileRows);
      for (int r = 0; r < kRows; ++r) {
        const auto pair = hn::Set(du, pairs[r][k]);
        acc[r][0] = PairDots::Add(acc[r][0], pair, b0);
        acc[r][1] = PairDots::Add(acc[r][1], pair, b1);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      hn::StoreU(acc[r][0], d, sums + (row + r) * kBlock);
      hn::StoreU(acc[r][1], d, sums + (row + r) * kBlock + kTileRows);
    }
  }
}

#endif

/// Where a tile of C goes. `bias` [columns of the tile] or null.
struct Out {
  float* c;
  int64_t stride;
  const float* bias;
  bool add;
};

void AddBlock(const float* sums, int64_t rows, int64_t cols, const Out& out) {
  for (int64_t r = 0; r < rows; ++r) {
    float* c = out.c + r * out.stride;
    for (int64_t i = 0; i < cols; ++i) {
      const float sum = out.bias == nullptr ? sums[r * kBlock + i] : sums[r * kBlock + i] + out.bias[i];
      c[i] = out.add ? c[i] + sum : sum;
    }
  }
}

/// C = A B of one tile. pack(k, depth, steps) fills scratch.right with rows k … k + depth - 1 of B.
template <class Tiles, typename Pack>
void RunTile(const ProductTile& tile, const Left& left, const Scratch& scratch, const Out& out, const Pack& pack) {
  Tiles tiles;
  for (int64_t k = 0; k < left.depth; k += kDepth) {
    const int64_t depth = std::min(kDepth, left.depth - k), steps = RoundedUp(depth, kStepCols) / kStepCols;
    pack(k, depth, steps);
    for (int64_t r = 0; r < tile.rows; r += kBlock) {
      const uint16_t* a = left.data + (tile.row + r) * left.stride + k;
      for (int64_t col = 0; col < tile.cols; col += kBlock) {
        MultiplyBlock(tiles, a, left.stride, scratch.right + col / kTileRows * steps * kTileValues, steps,
                      scratch.sums);
        AddBlock(scratch.sums, std::min(kBlock, tile.rows - r), std::min(kBlock, tile.cols - col),
                 {out.c + r * out.stride + col, out.stride, k > 0 || out.bias == nullptr ? nullptr : out.bias + col,
                  out.add || k > 0});
      }
    }
  }
}

/// B whose columns are rows in memory: row(i, to) gives the padded BF16 of column i, for i below `cols`.
template <typename Row>
void PackColumns(int64_t cols, int64_t steps, const Scratch& scratch, const Row& row) {
  const int64_t padded = steps * kStepCols;
  for (int64_t first = 0; first < RoundedUp(cols, kBlock); first += kTileRows) {
    const uint16_t* rows[kTileRows];
    for (int64_t i = 0; i < kTileRows; ++i) {
      uint16_t* to = scratch.rows + i * kDepth;
      if (first + i < cols) {
        row(first + i, to);
      } else {
        std::fill_n(to, padded, uint16_t{0});
      }
      rows[i] = to;
    }
    PackTiles(rows, padded, kTileValues, scratch.right + first / kTileRows * steps * kTileValues);
  }
}

/// B whose rows are rows in memory: row(k, to) gives the BF16 of row k padded to `width`, for k below `depth`.
template <typename Row>
void PackRows(int64_t depth, int64_t width, int64_t steps, const Scratch& scratch, const Row& row) {
  for (int64_t pair = 0; pair < steps * kTileRows; ++pair) {
    uint16_t *even = scratch.rows, *odd = scratch.rows + width;
    for (int64_t half = 0; half < 2; ++half) {
      uint16_t* to = half == 0 ? even : odd;
      if (2 * pair + half < depth) {
        row(2 * pair + half, to);
      } else {
        std::fill_n(to, width, uint16_t{0});
      }
    }
    for (int64_t col = 0; col < width; col += kTileRows) {
      uint16_t* to =
          scratch.right + (col / kTileRows * steps + pair / kTileRows) * kTileValues + pair % kTileRows * kStepCols;
      for (int64_t i = 0; i < kTileRows; ++i) {
        to[2 * i] = even[col + i];
        to[2 * i + 1] = odd[col + i];
      }
    }
  }
}

std::vector<Scratch> AllocateScratch(ExecContext& context) {
  std::vector<Scratch> scratch(static_cast<size_t>(context.pool.num_threads()));
  for (Scratch& s : scratch) {
    s.right = context.scratch.Allocate<uint16_t>(kTile.cols / kTileRows * kSteps * kTileValues);
    s.values = context.scratch.Allocate<float>(kDepth);
    s.rows = context.scratch.Allocate<uint16_t>(kTileRows * kDepth);
    s.sums = context.scratch.Allocate<float>(kBlock * kBlock);
  }
  return scratch;
}

/// Left operands of the groups, whose contents are still to be written; by group.
std::vector<Left> AllocateLeft(ExecContext& context, const std::vector<GroupShape>& groups,
                               const std::vector<int64_t>& depths, size_t num_groups) {
  std::vector<Left> left(num_groups, Left{nullptr, 0, 0, 0});
  for (size_t i = 0; i < groups.size(); ++i) {
    const int64_t stride = RoundedUp(depths[i], kStepCols);
    uint16_t* data = context.scratch.Allocate<uint16_t>(RoundedUp(groups[i].rows, kBlock) * stride);
    left[static_cast<size_t>(groups[i].group)] = {data, stride, groups[i].rows, depths[i]};
  }
  return left;
}

/// Rows of activations as left operands: row r of group g is from[gather[offsets[g] + r]] [depth].
std::vector<Left> PackLeftRows(ExecContext& context, const std::vector<GroupShape>& groups, const float* from,
                               const int32_t* gather, std::span<const int32_t> offsets, int64_t depth) {
  const auto left = AllocateLeft(context, groups, std::vector<int64_t>(groups.size(), depth), offsets.size() - 1);
  struct Piece {
    int64_t group, row;
  };
  std::vector<Piece> pieces;
  for (const GroupShape& g : groups) {
    for (int64_t row = 0; row < RoundedUp(g.rows, kBlock); row += kTileRows) pieces.push_back({g.group, row});
  }
  context.pool.Run(static_cast<int64_t>(pieces.size()), [&](int64_t task, int) {
    const Piece& piece = pieces[static_cast<size_t>(task)];
    const Left& l = left[static_cast<size_t>(piece.group)];
    const int64_t first = offsets[static_cast<size_t>(piece.group)];
    for (int64_t r = piece.row; r < piece.row + kTileRows; ++r) {
      uint16_t* to = l.data + r * l.stride;
      if (r < l.rows) {
        RoundRow(from + RowOf(gather, first + r) * depth, depth, l.stride, to);
      } else {
        std::fill_n(to, l.stride, uint16_t{0});
      }
    }
  });
  return left;
}

/// The transpose of factor[r] * dy[dy_gather[r]] [rows] as left operands, one row for each of args.rows.
std::vector<Left> PackLeftOutputs(ExecContext& context, const WeightGradientArgs& args,
                                  const std::vector<GroupShape>& groups) {
  std::vector<int64_t> depths;
  struct Piece {
    int64_t group, token;  // the first of kStepCols
  };
  std::vector<Piece> pieces;
  for (const GroupShape& g : groups) {
    const auto group = static_cast<size_t>(g.group);
    depths.push_back(args.offsets[group + 1] - args.offsets[group]);
    for (int64_t token = 0; token < depths.back(); token += kStepCols) pieces.push_back({g.group, token});
  }
  const auto left = AllocateLeft(context, groups, depths, args.offsets.size() - 1);
  const int64_t height = RoundedUp(args.rows, kBlock);
  struct Buffers {
    float* values;
    uint16_t* rounded;  // [2, height]
    uint32_t* pairs;    // [kTileRows, height]: two tokens' values of an output
  };
  std::vector<Buffers> buffers(static_cast<size_t>(context.pool.num_threads()));
  const ScratchFrame frame(context.scratch);
  for (Buffers& b : buffers) {
    b = {context.scratch.Allocate<float>(args.rows), context.scratch.Allocate<uint16_t>(2 * height),
         context.scratch.Allocate<uint32_t>(kTileRows * height)};
  }
  context.pool.Run(static_cast<int64_t>(pieces.size()), [&](int64_t task, int worker) {
    const Piece& piece = pieces[static_cast<size_t>(task)];
    const Left& l = left[static_cast<size_t>(piece.group)];
    const Buffers& b = buffers[static_cast<size_t>(worker)];
    const int64_t first = args.offsets[static_cast<size_t>(piece.group)];
    for (int64_t k = 0; k < kStepCols; ++k) {
      uint16_t* to = b.rounded + k % 2 * height;
      if (piece.token + k < l.depth) {
        const int64_t at = first + piece.token + k;
        const float* from = args.dy + RowOf(args.dy_gather, at) * args.rows;
        const float factor = args.factor == nullptr ? 1.0f : args.factor[at];
        for (int64_t i = 0; i < args.rows; ++i) b.values[i] = factor * from[i];
        RoundRow(b.values, args.rows, height, to);
      } else {
        std::fill_n(to, height, uint16_t{0});
      }
      if (k % 2 == 0) continue;
      uint32_t* pairs = b.pairs + k / 2 * height;
      for (int64_t i = 0; i < height; ++i) pairs[i] = b.rounded[i] | uint32_t{b.rounded[height + i]} << 16;
    }
    for (int64_t pair = 0; pair < kTileRows; pair += 4) {
      const uint32_t* const rows[4] = {b.pairs + pair * height, b.pairs + (pair + 1) * height,
                                       b.pairs + (pair + 2) * height, b.pairs + (pair + 3) * height};
      auto* to = reinterpret_cast<uint32_t*>(l.data + piece.token) + pair;
      for (int64_t i = 0; i < height; i += 4) Transpose4(rows, i, to + i * (l.stride / 2), l.stride / 2);
    }
  });
  return left;
}

template <typename Run>
void RunTiles(ExecContext& context, const std::vector<GroupShape>& groups, const Run& run) {
  const std::vector<Scratch> scratch = AllocateScratch(context);
  const std::vector<ProductTile> tiles = CutTiles(groups, kTile, context.pool.num_threads());
  context.pool.Run(static_cast<int64_t>(tiles.size()), [&](int64_t task, int worker) {
    run(tiles[static_cast<size_t>(task)], scratch[static_cast<size_t>(worker)]);
  });
}

/// Part of a row of weights as BF16.
void RoundWeights(const WeightMatrix& w, int64_t row, int64_t begin, int64_t count, int64_t padded,
                  const Scratch& scratch, uint16_t* to) {
  RoundRow(FloatRow(w, row, begin, count, scratch.values), count, padded, to);
}

/// to[r] = from[gather[r]] B of the row's group + bias, or to[r] += that.
struct RowProduct {
  const float* from;  // [., depth]
  const int32_t* gather;
  std::span<const int32_t> offsets;
  int64_t depth, cols;
  const float* bias;  // [groups, cols] or null
  bool accumulate;
  float* to;  // [offsets.back(), cols]
};

/// pack(tile, k, depth, steps, scratch) fills scratch.right with rows k … k + depth - 1 of B, the tile's columns.
template <class Tiles, typename Pack>
void MultiplyRows(ExecContext& context, const RowProduct& p, const Pack& pack) {
  const ScratchFrame frame(context.scratch);
  const auto groups = RowGroups(p.offsets, p.cols);
  const auto left = PackLeftRows(context, groups, p.from, p.gather, p.offsets, p.depth);
  RunTiles(context, groups, [&](const ProductTile& tile, const Scratch& scratch) {
    const int64_t first = p.offsets[static_cast<size_t>(tile.group)] + tile.row;
    const float* bias = p.bias == nullptr ? nullptr : p.bias + tile.group * p.cols + tile.col;
    const Out out = {p.to + first * p.cols + tile.col, p.cols, bias, p.accumulate};
    RunTile<Tiles>(tile, left[static_cast<size_t>(tile.group)], scratch, out,
                   [&](int64_t k, int64_t depth, int64_t steps) { pack(tile, k, depth, steps, scratch); });
  });
}

template <class Tiles>
void Forward(ExecContext& context, const TrainForwardArgs& args) {
  const WeightMatrix& w = args.weight;
  if (TooSmall(w.rows, w.cols, args.offsets)) return TrainForward(context, args);
  MultiplyRows<Tiles>(context, {args.x, args.gather, args.offsets, w.cols, w.rows, args.bias, args.accumulate, args.y},
                      [&](const ProductTile& tile, int64_t k, int64_t depth, int64_t steps, const Scratch& scratch) {
                        PackColumns(tile.cols, steps, scratch, [&](int64_t col, uint16_t* to) {
                          RoundWeights(w, tile.group * w.rows + tile.col + col, k, depth, steps * kStepCols, scratch,
                                       to);
                        });
                      });
}

template <class Tiles>
void Input(ExecContext& context, const InputGradientArgs& args) {
  const WeightMatrix& w = args.weight;
  if (TooSmall(w.rows, w.cols, args.offsets)) return InputGradient(context, args);
  MultiplyRows<Tiles>(context, {args.dy, args.gather, args.offsets, w.rows, w.cols, nullptr, args.accumulate, args.dx},
                      [&](const ProductTile& tile, int64_t k, int64_t depth, int64_t steps, const Scratch& scratch) {
                        const int64_t width = RoundedUp(tile.cols, kBlock);
                        PackRows(depth, width, steps, scratch, [&](int64_t i, uint16_t* to) {
                          RoundWeights(w, tile.group * w.rows + k + i, tile.col, tile.cols, width, scratch, to);
                        });
                      });
}

template <class Tiles>
void Weight(ExecContext& context, const WeightGradientArgs& args) {
  if (TooSmall(args.rows, args.cols, args.offsets)) return WeightGradient(context, args);
  const ScratchFrame frame(context.scratch);
  auto groups = RowGroups(args.offsets, args.cols);
  for (GroupShape& group : groups) group.rows = args.rows;
  const auto left = PackLeftOutputs(context, args, groups);
  RunTiles(context, groups, [&](const ProductTile& tile, const Scratch& scratch) {
    const int64_t first = args.offsets[static_cast<size_t>(tile.group)];
    const Out out = {args.dweight + (tile.group * args.rows + tile.row) * args.cols + tile.col, args.cols, nullptr,
                     true};
    const int64_t width = RoundedUp(tile.cols, kBlock);
    RunTile<Tiles>(
        tile, left[static_cast<size_t>(tile.group)], scratch, out, [&](int64_t k, int64_t depth, int64_t steps) {
          PackRows(depth, width, steps, scratch, [&](int64_t i, uint16_t* to) {
            RoundRow(args.x + RowOf(args.x_gather, first + k + i) * args.cols + tile.col, tile.cols, width, to);
          });
        });
  });
}

}  // namespace

void TrainForwardAmxEmulated(ExecContext& context, const TrainForwardArgs& args) {
  Forward<EmulatedTiles>(context, args);
}
void InputGradientAmxEmulated(ExecContext& context, const InputGradientArgs& args) {
  Input<EmulatedTiles>(context, args);
}
void WeightGradientAmxEmulated(ExecContext& context, const WeightGradientArgs& args) {
  Weight<EmulatedTiles>(context, args);
}

#if HWY_TARGET == HWY_AVX3 && HWY_ARCH_X86_64
void TrainForwardAmx(ExecContext& context, const TrainForwardArgs& args) { Forward<AmxTiles>(context, args); }
void InputGradientAmx(ExecContext& context, const InputGradientArgs& args) { Input<AmxTiles>(context, args); }
void WeightGradientAmx(ExecContext& context, const WeightGradientArgs& args) { Weight<AmxTiles>(context, args); }

void TrainForwardPairs(ExecContext& context, const TrainForwardArgs& args) { Forward<PairDots>(context, args); }
void InputGradientPairs(ExecContext& context, const InputGradientArgs& args) { Input<PairDots>(context, args); }
void WeightGradientPairs(ExecContext& context, const WeightGradientArgs& args) { Weight<PairDots>(context, args); }
#endif

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif  // !GPTOSS_CPU_EMULATED_TARGETS
