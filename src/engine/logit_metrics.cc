#include "engine/logit_metrics.h"

#include <algorithm>
#include <cmath>

namespace gptoss {
namespace {

double LogSumExp(std::span<const float> x) {
  const double max = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (float v : x) sum += std::exp(v - max);
  return max + std::log(sum);
}

}  // namespace

void LogitMetrics::Add(std::span<const float> want, std::span<const float> got) {
  ++rows_;
  same_top_ += std::max_element(want.begin(), want.end()) - want.begin() ==
                       std::max_element(got.begin(), got.end()) - got.begin()
                   ? 1
                   : 0;
  const double want_norm = LogSumExp(want), got_norm = LogSumExp(got);
  double kl = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double w = want[i], g = got[i];
    nonfinite_ += std::isfinite(g) ? 0 : 1;
    max_abs_ = std::max(max_abs_, std::abs(w - g));
    difference_ += (w - g) * (w - g);
    norm_ += w * w;
    kl += std::exp(w - want_norm) * ((w - want_norm) - (g - got_norm));
  }
  kl_sum_ += kl;
  kl_max_ = std::max(kl_max_, kl);
}

double LogitMetrics::rel_l2() const { return norm_ == 0 ? 0 : std::sqrt(difference_ / norm_); }

}  // namespace gptoss
