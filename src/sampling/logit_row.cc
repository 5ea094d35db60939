#include "sampling/logit_row.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace gptoss {
namespace {

/// The `count` largest logits, largest first, the lower id first among equals.
std::vector<TokenLogit> LargestLogits(std::span<const float> logits, size_t count) {
  const auto better = [](const TokenLogit& a, const TokenLogit& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  std::vector<TokenLogit> heap;  // the worst of the best on top
  for (size_t i = 0; i < logits.size() && count > 0; ++i) {
    if (!std::isfinite(logits[i])) continue;
    if (heap.size() == count) {
      if (!(logits[i] > heap.front().logit)) continue;  // ids rise, so an equal one is worse
      std::pop_heap(heap.begin(), heap.end(), better);
      heap.pop_back();
    }
    heap.push_back({static_cast<int32_t>(i), logits[i]});
    std::push_heap(heap.begin(), heap.end(), better);
  }
  std::sort_heap(heap.begin(), heap.end(), better);
  return heap;
}

}  // namespace

float InverseTemperature(const DrawParams& params) {
  return static_cast<float>(std::min(1 / params.temperature, 1e30));
}

Status HostLogits::Read(std::span<const int32_t> ids, std::span<float> values) {
  std::ranges::transform(ids, values.begin(), [&](int32_t id) { return logits_[static_cast<size_t>(id)]; });
  return {};
}

Status HostLogits::Write(std::span<const int32_t> ids, std::span<const float> values) {
  for (size_t i = 0; i < ids.size(); ++i) logits_[static_cast<size_t>(ids[i])] = values[i];
  return {};
}

Status HostLogits::Forbid(std::span<const uint64_t> mask) {
  GPTOSS_CHECK(mask.size() * 64 >= logits_.size());
  for (size_t word = 0; word * 64 < logits_.size(); ++word) {
    uint64_t forbidden = ~mask[word];
    if (forbidden == 0) continue;
    const size_t begin = word * 64, end = std::min(begin + 64, logits_.size());
    if (forbidden == ~uint64_t{0}) {
      std::ranges::fill(logits_.subspan(begin, end - begin), kMinusInfinity);
      continue;
    }
    for (; forbidden != 0; forbidden &= forbidden - 1) {
      const size_t id = begin + static_cast<size_t>(std::countr_zero(forbidden));
      if (id < end) logits_[id] = kMinusInfinity;
    }
  }
  return {};
}

Result<LogitSummary> HostLogits::Summarize(size_t count) {
  const TokenLogit largest = FindLargest(logits_);
  if (largest.id < 0) return LogitSummary{};
  return LogitSummary{LogSumExp(logits_, largest.logit), LargestLogits(logits_, count)};
}

/// Turns the logits into weights, drops what the filters exclude, and inverts the cumulative distribution.
Result<TokenLogit> HostLogits::Draw(const DrawParams& params) {
  const TokenLogit largest = FindLargest(logits_);
  if (largest.id < 0) return largest;
  const float inverse_temperature = InverseTemperature(params);
  const bool top_k = params.top_k > 0 && static_cast<size_t>(params.top_k) < logits_.size();
  const bool top_p = params.top_p < 1;
  std::vector<double> sums;
  if (!top_k && !top_p && params.min_p <= 0) {
    const double all = SumWeights(logits_, largest.logit, inverse_temperature, &sums);
    const int32_t id = FindInCdf(logits_, largest.logit, inverse_temperature, sums, params.uniform * all);
    return TokenLogit{id, logits_[static_cast<size_t>(id)]};
  }
  std::vector<float>& weights = *weights_;
  weights.resize(logits_.size());
  double total = LogitsToWeights(logits_, largest.logit, inverse_temperature, weights, &sums);
  if (top_k) KeepHeaviest(weights, static_cast<size_t>(params.top_k));
  if (top_k && top_p) total = SumBlocks(weights, &sums);
  if (top_p) KeepMass(weights, params.top_p * total);
  if (params.min_p > 0) {
    // The likeliest weighs 1.
    const float least = static_cast<float>(params.min_p);
    for (float& weight : weights) weight = weight >= least ? weight : 0.0f;
  }
  total = SumBlocks(weights, &sums);
  const int32_t id = FindInCdf(weights, sums, params.uniform * total);
  return TokenLogit{id, logits_[static_cast<size_t>(id)]};
}

std::optional<TokenLogit> DrawFromLikeliest(std::span<const TokenLogit> likeliest, bool all, double total,
                                            const DrawParams& params) {
  if (likeliest.empty()) return std::nullopt;
  std::vector<float> logits(likeliest.size()), weights(likeliest.size());
  std::ranges::transform(likeliest, logits.begin(), &TokenLogit::logit);
  std::vector<double> sums;
  LogitsToWeights(logits, logits.front(), InverseTemperature(params), weights, &sums);
  const auto top_k = static_cast<size_t>(params.top_k);
  if (top_k > weights.size() && !all) return std::nullopt;  // top_p's share would be of more than is known
  size_t kept = weights.size();
  bool known = all;  // that no other token is kept
  if (top_k > 0 && top_k <= weights.size()) {
    kept = top_k;
    known = true;
    total = 0;
    for (size_t i = 0; i < kept; ++i) total += static_cast<double>(weights[i]);
  }
  if (params.top_p < 1) {
    const double goal = params.top_p * total;
    double mass = 0;
    size_t n = 0;
    while (n < kept && mass < goal) mass += static_cast<double>(weights[n++]);
    kept = n;  // all of them where rounding keeps the goal out of reach
    known |= mass >= goal;
  }
  if (params.min_p > 0) {
    const auto light = [&](float weight) { return weight < static_cast<float>(params.min_p); };
    const auto least = static_cast<size_t>(std::ranges::find_if(weights, light) - weights.begin());
    known |= least < weights.size();
    kept = std::min(kept, least);
  }
  if (!known) return std::nullopt;
  std::vector<size_t> by_id(kept);
  std::iota(by_id.begin(), by_id.end(), size_t{0});
  std::ranges::sort(by_id, {}, [&](size_t i) { return likeliest[i].id; });
  std::vector<float> left(kept);
  std::ranges::transform(by_id, left.begin(), [&](size_t i) { return weights[i]; });
  const double sum = SumBlocks(left, &sums);
  return likeliest[by_id[static_cast<size_t>(FindInCdf(left, sums, params.uniform * sum))]];
}

}  // namespace gptoss
