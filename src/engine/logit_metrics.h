// How far two runs' logits are apart: the measures that the numerics gates and `gptoss verify` use.
#pragma once

#include <cstdint>
#include <span>

namespace gptoss {

/// Accumulates over rows. `want` is the truth, `got` the run under test.
class LogitMetrics {
 public:
  void Add(std::span<const float> want, std::span<const float> got);

  int64_t rows() const { return rows_; }
  double max_abs() const { return max_abs_; }
  /// ||want - got|| / ||want|| over all rows.
  double rel_l2() const;
  /// Mean over rows of KL(softmax(want) || softmax(got)), in nats.
  double kl_mean() const { return rows_ == 0 ? 0 : kl_sum_ / static_cast<double>(rows_); }
  double kl_max() const { return kl_max_; }
  /// Share of rows whose largest logit has the same index.
  double top1() const { return rows_ == 0 ? 1 : static_cast<double>(same_top_) / static_cast<double>(rows_); }
  /// Values of `got` that are not finite.
  int64_t nonfinite() const { return nonfinite_; }

 private:
  int64_t rows_ = 0, same_top_ = 0, nonfinite_ = 0;
  double max_abs_ = 0, kl_sum_ = 0, kl_max_ = 0, difference_ = 0, norm_ = 0;
};

}  // namespace gptoss
