// What every API here allows in a request.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gptoss::server {

inline constexpr size_t kMaxTools = 1024, kMaxStops = 64;
inline constexpr int kMaxTopLogprobs = 20;
inline constexpr int64_t kMaxCount = 1'000'000'000;  // of tokens and the like; larger ones mean no limit

}  // namespace gptoss::server
