#include <algorithm>
#include <cmath>

#include "ops/ops.h"

namespace gptoss {

void ChooseExperts(const float* logits, int num_experts, int k, int32_t* expert, float* weight) {
  for (int j = 0; j < k; ++j) {
    int best = -1;
    for (int e = 0; e < num_experts; ++e) {
      const bool taken = std::find(expert, expert + j, e) != expert + j;
      if (!taken && (best < 0 || logits[e] > logits[best])) best = e;
    }
    expert[j] = best;
  }
  float sum = 0.0f;
  for (int j = 0; j < k; ++j) sum += weight[j] = std::exp(logits[expert[j]] - logits[expert[0]]);
  for (int j = 0; j < k; ++j) weight[j] /= sum;
}

void GroupByExpert(Routing* routing) {
  const int64_t choices = routing->n * routing->experts_per_token;
  std::span<int32_t> offsets = routing->expert_offsets;
  std::fill(offsets.begin(), offsets.end(), 0);
  for (int64_t i = 0; i < choices; ++i) ++offsets[routing->expert[i] + 1];
  for (int e = 0; e < routing->num_experts; ++e) offsets[e + 1] += offsets[e];
  // Counting sort: offsets[e] serves as the next free row of e and is shifted back afterwards.
  for (int64_t i = 0; i < choices; ++i) {
    const int32_t row = offsets[routing->expert[i]]++;
    routing->grouped_token[row] = static_cast<int32_t>(i / routing->experts_per_token);
    routing->grouped_row[i] = row;
  }
  for (int e = routing->num_experts; e > 0; --e) offsets[e] = offsets[e - 1];
  offsets[0] = 0;
}

}  // namespace gptoss
