// The three products of a linear layer, grouped by expert: forward, gradient of the input, gradient of the weights.
//
// All are cut into tiles of C; a tile walks through the depth in steps of kDepth, packs the operands of a step and runs
// the micro kernel over them. A value of C is one chain: sums of kDepth products, added up in order. Tiles differ only
// in which thread computes them, so neither their size nor the number of threads changes a bit.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/training/products.cc"
#include <vector>

#include "backends/cpu/training/product_tiles.h"
#include "backends/cpu/training/training_kernels.h"
#include "hwy/foreach_target.h"
// After foreach_target: these are included once per target.
#include "backends/cpu/training/micro-inl.h"
#include "backends/cpu/unpack-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

constexpr int64_t kDepth = 256;     // a panel of 16 columns is 16 KB: half of the first-level cache
constexpr int64_t kTileCols = 128;  // 8 panels, 128 KB; a multiple of 32, as blocks of weights need

static_assert(kTileCols % kPanelCols == 0);

/// A worker's memory.
struct Scratch {
  float* panels;  // [kTileCols / kPanelCols][kDepth][kPanelCols]
  float* rows;    // unpacked weights: [4, kDepth] or [kTileCols]
  float* a;       // packed rows of A, for the gradient of the weights
};

std::vector<Scratch> AllocateScratch(ExecContext& context, int64_t a_rows) {
  std::vector<Scratch> scratch(static_cast<size_t>(context.pool.num_threads()));
  for (Scratch& s : scratch) {
    s.panels = context.scratch.Allocate<float>(static_cast<size_t>(kTileCols * kDepth));
    s.rows = context.scratch.Allocate<float>(static_cast<size_t>(4 * kDepth));
    s.a = a_rows == 0 ? nullptr : context.scratch.Allocate<float>(static_cast<size_t>(a_rows * kDepth));
  }
  return scratch;
}

/// C = A B for one tile and step: rows of A lie anywhere, K values side by side.
template <typename RowPointer>
void MultiplyRows(const ProductTile& tile, int64_t depth, const float* panels, const RowPointer& row_of_a,
                  const float* bias, bool add, float* c, int64_t stride) {
  for (int64_t p = 0; p * kPanelCols < tile.cols; ++p) {
    const int64_t width = std::min(kPanelCols, tile.cols - p * kPanelCols);
    for (int64_t r = 0; r < tile.rows; r += kMicroRows) {
      const int count = static_cast<int>(std::min<int64_t>(kMicroRows, tile.rows - r));
      const float* a[kMicroRows];
      for (int i = 0; i < count; ++i) a[i] = row_of_a(r + i);
      RunMicro(
          count, a, 1, depth, panels + p * depth * kPanelCols,
          {c + r * stride + p * kPanelCols, stride, width, bias == nullptr ? nullptr : bias + p * kPanelCols, add});
    }
  }
}

/// Panels of W^T: columns of B are rows `first` … of W, its rows are W's columns from `begin` on.
void PackWeightRows(const WeightMatrix& w, int64_t first, int64_t count, int64_t begin, int64_t depth,
                    const Scratch& s) {
  for (int64_t p = 0; p * kPanelCols < count; ++p) {
    const auto row = [&](int64_t i) -> const float* {
      const int64_t at = first + p * kPanelCols + i;
      return FloatRow(w, at, begin, depth, s.rows + i % 4 * kDepth);
    };
    PackTransposed(std::min(kPanelCols, count - p * kPanelCols), depth, row, s.panels + p * depth * kPanelCols);
  }
}

void ForwardTile(const TrainForwardArgs& args, const ProductTile& tile, const Scratch& s) {
  const int64_t first = args.offsets[static_cast<size_t>(tile.group)] + tile.row, rows = args.weight.rows;
  const int64_t cols = args.weight.cols;
  for (int64_t k = 0; k < cols; k += kDepth) {
    const int64_t depth = std::min(kDepth, cols - k);
    PackWeightRows(args.weight, tile.group * rows + tile.col, tile.cols, k, depth, s);
    const auto a = [&](int64_t r) { return args.x + RowOf(args.gather, first + r) * cols + k; };
    const float* bias = k > 0 || args.bias == nullptr ? nullptr : args.bias + tile.group * rows + tile.col;
    MultiplyRows(tile, depth, s.panels, a, bias, args.accumulate || k > 0, args.y + first * rows + tile.col, rows);
  }
}

void InputTile(const InputGradientArgs& args, const ProductTile& tile, const Scratch& s) {
  const WeightMatrix& w = args.weight;
  const int64_t first = args.offsets[static_cast<size_t>(tile.group)] + tile.row;
  for (int64_t k = 0; k < w.rows; k += kDepth) {
    const int64_t depth = std::min(kDepth, w.rows - k);
    for (int64_t i = 0; i < depth; ++i) {
      const int64_t at = tile.group * w.rows + k + i;
      const float* row = FloatRow(w, at, tile.col, tile.cols, s.rows);
      PackRow(row, tile.cols, i, depth * kPanelCols, s.panels);
    }
    const auto a = [&](int64_t r) { return args.dy + RowOf(args.gather, first + r) * w.rows + k; };
    MultiplyRows(tile, depth, s.panels, a, nullptr, args.accumulate || k > 0, args.dx + first * w.cols + tile.col,
                 w.cols);
  }
}

/// The rows [tile.row, + tile.rows) of dy^T for some tokens, as [rows / kMicroRows][depth][kMicroRows].
void PackOutputs(const WeightGradientArgs& args, const ProductTile& tile, int64_t first, int64_t depth, float* to) {
  const int64_t whole = tile.rows / kMicroRows * kMicroRows;
  for (int64_t k = 0; k < depth; ++k) {
    const float* from = args.dy + RowOf(args.dy_gather, first + k) * args.rows + tile.row;
    const float factor = args.factor == nullptr ? 1.0f : args.factor[first + k];
    float* packed = to + k * kMicroRows;
    for (int64_t r = 0; r < whole; r += kMicroRows, packed += depth * kMicroRows) {
      for (int i = 0; i < kMicroRows; ++i) packed[i] = factor * from[r + i];
    }
    for (int64_t i = 0; i < tile.rows - whole; ++i) packed[i] = factor * from[whole + i];
  }
}

void WeightTile(const WeightGradientArgs& args, const ProductTile& tile, const Scratch& s) {
  const int64_t begin = args.offsets[static_cast<size_t>(tile.group)];
  const int64_t end = args.offsets[static_cast<size_t>(tile.group) + 1];
  float* c = args.dweight + (tile.group * args.rows + tile.row) * args.cols + tile.col;
  for (int64_t k = begin; k < end; k += kDepth) {
    const int64_t depth = std::min(kDepth, end - k);
    PackOutputs(args, tile, k, depth, s.a);
    for (int64_t i = 0; i < depth; ++i) {
      PackRow(args.x + RowOf(args.x_gather, k + i) * args.cols + tile.col, tile.cols, i, depth * kPanelCols, s.panels);
    }
    for (int64_t p = 0; p * kPanelCols < tile.cols; ++p) {
      const int64_t width = std::min(kPanelCols, tile.cols - p * kPanelCols);
      for (int64_t r = 0; r < tile.rows; r += kMicroRows) {
        const float* a[kMicroRows];
        for (int i = 0; i < kMicroRows; ++i) a[i] = s.a + r * depth + i;
        RunMicro(static_cast<int>(std::min<int64_t>(kMicroRows, tile.rows - r)), a, kMicroRows, depth,
                 s.panels + p * depth * kPanelCols,
                 {c + r * args.cols + p * kPanelCols, args.cols, width, nullptr, true});
      }
    }
  }
}

template <typename Args, typename Run>
void RunTiles(ExecContext& context, const Args& args, const std::vector<ProductTile>& tiles, int64_t a_rows,
              const Run& run) {
  const ScratchFrame frame(context.scratch);
  const std::vector<Scratch> scratch = AllocateScratch(context, a_rows);
  context.pool.Run(static_cast<int64_t>(tiles.size()), [&](int64_t task, int worker) {
    run(args, tiles[static_cast<size_t>(task)], scratch[static_cast<size_t>(worker)]);
  });
}

constexpr int64_t kForwardRows = 480;  // rows of activations that a packed tile of weights serves
constexpr int64_t kWeightRows = 192;   // 192 KB of packed gradients beside 128 KB of packed activations

}  // namespace

void TrainForward(ExecContext& context, const TrainForwardArgs& args) {
  const auto groups = RowGroups(args.offsets, args.weight.rows);
  RunTiles(context, args, CutTiles(groups, {kForwardRows, kMicroRows, kTileCols}, context.pool.num_threads()), 0,
           ForwardTile);
}

void InputGradient(ExecContext& context, const InputGradientArgs& args) {
  const auto groups = RowGroups(args.offsets, args.weight.cols);
  RunTiles(context, args, CutTiles(groups, {kForwardRows, kMicroRows, kTileCols}, context.pool.num_threads()), 0,
           InputTile);
}

void WeightGradient(ExecContext& context, const WeightGradientArgs& args) {
  auto groups = RowGroups(args.offsets, args.cols);
  for (GroupShape& group : groups) group.rows = args.rows;
  RunTiles(context, args, CutTiles(groups, {kWeightRows, kMicroRows, kTileCols}, context.pool.num_threads()),
           kWeightRows, WeightTile);
}

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();
