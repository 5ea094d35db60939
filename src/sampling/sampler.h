// From logits to a token. Source of the controls: OpenAI's API reference (temperature, top_p, penalties, logit_bias,
// logprobs), Holtzman et al. 2020 (top_p), Nguyen et al. 2024 (min_p), Keskar et al. 2019 (repetition penalty).
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/status.h"
#include "sampling/logit_row.h"

namespace gptoss {

/// The controls act in this order: repetition penalty, frequency and presence penalty, logit bias, mask, temperature,
/// top_k, top_p (of what top_k left), min_p. A tie at an edge is won by the lowest id.
struct SamplingParams {
  double temperature = 1.0;         // >= 0; 0: greedy (lowest id wins a tie)
  double top_p = 1.0;               // (0, 1]
  int top_k = 0;                    // 0: off
  double min_p = 0.0;               // [0, 1]: keeps what is at least min_p times as likely as the likeliest; 0: off
  double repetition_penalty = 1.0;  // > 0, over prompt and output; 1: off
  double frequency_penalty = 0.0;   // [-2, 2], over the output
  double presence_penalty = 0.0;    // [-2, 2], over the output
  std::vector<std::pair<int32_t, float>> logit_bias;  // added to the logit; [-100, 100]
  uint64_t seed = 0;
  int top_logprobs = -1;  // -1: no logprobs; 0: of the chosen token; n: of the n likeliest too
  /// Log-probabilities among the tokens that the mask allows, instead of among all.
  bool masked_logprobs = false;
};

/// On failure: kInvalidArgument naming the field and its range.
Status ValidateSampling(const SamplingParams& params, int vocab_size);

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0.0f;
};

struct SampledToken {
  int32_t id = 0;
  /// Under the model's own distribution: before penalties, bias and temperature, and before the mask unless
  /// masked_logprobs. 0 unless top_logprobs >= 0.
  float logprob = 0.0f;
  std::vector<TokenLogprob> top;  // likeliest first; filled when top_logprobs > 0
  /// False when no allowed logit was finite, which only broken weights or arithmetic cause; `id` is then the lowest
  /// allowed one.
  bool finite = true;
};

/// One per sequence: knows what the sequence holds so far. The same seed and position give the same random number, so
/// the outcome does not depend on what was sampled elsewhere.
class Sampler {
 public:
  explicit Sampler(SamplingParams params);

  const SamplingParams& params() const { return params_; }
  /// Tells the sampler what the prompt holds (for the repetition penalty).
  void SetPrompt(std::span<const int32_t> tokens);

  /// Samples the token for output position `position` (0 for the first). `logits` is changed in place. `mask`, when not
  /// empty, has one bit a token (bit id % 64 of word id / 64): 0 forbids; at least one bit must be set. Logits that are
  /// NaN or infinite are never picked. On failure: what the row's device says.
  Result<SampledToken> Sample(LogitRow& logits, uint64_t position, std::span<const uint64_t> mask = {});
  /// The same of logits [V] in the host's memory, which cannot fail.
  SampledToken Sample(std::span<float> logits, uint64_t position, std::span<const uint64_t> mask = {});

  /// Counts `token` as part of the output; call it for every token that is kept.
  void Accept(int32_t token);

 private:
  /// Token ids and their logits before penalties and bias; what stands first of an id counts.
  struct Changed {
    std::vector<int32_t> ids;
    std::vector<float> logits;
  };
  /// Reads the logits of `ids`, notes them, and writes what change(span of them) makes of them.
  template <class Function>
  static Status Change(LogitRow& logits, std::span<const int32_t> ids, Changed* changed, const Function& change) {
    if (ids.empty()) return {};
    std::vector<float> values(ids.size());
    GPTOSS_RETURN_IF_ERROR(logits.Read(ids, values));
    changed->ids.insert(changed->ids.end(), ids.begin(), ids.end());
    changed->logits.insert(changed->logits.end(), values.begin(), values.end());
    change(values);
    return logits.Write(ids, values);
  }
  Status ApplyPenalties(LogitRow& logits, Changed* changed) const;
  Status ApplyBias(LogitRow& logits, Changed* changed) const;
  /// The tokens that penalties concern, once each, and what becomes of the logit of one.
  std::vector<int32_t> PenalizedIds(size_t vocab) const;
  float Penalized(int32_t id, float logit) const;
  Result<TokenLogit> Choose(LogitRow& logits, uint64_t position) const;

  SamplingParams params_;
  std::unordered_map<int32_t, int> output_counts_;
  std::unordered_set<int32_t> prompt_tokens_;
  std::vector<int32_t> biased_;  // ids of logit_bias, once each, ascending
};

}  // namespace gptoss
