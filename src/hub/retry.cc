#include "hub/retry.h"

#include <algorithm>
#include <cmath>

namespace gptoss::hub {

bool IsTransientStatus(int http_status) {
  switch (http_status) {
    case 408:
    case 425:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
      return true;
    default:
      return false;
  }
}

double RetryDelay(const RetryPolicy& policy, int attempt, std::optional<int64_t> retry_after_s, double jitter) {
  const double doubled = policy.first_delay_s * std::exp2(std::clamp(attempt - 1, 0, 30));
  const double delay = std::min(doubled, policy.max_delay_s) * (0.75 + 0.5 * jitter);
  return std::max(delay, static_cast<double>(retry_after_s.value_or(0)));
}

}  // namespace gptoss::hub
