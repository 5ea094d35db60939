#include "sampling/logit_passes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace gptoss {
namespace {

TEST(LogitPasses, WeightsAreExponentials) {
  std::vector<float> x, w;
  for (int i = 0; i <= 87000; ++i) x.push_back(static_cast<float>(-i) * 1e-3f);
  x.push_back(-87.5f);
  x.push_back(-std::numeric_limits<float>::infinity());
  w.resize(x.size());
  std::vector<double> sums;
  const double total = LogitsToWeights(x, 0, 1, w, &sums);
  EXPECT_EQ(w[0], 1.0f);
  for (size_t i = 0; i <= 87000; ++i) {
    if (x[i] < -87.0f) continue;
    const double exact = std::exp(static_cast<double>(x[i]));
    ASSERT_NEAR(static_cast<double>(w[i]), exact, 3e-7 * exact) << x[i];
  }
  EXPECT_EQ(w[87001], 0.0f);
  EXPECT_EQ(w[87002], 0.0f);
  EXPECT_DOUBLE_EQ(total, std::accumulate(sums.begin(), sums.end(), 0.0));
}

TEST(LogitPasses, WeightsThatAreNotKeptGiveTheSameTokens) {
  std::vector<float> logits(1000), weights(1000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>((i * 7919) % 1009) * 0.02f;
  logits[17] = std::numeric_limits<float>::quiet_NaN();
  const float max = FindLargest(logits).logit;
  for (const float inverse_temperature : {0.1f, 1.0f, 3.0f}) {
    std::vector<double> kept, sums;
    const double total = LogitsToWeights(logits, max, inverse_temperature, weights, &kept);
    EXPECT_EQ(SumWeights(logits, max, inverse_temperature, &sums), total);
    EXPECT_EQ(sums, kept);
    for (int i = 0; i <= 500; ++i) {
      const double target = total * i / 500;
      EXPECT_EQ(FindInCdf(logits, max, inverse_temperature, sums, target), FindInCdf(weights, kept, target)) << i;
    }
  }
}

TEST(LogitPasses, TargetsAtTheEdgesOfTheDistribution) {
  std::vector<float> weights(600, 0.0f);
  weights[3] = 1;
  weights[300] = 2;
  weights[301] = 1;
  std::vector<double> sums;
  EXPECT_EQ(SumBlocks(weights, &sums), 4.0);
  EXPECT_EQ(FindInCdf(weights, sums, 0.0), 3);
  EXPECT_EQ(FindInCdf(weights, sums, 1.0), 300);
  EXPECT_EQ(FindInCdf(weights, sums, 2.999), 300);
  EXPECT_EQ(FindInCdf(weights, sums, 3.0), 301);
  EXPECT_EQ(FindInCdf(weights, sums, 4.0), 301) << "rounding may put the target at the total";
}

}  // namespace
}  // namespace gptoss
