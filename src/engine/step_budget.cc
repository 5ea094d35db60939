#include "engine/step_budget.h"

#include <algorithm>

namespace gptoss {

void StepBudget::OnStep(int rows, double seconds) {
  for (double* sum : {&weight_, &rows_, &seconds_, &rows_rows_, &rows_seconds_}) *sum *= kKeep;
  weight_ += 1;
  rows_ += rows;
  seconds_ += seconds;
  rows_rows_ += static_cast<double>(rows) * rows;
  rows_seconds_ += rows * seconds;
}

bool StepBudget::Fit(double* fixed, double* per_row) const {
  if (weight_ == 0 || rows_ == 0) return false;
  const double mean_rows = rows_ / weight_, mean_seconds = seconds_ / weight_;
  const double variance = rows_rows_ / weight_ - mean_rows * mean_rows;
  const double covariance = rows_seconds_ / weight_ - mean_rows * mean_seconds;
  // Steps that were all alike tell the cost of a step, not what of it is fixed: then all of it counts as the rows',
  // which asks for fewer rows.
  *per_row = variance > 0.01 * mean_rows * mean_rows ? covariance / variance : mean_seconds / mean_rows;
  *per_row = std::clamp(*per_row, 0.01 * mean_seconds / mean_rows, mean_seconds / mean_rows);
  *fixed = std::max(0.0, mean_seconds - *per_row * mean_rows);
  return *per_row > 0;
}

int StepBudget::MaxRows() const {
  double fixed, per_row;
  if (!Fit(&fixed, &per_row)) return std::min(max_rows_, 64);
  return static_cast<int>(std::clamp((kLongestStep - fixed) / per_row, 16.0, std::max(16.0, double(max_rows_))));
}

int StepBudget::MaxPrefillRows(int decode_rows) const {
  double fixed, per_row;
  if (!Fit(&fixed, &per_row)) return std::min(max_rows_, 16);
  const double rows = (kStretch - 1) * (fixed / per_row + decode_rows);
  return static_cast<int>(std::clamp(rows, 1.0, double(max_rows_)));
}

}  // namespace gptoss
