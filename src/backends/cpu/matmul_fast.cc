// Matrix products of MXFP4 and Q8_0 weights with activations rounded to 16-bit integers per block of 32: two
// multiply-adds per lane and instruction instead of one, and weights that need no conversion to float.
//
// As in matmul_exact.cc a dot product is one chain over the groups of columns in order, whatever the batch.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/matmul_fast.cc"
#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "backends/cpu/kernels.h"
#include "backends/cpu/matmul_driver.h"
#include "base/check.h"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
// After foreach_target: included once per target.
#include "hwy/highway.h"
#if !(HWY_TARGET & GPTOSS_CPU_EMULATED_TARGETS)
#include "backends/cpu/epilogue-inl.h"
#include "backends/cpu/quantize-inl.h"
#endif

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {

#if HWY_TARGET & GPTOSS_CPU_EMULATED_TARGETS

void MatmulFast(ExecContext& context, const MatmulArgs& args) { MatmulExact(context, args); }

#else

namespace hn = hwy::HWY_NAMESPACE;
namespace {

constexpr int64_t kPanelRows = 32;    // 32 rows of 2880: 230 KB of a 512 KB second-level cache
constexpr int kTileRows = 2;          // weight rows per tile
constexpr int kTileTokens = 4;        // 2 x 4 accumulators, 4 weights and the sum in progress fit 16 registers
constexpr int kDirectTokens = 3;      // up to here weights are decoded in registers, past it into a panel
constexpr int64_t kChunkGroups = 16;  // groups per pass: 4 activation rows and 2 weight rows stay in 32 KB of L1
constexpr int64_t kCacheLine = 64;
constexpr int64_t kPrefetchBytes = 8192;  // 1 KB gave three quarters of the rate, none half of it, on Zen 3

/// A worker's memory.
struct Scratch {
  Group* panel;  // [kPanelRows / kTileRows, groups, kTileRows] weights
  Group* x;      // [groups, tokens of the tile] activations
  float* sums;   // accumulators, SumIndex<kTileRows, kTileTokens>
};

/// One row of weights, in batches of kBatchGroups groups. A partial last batch is read in place if what lies behind it
/// belongs to the same matrix and no group mixes the two; else through a copy padded with zeros.
template <class Format>
class RowReader {
 public:
  RowReader(const WeightMatrix& w, int64_t row)
      : values_(reinterpret_cast<const uint8_t*>(w.Row(row))),
        scales_(reinterpret_cast<const uint8_t*>(w.RowScales(row))) {
    const int64_t blocks = w.cols / kBlockSize, rest = blocks % kBatchBlocks;
    const int64_t blocks_behind = (w.rows - 1 - row % w.rows) * blocks;
    in_place_ = blocks / kBatchBlocks;
    if (rest == 0) return;
    if (rest % kGroupBlocks == 0 && blocks_behind >= kBatchBlocks) {
      ++in_place_;
      return;
    }
    std::memset(tail_values_, 0, sizeof(tail_values_));
    std::memset(tail_scales_, 0, sizeof(tail_scales_));
    const int64_t whole = in_place_ * kBatchBlocks;
    std::memcpy(tail_values_, values_ + whole * Format::kBlockBytes, static_cast<size_t>(rest * Format::kBlockBytes));
    std::memcpy(tail_scales_, scales_ + whole * Format::kScaleBytes, static_cast<size_t>(rest * Format::kScaleBytes));
  }

  HWY_INLINE const uint8_t* Values(int64_t batch) const {
    return batch < in_place_ ? values_ + batch * kBatchBlocks * Format::kBlockBytes : tail_values_;
  }
  HWY_INLINE const uint8_t* Scales(int64_t batch) const {
    return batch < in_place_ ? scales_ + batch * kBatchBlocks * Format::kScaleBytes : tail_scales_;
  }

 private:
  const uint8_t *values_, *scales_;
  int64_t in_place_;  // batches that are read where they are
  alignas(32) uint8_t tail_values_[kBatchBlocks * Format::kBlockBytes];
  alignas(32) uint8_t tail_scales_[kBatchBlocks * Format::kScaleBytes];
};

/// Calls run.operator()<group of the batch>() for the groups of batch `batch`.
template <class Run>
HWY_INLINE void ForGroups(int64_t batch, int64_t groups, const Run& run) {
  const int64_t left = groups - batch * kBatchGroups;
  run.template operator()<0>();
  if (left > 1) run.template operator()<1>();
  if (left > 2) run.template operator()<2>();
  if (left > 3) run.template operator()<3>();
}

/// Weight rows `row` and `row + 1` times kTokens activation rows, straight from the stored codes.
template <class Format, int kTokens>
HWY_NOINLINE void DirectPair(const WeightMatrix& w, int64_t row0, int64_t row1, const QuantizedRows& x,
                             const int64_t* x_rows, float* HWY_RESTRICT sums) {
  const DF d;
  const RowReader<Format> reader0(w, row0), reader1(w, row1);
  const Group* activations[kTokens];
  VF acc0[kTokens], acc1[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    activations[t] = x.Row(x_rows[t]);
    acc0[t] = acc1[t] = hn::Zero(d);
  }
  for (int64_t batch = 0; batch * kBatchGroups < x.groups; ++batch) {
    const uint8_t *codes0 = reader0.Values(batch), *codes1 = reader1.Values(batch);
    const VF all0 = Format::Scales(reader0.Scales(batch)), all1 = Format::Scales(reader1.Scales(batch));
    ForGroups(batch, x.groups, [&]<int kGroup>() HWY_ATTR {
      constexpr int64_t kAt = kGroup * kGroupBlocks * Format::kBlockBytes;
      const int64_t group = batch * kBatchGroups + kGroup;
      if constexpr (kAt % kCacheLine == 0) {
        hwy::Prefetch(codes0 + kAt + kPrefetchBytes);
        hwy::Prefetch(codes1 + kAt + kPrefetchBytes);
      }
      const VF scale0 = SpreadScales<kGroup>(all0), scale1 = SpreadScales<kGroup>(all1);
      const WeightGroup w0 = Format::Load(codes0 + kAt);
      for (int t = 0; t < kTokens; ++t) {
        acc0[t] = AddGroup(w0, scale0, activations[t][group], acc0[t]);
      }
      const WeightGroup w1 = Format::Load(codes1 + kAt);
      for (int t = 0; t < kTokens; ++t) {
        acc1[t] = AddGroup(w1, scale1, activations[t][group], acc1[t]);
      }
    });
  }
  for (int t = 0; t < kTokens; ++t) {
    hn::Store(acc0[t], d, sums + (t * 2) * kLanes32);
    hn::Store(acc1[t], d, sums + (t * 2 + 1) * kLanes32);
  }
}

/// Decodes a row into out[0], out[kTileRows], out[2 * kTileRows] …
template <class Format>
void UnpackRow(const WeightMatrix& w, int64_t row, int64_t groups, Group* HWY_RESTRICT out) {
  const RowReader<Format> reader(w, row);
  for (int64_t batch = 0; batch * kBatchGroups < groups; ++batch) {
    const uint8_t* codes = reader.Values(batch);
    const VF all = Format::Scales(reader.Scales(batch));
    ForGroups(batch, groups, [&]<int kGroup>() HWY_ATTR {
      Group& to = out[(batch * kBatchGroups + kGroup) * kTileRows];
      const WeightGroup decoded = Format::Load(codes + kGroup * kGroupBlocks * Format::kBlockBytes);
      for (int v = 0; v < 4; ++v) hn::Store(decoded.v[v], D16(), to.values + v * kLanes16);
      hn::Store(SpreadScales<kGroup>(all), DF(), to.scales);
    });
  }
}

/// sums += kTileRows rows of a panel times kTokens activation rows, over `groups` groups of both.
template <int kTokens>
HWY_NOINLINE void Tile(const Group* HWY_RESTRICT w, const Group* HWY_RESTRICT x, int64_t groups,
                       float* HWY_RESTRICT sums) {
  const DF d;
  VF acc[kTokens][kTileRows];
  for (int t = 0; t < kTokens; ++t) {
    for (int r = 0; r < kTileRows; ++r) acc[t][r] = hn::Load(d, sums + (t * kTileRows + r) * kLanes32);
  }
  for (int64_t g = 0; g < groups; ++g, w += kTileRows, x += kTokens) {
    for (int r = 0; r < kTileRows; ++r) {
      WeightGroup row;
      for (int v = 0; v < 4; ++v) row.v[v] = hn::Load(D16(), w[r].values + v * kLanes16);
      const VF scale = hn::Load(d, w[r].scales);
      for (int t = 0; t < kTokens; ++t) acc[t][r] = AddGroup(row, scale, x[t], acc[t][r]);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int r = 0; r < kTileRows; ++r) hn::Store(acc[t][r], d, sums + (t * kTileRows + r) * kLanes32);
  }
}

using TileFunction = void (*)(const Group*, const Group*, int64_t, float*);
constexpr TileFunction kTiles[kTileTokens + 1] = {nullptr, Tile<1>, Tile<2>, Tile<3>, Tile<4>};

/// One product with its quantised activations.
template <class Format>
class Product {
 public:
  Product(const MatmulArgs& args, const QuantizedRows& x) : args_(args), x_(x) {}

  void Run(const Panel& panel, const Scratch& scratch) const {
    panel.end - panel.first <= kDirectTokens ? RunDirect(panel, scratch) : RunTiles(panel, scratch);
  }

 private:
  int64_t XRow(int64_t row) const { return args_.gather == nullptr ? row : args_.gather[row]; }

  void RunDirect(const Panel& panel, const Scratch& scratch) const {
    const int tokens = static_cast<int>(panel.end - panel.first);
    const int64_t rows = panel.row_end - panel.row_begin, first = panel.matrix * args_.weight.rows + panel.row_begin;
    int64_t x_rows[kDirectTokens];
    for (int t = 0; t < tokens; ++t) x_rows[t] = XRow(panel.first + t);
    constexpr auto kPairs = std::array{DirectPair<Format, 1>, DirectPair<Format, 2>, DirectPair<Format, 3>};
    for (int64_t r = 0; r < rows; r += 2) {
      // The partner of an odd last row is the row itself.
      kPairs[tokens - 1](args_.weight, first + r, first + std::min(r + 1, rows - 1), x_, x_rows,
                         scratch.sums + SumIndex<kTileRows, kTileTokens>(r, 0) * kLanes32);
    }
    FinishTile<kTileRows, kTileTokens>(DF(), args_, panel, panel.first, tokens, scratch.sums);
  }

  void RunTiles(const Panel& panel, const Scratch& scratch) const {
    const int64_t rows = panel.row_end - panel.row_begin, first = panel.matrix * args_.weight.rows + panel.row_begin;
    const int64_t padded = (rows + kTileRows - 1) / kTileRows * kTileRows;
    for (int64_t r = 0; r < padded; ++r) {  // rows past the end repeat the last one
      UnpackRow<Format>(args_.weight, first + std::min(r, rows - 1), x_.groups,
                        scratch.panel + r / kTileRows * x_.groups * kTileRows + r % kTileRows);
    }
    for (int64_t row = panel.first; row < panel.end; row += kTileTokens) {
      const int tokens = static_cast<int>(std::min<int64_t>(kTileTokens, panel.end - row));
      for (int t = 0; t < tokens; ++t) {
        const Group* from = x_.Row(XRow(row + t));
        for (int64_t g = 0; g < x_.groups; ++g) scratch.x[g * tokens + t] = from[g];
      }
      std::fill_n(scratch.sums, padded * kTileTokens * kLanes32, 0.0f);
      for (int64_t begin = 0; begin < x_.groups; begin += kChunkGroups) {
        const int64_t count = std::min(kChunkGroups, x_.groups - begin);
        for (int64_t r = 0; r < rows; r += kTileRows) {
          kTiles[tokens](scratch.panel + r * x_.groups + begin * kTileRows, scratch.x + begin * tokens, count,
                         scratch.sums + SumIndex<kTileRows, kTileTokens>(r, 0) * kLanes32);
        }
      }
      FinishTile<kTileRows, kTileTokens>(DF(), args_, panel, row, tokens, scratch.sums);
    }
  }

  const MatmulArgs& args_;
  const QuantizedRows& x_;
};

QuantizedRows Quantize(ExecContext& context, const MatmulArgs& args) {
  const int64_t groups = GroupsOf(args.weight.cols), cols = args.weight.cols;
  const QuantizedRows rows = {context.scratch.Allocate<Group>(args.x_rows * groups), groups};
  const auto run = [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      QuantizeRow(args.x + r * cols, cols, args.weight.dtype == DType::kMxfp4, groups, rows.Row(r));
    }
  };
  // A row takes about 2 µs, as long as waking a thread.
  args.x_rows <= 4 ? run(0, args.x_rows, 0) : context.pool.ParallelFor(args.x_rows, 8, run);
  return rows;
}

template <class Format>
void Multiply(ExecContext& context, const MatmulArgs& args) {
  const ScratchFrame frame(context.scratch);
  const QuantizedRows x = Quantize(context, args);
  std::vector<Scratch> scratch(context.pool.num_threads());
  for (Scratch& s : scratch) {
    s.panel = context.scratch.Allocate<Group>(kPanelRows * x.groups);
    s.x = context.scratch.Allocate<Group>(kTileTokens * x.groups);
    s.sums = context.scratch.Allocate<float>(kPanelRows * kTileTokens * kLanes32);
  }
  const Product<Format> product(args, x);
  ForEachPanel(context, args, kPanelRows, [&](const Panel& panel, int worker) { product.Run(panel, scratch[worker]); });
}

}  // namespace

void MatmulFast(ExecContext& context, const MatmulArgs& args) {
  GPTOSS_CHECK(args.weight.cols % kBlockSize == 0 && args.weight.layout == WeightLayout::kRowMajor);
  switch (args.weight.dtype) {
    case DType::kMxfp4:
      return Multiply<Mxfp4Format>(context, args);
    case DType::kQ8_0:
      return Multiply<Q8Format>(context, args);
    default:
      return MatmulExact(context, args);
  }
}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();
