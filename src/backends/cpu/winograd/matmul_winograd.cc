// Matrix products of MXFP4 and Q8_0 weights with many rows of 16-bit activations, in which two columns share a
// multiplication (winograd/step_formats-inl.h).
//
// A thread claims a panel of one matrix, widens some blocks of columns of it in its first-level cache, and multiplies
// them by all rows of the panel's group, whose sums wait in the second-level cache meanwhile.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/winograd/matmul_winograd.cc"
#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "backends/cpu/dots/dot_kernels.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/winograd/winograd_kernels.h"
#include "hwy/foreach_target.h"
// After foreach_target: included once per target.
#include "hwy/highway.h"
#if !(HWY_TARGET & GPTOSS_CPU_EMULATED_TARGETS)
#include "backends/cpu/quantized_product-inl.h"
#include "backends/cpu/winograd/step_formats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace {

using Lanes16 = V16<kMostGroups>;
using Lanes32 = V32<kMostGroups>;
constexpr int64_t kVectorRows = kMostGroups * kLanes32;

/// `sum` plus, in every 32-bit lane, the products of the lane's two 16-bit integers. Add takes a vector, AddWord two
/// integers for all lanes.
struct EmulatedPairDots {
  static HWY_INLINE Lanes32 Add(Lanes32 sum, Lanes16 a, Lanes16 b) { return hn::Add(sum, MultiplyPairs(a, b)); }
  static HWY_INLINE Lanes32 AddWord(Lanes32 sum, Lanes16 a, const int32_t* word) {
    return Add(sum, a, hn::BitCast(D16<kMostGroups>(), hn::Set(D32<kMostGroups>(), *word)));
  }
};

#if HWY_TARGET == HWY_AVX3

/// AVX-512 VNNI. Assembly for the reasons of dots/byte_formats-inl.h.
struct ProcessorPairDots {
  static HWY_INLINE Lanes32 Add(Lanes32 sum, Lanes16 a, Lanes16 b) {
    asm("vpdpwssd %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
  }
  static HWY_INLINE Lanes32 AddWord(Lanes32 sum, Lanes16 a, const int32_t* word) {
    asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "m"(*word));
    return sum;
  }
};

#endif

/// 8 sums of integers, 8 of floats, the weights of a step and what is added to them fit 32 registers.
constexpr int kStepTokens = 4, kVectorsTogether = 2;
/// Blocks that are widened at once: 18 KB.
constexpr int64_t kStepBlocks = 9;
/// Rows of activations that pass by: their sums take 32 KB, and widening the weights is cheap against them.
constexpr int64_t kPassRows = 256;
static_assert(kStepRows == kPanelRows && kStepRows % (kVectorsTogether * kVectorRows) == 0);

/// A worker's memory.
struct StepScratch {
  PanelBuffer buffer;
  StepPanel panel;
  float* sums;  // [kPassRows, kStepRows]
};

/// Sums of one block: `weights` of some of the panel's rows times the activations x[t], plus the products of the
/// weights of halved steps.
template <class PairDots, int kTokens>
HWY_INLINE void SumSteps(const int16_t* HWY_RESTRICT weights, const ActivationBlock* const (&x)[kTokens],
                         Lanes32 (&dots)[kTokens][kVectorsTogether]) {
  const D16<kMostGroups> d16;
  const D32<kMostGroups> d32;
  for (int t = 0; t < kTokens; ++t) {
    for (int v = 0; v < kVectorsTogether; ++v) dots[t][v] = hn::Set(d32, x[t]->offsets[0]);
  }
#pragma GCC unroll 8
  for (int step = 0; step < kSteps; ++step, weights += StepPanel::kStepValues) {
    Lanes16 even[kVectorsTogether], odd[kVectorsTogether];
    for (int v = 0; v < kVectorsTogether; ++v) {
      even[v] = hn::LoadU(d16, weights + 2 * v * kVectorRows);
      odd[v] = hn::LoadU(d16, weights + 2 * v * kVectorRows + 2 * kStepRows);
    }
    for (int t = 0; t < kTokens; ++t) {
      const int32_t* words = x[t]->words + 2 * step;
      if (kHalved[step]) {
        const Lanes16 x_even = hn::BitCast(d16, hn::Set(d32, words[0]));
        const Lanes16 x_odd = hn::BitCast(d16, hn::Set(d32, words[1]));
        for (int v = 0; v < kVectorsTogether; ++v) {
          dots[t][v] = PairDots::Add(dots[t][v], hn::Add(x_even, odd[v]), hn::Add(x_odd, even[v]));
        }
      } else {
        for (int v = 0; v < kVectorsTogether; ++v) dots[t][v] = PairDots::AddWord(dots[t][v], even[v], words);
        for (int v = 0; v < kVectorsTogether; ++v) dots[t][v] = PairDots::AddWord(dots[t][v], odd[v], words + 1);
      }
    }
  }
}

/// What is read next: fetched a few lines at a time, as processors drop requests that come all at once. Of 72 in a row
/// Zen 4 fetched a half.
struct AheadLines {
  static constexpr int64_t kBlockBytes = kRowGroup * (Q8Weights::kBlockBytes + Q8Weights::kScaleBytes);
  const uint8_t* line[kPanelGroups * (kStepBlocks * kBlockBytes / kCacheLine + 2)];
  int count = 0, next = 0, per_block = 0;

  void Add(const uint8_t* begin, const uint8_t* end) {
    for (; begin < end; begin += kCacheLine) line[count++] = begin;
  }
  HWY_INLINE void FetchSome() {
    for (int i = 0; i < per_block && next < count; ++i) Fetch(line[next++]);
  }
};

/// sums[t] += the panel's rows times the activation rows x[t], over `blocks` blocks in order: for `tiles` times kTokens
/// rows.
template <class PairDots, int kTokens>
HWY_NOINLINE void StepTiles(const StepPanel& panel, int64_t blocks, const ActivationBlock* const* rows, int64_t tiles,
                            float* HWY_RESTRICT sums, AheadLines& ahead) {
  const D32<kMostGroups> d32;
  const DF<kMostGroups> d;
  for (; tiles > 0; --tiles, rows += kTokens, sums += kTokens * kStepRows) {
    for (int64_t row = 0; row < kStepRows; row += kVectorsTogether * kVectorRows) {
      const ActivationBlock* x[kTokens];
      VF<kMostGroups> acc[kTokens][kVectorsTogether];
      const auto sum_at = [&](int t, int v) HWY_ATTR { return sums + t * kStepRows + row + v * kVectorRows; };
      for (int t = 0; t < kTokens; ++t) {
        x[t] = rows[t];
        for (int v = 0; v < kVectorsTogether; ++v) acc[t][v] = hn::LoadU(d, sum_at(t, v));
      }
      for (int64_t b = 0; b < blocks; ++b) {
        ahead.FetchSome();
        Lanes32 dots[kTokens][kVectorsTogether];
        SumSteps<PairDots>(panel.weights + b * kSteps * StepPanel::kStepValues + 2 * row, x, dots);
        for (int v = 0; v < kVectorsTogether; ++v) {
          const int64_t at = b * kStepRows + row + v * kVectorRows;
          const Lanes32 products = hn::LoadU(d32, panel.products + at);
          const VF<kMostGroups> scale = hn::LoadU(d, panel.scales + at);
          for (int t = 0; t < kTokens; ++t) {
            // The same operations in the same order as in quantized_product-inl.h.
            const VF<kMostGroups> sum = hn::ConvertTo(d, hn::Sub(dots[t][v], products));
            acc[t][v] = hn::MulAdd(hn::Mul(sum, hn::Set(d, x[t]->scale)), scale, acc[t][v]);
          }
        }
        for (int t = 0; t < kTokens; ++t) ++x[t];
      }
      for (int t = 0; t < kTokens; ++t) {
        for (int v = 0; v < kVectorsTogether; ++v) hn::StoreU(acc[t][v], d, sum_at(t, v));
      }
    }
  }
}

template <class PairDots>
constexpr auto kStepTiles = []<int... kLess>(std::integer_sequence<int, kLess...>) {
  return std::array{StepTiles<PairDots, kLess + 1>...};
}
(std::make_integer_sequence<int, kStepTokens>());

/// One product with its quantised activations.
template <class Format, class PairDots>
class StepProduct {
 public:
  StepProduct(const MatmulArgs& args, const QuantizedRows& x) : args_(args), groups_(args.weight), x_(x) {}

  void Run(const Panel& panel, const StepScratch& scratch) const {
    RowGroup groups[kPanelGroups];
    // The last one stands for those that are missing: their sums are nobody's.
    const int64_t last = groups_.Count(panel) - 1;
    for (int64_t g = 0; g < kPanelGroups; ++g) {
      groups[g] = g <= last ? groups_.At(panel, g, scratch.buffer.groups[g]) : groups[last];
    }
    for (int64_t first = panel.first; first < panel.end; first += kPassRows) {
      const int64_t end = std::min(first + kPassRows, panel.end);
      std::fill_n(scratch.sums, (end - first) * kStepRows, 0.0f);
      for (int64_t begin = 0; begin < x_.blocks; begin += kStepBlocks) {
        const int64_t blocks = std::min(kStepBlocks, x_.blocks - begin);
        Unpack(groups, begin, blocks, scratch.panel);
        Pass(panel, first, end, begin, blocks, scratch);
      }
      FinishRows(args_, panel, first, end, scratch.sums);
    }
  }

 private:
  static void Unpack(const RowGroup* groups, int64_t begin, int64_t blocks, const StepPanel& panel) {
    for (int64_t row = 0; row < kStepRows; row += kVectorRows) {
      GroupPointers<kMostGroups> codes, scales;
      for (int g = 0; g < kMostGroups; ++g) {
        const RowGroup& group = groups[row / kRowGroup + g];
        const int64_t lane = row % kRowGroup;
        codes[g] = group.codes + begin * kRowGroup * Format::kBlockBytes + lane * 4;
        scales[g] = group.scales + (begin * kRowGroup + lane) * Format::kScaleBytes;
      }
      UnpackRows<Format>(codes, scales, blocks, row, panel);
    }
  }

  /// All rows of activations by the panel's blocks.
  void Pass(const Panel& panel, int64_t first, int64_t end, int64_t begin, int64_t blocks,
            const StepScratch& scratch) const {
    AheadLines lines = LinesOf(panel, begin + kStepBlocks);
    const int64_t tiles = (end - first + kStepTokens - 1) / kStepTokens;
    lines.per_block = static_cast<int>((lines.count + tiles * blocks - 1) / (tiles * blocks));
    const ActivationBlock* x[kPassRows];
    for (int64_t row = first; row < end; ++row) {
      x[row - first] = x_.Row(args_.gather == nullptr ? row : args_.gather[row]) + begin;
    }
    const int64_t rest = (end - first) % kStepTokens, whole = end - first - rest;
    kStepTiles<PairDots>[kStepTokens - 1](scratch.panel, blocks, x, whole / kStepTokens, scratch.sums, lines);
    if (rest > 0) {
      kStepTiles<PairDots>[rest - 1](scratch.panel, blocks, x + whole, 1, scratch.sums + whole * kStepRows, lines);
    }
  }

  /// Those of the blocks from `begin` on, or of the first blocks of the stream's next panel.
  AheadLines LinesOf(const Panel& panel, int64_t begin) const {
    const bool is_next = begin >= x_.blocks;
    if (is_next) begin = 0;
    const int64_t end = std::min(begin + kStepBlocks, x_.blocks);
    AheadLines lines;
    for (int64_t g = 0; g < kPanelGroups; ++g) {
      const RowGroup ahead = groups_.Ahead(panel, is_next ? g + kPanelGroups : g);
      if (ahead.codes == nullptr) continue;
      lines.Add(ahead.codes + begin * kRowGroup * Format::kBlockBytes,
                ahead.codes + end * kRowGroup * Format::kBlockBytes);
      lines.Add(ahead.scales + begin * kRowGroup * Format::kScaleBytes,
                ahead.scales + end * kRowGroup * Format::kScaleBytes);
    }
    return lines;
  }

  const MatmulArgs& args_;
  const PanelGroups<Format> groups_;
  const QuantizedRows& x_;
};

template <class Format, class PairDots>
void MultiplySteps(ExecContext& context, const MatmulArgs& args) {
  const ScratchFrame frame(context.scratch);
  const QuantizedRows x = Quantize<Format>(context, args);
  std::vector<StepScratch> scratch(context.pool.num_threads());
  for (StepScratch& s : scratch) {
    s.buffer = PanelBuffer::Allocate(context.scratch, args.weight);
    s.panel = {context.scratch.Allocate<int16_t>(kStepBlocks * kSteps * StepPanel::kStepValues),
               context.scratch.Allocate<int32_t>(kStepBlocks * kStepRows),
               context.scratch.Allocate<float>(kStepBlocks * kStepRows)};
    s.sums = context.scratch.Allocate<float>(kPassRows * kStepRows);
  }
  const StepProduct<Format, PairDots> product(args, x);
  ForEachPanel(context, args, kPanelRows, [&](const Panel& panel, int worker) { product.Run(panel, scratch[worker]); });
}

/// Groups of fewer rows than kWinogradMinRows, and other dtypes, take `few_rows`.
template <class PairDots>
void MultiplyManyRows(ExecContext& context, const MatmulArgs& args, void (*few_rows)(ExecContext&, const MatmulArgs&)) {
  bool few = false, many = false;
  for (size_t m = 0; m + 1 < args.offsets.size(); ++m) {
    const int32_t rows = args.offsets[m + 1] - args.offsets[m];
    (rows < kWinogradMinRows ? few : many) |= rows > 0;
  }
  const DType dtype = args.weight.dtype;
  if (!many || (dtype != DType::kMxfp4 && dtype != DType::kQ8_0)) return few_rows(context, args);
  GPTOSS_CHECK(args.weight.cols % kBlockSize == 0 && LayoutHolds(args.weight.layout, dtype, args.weight.rows));
  if (few) {
    MatmulArgs rest = args;
    rest.max_group_rows = kWinogradMinRows - 1;
    few_rows(context, rest);
  }
  MatmulArgs rest = args;
  rest.min_group_rows = kWinogradMinRows;
  dtype == DType::kMxfp4 ? MultiplySteps<Mxfp4Steps, PairDots>(context, rest)
                         : MultiplySteps<Q8Steps, PairDots>(context, rest);
}

}  // namespace

void MatmulWinogradEmulated(ExecContext& context, const MatmulArgs& args) {
  MultiplyManyRows<EmulatedPairDots>(context, args, MatmulFast);
}

#if HWY_TARGET == HWY_AVX3
void MatmulWinograd(ExecContext& context, const MatmulArgs& args) {
  MultiplyManyRows<ProcessorPairDots>(context, args, MatmulDots);
}
#endif

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif  // !GPTOSS_CPU_EMULATED_TARGETS
