// The loss that keeps all experts in use (Fedus et al., arXiv 2101.03961, equation 4), of one router: E * the sum over
// experts of f * P. f is the share of all choices that the expert got, P the mean over tokens of its probability under
// a softmax over all logits. 1 when all experts are used alike, up to E when all tokens go to few of them.
#pragma once

#include "ops/ops.h"

namespace gptoss {

/// `routing` is grouped; logits [n, E] are what it was chosen from. T: float or double.
template <typename T>
double BalanceLoss(const Routing& routing, const T* logits);

/// Adds factor times its gradient to dlogits [n, E]. The choices, and f with them, count as constant. A factor of 0
/// adds nothing and reads nothing.
template <typename T>
void AddBalanceGradient(const Routing& routing, const T* logits, double factor, T* dlogits);

}  // namespace gptoss
