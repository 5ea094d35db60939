#pragma once

#include <chrono>
#include <cstdint>

namespace gptoss::server {

/// Seconds since 1970.
inline int64_t NowSeconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace gptoss::server
