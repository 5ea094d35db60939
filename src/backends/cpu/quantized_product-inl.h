// Matrix products of MXFP4 and Q8_0 weights with activations rounded to 16-bit integers per block of 32: two or more
// multiply-adds per lane and instruction instead of one, and weights that need no conversion to float. Eight rows of
// weights at a time are decoded in registers and multiplied with one to four rows of activations. Once per target.
//
// As in matmul_exact.cc a dot product is one chain over the blocks of columns in order, whatever the batch.

#include <algorithm>
#include <array>
#include <vector>

#include "backends/cpu/epilogue-inl.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/matmul_driver.h"
#include "backends/cpu/quantize-inl.h"
#include "backends/cpu/rows8-inl.h"
#include "base/check.h"
#include "hwy/cache_control.h"

#if defined(GPTOSS_BACKENDS_CPU_QUANTIZED_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GPTOSS_BACKENDS_CPU_QUANTIZED_PRODUCT_INL_H_
#undef GPTOSS_BACKENDS_CPU_QUANTIZED_PRODUCT_INL_H_
#else
#define GPTOSS_BACKENDS_CPU_QUANTIZED_PRODUCT_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

constexpr int64_t kPanelRows = 32;  // of 2880 columns: 46 KB of MXFP4 or 92 KB of Q8_0 in a 512 KB second-level cache
constexpr int64_t kPanelGroups = kPanelRows / kRowGroup;
constexpr int kTileTokens = 4;  // 8 accumulators, the decoded weights and the tables fit 16 registers
/// Blocks per pass over a panel when there are several tiles: activations of a tile stay in the first-level cache.
constexpr int64_t kChunkBlocks = 48;
constexpr int64_t kCacheLine = 64;
static_assert(kPanelRows <= kEpilogueRows);

/// A worker's memory.
struct ProductScratch {
  RowGroupBuffer panel[kPanelGroups];  // weights that do not lie as kRows8
  float* sums;                         // [kTileTokens, kPanelRows]
};

/// sums[t][0 … 7] += eight rows times the activation rows x[t], over `blocks` blocks. A row's sum is one chain over the
/// blocks in order. `ahead`, unless null, is what is read next: it is fetched meanwhile.
template <class Format, int kTokens>
HWY_NOINLINE void Tile(const RowGroup& w, const ActivationBlock* const* rows, int64_t blocks, const uint8_t* ahead,
                       float* HWY_RESTRICT sums) {
  constexpr int64_t kGroupBytes = kRowGroup * Format::kBlockBytes;
  const DF d;
  for (int v = 0; v < kGroupVectors; ++v) {
    const uint8_t* codes = w.codes + v * kLanes32 * 4;
    const uint8_t* scales = w.scales + v * kLanes32 * Format::kScaleBytes;
    const ActivationBlock* x[kTokens];
    VF acc[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      x[t] = rows[t];
      acc[t] = hn::LoadU(d, sums + t * kPanelRows + v * kLanes32);
    }
    for (int64_t b = 0; b < blocks; ++b) {
      if (ahead != nullptr) {
        for (int64_t line = 0; line < kGroupBytes; line += kCacheLine) hwy::Prefetch(ahead + b * kGroupBytes + line);
      }
      V32 dots[kTokens];
      Format::Dot(codes, x, dots);
      const VF scale = Format::Scales(scales);
      for (int t = 0; t < kTokens; ++t) {
        // In this order nothing underflows: the scales of weights and activations may be far apart.
        acc[t] = hn::MulAdd(hn::Mul(hn::ConvertTo(d, dots[t]), hn::Set(d, x[t]->scale)), scale, acc[t]);
        ++x[t];
      }
      codes += kGroupBytes;
      scales += kRowGroup * Format::kScaleBytes;
    }
    for (int t = 0; t < kTokens; ++t) hn::StoreU(acc[t], d, sums + t * kPanelRows + v * kLanes32);
  }
}

/// One product with its quantised activations.
template <class Format>
class Product {
 public:
  Product(const MatmulArgs& args, const QuantizedRows& x) : args_(args), x_(x) {}

  void Run(const Panel& panel, const ProductScratch& scratch) const {
    const int64_t rows = panel.row_end - panel.row_begin;
    const bool one_tile = IsOneTile(panel);
    RowGroup groups[kPanelGroups];
    for (int64_t row = panel.first; row < panel.end; row += kTileTokens) {
      const int tokens = static_cast<int>(std::min<int64_t>(kTileTokens, panel.end - row));
      const ActivationBlock* x[kTileTokens];
      for (int t = 0; t < tokens; ++t) x[t] = x_.Row(args_.gather == nullptr ? row + t : args_.gather[row + t]);
      std::fill_n(scratch.sums, kTileTokens * kPanelRows, 0.0f);
      const int64_t step = one_tile ? x_.blocks : kChunkBlocks;
      for (int64_t begin = 0; begin < x_.blocks; begin += step) {
        for (int64_t g = 0; g * kRowGroup < rows; ++g) {
          // Rearranged weights that are used once stay in the first-level cache if one buffer serves all groups.
          if (row == panel.first && begin == 0) groups[g] = Group(panel, g, scratch.panel[one_tile ? 0 : g]);
          RunTile(groups[g], x, tokens, begin, std::min(step, x_.blocks - begin), Ahead(panel, row + tokens, g, begin),
                  scratch.sums + g * kRowGroup);
        }
      }
      for (int t = 0; t < tokens; ++t) {
        FinishRow(args_, panel.matrix, row + t, panel.row_begin, rows, scratch.sums + t * kPanelRows);
      }
    }
  }

 private:
  static bool IsOneTile(const Panel& panel) { return panel.end - panel.first <= kTileTokens; }

  /// Blocks begin … begin + count - 1 of one group and tile.
  void RunTile(const RowGroup& group, const ActivationBlock* const* rows, int tokens, int64_t begin, int64_t count,
               const uint8_t* ahead, float* sums) const {
    constexpr std::array kTiles = {Tile<Format, 1>, Tile<Format, 2>, Tile<Format, 3>, Tile<Format, 4>};
    const ActivationBlock* x[kTileTokens];
    for (int t = 0; t < tokens; ++t) x[t] = rows[t] + begin;
    const RowGroup part = {group.codes + begin * kRowGroup * Format::kBlockBytes,
                           group.scales + begin * kRowGroup * Format::kScaleBytes};
    kTiles[tokens - 1](part, x, count, ahead, sums);
  }

  /// What to fetch beside block `begin` of a group, by a tile that ends before output row `end`: the next group where
  /// there is one tile, else, beside the last one, the same place of the next panel.
  const uint8_t* Ahead(const Panel& panel, int64_t end, int64_t group, int64_t begin) const {
    if (IsOneTile(panel)) return Codes(FirstRow(panel, group + 1));
    if (end < panel.end) return nullptr;
    return Codes(FirstRow(panel, group + kPanelGroups)) + begin * kRowGroup * Format::kBlockBytes;
  }

  int64_t FirstRow(const Panel& panel, int64_t group) const {
    return panel.matrix * args_.weight.rows + panel.row_begin + group * kRowGroup;
  }

  const uint8_t* Codes(int64_t row) const { return reinterpret_cast<const uint8_t*>(args_.weight.Row(row)); }

  RowGroup Group(const Panel& panel, int64_t group, const RowGroupBuffer& buffer) const {
    const WeightMatrix& w = args_.weight;
    const int64_t row = FirstRow(panel, group);
    if (w.layout == WeightLayout::kRowMajor) {
      return PackGroup<Format>(w, row, panel.matrix * w.rows + panel.row_end, buffer);
    }
    return {Codes(row), reinterpret_cast<const uint8_t*>(w.RowScales(row))};
  }

  const MatmulArgs& args_;
  const QuantizedRows& x_;
};

template <class Format>
QuantizedRows Quantize(ExecContext& context, const MatmulArgs& args) {
  const int64_t cols = args.weight.cols, blocks = cols / kBlockSize;
  const QuantizedRows rows = {context.scratch.Allocate<ActivationBlock>(args.x_rows * blocks), blocks};
  const auto run = [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) QuantizeRow<Format>(args.x + r * cols, cols, rows.Row(r));
  };
  // A row takes about 2 µs, as long as waking a thread.
  args.x_rows <= 4 ? run(0, args.x_rows, 0) : context.pool.ParallelFor(args.x_rows, 8, run);
  return rows;
}

template <class Format>
void Multiply(ExecContext& context, const MatmulArgs& args) {
  const ScratchFrame frame(context.scratch);
  const QuantizedRows x = Quantize<Format>(context, args);
  std::vector<ProductScratch> scratch(context.pool.num_threads());
  for (ProductScratch& s : scratch) {
    for (RowGroupBuffer& group : s.panel) {
      group = RowGroupBuffer::Allocate(context.scratch, args.weight.dtype, args.weight.cols, 1);
    }
    s.sums = context.scratch.Allocate<float>(kTileTokens * kPanelRows);
  }
  const Product<Format> product(args, x);
  ForEachPanel(context, args, kPanelRows, [&](const Panel& panel, int worker) { product.Run(panel, scratch[worker]); });
}

/// `args` with weights in the format of their dtype; other dtypes take the exact way.
template <class Mxfp4, class Q8>
void MultiplyQuantized(ExecContext& context, const MatmulArgs& args) {
  GPTOSS_CHECK(args.weight.cols % kBlockSize == 0 &&
               LayoutHolds(args.weight.layout, args.weight.dtype, args.weight.rows));
  switch (args.weight.dtype) {
    case DType::kMxfp4:
      return Multiply<Mxfp4>(context, args);
    case DType::kQ8_0:
      return Multiply<Q8>(context, args);
    default:
      return MatmulExact(context, args);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif
