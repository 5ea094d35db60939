// Matrix products in float for weights of every dtype. Panels of weights are widened to float once and used for all
// rows of their group.
//
// A dot product is always the same chain: one accumulator vector over the columns in order, then a sum of its lanes.
// Neither the tile that a row falls into nor the cutting of the columns changes a bit of it.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/matmul_exact.cc"
#include <array>
#include <utility>

#include "backends/cpu/kernels.h"
#include "backends/cpu/matmul_driver.h"
#include "hwy/foreach_target.h"
// After foreach_target: these are included once per target.
#include "backends/cpu/epilogue-inl.h"
#include "backends/cpu/unpack-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

using D = hn::ScalableTag<float>;

constexpr int64_t kPanelRows = 16;  // 16 rows of 2880 floats: a third of a 512 KB second-level cache
constexpr int kTileRows = 4;        // weight rows per tile
constexpr bool kManyRegisters = HWY_TARGET == HWY_AVX3;
// 4 x 3 accumulators and 4 values fit 16 registers; 2 x 6 measured 25 % slower. With 32 registers 4 x 6: a row of
// weights from the second-level cache then serves twice the activations.
constexpr int kTileTokens = kManyRegisters ? 6 : 3;
constexpr int64_t kChunkCols = kManyRegisters ? 512 : 1024;  // activations and weights of a tile stay in 32 KB of L1
constexpr int64_t kMaxLanes = HWY_MAX_BYTES / sizeof(float);

/// A worker's memory.
struct Scratch {
  float* panel;  // [kPanelRows, cols] weights
  float* sums;   // accumulators, SumIndex<kTileRows, kTileTokens>
};

HWY_INLINE hn::Vec<D> LoadVector(const float* from) { return hn::LoadU(D(), from); }
/// BF16, widened.
HWY_INLINE hn::Vec<D> LoadVector(const uint16_t* from) {
  const D d;
  const hn::RebindToUnsigned<D> du32;
  const hn::Rebind<uint16_t, D> du16;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du32, hn::LoadU(du16, from))));
}

/// sums[t][r] += w[r] · x[t] over `count` columns, lane by lane. T is float, or uint16_t for BF16.
template <typename T, int kTokens>
HWY_NOINLINE void Tile(const T* const* w, const float* const* x, int64_t count, float* HWY_RESTRICT sums) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  hn::Vec<D> acc[kTokens][kTileRows];
  for (int t = 0; t < kTokens; ++t) {
    for (int r = 0; r < kTileRows; ++r) acc[t][r] = hn::Load(d, sums + (t * kTileRows + r) * lanes);
  }
  for (int64_t i = 0; i < count; i += static_cast<int64_t>(lanes)) {
    hn::Vec<D> row[kTileRows];
    for (int r = 0; r < kTileRows; ++r) {
      if constexpr (sizeof(T) == 2) hwy::Prefetch(w[r] + i + kPrefetchValues);
      row[r] = LoadVector(w[r] + i);
    }
    for (int t = 0; t < kTokens; ++t) {
      const auto xt = hn::LoadU(d, x[t] + i);
      for (int r = 0; r < kTileRows; ++r) acc[t][r] = hn::MulAdd(row[r], xt, acc[t][r]);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int r = 0; r < kTileRows; ++r) hn::Store(acc[t][r], d, sums + (t * kTileRows + r) * lanes);
  }
}

template <typename T>
void RunTile(int tokens, const T* const* w, const float* const* x, int64_t count, float* sums) {
  constexpr auto kTiles = []<int... kLess>(std::integer_sequence<int, kLess...>) {
    return std::array{Tile<T, kLess + 1>...};
  }
  (std::make_integer_sequence<int, kTileTokens>());
  kTiles[tokens - 1](w, x, count, sums);
}

/// Where the weights of one panel come from: in place (float), widened beforehand, or widened a chunk at a time.
class PanelReader {
 public:
  PanelReader(const MatmulArgs& args, const Panel& panel, bool reuse, float* scratch)
      : w_(args.weight),
        first_(panel.matrix * w_.rows + panel.row_begin),
        rows_(panel.row_end - panel.row_begin),
        reuse_(reuse && w_.dtype != DType::kF32),
        scratch_(scratch) {
    for (int64_t r = 0; reuse_ && r < rows_; ++r) UnpackRow(w_, first_ + r, 0, w_.cols, scratch_ + r * w_.cols);
  }

  /// Columns from `begin` of row `row` of the panel; `slot` in [0, kTileRows) keeps rows of one tile apart. A row past
  /// the end of the panel repeats the last one.
  const float* Get(int64_t row, int slot, int64_t begin, int64_t count) const {
    row = std::min(row, rows_ - 1);
    if (w_.dtype == DType::kF32) return reinterpret_cast<const float*>(w_.Row(first_ + row)) + begin;
    if (reuse_) return scratch_ + row * w_.cols + begin;
    float* to = scratch_ + slot * kChunkCols;
    UnpackRow(w_, first_ + row, begin, count, to);
    return to;
  }

 private:
  const WeightMatrix& w_;
  int64_t first_, rows_;
  bool reuse_;
  float* scratch_;
};

/// A panel of BF16 weights for at most kTileTokens rows: widened in registers, in one pass over whole rows.
void RunBf16Panel(const MatmulArgs& args, const Panel& panel, const Scratch& scratch) {
  const int64_t cols = args.weight.cols, rows = panel.row_end - panel.row_begin;
  const int64_t first = panel.matrix * args.weight.rows + panel.row_begin;
  const int tokens = static_cast<int>(panel.end - panel.first);
  const int64_t tile_floats = kTileRows * kTileTokens * static_cast<int64_t>(hn::Lanes(D()));
  const float* x[kTileTokens];
  for (int t = 0; t < tokens; ++t) {
    x[t] = args.x + (args.gather == nullptr ? panel.first + t : args.gather[panel.first + t]) * cols;
  }
  std::fill_n(scratch.sums, (rows + kTileRows - 1) / kTileRows * tile_floats, 0.0f);
  for (int64_t row = 0; row < rows; row += kTileRows) {
    const uint16_t* w[kTileRows];
    for (int r = 0; r < kTileRows; ++r) {
      w[r] = reinterpret_cast<const uint16_t*>(args.weight.Row(first + std::min(row + r, rows - 1)));
    }
    RunTile(tokens, w, x, cols, scratch.sums + row / kTileRows * tile_floats);
  }
  FinishTile<kTileRows, kTileTokens>(D(), args, panel, panel.first, tokens, scratch.sums);
}

void RunPanel(const MatmulArgs& args, const Panel& panel, const Scratch& scratch) {
  if (args.weight.dtype == DType::kBF16 && panel.end - panel.first <= kTileTokens) {
    return RunBf16Panel(args, panel, scratch);
  }
  const int64_t cols = args.weight.cols, rows = panel.row_end - panel.row_begin;
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows, chunks = (cols + kChunkCols - 1) / kChunkCols;
  const int64_t tile_floats = kTileRows * kTileTokens * static_cast<int64_t>(hn::Lanes(D()));
  const bool reuse = panel.end - panel.first > kTileTokens;
  const PanelReader reader(args, panel, reuse, scratch.panel);
  for (int64_t row = panel.first; row < panel.end; row += kTileTokens) {
    const int tokens = static_cast<int>(std::min<int64_t>(kTileTokens, panel.end - row));
    std::fill_n(scratch.sums, tiles * tile_floats, 0.0f);
    // Activations stay in L1 across the panel's rows if chunks are outside; chunks widened on the fly are used once, in
    // the order in which they lie in memory.
    for (int64_t step = 0; step < tiles * chunks; ++step) {
      const int64_t tile = reuse ? step % tiles : step / chunks, chunk = reuse ? step / tiles : step % chunks;
      const int64_t begin = chunk * kChunkCols, count = std::min(kChunkCols, cols - begin);
      const float *x[kTileTokens], *w[kTileRows];
      for (int t = 0; t < tokens; ++t) {
        x[t] = args.x + (args.gather == nullptr ? row + t : args.gather[row + t]) * cols + begin;
      }
      for (int r = 0; r < kTileRows; ++r) w[r] = reader.Get(tile * kTileRows + r, r, begin, count);
      RunTile(tokens, w, x, count, scratch.sums + tile * tile_floats);
    }
    FinishTile<kTileRows, kTileTokens>(D(), args, panel, row, tokens, scratch.sums);
  }
}

}  // namespace

void MatmulExact(ExecContext& context, const MatmulArgs& args) {
  GPTOSS_CHECK(args.weight.cols % kBlockSize == 0);
  const ScratchFrame frame(context.scratch);
  std::vector<Scratch> scratch(context.pool.num_threads());
  for (Scratch& s : scratch) {
    s.panel = context.scratch.Allocate<float>(std::max(kPanelRows * args.weight.cols, kTileRows * kChunkCols));
    s.sums = context.scratch.Allocate<float>(kPanelRows * kTileTokens * kMaxLanes);
  }
  ForEachPanel(context, args, kPanelRows,
               [&](const Panel& panel, int worker) { RunPanel(args, panel, scratch[worker]); });
}

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();
