#include "engine/speculation.h"

#include <algorithm>

namespace gptoss {
namespace {

constexpr int kShortestMatch = 2, kLongestMatch = 4;

// A row of a small batch costs about this much of a step as long as nothing has been measured: four more experts of
// MXFP4 beside a step that reads four experts, attention and the output matrix.
constexpr double kExtraPerToken = 0.35;

constexpr double kInitialReserve = 0.5;
constexpr double kLargestReserve = 4;
constexpr double kReservePerStep = 0.01;
constexpr double kShareOfSavings = 0.5;

// Weight of a new time in the running mean; outliers (another program took the core) count as at most twice the mean.
constexpr double kTimeWeight = 0.125;
constexpr double kLargestOutlier = 2;

// Evidence on acceptance fades: after 30 passes to a third, and while nothing is proposed back to the prior.
constexpr double kPriorWeight = 2, kKeepEvidence = 0.97;

double RunningMean(double mean, double value) {
  return mean + kTimeWeight * (std::min(value, kLargestOutlier * mean) - mean);
}

}  // namespace

Proposal ProposeFromHistory(std::span<const int32_t> history, int count) {
  const auto size = static_cast<int64_t>(history.size());
  int best = 0;
  int64_t best_end = 0;
  for (int64_t end = size - 2; end >= kShortestMatch - 1 && best < kLongestMatch; --end) {
    if (history[end] != history[size - 1]) continue;
    int matched = 1;
    while (matched < kLongestMatch && matched <= end && history[end - matched] == history[size - 1 - matched]) {
      ++matched;
    }
    if (matched > best) {
      best = matched;
      best_end = end;
    }
  }
  Proposal proposal;
  if (best < kShortestMatch || count <= 0) return proposal;
  proposal.matched = best;
  proposal.tokens.reserve(static_cast<size_t>(count));
  for (int64_t from = best_end + 1; from <= best_end + count; ++from) {
    proposal.tokens.push_back(from < size ? history[from] : proposal.tokens[from - size]);
  }
  return proposal;
}

SpeculationController::SpeculationController(int max_tokens)
    : max_tokens_(max_tokens), extra_(static_cast<size_t>(max_tokens) + 1, -1.0), reserve_(kInitialReserve) {
  const double priors[] = {0.5, 0.6, 0.75};
  for (size_t i = 0; i < acceptance_.size(); ++i) {
    acceptance_[i] = {priors[i], priors[i] * kPriorWeight, (1 - priors[i]) * kPriorWeight};
  }
}

void SpeculationController::Acceptance::Relax(double keep) {
  held = prior * kPriorWeight + keep * (held - prior * kPriorWeight);
  failed = (1 - prior) * kPriorWeight + keep * (failed - (1 - prior) * kPriorWeight);
}

SpeculationController::Acceptance& SpeculationController::AcceptanceOf(int matched) {
  return acceptance_[static_cast<size_t>(std::clamp(matched, kShortestMatch, kLongestMatch) - kShortestMatch)];
}

double SpeculationController::ExtraCost(int proposed) const {
  // The nearest number of tokens that has been measured, scaled.
  for (int distance = 0; distance <= max_tokens_; ++distance) {
    for (int k : {proposed - distance, proposed + distance}) {
      if (k < 1 || k > max_tokens_ || extra_[k] < 0) continue;
      return extra_[k] * proposed / k;
    }
  }
  return kExtraPerToken * proposed;
}

int SpeculationController::Choose(int matched) {
  if (matched < kShortestMatch || plain_seconds_ <= 0) return 0;
  Acceptance& acceptance = AcceptanceOf(matched);
  const double rate = acceptance.rate();
  double expected = 0, held = 1, best_gain = 0;
  int best = 0;
  for (int k = 1; k <= max_tokens_; ++k) {
    held *= rate;
    expected += held;
    const double extra = ExtraCost(k);
    if (extra > reserve_) continue;
    if (expected - extra > best_gain) {
      best_gain = expected - extra;
      best = k;
    }
  }
  if (best == 0) {
    // So that one bad stretch, or one pass during which another program took the core, does not decide for ever.
    acceptance.Relax(kKeepEvidence);
    for (int k = 1; k <= max_tokens_; ++k) {
      const double prior = kExtraPerToken * k;
      if (extra_[k] > prior) extra_[k] = prior + kKeepEvidence * (extra_[k] - prior);
    }
  }
  return best;
}

void SpeculationController::OnPlainStep(double seconds) {
  plain_seconds_ = plain_seconds_ <= 0 ? seconds : RunningMean(plain_seconds_, seconds);
  if (reserve_ < kInitialReserve) reserve_ = std::min(kInitialReserve, reserve_ + kReservePerStep);
}

void SpeculationController::OnSpeculativePass(int matched, int proposed, int accepted, double seconds) {
  Acceptance& acceptance = AcceptanceOf(matched);
  acceptance.Relax(kKeepEvidence);
  acceptance.held += accepted;
  acceptance.failed += accepted < proposed ? 1 : 0;
  if (plain_seconds_ <= 0 || proposed < 1 || proposed > max_tokens_) return;
  const double extra = std::max(0.0, seconds / plain_seconds_ - 1);
  extra_[proposed] = extra_[proposed] < 0 ? extra : std::max(0.0, RunningMean(extra_[proposed] + 1, extra + 1) - 1);
  const double saved = accepted - extra;
  reserve_ = std::min(kLargestReserve, reserve_ + (saved > 0 ? kShareOfSavings * saved : saved));
}

}  // namespace gptoss
