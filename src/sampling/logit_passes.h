// The passes over a row of logits that sampling is made of. Each is O(V) and written in independent lanes, so that a
// compiler vectorises it without reordering floating-point sums on its own: results do not depend on the optimiser.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace gptoss {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

struct TokenLogit {
  int32_t id = -1;
  float logit = kMinusInfinity;
};

/// The largest finite logit and the lowest id that has it; {-1, -inf} when none is finite. NaN and infinities are
/// skipped.
TokenLogit FindLargest(std::span<const float> logits);

/// Values that share one entry of the block sums below.
inline constexpr size_t kWeightBlock = 256;

/// weights[i] = exp((logits[i] - max) * inverse_temperature), 0 where that is not finite or below exp(-87);
/// `block_sums` becomes the sums of every kWeightBlock weights. Relative error of a weight at most 3e-7. `max` is the
/// largest finite logit. Returns the total.
double LogitsToWeights(std::span<const float> logits, float max, float inverse_temperature, std::span<float> weights,
                       std::vector<double>* block_sums);

/// The same sums and total, of weights that are not kept.
double SumWeights(std::span<const float> logits, float max, float inverse_temperature, std::vector<double>* block_sums);

/// log(sum of exp(logit)) over the finite logits.
double LogSumExp(std::span<const float> logits, float max);

/// Sets what comes after the first tokens, in order of falling weight then rising id, to 0: after `count` tokens.
void KeepHeaviest(std::span<float> weights, size_t count);
/// The same: after the fewest tokens that together weigh at least `mass`.
void KeepMass(std::span<float> weights, double mass);

/// Sums as LogitsToWeights fills them, of weights that were changed since. Returns the total.
double SumBlocks(std::span<const float> weights, std::vector<double>* block_sums);

/// Index of the token at which the running sum of the weights first exceeds `target` (in [0, total)).
int32_t FindInCdf(std::span<const float> weights, std::span<const double> block_sums, double target);
/// The same by what SumWeights was given and gave.
int32_t FindInCdf(std::span<const float> logits, float max, float inverse_temperature,
                  std::span<const double> block_sums, double target);

}  // namespace gptoss
