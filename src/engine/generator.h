// Autoregressive generation for one sequence: prefill, then sample and step until something says stop.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/model_runner.h"
#include "sampling/sampler.h"

namespace gptoss {

struct GenerateRequest {
  SamplingParams sampling;
  int max_tokens = 1 << 30;
  std::vector<int32_t> stop_tokens;  // end the output; the stop token itself is part of it
};

enum class StopReason { kStopToken, kMaxTokens, kContextFull, kCallback };
std::string_view StopReasonName(StopReason reason);

struct GenerateTimings {
  int prompt_tokens = 0;  // computed now; those already in the cache are not counted
  double prefill_s = 0;
  int output_tokens = 0;
  double decode_s = 0;  // from the first token on
};

struct GenerateResult {
  std::vector<int32_t> tokens;
  StopReason reason = StopReason::kMaxTokens;
  GenerateTimings timings;
};

/// Called with every sampled token as soon as it is known; false stops (kCallback). Also called between the chunks of a
/// long prompt with nullptr, so that a caller can cancel there.
using TokenCallback = std::function<bool(const SampledToken* token)>;

/// Continues `sequence` (whose tokens include the prompt, at least one not yet computed). Sampled tokens are appended
/// to it, so that a later call can go on. On failure: what ModelRunner::Compute says.
Result<GenerateResult> Generate(ModelRunner& runner, Sequence& sequence, const GenerateRequest& request,
                                const TokenCallback& callback);

}  // namespace gptoss
