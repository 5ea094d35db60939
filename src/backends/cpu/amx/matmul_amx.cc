// Matrix products on AMX tiles: BF16 times BF16 in float, with each activation as the sum of two BF16.
//
// A thread claims a panel of one expert's weights, widens it to BF16 in its second-level cache once, and multiplies it
// by all rows of that expert, 32 by 32 sums at a time in four tiles over the whole inner dimension.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/amx/matmul_amx.cc"
#include <algorithm>
#include <cstdint>
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

constexpr int64_t kBlock = 2 * kTileRows;  // rows of weights, and of activations, of one call of MultiplyBlock
static_assert(kBlock <= kEpilogueRows);
// 128 rows of 2880 are 0.74 MB of a second-level cache of 2 MB. The activations of a long prompt do not fit beside it:
// they come from the next level once for all rows of the panel.
constexpr int64_t kPanelRows = 128;
constexpr int64_t kSmallPanelRows = 32;  // where larger panels would leave threads without work
constexpr int64_t kPanelsPerThread = 4;

// Activations are the sum of this many BF16 operands: 16 bits of precision. With one, half the work, the golden model
// `small` is 1.12 times as far from the truth as the official BF16 run (mean KL 2.6e-3).
constexpr int kParts = 2;

/// Rows of BF16 in memory.
struct Rows {
  const uint16_t* data;
  int64_t stride;  // values
  int parts;       // WeightParts; the second part follows the first in its row
};

/// A group of output rows and its activations, packed in tiles of 16 rows.
struct Group {
  int64_t matrix;
  int64_t first, end;
  const uint16_t* tiles;  // [16 rows each][step][part]
};

/// A worker's memory.
struct Scratch {
  uint16_t* panel;  // [panel rows, WeightParts, padded columns]
  SplitRows split;
  float* sums;    // [kBlock weight rows, kBlock output rows]
  float* turned;  // [kBlock output rows, kBlock weight rows]
};

/// sums[i][n] = weight row i times output row n, for kBlock weight rows and one or two tiles of output rows.
template <class Tiles, int kOutputTiles>
HWY_NOINLINE void MultiplyBlock(Tiles& tiles, const Rows& w, const uint16_t* x_begin, int64_t steps, float* sums) {
  const uint16_t* x = x_begin;
  const int64_t w_stride = w.stride * 2, x_tiles = steps * kParts * kTileValues;
  const uint16_t* lower = w.data + kTileRows * w.stride;
  tiles.template Zero<0>();
  tiles.template Zero<1>();
  if constexpr (kOutputTiles == 2) {
    tiles.template Zero<2>();
    tiles.template Zero<3>();
  }
  for (int64_t s = 0; s < steps * w.parts; ++s) {
    tiles.template Load<4>(w.data + s * kStepCols, w_stride);
    tiles.template Load<5>(lower + s * kStepCols, w_stride);
    if (s == steps) x = x_begin;
    // The product of both second parts is below the precision of either.
    for (int part = 0; part < kParts; ++part, x += kTileValues) {
      if (part > 0 && s >= steps) continue;
      tiles.template Load<6>(x, kTileRowBytes);
      tiles.template MultiplyAdd<0, 4, 6>();
      tiles.template MultiplyAdd<1, 5, 6>();
      if constexpr (kOutputTiles == 2) {
        tiles.template Load<7>(x + x_tiles, kTileRowBytes);
        tiles.template MultiplyAdd<2, 4, 7>();
        tiles.template MultiplyAdd<3, 5, 7>();
      }
    }
  }
  constexpr int64_t kStride = kBlock * sizeof(float);
  tiles.template Store<0>(sums, kStride);
  tiles.template Store<1>(sums + kTileRows * kBlock, kStride);
  if constexpr (kOutputTiles == 2) {
    tiles.template Store<2>(sums + kTileRows, kStride);
    tiles.template Store<3>(sums + kTileRows * kBlock + kTileRows, kStride);
  }
}

/// [kBlock weight rows][output rows] to [output rows][kBlock weight rows].
void Turn(const float* sums, int64_t output_rows, float* turned) {
  const auto* from = reinterpret_cast<const uint32_t*>(sums);
  for (int64_t i = 0; i < kBlock; i += 4) {
    const uint32_t* const rows[4] = {from + i * kBlock, from + (i + 1) * kBlock, from + (i + 2) * kBlock,
                                     from + (i + 3) * kBlock};
    for (int64_t n = 0; n < output_rows; n += 4) {
      Transpose4(rows, n, reinterpret_cast<uint32_t*>(turned) + n * kBlock + i, kBlock);
    }
  }
}

/// Weight rows [begin, end) of a group's matrix times all rows of the group.
template <class Tiles>
void RunPanel(const MatmulArgs& args, const Group& group, int64_t begin, int64_t end, const Scratch& scratch) {
  const WeightMatrix& w = args.weight;
  const int64_t padded = PaddedCols(w.dtype, w.cols), steps = padded / kStepCols, first = group.matrix * w.rows + begin;
  const int64_t rows = end - begin, blocks = (rows + kBlock - 1) / kBlock;
  const int64_t stride = padded * WeightParts(w.dtype);
  Rows panel = {scratch.panel, stride, WeightParts(w.dtype)};
  if (w.dtype == DType::kBF16 && rows % kBlock == 0) {
    panel.data = reinterpret_cast<const uint16_t*>(w.Row(first));
  } else {
    UnpackPanel(w, first, rows, scratch.split, scratch.panel);
    std::fill(scratch.panel + rows * stride, scratch.panel + blocks * kBlock * stride, uint16_t{0});
  }
  Tiles tiles;
  for (int64_t row = group.first; row < group.end; row += kBlock) {
    const int64_t count = std::min(kBlock, group.end - row);
    const uint16_t* x = group.tiles + (row - group.first) * padded * kParts;
    for (int64_t b = 0; b < blocks; ++b) {
      const Rows block = {panel.data + b * kBlock * panel.stride, panel.stride, panel.parts};
      count > kTileRows ? MultiplyBlock<Tiles, 2>(tiles, block, x, steps, scratch.sums)
                        : MultiplyBlock<Tiles, 1>(tiles, block, x, steps, scratch.sums);
      Turn(scratch.sums, count > kTileRows ? kBlock : kTileRows, scratch.turned);
      const int64_t at = begin + b * kBlock, width = std::min(kBlock, end - at);
      for (int64_t t = 0; t < count; ++t) {
        FinishRow(args, group.matrix, row + t, at, width, scratch.turned + t * kBlock);
      }
    }
  }
}

/// All activations as kParts BF16 each, in the order of columns that the weights have: [part, x_rows, padded columns].
const uint16_t* RoundRows(ExecContext& context, const MatmulArgs& args) {
  const int64_t cols = args.weight.cols, padded = PaddedCols(args.weight.dtype, cols);
  const bool permute = args.weight.dtype == DType::kMxfp4;
  uint16_t* rounded = context.scratch.Allocate<uint16_t>(kParts * args.x_rows * padded);
  struct Row {
    float* values;
    uint16_t* bf16;
  };
  std::vector<Row> own(context.pool.num_threads());
  for (Row& row : own) row = {context.scratch.Allocate<float>(cols), context.scratch.Allocate<uint16_t>(cols)};
  context.pool.ParallelFor(args.x_rows, 8, [&](int64_t begin, int64_t end, int worker) {
    const Row& row = own[worker];
    for (int64_t r = begin; r < end; ++r) {
      const float* values = args.x + r * cols;
      for (int part = 0; part < kParts; ++part) {
        uint16_t* to = rounded + (part * args.x_rows + r) * padded;
        RoundToBf16(values, cols, permute ? row.bf16 : to);
        if (permute) PermuteRow(row.bf16, cols, to);
        if (part + 1 == kParts) break;
        std::copy_n(args.x + r * cols, cols, row.values);
        SubtractBf16(permute ? row.bf16 : to, cols, row.values);
        values = row.values;
      }
    }
  });
  return rounded;
}

/// The groups that take tiles, with their activations packed. Rows past a group's end are zero.
std::vector<Group> PackGroups(ExecContext& context, const MatmulArgs& args) {
  const int64_t padded = PaddedCols(args.weight.dtype, args.weight.cols);
  struct Piece {
    int64_t first, end;
    uint16_t* tiles;
  };
  std::vector<Group> groups;
  std::vector<Piece> pieces;
  for (size_t m = 0; m + 1 < args.offsets.size(); ++m) {
    const int64_t first = args.offsets[m], end = args.offsets[m + 1];
    if (end - first < kAmxMinRows) continue;
    const int64_t rows = (end - first + kTileRows - 1) / kTileRows * kTileRows;
    uint16_t* tiles = context.scratch.Allocate<uint16_t>(kParts * rows * padded);
    groups.push_back({static_cast<int64_t>(m), first, end, tiles});
    for (int64_t r = first; r < end; r += kTileRows) {
      pieces.push_back({r, std::min<int64_t>(r + kTileRows, end), tiles + kParts * (r - first) * padded});
    }
  }
  const ScratchFrame frame(context.scratch);
  const uint16_t* rounded = RoundRows(context, args);
  uint16_t* zero = context.scratch.Allocate<uint16_t>(padded);
  std::fill_n(zero, padded, uint16_t{0});
  context.pool.Run(static_cast<int64_t>(pieces.size()), [&](int64_t task, int) {
    const Piece& piece = pieces[task];
    for (int part = 0; part < kParts; ++part) {
      const uint16_t* rows[kTileRows];
      for (int64_t i = 0; i < kTileRows; ++i) {
        const int64_t row = piece.first + i;
        const int64_t from = args.gather == nullptr || row >= piece.end ? row : args.gather[row];
        rows[i] = row < piece.end ? rounded + (part * args.x_rows + from) * padded : zero;
      }
      PackTiles(rows, padded, kParts * kTileValues, piece.tiles + part * kTileValues);
    }
  });
  return groups;
}

/// Groups of fewer rows than kAmxMinRows take `few_rows`.
template <class Tiles>
void Multiply(ExecContext& context, const MatmulArgs& args, void (*few_rows)(ExecContext&, const MatmulArgs&)) {
  bool small = false, large = false;
  for (size_t m = 0; m + 1 < args.offsets.size(); ++m) {
    const int32_t rows = args.offsets[m + 1] - args.offsets[m];
    (rows < kAmxMinRows ? small : large) |= rows > 0;
  }
  const DType dtype = args.weight.dtype;
  if (!large || (dtype != DType::kMxfp4 && dtype != DType::kQ8_0 && dtype != DType::kBF16)) {
    return few_rows(context, args);
  }
  GPTOSS_CHECK(args.weight.cols % kBlockSize == 0);
  if (small) {
    MatmulArgs rest = args;
    rest.max_group_rows = kAmxMinRows - 1;
    few_rows(context, rest);
  }
  const ScratchFrame frame(context.scratch);
  const std::vector<Group> groups = PackGroups(context, args);
  const int64_t rows = args.weight.rows, padded = PaddedCols(dtype, args.weight.cols);
  const int threads = context.pool.num_threads();
  const int64_t large_panels = static_cast<int64_t>(groups.size()) * ((rows + kPanelRows - 1) / kPanelRows);
  const int64_t panel_rows =
      large_panels >= kPanelsPerThread * threads ? kPanelRows / WeightParts(dtype) : kSmallPanelRows;
  const int64_t per_group = (rows + panel_rows - 1) / panel_rows;
  std::vector<Scratch> scratch(threads);
  for (Scratch& s : scratch) {
    s.panel = context.scratch.Allocate<uint16_t>(panel_rows * padded * WeightParts(dtype));
    const auto width = static_cast<uint64_t>(args.weight.cols);
    s.split = {context.scratch.Allocate<uint8_t>(kRowGroup * RowBytes(dtype, width)),
               context.scratch.Allocate<uint8_t>(kRowGroup * RowScaleBytes(dtype, width))};
    s.sums = context.scratch.Allocate<float>(kBlock * kBlock);
    s.turned = context.scratch.Allocate<float>(kBlock * kBlock);
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
