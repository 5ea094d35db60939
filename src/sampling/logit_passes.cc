#include "sampling/logit_passes.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

// Compiled for wider vectors, too, and chosen when the program starts. The same operations in the same lanes: the same
// bits. Sanitizers cannot be there yet when that choice is made.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define GPTOSS_WIDER_VECTORS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define GPTOSS_WIDER_VECTORS
#endif

namespace gptoss {
namespace {

constexpr size_t kLanes = 16;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
// exp(-87) is about the smallest normal float. A token that much less likely than the first is worth 1e-38 of it.
constexpr float kLowestExponent = -87.0f;

/// exp(x) for x in [-87, 0], without branches. With n = round(x / ln 2) and |r| <= ln(2) / 2, the Taylor polynomial of
/// degree 7 leaves r^8 / 8! < 6e-9; rounding leaves a few units of 6e-8.
[[gnu::always_inline]] inline float ExpNegative(float x) {
  constexpr float kRound = 12582912.0f;       // 1.5 * 2^23: adding it rounds to an integer
  constexpr float kLn2High = 0x1.62e4p-1f;    // few enough bits that n * kLn2High is exact
  constexpr float kLn2Low = 0x1.7f7d1cp-20f;  // ln 2 - kLn2High
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // The low bits of `shifted` hold n in two's complement; 2^n is put together as exponent bits. Wrapping is intended.
  const uint32_t scale = (std::bit_cast<uint32_t>(shifted) + 127u) << 23;
  return p * std::bit_cast<float>(scale);
}

/// weights[i] = weight of src[i]. They must not overlap, or the loop would not vectorise.
[[gnu::always_inline]] inline void BlockWeights(const float* src, size_t n, float max, float inverse_temperature,
                                                float* weights) {
  for (size_t i = 0; i < n; ++i) {
    const float x = (src[i] - max) * inverse_temperature;
    // NaN and -inf fail the first comparison, +inf the second. Integer masks stand in place of conditions, which
    // g++ 12 would turn into branches.
    const uint32_t keep = (0u - static_cast<uint32_t>(x >= kLowestExponent)) & (0u - static_cast<uint32_t>(x <= 0.0f));
    const float bounded = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & keep);
    weights[i] = std::bit_cast<float>(std::bit_cast<uint32_t>(ExpNegative(bounded)) & keep);
  }
}

[[gnu::always_inline]] inline double BlockSum(const float* w, size_t n) {
  std::array<double, 8> sums{};
  size_t i = 0;
  for (; i + sums.size() <= n; i += sums.size()) {
    for (size_t lane = 0; lane < sums.size(); ++lane) sums[lane] += static_cast<double>(w[i + lane]);
  }
  for (; i < n; ++i) sums[0] += static_cast<double>(w[i]);
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

/// A part of the weights' range: weights are positive floats, whose bits sort as they do. 2^16 floats share a bucket.
size_t Bucket(float weight) { return std::bit_cast<uint32_t>(weight) >> 16; }
constexpr size_t kBuckets = (0x3F800000u >> 16) + 1;  // the last one holds 1.0

/// Keeps the first tokens by falling weight, then rising id, until their amounts reach `goal`. The histogram finds the
/// bucket in which that happens; only that bucket is sorted.
template <typename Amount>
void KeepUntil(std::span<float> weights, double goal, Amount amount) {
  std::vector<double> histogram(kBuckets);
  for (float w : weights) {
    if (w > 0) histogram[Bucket(w)] += amount(w);
  }
  double reached = 0;
  size_t edge = kBuckets;
  while (edge > 0) {
    --edge;
    if (reached + histogram[edge] >= goal) break;
    reached += histogram[edge];
    if (edge == 0) return;  // all of them together do not reach the goal
  }
  std::vector<std::pair<float, int32_t>> order;
  for (size_t i = 0; i < weights.size(); ++i) {
    const float w = weights[i];
    if (w > 0 && Bucket(w) == edge) order.emplace_back(-w, static_cast<int32_t>(i));
  }
  std::sort(order.begin(), order.end());
  float last_weight = 0;
  int32_t last_id = std::numeric_limits<int32_t>::max();
  for (const auto& [negative, id] : order) {
    reached += amount(-negative);
    last_weight = -negative;
    last_id = id;
    if (reached >= goal) break;
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    const float w = weights[i];
    if (w < last_weight || (w == last_weight && static_cast<int32_t>(i) > last_id)) weights[i] = 0;
  }
}

}  // namespace

GPTOSS_WIDER_VECTORS TokenLogit FindLargest(std::span<const float> logits) {
  constexpr size_t kBlock = 4096;
  TokenLogit best;
  size_t best_block = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const float* block = logits.data() + begin;
    const size_t n = std::min(kBlock, logits.size() - begin);
    std::array<float, kLanes> lanes;
    lanes.fill(kMinusInfinity);
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) {
        const float v = block[i + lane] < kInfinity ? block[i + lane] : kMinusInfinity;
        lanes[lane] = v > lanes[lane] ? v : lanes[lane];
      }
    }
    for (; i < n; ++i) {
      if (block[i] < kInfinity && block[i] > lanes[0]) lanes[0] = block[i];
    }
    const float largest = *std::max_element(lanes.begin(), lanes.end());
    if (largest > best.logit) {
      best.logit = largest;
      best_block = begin;
    }
  }
  if (best.logit == kMinusInfinity) return best;
  size_t i = best_block;
  while (logits[i] != best.logit) ++i;
  best.id = static_cast<int32_t>(i);
  return best;
}

/// LogitsToWeights, and where `weights` is null SumWeights.
[[gnu::always_inline]] inline double Weigh(std::span<const float> logits, float max, float inverse_temperature,
                                           float* weights, std::vector<double>* block_sums) {
  std::array<float, kWeightBlock> block;
  block_sums->clear();
  double total = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kWeightBlock) {
    const size_t n = std::min(kWeightBlock, logits.size() - begin);
    BlockWeights(logits.data() + begin, n, max, inverse_temperature, block.data());
    if (weights != nullptr) std::copy_n(block.data(), n, weights + begin);
    block_sums->push_back(BlockSum(block.data(), n));
    total += block_sums->back();
  }
  return total;
}

GPTOSS_WIDER_VECTORS double LogitsToWeights(std::span<const float> logits, float max, float inverse_temperature,
                                            std::span<float> weights, std::vector<double>* block_sums) {
  return Weigh(logits, max, inverse_temperature, weights.data(), block_sums);
}

GPTOSS_WIDER_VECTORS double SumWeights(std::span<const float> logits, float max, float inverse_temperature,
                                       std::vector<double>* block_sums) {
  return Weigh(logits, max, inverse_temperature, nullptr, block_sums);
}

double LogSumExp(std::span<const float> logits, float max) {
  std::vector<double> sums;
  return static_cast<double>(max) + std::log(SumWeights(logits, max, 1.0f, &sums));
}

void KeepHeaviest(std::span<float> weights, size_t count) {
  KeepUntil(weights, static_cast<double>(count), [](float) { return 1.0; });
}

void KeepMass(std::span<float> weights, double mass) {
  KeepUntil(weights, mass, [](float w) { return static_cast<double>(w); });
}

double SumBlocks(std::span<const float> weights, std::vector<double>* block_sums) {
  block_sums->clear();
  double total = 0;
  for (size_t begin = 0; begin < weights.size(); begin += kWeightBlock) {
    block_sums->push_back(BlockSum(weights.data() + begin, std::min(kWeightBlock, weights.size() - begin)));
    total += block_sums->back();
  }
  return total;
}

namespace {

/// The block in which the running sum first exceeds `target`; `reached` becomes the sum of those before it.
size_t FindBlock(std::span<const double> block_sums, double target, double* reached) {
  size_t block = 0;
  // The last block with any weight is where a target lands that rounding put at or past the total.
  size_t last = 0;
  for (size_t b = 0; b < block_sums.size(); ++b) {
    if (block_sums[b] > 0) last = b;
  }
  while (block < last && *reached + block_sums[block] <= target) *reached += block_sums[block++];
  return block;
}

/// The same within a block.
size_t FindInBlock(std::span<const float> weights, double target, double reached) {
  size_t found = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!(weights[i] > 0)) continue;
    found = i;
    reached += static_cast<double>(weights[i]);
    if (reached > target) break;
  }
  return found;
}

}  // namespace

int32_t FindInCdf(std::span<const float> weights, std::span<const double> block_sums, double target) {
  double reached = 0;
  const size_t begin = FindBlock(block_sums, target, &reached) * kWeightBlock;
  const size_t n = std::min(kWeightBlock, weights.size() - begin);
  return static_cast<int32_t>(begin + FindInBlock(weights.subspan(begin, n), target, reached));
}

int32_t FindInCdf(std::span<const float> logits, float max, float inverse_temperature,
                  std::span<const double> block_sums, double target) {
  std::array<float, kWeightBlock> weights;
  double reached = 0;
  const size_t begin = FindBlock(block_sums, target, &reached) * kWeightBlock;
  const size_t n = std::min(kWeightBlock, logits.size() - begin);
  BlockWeights(logits.data() + begin, n, max, inverse_temperature, weights.data());
  return static_cast<int32_t>(begin + FindInBlock(std::span(weights).first(n), target, reached));
}

}  // namespace gptoss
