// What every API here allows in a request.
#pragma once

#include <cstddef>

namespace gptoss::server {

inline constexpr size_t kMaxTools = 1024, kMaxStops = 64;
inline constexpr int kMaxTopLogprobs = 20;

}  // namespace gptoss::server
