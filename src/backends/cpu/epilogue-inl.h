// Bias, swiglu and the store of finished sums. Included once per target.

#include <algorithm>
#include <cstdint>

#include "backends/cpu/kernels.h"
#include "backends/cpu/matmul_driver.h"

#if defined(GPTOSS_BACKENDS_CPU_EPILOGUE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GPTOSS_BACKENDS_CPU_EPILOGUE_INL_H_
#undef GPTOSS_BACKENDS_CPU_EPILOGUE_INL_H_
#else
#define GPTOSS_BACKENDS_CPU_EPILOGUE_INL_H_
#endif

#include "backends/cpu/swiglu-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

/// out[i] = swiglu(sums[2i] + bias[2i], sums[2i + 1] + bias[2i + 1]) for i < count / 2; bias may be null.
inline void SwigluPairs(const float* HWY_RESTRICT sums, const float* HWY_RESTRICT bias, float limit, int64_t count,
                        float* HWY_RESTRICT out) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    auto a = hn::LoadU(d, sums + i), b = hn::LoadU(d, sums + i + lanes);
    if (bias != nullptr) {
      a = hn::Add(a, hn::LoadU(d, bias + i));
      b = hn::Add(b, hn::LoadU(d, bias + i + lanes));
    }
#if HWY_TARGET == HWY_SCALAR
    const auto even = a, odd = b;
#else
    const auto even = hn::ConcatEven(d, b, a), odd = hn::ConcatOdd(d, b, a);
#endif
    hn::StoreU(Swiglu(d, even, odd, limit), d, out + i / 2);
  }
  if (i == count) return;
  // The rest, padded to whole vectors.
  HWY_ALIGN float gate[HWY_MAX_BYTES / sizeof(float)] = {}, up[HWY_MAX_BYTES / sizeof(float)] = {};
  for (int64_t j = i; j < count; j += 2) {
    gate[(j - i) / 2] = sums[j] + (bias == nullptr ? 0.0f : bias[j]);
    up[(j - i) / 2] = sums[j + 1] + (bias == nullptr ? 0.0f : bias[j + 1]);
  }
  hn::Store(Swiglu(d, hn::Load(d, gate), hn::Load(d, up), limit), d, gate);
  std::copy_n(gate, (count - i) / 2, out + i / 2);
}

inline constexpr int64_t kEpilogueRows = 64;

/// Finishes `count` sums of output row `row`: weight rows begin … begin + count - 1 of `matrix`. `begin` is even for
/// kSwiglu. At most kEpilogueRows.
inline void FinishRow(const MatmulArgs& args, int64_t matrix, int64_t row, int64_t begin, int64_t count,
                      const float* sums) {
  const float* bias = args.bias == nullptr ? nullptr : args.bias + matrix * args.weight.rows + begin;
  if (args.epilogue == Epilogue::kSwiglu) {
    return SwigluPairs(sums, bias, args.limit, count, args.y + row * (args.weight.rows / 2) + begin / 2);
  }
  float* y = args.y + row * args.weight.rows + begin;
  for (int64_t i = 0; i < count; ++i) {
    const float value = sums[i] + (bias == nullptr ? 0.0f : bias[i]);
    y[i] = args.epilogue == Epilogue::kAdd ? y[i] + value : value;
  }
}

/// Accumulators of a tile of kTokens output rows and kRows weight rows: vectors [group of kRows rows][token][row of the
/// group], so that one tile's are together.
template <int kRows, int kTokens>
constexpr int64_t SumIndex(int64_t row, int token) {
  return (row / kRows * kTokens + token) * kRows + row % kRows;
}

/// Adds up the lanes of the accumulators of `tokens` output rows from `row` on and finishes them.
template <int kRows, int kTokens, class D>
void FinishTile(D d, const MatmulArgs& args, const Panel& panel, int64_t row, int tokens, const float* sums) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), rows = panel.row_end - panel.row_begin;
  HWY_ALIGN float values[kEpilogueRows];
  for (int t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < rows; ++r) {
      values[r] = hn::GetLane(hn::SumOfLanes(d, hn::Load(d, sums + SumIndex<kRows, kTokens>(r, t) * lanes)));
    }
    FinishRow(args, panel.matrix, row + t, panel.row_begin, rows, values);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif
