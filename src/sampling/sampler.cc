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

void ForbidMasked(std::span<float> logits, std::span<const uint64_t> mask) {
  GPTOSS_CHECK(mask.size() * 64 >= logits.size());
  for (size_t word = 0; word * 64 < logits.size(); ++word) {
    uint64_t forbidden = ~mask[word];
    if (forbidden == 0) continue;
    const size_t begin = word * 64, end = std::min(begin + 64, logits.size());
    if (forbidden == ~uint64_t{0}) {
      std::fill(logits.begin() + static_cast<ptrdiff_t>(begin), logits.begin() + static_cast<ptrdiff_t>(end),
                kMinusInfinity);
      continue;
    }
    for (; forbidden != 0; forbidden &= forbidden - 1) {
      const size_t id = begin + static_cast<size_t>(std::countr_zero(forbidden));
      if (id < end) logits[id] = kMinusInfinity;
    }
  }
}

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

/// The `count` likeliest tokens, likeliest first, the lower id first among equals.
std::vector<TokenLogprob> Likeliest(std::span<const float> logits, size_t count, double log_sum) {
  const auto better = [](const TokenLogprob& a, const TokenLogprob& b) {
    return a.logprob != b.logprob ? a.logprob > b.logprob : a.id < b.id;
  };
  std::vector<TokenLogprob> heap;  // the worst of the best on top; holds logits until the end
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i])) continue;
    if (heap.size() == count) {
      if (!(logits[i] > heap.front().logprob)) continue;  // ids rise, so an equal one is worse
      std::pop_heap(heap.begin(), heap.end(), better);
      heap.pop_back();
    }
    heap.push_back({static_cast<int32_t>(i), logits[i]});
    std::push_heap(heap.begin(), heap.end(), better);
  }
  std::sort_heap(heap.begin(), heap.end(), better);
  for (TokenLogprob& token : heap) token.logprob = static_cast<float>(static_cast<double>(token.logprob) - log_sum);
  return heap;
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

void Sampler::ApplyPenaltiesAndBias(std::span<float> logits) const {
  const auto change = [&](int32_t id, auto&& function) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) return;
    float& logit = logits[static_cast<size_t>(id)];
    logit = static_cast<float>(function(static_cast<double>(logit)));
  };
  if (params_.repetition_penalty != 1.0) {
    const auto repeated = [&](double logit) {
      return logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
    };
    for (int32_t id : prompt_tokens_) change(id, repeated);
    for (const auto& [id, count] : output_counts_) {
      if (!prompt_tokens_.contains(id)) change(id, repeated);
    }
  }
  if (params_.frequency_penalty != 0 || params_.presence_penalty != 0) {
    for (const auto& [id, count] : output_counts_) {
      change(id,
             [&, n = count](double logit) { return logit - params_.frequency_penalty * n - params_.presence_penalty; });
    }
  }
  for (const auto& [id, bias] : params_.logit_bias) {
    change(id, [b = static_cast<double>(bias)](double logit) { return logit + b; });
  }
}

/// Turns the logits into weights, drops what the filters exclude, and inverts the cumulative distribution.
int32_t Sampler::Draw(std::span<float> logits, float max, uint64_t position) {
  // Past 1e30 nothing but the likeliest is left; the bound keeps 0 * infinity out of the arithmetic.
  const float inverse_temperature = static_cast<float>(std::min(1 / params_.temperature, 1e30));
  double total = LogitsToWeights(logits, max, inverse_temperature, &block_sums_);
  const bool top_k = params_.top_k > 0 && static_cast<size_t>(params_.top_k) < logits.size();
  const bool top_p = params_.top_p < 1;
  if (top_k) KeepHeaviest(logits, static_cast<size_t>(params_.top_k));
  if (top_k && top_p) total = SumBlocks(logits, &block_sums_);
  if (top_p) KeepMass(logits, params_.top_p * total);
  if (params_.min_p > 0) {
    // The likeliest weighs 1.
    const float least = static_cast<float>(params_.min_p);
    for (float& weight : logits) weight = weight >= least ? weight : 0.0f;
  }
  if (top_k || top_p || params_.min_p > 0) total = SumBlocks(logits, &block_sums_);
  const double uniform = RandomStream(params_.seed, kSamplingStream).Uniform(position);
  return FindInCdf(logits, block_sums_, uniform * total);
}

SampledToken Sampler::Sample(std::span<float> logits, uint64_t position, std::span<const uint64_t> mask) {
  GPTOSS_CHECK(!logits.empty());
  SampledToken token;
  const bool logprobs = params_.top_logprobs >= 0;
  double log_sum = 0;
  if (logprobs) {
    raw_.assign(logits.begin(), logits.end());
    if (params_.masked_logprobs && !mask.empty()) ForbidMasked(raw_, mask);
    log_sum = LogSumExp(raw_, FindLargest(raw_).value);
    if (params_.top_logprobs > 0) token.top = Likeliest(raw_, static_cast<size_t>(params_.top_logprobs), log_sum);
  }
  ApplyPenaltiesAndBias(logits);
  if (!mask.empty()) ForbidMasked(logits, mask);

  const LargestLogit largest = FindLargest(logits);
  if (largest.id < 0) {
    token.id = LowestAllowed(logits.size(), mask);
    token.finite = false;
    token.logprob = logprobs ? kMinusInfinity : 0.0f;
    return token;
  }
  token.id = params_.temperature == 0 ? largest.id : Draw(logits, largest.value, position);
  if (logprobs) token.logprob = static_cast<float>(static_cast<double>(raw_[static_cast<size_t>(token.id)]) - log_sum);
  return token;
}

}  // namespace gptoss
