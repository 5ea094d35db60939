#include <algorithm>

#include "base/check.h"
#include "ops/ops.h"

namespace gptoss {

bool TakesPart(const LowRankUpdate& update) {
  if (update.active.empty()) return update.any();
  uint32_t active = 0, owners = 0;
  for (const uint32_t bits : update.active) active |= bits;
  for (int64_t i = 0; i < update.a.rows / kRankStep; ++i) owners |= uint32_t{1} << update.owner[i];
  return (active & owners) != 0;
}

void DropInactive(const LowRankUpdate& update, const int32_t* tokens, int64_t rows, float* inner) {
  if (update.active.empty()) return;
  const int64_t rank = update.a.rows;
  for (int64_t r = 0; r < rows; ++r) {
    const auto token = static_cast<size_t>(tokens == nullptr ? r : tokens[r]);
    GPTOSS_CHECK(token < update.active.size());
    for (int64_t i = 0; i < rank / kRankStep; ++i) {
      if ((update.active[token] >> update.owner[i] & 1) != 0) continue;
      std::fill_n(inner + r * rank + i * kRankStep, kRankStep, 0.0f);
    }
  }
}

}  // namespace gptoss
