#include "ops/balance_loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace gptoss {
namespace {

/// f: the share of all choices that each expert got.
std::vector<double> Shares(const Routing& routing) {
  std::vector<double> shares(static_cast<size_t>(routing.num_experts));
  const auto choices = static_cast<double>(routing.n * routing.experts_per_token);
  for (size_t e = 0; e < shares.size(); ++e) {
    shares[e] = static_cast<double>(routing.expert_offsets[e + 1] - routing.expert_offsets[e]) / choices;
  }
  return shares;
}

/// Softmax over all logits of one token into `p`; returns its mean weighted by `shares`.
template <typename T>
double Probabilities(const T* logits, const std::vector<double>& shares, std::vector<double>* p) {
  const auto max = static_cast<double>(*std::max_element(logits, logits + shares.size()));
  double sum = 0, weighted = 0;
  for (size_t e = 0; e < shares.size(); ++e) sum += (*p)[e] = std::exp(static_cast<double>(logits[e]) - max);
  for (size_t e = 0; e < shares.size(); ++e) weighted += ((*p)[e] /= sum) * shares[e];
  return weighted;
}

}  // namespace

template <typename T>
double BalanceLoss(const Routing& routing, const T* logits) {
  const std::vector<double> shares = Shares(routing);
  std::vector<double> p(shares.size());
  double sum = 0;
  for (int64_t t = 0; t < routing.n; ++t) sum += Probabilities(logits + t * routing.num_experts, shares, &p);
  return routing.num_experts * sum / static_cast<double>(routing.n);
}

template <typename T>
void AddBalanceGradient(const Routing& routing, const T* logits, double factor, T* dlogits) {
  if (factor == 0) return;
  const std::vector<double> shares = Shares(routing);
  std::vector<double> p(shares.size());
  const double scale = factor * routing.num_experts / static_cast<double>(routing.n);
  for (int64_t t = 0; t < routing.n; ++t) {
    const double mean = Probabilities(logits + t * routing.num_experts, shares, &p);
    T* out = dlogits + t * routing.num_experts;
    for (size_t e = 0; e < shares.size(); ++e) out[e] += static_cast<T>(scale * p[e] * (shares[e] - mean));
  }
}

template double BalanceLoss(const Routing&, const float*);
template double BalanceLoss(const Routing&, const double*);
template void AddBalanceGradient(const Routing&, const float*, double, float*);
template void AddBalanceGradient(const Routing&, const double*, double, double*);

}  // namespace gptoss
