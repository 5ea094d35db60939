// Operands of the products in winograd/: rows of activations and panels of weights as 16-bit integers, four columns of
// a block in a step. Once per target.
//
// Of two columns, x0 w0 + x1 w1 = (x0 + w1) (x1 + w0) - x0 x1 - w0 w1: one multiplication instead of two, and terms
// that are the same for all rows of weights or of activations. Sums of 32 bits wrap, and the block's sum is below 2^27,
// so it is exact. Steps multiply so until additions would be what the processor waits for (kHalved).
//
// Source: S. Winograd, A New Algorithm for Inner Product, IEEE Transactions on Computers C-17 (1968).

#include <array>
#include <cstdint>

#include "backends/cpu/quantize-inl.h"

#if defined(GPTOSS_BACKENDS_CPU_WINOGRAD_STEP_FORMATS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GPTOSS_BACKENDS_CPU_WINOGRAD_STEP_FORMATS_INL_H_
#undef GPTOSS_BACKENDS_CPU_WINOGRAD_STEP_FORMATS_INL_H_
#else
#define GPTOSS_BACKENDS_CPU_WINOGRAD_STEP_FORMATS_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

constexpr int kStepCols = 4, kSteps = kBlockSize / kStepCols;

/// Whether a step takes one multiplication for two columns. Five of eight, spread evenly: with four vector pipes of
/// which two multiply, a block then takes 13 cycles of each, with none 18 of the two, with all 14 of each.
constexpr std::array<bool, kSteps> kHalved = {true, false, true, false, true, true, false, true};

/// Rows side by side: as many as two vectors of 512 bits have lanes.
constexpr int64_t kStepRows = 32;

/// Weights of two columns in each 32-bit lane: the even ones of the step's four, or the odd ones.
struct StepWeights {
  V16<kMostGroups> even, odd;
};

/// The even and the odd bytes of `bytes` as 16-bit integers.
HWY_INLINE StepWeights Widen(V8<kMostGroups> bytes) {
  const auto words = hn::BitCast(D16<kMostGroups>(), bytes);
  return {hn::ShiftRight<8>(hn::ShiftLeft<8>(words)), hn::ShiftRight<8>(words)};
}

/// Stores a block's 16-bit integers for 8 steps, the two even columns of a step in the first word and the odd ones in
/// the second, and minus the products of the activations of halved steps. `from`: which bytes of eight columns come to
/// lie where.
inline void ArrangeSteps(const int16_t* HWY_RESTRICT block, const uint8_t* from, ActivationBlock* out) {
  const hn::CappedTag<int16_t, 8> d16;
  const hn::Repartition<uint8_t, decltype(d16)> du8;
  const hn::Repartition<int32_t, decltype(d16)> d32;
  const auto order = hn::LoadU(du8, from);
  auto products = hn::Zero(d32);
  for (int j = 0; j < 4; ++j) {
    const auto words = hn::TableLookupBytes(hn::LoadU(d16, block + 8 * j), hn::BitCast(d16, order));
    hn::StoreU(hn::BitCast(d32, words), d32, out->words + 4 * j);
    const auto swapped = hn::BitCast(d16, hn::Shuffle2301(hn::BitCast(d32, words)));
    alignas(16) const int32_t halved[4] = {kHalved[2 * j] ? -1 : 0, 0, kHalved[2 * j + 1] ? -1 : 0, 0};
    products = hn::Add(products, hn::And(hn::Load(d32, halved), MultiplyPairs(words, swapped)));
  }
  out->offsets[0] = hn::GetLane(hn::Neg(hn::SumOfLanes(d32, products)));
  out->offsets[1] = 0;
}

/// MXFP4 for products in steps: of bytes 4 j … 4 j + 3 of a row, the first and the third are a step, then the others.
struct Mxfp4Steps : Mxfp4Weights {
  static void Arrange(const int16_t* HWY_RESTRICT block, ActivationBlock* out) {
    alignas(16) static constexpr uint8_t kOrder[16] = {0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15};
    ArrangeSteps(block, kOrder, out);
  }

  /// Calls put(step, weights) for the steps of a block.
  template <class Put>
  static HWY_INLINE void Unpack(const GroupPointers<kMostGroups>& codes, const Put& put) {
    const auto table = hn::LoadDup128(D8<kMostGroups>(), kCodes<0>.data());
    for (int j = 0; j < 4; ++j) {
      const WeightPair<kMostGroups> w = LoadCodes(codes, j, table);
      const StepWeights even = Widen(w.first), odd = Widen(w.second);
      put(2 * j, StepWeights{even.even, odd.even});
      put(2 * j + 1, StepWeights{even.odd, odd.odd});
    }
  }
};

/// Q8_0: four weights that follow each other are a step.
struct Q8Steps : Q8Weights {
  static void Arrange(const int16_t* HWY_RESTRICT block, ActivationBlock* out) {
    alignas(16) static constexpr uint8_t kOrder[16] = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15};
    ArrangeSteps(block, kOrder, out);
  }

  template <class Put>
  static HWY_INLINE void Unpack(const GroupPointers<kMostGroups>& quants, const Put& put) {
    for (int step = 0; step < kSteps; ++step) {
      put(step, Widen(LoadGroups(D8<kMostGroups>(), quants, step * kRowGroup * kStepCols)));
    }
  }
};

/// Some blocks of the weights of kStepRows rows. A step's odd columns lie 2 kStepRows values behind its even ones.
struct StepPanel {
  int16_t* weights;   // [block][step][even, odd][row][2]
  int32_t* products;  // [block][row]: of the weights of halved steps
  float* scales;      // [block][row]

  static constexpr int64_t kStepValues = 4 * kStepRows;
};

/// Unpacks `blocks` blocks of one vector of rows: those whose codes and scales begin at `codes` and `scales` (of each
/// group), to rows `row` … of the panel.
template <class Format>
HWY_INLINE void UnpackRows(GroupPointers<kMostGroups> codes, GroupPointers<kMostGroups> scales, int64_t blocks,
                           int64_t row, StepPanel panel) {
  const D16<kMostGroups> d16;
  const D32<kMostGroups> d32;
  for (int64_t b = 0; b < blocks; ++b) {
    auto products = hn::Zero(d32);
    Format::Unpack(codes, [&](int step, const StepWeights& w) HWY_ATTR {
      int16_t* to = panel.weights + (b * kSteps + step) * StepPanel::kStepValues + 2 * row;
      hn::StoreU(w.even, d16, to);
      hn::StoreU(w.odd, d16, to + 2 * kStepRows);
      if (kHalved[step]) products = hn::Add(products, MultiplyPairs(w.even, w.odd));
    });
    hn::StoreU(products, d32, panel.products + b * kStepRows + row);
    hn::StoreU(Format::Scales(scales), DF<kMostGroups>(), panel.scales + b * kStepRows + row);
    for (int g = 0; g < kMostGroups; ++g) {
      codes[g] += kRowGroup * Format::kBlockBytes;
      scales[g] += kRowGroup * Format::kScaleBytes;
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif
