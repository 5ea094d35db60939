// When and how long to wait before asking a server again.
#pragma once

#include <cstdint>
#include <optional>

namespace gptoss::hub {

struct RetryPolicy {
  int max_retries = 5;         // attempts in a row without progress, after the first
  double first_delay_s = 1.0;  // doubles with each attempt
  double max_delay_s = 60.0;
};

/// A server that asks for a longer pause than this is reported instead of waited for.
inline constexpr int64_t kMaxRetryAfterSeconds = 600;

/// 408, 425, 429 and the 5xx that pass: 500, 502, 503, 504.
bool IsTransientStatus(int http_status);

/// Seconds before attempt `attempt` (1 = the first retry): first_delay · 2^(attempt-1), at most max_delay, scaled by
/// 0.75 to 1.25 as `jitter` goes from 0 to 1 so that parallel downloads do not return together; never less than the
/// server's Retry-After.
double RetryDelay(const RetryPolicy& policy, int attempt, std::optional<int64_t> retry_after_s, double jitter);

}  // namespace gptoss::hub
