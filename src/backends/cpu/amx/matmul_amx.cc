// Matrix products on AMX tiles: BF16 times BF16 in float, with each activation as the sum of two BF16.
//
// A thread claims a panel of one expert's weights, widens it to BF16 in its second-level cache once, as right operands,
// and multiplies all rows of that expert with it, 32 by 32 sums at a time in four tiles over the whole inner dimension.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/amx/matmul_amx.cc"
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "backends/cpu/amx/amx_kernels.h"
#include "backends/cpu/dots/dot_kernels.h"
#include "backends/cpu/kernels.h"
#include "base/check.h"
#include "hwy/foreach_target.h"
// After foreach_target: included once per target.
#include "hwy/highway.h"
#if !(HWY_TARGET & GPTOSS_CPU_EMULATED_TARGETS)
#include "backends/cpu/amx/panel-inl.h"
#include "backends/cpu/amx/tiles-inl.h"
#include "backends/cpu/epilogue-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr int64_t kBlock = 2 * kTileRows;  // rows of activations, and of weights, of one call of MultiplyBlock
static_assert(kBlock <= kEpilogueRows);
// 128 rows of 2880 are 0.74 MB of a second-level cache of 2 MB. The activations of a long prompt do not fit beside it:
// they come from the next level once for all rows of the panel.
constexpr int64_t kPanelRows = 128;
constexpr int64_t kSmallPanelRows = 32;  // where larger panels would leave threads without work
constexpr int64_t kPanelsPerThread = 4;

// Activations are the sum of this many BF16 operands: 16 bits of precision. With one, half the work, the golden model
// `small` is 1.12 times as far from the truth as the official BF16 run (mean KL 2.6e-3).
constexpr int kParts = 2;

/// A group of output rows and its activations.
struct Group {
  int64_t matrix;
  int64_t first, end;
  const uint16_t* tiles;  // [16 rows each][step][part]
};

/// A worker's memory.
struct Scratch {
  uint16_t* panel;  // of weights, as UnpackPanel writes it
  PanelBuffers buffers;
  float* sums;  // [kBlock output rows, kBlock weight rows]
};

/// Sums 0 … 3 += tiles 6 and 7, of activations, times tiles 4 and 5, of weights.
template <class Tiles, int kOutputTiles>
HWY_INLINE void MultiplyTiles(Tiles& tiles) {
  tiles.template MultiplyAdd<0, 6, 4>();
  tiles.template MultiplyAdd<1, 6, 5>();
  if constexpr (kOutputTiles == 2) {
    tiles.template MultiplyAdd<2, 7, 4>();
    tiles.template MultiplyAdd<3, 7, 5>();
  }
}

/// sums[m][n] = output row m times weight row n, for one or two tiles of output rows at `x` and two tiles of weight
/// rows at `w` and `next_w`.
template <class Tiles, int kOutputTiles>
HWY_NOINLINE void MultiplyBlock(Tiles& tiles, const uint16_t* x, const uint16_t* w, const uint16_t* next_w,
                                int weight_parts, int64_t steps, float* sums) {
  const auto load_x = [&](const uint16_t* from) HWY_ATTR {
    tiles.template Load<6>(from, kTileRowBytes);
    if constexpr (kOutputTiles == 2) tiles.template Load<7>(from + steps * kParts * kTileValues, kTileRowBytes);
  };
  const auto load_w = [&](int part) HWY_ATTR {
    tiles.template Load<4>(w + part * kTileValues, kTileRowBytes);
    tiles.template Load<5>(next_w + part * kTileValues, kTileRowBytes);
  };
  tiles.template Zero<0>(), tiles.template Zero<1>();
  if constexpr (kOutputTiles == 2) tiles.template Zero<2>(), tiles.template Zero<3>();
  for (int64_t s = 0; s < steps; ++s) {
    load_x(x);
    // The product of both second parts is below the precision of either.
    if (weight_parts == 2) load_w(1), MultiplyTiles<Tiles, kOutputTiles>(tiles);
    load_w(0), MultiplyTiles<Tiles, kOutputTiles>(tiles);
    load_x(x + kTileValues), MultiplyTiles<Tiles, kOutputTiles>(tiles);
    x += kParts * kTileValues;
    w += weight_parts * kTileValues, next_w += weight_parts * kTileValues;
  }
  constexpr int64_t kStride = kBlock * sizeof(float);
  tiles.template Store<0>(sums, kStride);
  tiles.template Store<1>(sums + kTileRows, kStride);
  if constexpr (kOutputTiles == 2) {
    tiles.template Store<2>(sums + kTileRows * kBlock, kStride);
    tiles.template Store<3>(sums + kTileRows * kBlock + kTileRows, kStride);
  }
}

/// Weight rows [begin, end) of a group's matrix times all rows of the group.
template <class Tiles>
void RunPanel(const MatmulArgs& args, const Group& group, int64_t begin, int64_t end, const Scratch& scratch) {
  const WeightMatrix& w = args.weight;
  const int64_t steps = w.cols / kStepCols, matrix_row = group.matrix * w.rows;
  const int parts = WeightParts(w.dtype);
  const int64_t w_tiles = steps * parts * kTileValues;  // of 16 rows
  UnpackPanel(w, matrix_row + begin, matrix_row + end, scratch.buffers, scratch.panel);
  Tiles tiles;
  for (int64_t row = group.first; row < group.end; row += kBlock) {
    const int64_t count = std::min(kBlock, group.end - row);
    const uint16_t* x = group.tiles + (row - group.first) * w.cols * kParts;
    for (int64_t at = begin; at < end; at += kBlock) {
      const int64_t width = std::min(kBlock, end - at);
      const uint16_t* panel = scratch.panel + (at - begin) / kTileRows * w_tiles;
      const uint16_t* next = width > kTileRows ? panel + w_tiles : panel;
      count > kTileRows ? MultiplyBlock<Tiles, 2>(tiles, x, panel, next, parts, steps, scratch.sums)
                        : MultiplyBlock<Tiles, 1>(tiles, x, panel, next, parts, steps, scratch.sums);
      for (int64_t t = 0; t < count; ++t) {
        FinishRow(args, group.matrix, row + t, at, width, scratch.sums + t * kBlock);
      }
    }
  }
}

/// All activations as kParts BF16 each: [part, x_rows, columns].
const uint16_t* RoundRows(ExecContext& context, const MatmulArgs& args) {
  static_assert(kParts == 2);
  const int64_t cols = args.weight.cols, part = args.x_rows * cols;
  uint16_t* rounded = context.scratch.Allocate<uint16_t>(kParts * part);
  context.pool.ParallelFor(args.x_rows, 8, [&](int64_t begin, int64_t end, int) {
    SplitToBf16(args.x + begin * cols, (end - begin) * cols, rounded + begin * cols, rounded + part + begin * cols);
  });
  return rounded;
}

/// Left operands of output rows [first, end) of `args`, at most 16: [step][part]. Rows past the end are zero.
void PackRows(const MatmulArgs& args, const uint16_t* rounded, int64_t first, int64_t end, uint16_t* to) {
  const int64_t cols = args.weight.cols, steps = cols / kStepCols;
  for (int64_t i = 0; i < kTileRows; ++i) {
    const int64_t row = first + i;
    for (int part = 0; part < kParts; ++part) {
      uint16_t* tile_row = to + part * kTileValues + i * kStepCols;
      if (row >= end) {
        for (int64_t s = 0; s < steps; ++s) std::memset(tile_row + s * kParts * kTileValues, 0, kTileRowBytes);
        continue;
      }
      const uint16_t* from = rounded + (part * args.x_rows + (args.gather == nullptr ? row : args.gather[row])) * cols;
      for (int64_t s = 0; s < steps; ++s) {
        std::memcpy(tile_row + s * kParts * kTileValues, from + s * kStepCols, kTileRowBytes);
      }
    }
  }
}

/// The groups that take tiles, with their activations packed.
std::vector<Group> PackGroups(ExecContext& context, const MatmulArgs& args) {
  struct Piece {
    int64_t first, end;
    uint16_t* tiles;
  };
  std::vector<Group> groups;
  std::vector<Piece> pieces;
  const int64_t cols = args.weight.cols;
  for (size_t m = 0; m + 1 < args.offsets.size(); ++m) {
    const int64_t first = args.offsets[m], end = args.offsets[m + 1];
    if (end - first < AmxMinRows(args.weight.dtype)) continue;
    const int64_t rows = (end - first + kTileRows - 1) / kTileRows * kTileRows;
    uint16_t* tiles = context.scratch.Allocate<uint16_t>(kParts * rows * cols);
    groups.push_back({static_cast<int64_t>(m), first, end, tiles});
    for (int64_t r = first; r < end; r += kTileRows) {
      pieces.push_back({r, std::min<int64_t>(r + kTileRows, end), tiles + kParts * (r - first) * cols});
    }
  }
  const ScratchFrame frame(context.scratch);
  const uint16_t* rounded = RoundRows(context, args);
  context.pool.Run(static_cast<int64_t>(pieces.size()), [&](int64_t task, int) {
    PackRows(args, rounded, pieces[task].first, pieces[task].end, pieces[task].tiles);
  });
  return groups;
}

/// Groups of fewer rows than AmxMinRows take `few_rows`.
template <class Tiles>
void Multiply(ExecContext& context, const MatmulArgs& args, void (*few_rows)(ExecContext&, const MatmulArgs&)) {
  const DType dtype = args.weight.dtype;
  const int32_t min_rows = AmxMinRows(dtype);
  bool small = false, large = false;
  for (size_t m = 0; m + 1 < args.offsets.size(); ++m) {
    const int32_t rows = args.offsets[m + 1] - args.offsets[m];
    (rows < min_rows ? small : large) |= rows > 0;
  }
  if (!large || (dtype != DType::kMxfp4 && dtype != DType::kQ8_0 && dtype != DType::kBF16)) {
    return few_rows(context, args);
  }
  GPTOSS_CHECK(args.weight.cols % kBlockSize == 0);
  if (small) {
    MatmulArgs rest = args;
    rest.max_group_rows = min_rows - 1;
    few_rows(context, rest);
  }
  const ScratchFrame frame(context.scratch);
  const std::vector<Group> groups = PackGroups(context, args);
  const int64_t rows = args.weight.rows;
  const int threads = context.pool.num_threads();
  const int64_t large_panels = static_cast<int64_t>(groups.size()) * ((rows + kPanelRows - 1) / kPanelRows);
  const int64_t panel_rows =
      large_panels >= kPanelsPerThread * threads ? kPanelRows / WeightParts(dtype) : kSmallPanelRows;
  const int64_t per_group = (rows + panel_rows - 1) / panel_rows;
  std::vector<Scratch> scratch(threads);
  for (Scratch& s : scratch) {
    s.panel = context.scratch.Allocate<uint16_t>(panel_rows * args.weight.cols * WeightParts(dtype));
    if (dtype != DType::kBF16) s.buffers = PanelBuffers::Allocate(context.scratch, args.weight);
    s.sums = context.scratch.Allocate<float>(kBlock * kBlock);
  }
  context.pool.Run(static_cast<int64_t>(groups.size()) * per_group, [&](int64_t task, int worker) {
    const int64_t begin = task % per_group * panel_rows;
    RunPanel<Tiles>(args, groups[task / per_group], begin, std::min(begin + panel_rows, rows), scratch[worker]);
  });
}

}  // namespace

void MatmulAmxEmulated(ExecContext& context, const MatmulArgs& args) {
  Multiply<EmulatedTiles>(context, args, MatmulFast);
}

#if HWY_TARGET == HWY_AVX3 && HWY_ARCH_X86_64
void MatmulAmx(ExecContext& context, const MatmulArgs& args) { Multiply<AmxTiles>(context, args, MatmulDots); }

double AmxLoop(int64_t iterations, float* sink) {
  alignas(64) float sums[kTileRows * kTileRows] = {*sink};
  AmxTiles tiles;
  tiles.Load<0>(sums, kTileRowBytes), tiles.Load<1>(sums, kTileRowBytes);
  tiles.Load<2>(sums, kTileRowBytes), tiles.Load<3>(sums, kTileRowBytes);
  tiles.Zero<4>(), tiles.Zero<5>(), tiles.Zero<6>(), tiles.Zero<7>();
  for (int64_t i = 0; i < iterations; ++i) {
    tiles.MultiplyAdd<0, 4, 6>(), tiles.MultiplyAdd<1, 5, 6>();
    tiles.MultiplyAdd<2, 4, 7>(), tiles.MultiplyAdd<3, 5, 7>();
  }
  tiles.Store<0>(sums, kTileRowBytes);
  *sink = sums[0];
  constexpr double kProducts = 4.0 * kTileRows * kTileRows * kStepCols;
  return 2.0 / kParts * kProducts * static_cast<double>(iterations);
}
#endif

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif  // !GPTOSS_CPU_EMULATED_TARGETS
