// Autoregressive generation for one sequence: prefill, then sample and step until something says stop.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/constraint.h"
#include "engine/model_runner.h"
#include "engine/speculation.h"
#include "sampling/sampler.h"

namespace gptoss {

/// Stage timings of the two phases of one or more calls.
struct GenerateProfile {
  Profiler prefill, decode;
};

struct GenerateRequest {
  SamplingParams sampling;
  int max_tokens = 1 << 30;
  std::vector<int32_t> stop_tokens;  // end the output; the stop token itself is part of it
  SpeculationOptions speculation;    // does not change the tokens
  /// What the output may be; null: anything. Moves along with the tokens that are given out. Not owned.
  TokenConstraint* constraint = nullptr;
  bool detect_repetition = false;      // ends the output where it has fallen into a loop
  GenerateProfile* profile = nullptr;  // added to when given
};

/// kConstraintEnd: the output is whole, and nothing may follow. kMaxTokens also where the constraint ended the output
/// so as to keep within a limit. kRepetition: the last tokens are a loop (grammar/repetition.h).
enum class StopReason { kStopToken, kMaxTokens, kContextFull, kCallback, kConstraintEnd, kRepetition };
std::string_view StopReasonName(StopReason reason);

struct GenerateTimings {
  int prompt_tokens = 0;  // computed now; those already in the cache are not counted
  double prefill_s = 0;
  int output_tokens = 0;
  double decode_s = 0;                           // from the first token on
  int passes = 0;                                // forward passes of the decode phase
  int proposed_tokens = 0, accepted_tokens = 0;  // by speculation
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
/// to it, so that a later call can go on. On failure: what ModelRunner::Compute or the constraint says, or
/// kUnsupported when the constraint allows no token of the model's vocabulary; the constraint's place is then open.
Result<GenerateResult> Generate(ModelRunner& runner, Sequence& sequence, const GenerateRequest& request,
                                const TokenCallback& callback);

}  // namespace gptoss
