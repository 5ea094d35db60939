// What the two files of the plain training ops share. Internal to ops/reference.
#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "ops/backward_ops.h"
#include "ops/reference/decode_row.h"

namespace gptoss::reference_training {

/// Rows of a matrix in the type of the arithmetic. A row is valid until the next call.
template <typename T>
class RowReader {
 public:
  explicit RowReader(const MatrixOf<T>& matrix) : matrix_(matrix) {}

  /// `row` is counted through all experts' matrices.
  const T* Row(int64_t row) {
    if constexpr (std::is_same_v<T, double>) {
      return matrix_.data + row * matrix_.cols;
    } else {
      if (matrix_.dtype == DType::kF32) return reinterpret_cast<const float*>(matrix_.Row(row));
      DecodeRow(matrix_, row, &scratch_);
      return scratch_.data();
    }
  }

 private:
  const MatrixOf<T>& matrix_;
  std::vector<float> scratch_;
};

/// Eight partial sums, so that compilers may use vectors without changing the result.
template <typename T>
T Dot(const T* a, const T* b, int64_t n) {
  T lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) lanes[j] += a[i + j] * b[i + j];
  }
  T sum = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// y += factor * x.
template <typename T>
void AddScaled(T factor, const T* x, int64_t n, T* y) {
  for (int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

/// For each group g of rows: y[r] += scale * b_g (a_g x[gather[r]]). gather null: row r itself.
template <typename T>
void AddLowRank(const LowRank<T>& adapter, std::span<const int32_t> offsets, const T* x, const int32_t* gather,
                int64_t cols, int64_t rows, T* y) {
  std::vector<T> inner(static_cast<size_t>(adapter.rank));
  for (int64_t g = 0; adapter.rank > 0 && g + 1 < static_cast<int64_t>(offsets.size()); ++g) {
    const T *a = adapter.a + g * adapter.rank * cols, *b = adapter.b + g * rows * adapter.rank;
    for (int64_t r = offsets[static_cast<size_t>(g)]; r < offsets[static_cast<size_t>(g) + 1]; ++r) {
      const T* row = x + (gather == nullptr ? r : gather[r]) * cols;
      for (int64_t i = 0; i < adapter.rank; ++i) inner[static_cast<size_t>(i)] = Dot(a + i * cols, row, cols);
      for (int64_t i = 0; i < rows; ++i)
        y[r * rows + i] += adapter.scale * Dot(b + i * adapter.rank, inner.data(), adapter.rank);
    }
  }
}

/// Rows that an adapter's backward pass reads and writes; a null gather means row r itself.
template <typename T>
struct LowRankRows {
  std::span<const int32_t> offsets;
  const T* x;  // [., cols]
  const int32_t* x_gather;
  int64_t cols;
  const T* dy;  // [., rows]
  const int32_t* dy_gather;
  int64_t rows;
  const T* factor;  // [offsets.back()] of da and db, not of dx; null: 1
  T* dx;            // [., cols] or null
  const int32_t* dx_gather;
};

template <typename T>
void LowRankBackward(const LowRank<T>& adapter, const LowRankGradient<T>& gradient, const LowRankRows<T>& p) {
  const int64_t rank = adapter.rank;
  std::vector<T> inner(static_cast<size_t>(rank)), back(inner.size());
  const auto at = [](const int32_t* gather, int64_t r) { return gather == nullptr ? r : gather[r]; };
  for (int64_t g = 0; rank > 0 && g + 1 < static_cast<int64_t>(p.offsets.size()); ++g) {
    const int64_t a_at = g * rank * p.cols, b_at = g * p.rows * rank;
    for (int64_t r = p.offsets[static_cast<size_t>(g)]; r < p.offsets[static_cast<size_t>(g) + 1]; ++r) {
      const T *x = p.x + at(p.x_gather, r) * p.cols, *dy = p.dy + at(p.dy_gather, r) * p.rows;
      const T factor = p.factor == nullptr ? adapter.scale : adapter.scale * p.factor[r];
      std::fill(back.begin(), back.end(), T(0));
      for (int64_t i = 0; i < p.rows; ++i) AddScaled(dy[i], adapter.b + b_at + i * rank, rank, back.data());
      for (int64_t i = 0; i < rank; ++i) {
        const T* a = adapter.a + a_at + i * p.cols;
        inner[static_cast<size_t>(i)] = Dot(a, x, p.cols);
        const T t = back[static_cast<size_t>(i)];
        if (p.dx != nullptr) AddScaled(adapter.scale * t, a, p.cols, p.dx + at(p.dx_gather, r) * p.cols);
        if (gradient.da != nullptr) AddScaled(factor * t, x, p.cols, gradient.da + a_at + i * p.cols);
      }
      for (int64_t i = 0; i < p.rows && gradient.db != nullptr; ++i) {
        AddScaled(factor * dy[i], inner.data(), rank, gradient.db + b_at + i * rank);
      }
    }
  }
}

/// Slope of the gate inside the sigmoid.
inline constexpr double kSwigluAlpha = 1.702;

template <typename T>
void Embed(ExecContext&, const EmbedTrainArgs<T>& args);
template <typename T>
void RmsNorm(ExecContext&, const RmsNormTrainArgs<T>& args);
template <typename T>
void Linear(ExecContext&, const LinearTrainArgs<T>& args);
template <typename T>
void QkvRope(ExecContext&, const QkvRopeTrainArgs<T>& args);
template <typename T>
void Attention(ExecContext&, const AttentionTrainArgs<T>& args);
template <typename T>
void Router(ExecContext&, const RouterTrainArgs<T>& args);
template <typename T>
void MoeGateUp(ExecContext&, const MoeGateUpTrainArgs<T>& args);
template <typename T>
void MoeDown(ExecContext&, const MoeDownTrainArgs<T>& args);

}  // namespace gptoss::reference_training
