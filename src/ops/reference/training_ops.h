// What the two files of the plain training ops share. Internal to ops/reference.
#pragma once

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
