// Matrix products of MXFP4 and Q8_0 weights with activations rounded to 16-bit integers per block of 32: two or more
// multiply-adds per lane and instruction instead of one, and weights that need no conversion to float. Eight rows of
// weights at a time are decoded in registers and multiplied with up to kTileTokens rows of activations. Once per
// target.
//
// As in matmul_exact.cc a dot product is one chain over the blocks of columns in order, whatever the batch.

#include <algorithm>
#include <array>
#include <utility>
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
/// 8 accumulators, the decoded weights and the tables fit 16 registers; with 32, tiles of 8 tokens are 1.04 times as
/// fast.
constexpr int kTileTokens = HWY_TARGET == HWY_AVX3 ? 8 : 4;
/// Blocks per pass over a panel when there are several tiles: activations of a tile stay in the first-level cache.
constexpr int64_t kChunkBlocks = 48;
constexpr int64_t kCacheLine = 64;
static_assert(kPanelRows <= kEpilogueRows);

/// A worker's memory for a panel of weights that do not lie as kRows8.
struct PanelBuffer {
  RowGroupBuffer groups[kPanelGroups];

  static PanelBuffer Allocate(ScratchArena& arena, const WeightMatrix& weight) {
    PanelBuffer buffer;
    for (RowGroupBuffer& group : buffer.groups) {
      group = RowGroupBuffer::Allocate(arena, weight.dtype, weight.cols, 1);
    }
    return buffer;
  }
};

/// A worker's memory.
struct ProductScratch {
  PanelBuffer panel;
  float* sums;  // [kTileTokens, kPanelRows]
};

/// A group and, unless null, what is read after it: that is fetched meanwhile.
struct GroupInTurn {
  RowGroup weights;
  const uint8_t* ahead;
};

/// With AVX-512 the weights of one token are fetched this far ahead, into the first-level cache: on Zen 4 1.03 to 1.12
/// times as fast as the whole group that follows, into the second. 3 to 6 KB are alike.
constexpr int64_t kNearBytes = 4096;
template <int kTokens>
constexpr bool kFetchesNear = kTokens == 1 && HWY_TARGET == HWY_AVX3;

/// What is far ahead goes into the second-level cache with AVX-512: on Zen 4, whose first level waits for few lines at
/// a time, that was 1.07 to 1.3 times as fast. Into the first elsewhere, as measured on Zen 3.
HWY_INLINE void Fetch(const uint8_t* line, bool near = false) {
  constexpr int kFirst = 3, kSecond = 2;
  HWY_TARGET == HWY_AVX3 && !near ? __builtin_prefetch(line, /*rw=*/0, kSecond)
                                  : __builtin_prefetch(line, /*rw=*/0, kFirst);
}

/// sums[t][0 … 8 kGroups - 1] += the groups' rows times the activation rows x[t], over `blocks` blocks. A row's sum is
/// one chain over the blocks in order.
template <class Format, size_t kGroups, int kTokens>
HWY_NOINLINE void Tile(const GroupInTurn* groups, const ActivationBlock* const* rows, int64_t blocks,
                       float* HWY_RESTRICT sums) {
  constexpr int64_t kGroupBytes = kRowGroup * Format::kBlockBytes;
  const DF<kGroups> d;
  for (int v = 0; v < kGroupVectors; ++v) {
    std::array<const uint8_t*, kGroups> codes, scales;
    for (size_t g = 0; g < kGroups; ++g) {
      codes[g] = groups[g].weights.codes + v * kLanes32 * 4;
      scales[g] = groups[g].weights.scales + v * kLanes32 * Format::kScaleBytes;
    }
    const ActivationBlock* x[kTokens];
    VF<kGroups> acc[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      x[t] = rows[t];
      acc[t] = hn::LoadU(d, sums + t * kPanelRows + v * kLanes32);
    }
    for (int64_t b = 0; b < blocks; ++b) {
      for (size_t g = 0; g < kGroups; ++g) {
        if (groups[g].ahead == nullptr) continue;
        for (int64_t line = 0; line < kGroupBytes; line += kCacheLine) {
          Fetch(groups[g].ahead + b * kGroupBytes + line, kFetchesNear<kTokens>);
        }
      }
      V32<kGroups> dots[kTokens];
      Format::template Dot<kTokens>(codes, x, dots);
      const VF<kGroups> scale = Format::Scales(scales);
      for (int t = 0; t < kTokens; ++t) {
        // In this order nothing underflows: the scales of weights and activations may be far apart.
        acc[t] = hn::MulAdd(hn::Mul(hn::ConvertTo(d, dots[t]), hn::Set(d, x[t]->scale)), scale, acc[t]);
        ++x[t];
      }
      for (size_t g = 0; g < kGroups; ++g) {
        codes[g] += kGroupBytes;
        scales[g] += kRowGroup * Format::kScaleBytes;
      }
    }
    for (int t = 0; t < kTokens; ++t) hn::StoreU(acc[t], d, sums + t * kPanelRows + v * kLanes32);
  }
}

/// Where the groups of a panel lie.
template <class Format>
class PanelGroups {
 public:
  explicit PanelGroups(const WeightMatrix& weight) : weight_(weight) {}

  static int64_t Count(const Panel& panel) { return (panel.row_end - panel.row_begin + kRowGroup - 1) / kRowGroup; }

  /// A group of the panel; rearranged in `buffer` if the weights lie row by row.
  RowGroup At(const Panel& panel, int64_t group, const RowGroupBuffer& buffer) const {
    const int64_t row = FirstRow(panel, group);
    if (weight_.layout == WeightLayout::kRowMajor) {
      return PackGroup<Format>(weight_, row, panel.matrix * weight_.rows + panel.row_end, buffer);
    }
    return Stored(row);
  }

  /// Where a later group of the panel's stream lies, or null: what another thread will read would be fetched in vain.
  RowGroup Ahead(const Panel& panel, int64_t group) const {
    const bool inside = panel.row_begin + group * kRowGroup < panel.stream_end;
    return inside ? Stored(FirstRow(panel, group)) : RowGroup{};
  }

 private:
  int64_t FirstRow(const Panel& panel, int64_t group) const {
    return panel.matrix * weight_.rows + panel.row_begin + group * kRowGroup;
  }

  RowGroup Stored(int64_t row) const {
    return {reinterpret_cast<const uint8_t*>(weight_.Row(row)),
            reinterpret_cast<const uint8_t*>(weight_.RowScales(row))};
  }

  const WeightMatrix& weight_;
};

/// Finishes output rows [first, end) of a panel: `sums` is [end - first, kPanelRows].
inline void FinishRows(const MatmulArgs& args, const Panel& panel, int64_t first, int64_t end, const float* sums) {
  for (int64_t row = first; row < end; ++row, sums += kPanelRows) {
    FinishRow(args, panel.matrix, row, panel.row_begin, panel.row_end - panel.row_begin, sums);
  }
}

/// One product with its quantised activations.
template <class Format>
class Product {
 public:
  Product(const MatmulArgs& args, const QuantizedRows& x) : args_(args), groups_(args.weight), x_(x) {}

  void Run(const Panel& panel, const ProductScratch& scratch) const {
    panel.end - panel.first <= kTileTokens ? RunOnce(panel, scratch) : RunTiles(panel, scratch);
  }

 private:
  /// Activations of a tile.
  struct Tokens {
    const ActivationBlock* x[kTileTokens];
    int count;
  };

  /// Of output rows from `row` on, before `end`, from block `begin` on.
  Tokens TokensAt(int64_t row, int64_t end, int64_t begin) const {
    Tokens tokens;
    tokens.count = static_cast<int>(std::min<int64_t>(kTileTokens, end - row));
    for (int t = 0; t < tokens.count; ++t) {
      tokens.x[t] = x_.Row(args_.gather == nullptr ? row + t : args_.gather[row + t]) + begin;
    }
    return tokens;
  }

  /// One tile: the weights are read once, a group from its beginning to its end.
  void RunOnce(const Panel& panel, const ProductScratch& scratch) const {
    const Tokens tokens = TokensAt(panel.first, panel.end, 0);
    std::fill_n(scratch.sums, kTileTokens * kPanelRows, 0.0f);
    const int64_t groups = groups_.Count(panel);
    for (int64_t g = 0, together = 1; g < groups; g += together) {
      together = Together(tokens, groups - g);
      GroupInTurn turn[kMostGroups];
      for (int64_t i = 0; i < together; ++i) {
        // Rearranged weights stay in the first-level cache if the same buffers serve all groups.
        turn[i].weights = groups_.At(panel, g + i, scratch.panel.groups[i]);
        turn[i].ahead = tokens.count == 1 && kFetchesNear<1> && args_.weight.layout == WeightLayout::kRows8
                            ? turn[i].weights.codes + kNearBytes  // behind a stream's end: under a hundredth of it
                            : groups_.Ahead(panel, g + i + together).codes;
      }
      RunTile(turn, together, tokens, x_.blocks, scratch.sums + g * kRowGroup);
    }
    FinishRows(args_, panel, panel.first, panel.end, scratch.sums);
  }

  /// Tile by tile: the panel stays in the second-level cache.
  void RunTiles(const Panel& panel, const ProductScratch& scratch) const {
    RowGroup groups[kPanelGroups];
    for (int64_t g = 0; g < groups_.Count(panel); ++g) groups[g] = groups_.At(panel, g, scratch.panel.groups[g]);
    for (int64_t row = panel.first; row < panel.end; row += kTileTokens) {
      const int64_t end = std::min(row + kTileTokens, panel.end);
      std::fill_n(scratch.sums, kTileTokens * kPanelRows, 0.0f);
      for (int64_t begin = 0; begin < x_.blocks; begin += kChunkBlocks) {
        RunChunk(panel, groups, TokensAt(row, end, begin), end == panel.end, begin, scratch.sums);
      }
      FinishRows(args_, panel, row, end, scratch.sums);
    }
  }

  /// A tile and kChunkBlocks blocks from `begin` on. Beside the panel's last tile the same place of the next panel is
  /// fetched.
  void RunChunk(const Panel& panel, const RowGroup* groups, const Tokens& tokens, bool is_last, int64_t begin,
                float* sums) const {
    const int64_t count = groups_.Count(panel), offset = begin * kRowGroup * Format::kBlockBytes;
    for (int64_t g = 0, together = 1; g < count; g += together) {
      together = Together(tokens, count - g);
      GroupInTurn turn[kMostGroups];
      for (int64_t i = 0; i < together; ++i) {
        const RowGroup& group = groups[g + i];
        const uint8_t* ahead = is_last ? groups_.Ahead(panel, g + i + kPanelGroups).codes : nullptr;
        turn[i] = {{group.codes + offset, group.scales + begin * kRowGroup * Format::kScaleBytes},
                   ahead == nullptr ? nullptr : ahead + offset};
      }
      RunTile(turn, together, tokens, std::min(kChunkBlocks, x_.blocks - begin), sums + g * kRowGroup);
    }
  }

  /// With a single token memory is the limit, and one stream is enough.
  static int64_t Together(const Tokens& tokens, int64_t groups) {
    return tokens.count > 1 && groups >= kMostGroups ? kMostGroups : 1;
  }

  static void RunTile(const GroupInTurn* groups, int64_t together, const Tokens& tokens, int64_t blocks, float* sums) {
    (together == 1 ? kTiles<1> : kTiles<kMostGroups>)[tokens.count - 1](groups, tokens.x, blocks, sums);
  }

  template <size_t kGroups>
  static constexpr auto kTiles = []<int... kLess>(std::integer_sequence<int, kLess...>) {
    return std::array{Tile<Format, kGroups, kLess + 1>...};
  }
  (std::make_integer_sequence<int, kTileTokens>());

  const MatmulArgs& args_;
  const PanelGroups<Format> groups_;
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
    s.panel = PanelBuffer::Allocate(context.scratch, args.weight);
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
