#include "ops/logit_ops.h"

#include <bit>

namespace gptoss {

float LogitOfKey(LogitKey key) {
  const auto order = static_cast<uint32_t>(key >> 32);
  return std::bit_cast<float>((order & 0x80000000u) != 0 ? order & 0x7FFFFFFFu : ~order);
}

int32_t IdOfKey(LogitKey key) { return static_cast<int32_t>(0xFFFFFFFFu - static_cast<uint32_t>(key)); }

}  // namespace gptoss
