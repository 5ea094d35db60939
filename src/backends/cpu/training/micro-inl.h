// The inner loop of every product of training: up to 6 rows of A times a panel of B. Included once per target.

#include <algorithm>
#include <array>
#include <cstdint>

#if defined(GPTOSS_BACKENDS_CPU_TRAINING_MICRO_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GPTOSS_BACKENDS_CPU_TRAINING_MICRO_INL_H_
#undef GPTOSS_BACKENDS_CPU_TRAINING_MICRO_INL_H_
#else
#define GPTOSS_BACKENDS_CPU_TRAINING_MICRO_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Rows of a tile: 6 x 2 accumulators, 2 vectors of B and one of A are 15 of 16 registers.
inline constexpr int kMicroRows = 6;
/// Columns of a panel of B, which lies as [depth][kPanelCols], columns past the matrix zero.
inline constexpr int64_t kPanelCols = 2 * static_cast<int64_t>(hn::MaxLanes(hn::ScalableTag<float>()));

inline constexpr int64_t PanelCount(int64_t cols) { return (cols + kPanelCols - 1) / kPanelCols; }

/// Where a tile's sums go: rows c + r * stride, `cols` (at most kPanelCols) values each.
struct TileOut {
  float* c;
  int64_t stride;
  int64_t cols;
  const float* bias;  // [cols], added to every row; or null
  bool add;           // to what is there
};

template <int kRows>
HWY_NOINLINE void MicroTile(const float* const* a, int64_t step, int64_t depth, const float* HWY_RESTRICT panel,
                            const TileOut& out) {
  const hn::ScalableTag<float> d;
  constexpr int64_t kLanes = kPanelCols / 2;
  hn::Vec<decltype(d)> acc[kRows][2];
  const float* row[kRows];
  for (int r = 0; r < kRows; ++r) {
    acc[r][0] = acc[r][1] = hn::Zero(d);
    row[r] = a[r];
  }
  int64_t at = 0;
  for (int64_t k = 0; k < depth; ++k, at += step, panel += kPanelCols) {
    const auto b0 = hn::LoadU(d, panel), b1 = hn::LoadU(d, panel + kLanes);
    for (int r = 0; r < kRows; ++r) {
      const auto value = hn::Set(d, row[r][at]);
      acc[r][0] = hn::MulAdd(value, b0, acc[r][0]);
      acc[r][1] = hn::MulAdd(value, b1, acc[r][1]);
    }
  }
  if (out.cols == kPanelCols) {
    for (int r = 0; r < kRows; ++r) {
      for (int half = 0; half < 2; ++half) {
        float* c = out.c + r * out.stride + half * kLanes;
        auto sum = acc[r][half];
        if (out.bias != nullptr) sum = hn::Add(sum, hn::LoadU(d, out.bias + half * kLanes));
        if (out.add) sum = hn::Add(hn::LoadU(d, c), sum);
        hn::StoreU(sum, d, c);
      }
    }
    return;
  }
  HWY_ALIGN float sums[kPanelCols];
  for (int r = 0; r < kRows; ++r) {
    hn::Store(acc[r][0], d, sums);
    hn::Store(acc[r][1], d, sums + kLanes);
    float* c = out.c + r * out.stride;
    for (int64_t i = 0; i < out.cols; ++i) {
      const float sum = out.bias != nullptr ? sums[i] + out.bias[i] : sums[i];
      c[i] = out.add ? c[i] + sum : sum;
    }
  }
}

/// C [rows <= kMicroRows, out.cols] of rows a[r][k * step] and one panel.
HWY_INLINE void RunMicro(int rows, const float* const* a, int64_t step, int64_t depth, const float* panel,
                         const TileOut& out) {
  static constexpr std::array kTiles = {MicroTile<1>, MicroTile<2>, MicroTile<3>,
                                        MicroTile<4>, MicroTile<5>, MicroTile<6>};
  kTiles[static_cast<size_t>(rows - 1)](a, step, depth, panel, out);
}

/// C [rows, cols] (+)= A B with a[r * row_step + k * step] and B in panels, each `panel_stride` values after the last.
HWY_INLINE void PanelProduct(const float* a, int64_t row_step, int64_t step, int64_t rows, int64_t depth,
                             const float* panels, int64_t panel_stride, int64_t cols, bool add, float* c,
                             int64_t c_stride) {
  for (int64_t p = 0; p * kPanelCols < cols; ++p) {
    const int64_t width = std::min(kPanelCols, cols - p * kPanelCols);
    for (int64_t r = 0; r < rows; r += kMicroRows) {
      const int count = static_cast<int>(std::min<int64_t>(kMicroRows, rows - r));
      const float* pointers[kMicroRows];
      for (int i = 0; i < count; ++i) pointers[i] = a + (r + i) * row_step;
      RunMicro(count, pointers, step, depth, panels + p * panel_stride,
               {c + r * c_stride + p * kPanelCols, c_stride, width, nullptr, add});
    }
  }
}

/// Rows of `cols` values as panels [PanelCount(cols)][panel_rows][kPanelCols], at rows from `row` on.
HWY_INLINE void PackRow(const float* from, int64_t cols, int64_t row, int64_t panel_stride, float* panels) {
  const hn::ScalableTag<float> d;
  constexpr int64_t kLanes = kPanelCols / 2;
  float* to = panels + row * kPanelCols;
  int64_t c = 0;
  for (; c + kPanelCols <= cols; c += kPanelCols, to += panel_stride) {
    hn::StoreU(hn::LoadU(d, from + c), d, to);
    hn::StoreU(hn::LoadU(d, from + c + kLanes), d, to + kLanes);
  }
  if (c == cols) return;
  std::fill(std::copy_n(from + c, cols - c, to), to + kPanelCols, 0.0f);
}

/// Columns of one panel from rows: panel[k][first + i] = rows[i][k] for 4 rows.
HWY_INLINE void Transpose4(const float* const* rows, int64_t depth, float* HWY_RESTRICT panel) {
  int64_t k = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::CappedTag<float, 4> d;
  const hn::RepartitionToWide<decltype(d)> dw;
  for (; k + 4 <= depth; k += 4) {
    const auto r0 = hn::LoadU(d, rows[0] + k), r1 = hn::LoadU(d, rows[1] + k);
    const auto r2 = hn::LoadU(d, rows[2] + k), r3 = hn::LoadU(d, rows[3] + k);
    const auto a = hn::BitCast(dw, hn::InterleaveLower(d, r0, r1)), b = hn::BitCast(dw, hn::InterleaveUpper(d, r0, r1));
    const auto e = hn::BitCast(dw, hn::InterleaveLower(d, r2, r3)), f = hn::BitCast(dw, hn::InterleaveUpper(d, r2, r3));
    float* to = panel + k * kPanelCols;
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dw, a, e)), d, to);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dw, a, e)), d, to + kPanelCols);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dw, b, f)), d, to + 2 * kPanelCols);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dw, b, f)), d, to + 3 * kPanelCols);
  }
#endif
  for (; k < depth; ++k) {
    for (int i = 0; i < 4; ++i) panel[k * kPanelCols + i] = rows[i][k];
  }
}

/// One panel from up to kPanelCols rows: panel[k][i] = row(i)[k]; columns past `count` become zero.
template <typename RowOf>
HWY_INLINE void PackTransposed(int64_t count, int64_t depth, const RowOf& row, float* panel) {
  int64_t i = 0;
  if constexpr (kPanelCols % 4 == 0) {
    for (; i + 4 <= count; i += 4) {
      const float* rows[4] = {row(i), row(i + 1), row(i + 2), row(i + 3)};
      Transpose4(rows, depth, panel + i);
    }
  }
  for (; i < count; ++i) {
    const float* from = row(i);
    for (int64_t k = 0; k < depth; ++k) panel[k * kPanelCols + i] = from[k];
  }
  for (; i < kPanelCols; ++i) {
    for (int64_t k = 0; k < depth; ++k) panel[k * kPanelCols + i] = 0.0f;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif
