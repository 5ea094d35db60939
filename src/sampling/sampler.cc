#include "sampling/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <string>

#include "base/check.h"
#include "base/rng.h"
#include "sampling/logit_passes.h"

namespace gptoss {
namespace {

constexpr uint64_t kSamplingStream = Fnv1a64("sampling");

Status OutOfRange(const char* field, double value, const char* range) {
  char number[32];
  std::snprintf(number, sizeof number, "%g", value);
  return InvalidArgument(std::string(field) + " is " + number + ", but must be " + range);
}

/// The same range test for every number; NaN is in no range.
bool Within(double value, double low, double high) { return value >= low && value <= high; }

int32_t LowestAllowed(size_t vocab_size, std::span<const uint64_t> mask) {
  for (size_t word = 0; word < mask.size(); ++word) {
    if (mask[word] == 0) continue;
    const size_t id = word * 64 + static_cast<size_t>(std::countr_zero(mask[word]));
    GPTOSS_CHECK(id < vocab_size);
    return static_cast<int32_t>(id);
  }
  GPTOSS_CHECK(mask.empty());
  return 0;
}

}  // namespace

Status ValidateSampling(const SamplingParams& params, int vocab_size) {
  // A float's largest value bounds the temperature: its inverse must not vanish.
  if (!Within(params.temperature, 0, 1e30)) return OutOfRange("temperature", params.temperature, "0 or more");
  if (!Within(params.top_p, 0, 1) || params.top_p == 0) {
    return OutOfRange("top_p", params.top_p, "above 0 and at most 1");
  }
  if (params.top_k < 0) return OutOfRange("top_k", params.top_k, "0 (off) or more");
  if (!Within(params.min_p, 0, 1)) return OutOfRange("min_p", params.min_p, "from 0 (off) to 1");
  if (!Within(params.repetition_penalty, 1e-3, 1e3)) {
    return OutOfRange("repetition_penalty", params.repetition_penalty, "from 0.001 to 1000 (1 is off)");
  }
  if (!Within(params.frequency_penalty, -2, 2)) {
    return OutOfRange("frequency_penalty", params.frequency_penalty, "from -2 to 2");
  }
  if (!Within(params.presence_penalty, -2, 2)) {
    return OutOfRange("presence_penalty", params.presence_penalty, "from -2 to 2");
  }
  for (const auto& [id, bias] : params.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      return InvalidArgument("logit_bias names token " + std::to_string(id) + ", but ids run from 0 to " +
                             std::to_string(vocab_size - 1));
    }
    if (!Within(static_cast<double>(bias), -100, 100)) {
      return InvalidArgument("logit_bias of token " + std::to_string(id) + " must be from -100 to 100");
    }
  }
  if (params.top_logprobs < -1 || params.top_logprobs > vocab_size) {
    return OutOfRange("top_logprobs", params.top_logprobs, "from 0 to the size of the vocabulary (-1 is off)");
  }
  return {};
}

void Sampler::SetPrompt(std::span<const int32_t> tokens) {
  prompt_tokens_.clear();
  // Only the repetition penalty looks at the prompt; a long one is not worth a set otherwise.
  if (params_.repetition_penalty != 1.0) prompt_tokens_.insert(tokens.begin(), tokens.end());
}

void Sampler::Accept(int32_t token) { ++output_counts_[token]; }

Sampler::Sampler(SamplingParams params) : params_(std::move(params)) {
  for (const auto& [id, bias] : params_.logit_bias) biased_.push_back(id);
  std::ranges::sort(biased_);
  biased_.erase(std::unique(biased_.begin(), biased_.end()), biased_.end());
}

float Sampler::Penalized(int32_t id, float logit) const {
  const auto output = output_counts_.find(id);
  const int count = output == output_counts_.end() ? 0 : output->second;
  if (params_.repetition_penalty != 1.0) {
    const auto value = static_cast<double>(logit);
    logit = static_cast<float>(value > 0 ? value / params_.repetition_penalty : value * params_.repetition_penalty);
  }
  if (count > 0) {
    logit =
        static_cast<float>(static_cast<double>(logit) - params_.frequency_penalty * count - params_.presence_penalty);
  }
  return logit;
}

std::vector<int32_t> Sampler::PenalizedIds(size_t vocab) const {
  const bool repetition = params_.repetition_penalty != 1.0;
  std::vector<int32_t> ids;
  const auto add = [&](int32_t id) {
    if (id >= 0 && static_cast<size_t>(id) < vocab) ids.push_back(id);
  };
  if (repetition) std::ranges::for_each(prompt_tokens_, add);  // there are none without it
  if (repetition || params_.frequency_penalty != 0 || params_.presence_penalty != 0) {
    for (const auto& [id, count] : output_counts_) {
      if (!prompt_tokens_.contains(id)) add(id);
    }
  }
  return ids;
}

Status Sampler::ApplyPenalties(LogitRow& logits, Changed* changed) const {
  const std::vector<int32_t> ids = PenalizedIds(logits.size());
  return Change(logits, ids, changed, [&](std::span<float> values) {
    for (size_t i = 0; i < ids.size(); ++i) values[i] = Penalized(ids[i], values[i]);
  });
}

Status Sampler::ApplyBias(LogitRow& logits, Changed* changed) const {
  const auto begin = std::ranges::lower_bound(biased_, 0);
  const auto end = std::lower_bound(begin, biased_.end(), static_cast<int64_t>(logits.size()));
  return Change(logits, {begin, end}, changed, [&](std::span<float> values) {
    for (const auto& [id, bias] : params_.logit_bias) {
      const auto place = std::lower_bound(begin, end, id);
      if (place != end && *place == id) values[static_cast<size_t>(place - begin)] += bias;
    }
  });
}

Result<TokenLogit> Sampler::Choose(LogitRow& logits, uint64_t position) const {
  if (params_.temperature == 0) return logits.Largest();
  return logits.Draw({.temperature = params_.temperature,
                      .top_k = params_.top_k,
                      .top_p = params_.top_p,
                      .min_p = params_.min_p,
                      .uniform = RandomStream(params_.seed, kSamplingStream).Uniform(position)});
}

Result<SampledToken> Sampler::Sample(LogitRow& logits, uint64_t position, std::span<const uint64_t> mask) {
  GPTOSS_CHECK(logits.size() > 0);
  SampledToken token;
  const bool logprobs = params_.top_logprobs >= 0;
  double log_sum = 0;
  const auto logprob = [&](float logit) { return static_cast<float>(static_cast<double>(logit) - log_sum); };
  if (logprobs) {
    if (params_.masked_logprobs && !mask.empty()) GPTOSS_RETURN_IF_ERROR(logits.Forbid(mask));
    GPTOSS_ASSIGN_OR_RETURN(const LogitSummary summary, logits.Summarize(static_cast<size_t>(params_.top_logprobs)));
    log_sum = summary.log_sum;
    for (const TokenLogit& likely : summary.likeliest) token.top.push_back({likely.id, logprob(likely.logit)});
  }
  Changed changed;
  GPTOSS_RETURN_IF_ERROR(ApplyPenalties(logits, &changed));
  GPTOSS_RETURN_IF_ERROR(ApplyBias(logits, &changed));
  if (!mask.empty()) GPTOSS_RETURN_IF_ERROR(logits.Forbid(mask));

  GPTOSS_ASSIGN_OR_RETURN(const TokenLogit chosen, Choose(logits, position));
  if (chosen.id < 0) {
    token.id = LowestAllowed(logits.size(), mask);
    token.finite = false;
    token.logprob = logprobs ? kMinusInfinity : 0.0f;
    return token;
  }
  token.id = chosen.id;
  const auto before = std::ranges::find(changed.ids, chosen.id);
  if (logprobs) {
    token.logprob = logprob(
        before == changed.ids.end() ? chosen.logit : changed.logits[static_cast<size_t>(before - changed.ids.begin())]);
  }
  return token;
}

SampledToken Sampler::Sample(std::span<float> logits, uint64_t position, std::span<const uint64_t> mask) {
  std::vector<float> weights;
  HostLogits row(logits, &weights);
  Result<SampledToken> token = Sample(row, position, mask);
  GPTOSS_CHECK(token.ok());
  return *std::move(token);
}

}  // namespace gptoss
