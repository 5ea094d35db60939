// Every control is compared with a plain implementation in double: a full sort, then the cumulative distribution in
// order of id. Both use the same random number, so the tokens must be equal unless it falls within rounding of an edge.
#include "sampling/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string>

#include "base/rng.h"

namespace gptoss {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Normal-looking logits: the sum of four uniform numbers, times `scale`.
std::vector<float> RandomLogits(int n, double scale, uint64_t seed) {
  const RandomStream random(seed, "logits");
  std::vector<float> logits(static_cast<size_t>(n));
  for (size_t i = 0; i < logits.size(); ++i) {
    double sum = 0;
    for (uint64_t j = 0; j < 4; ++j) sum += random.Uniform(4 * i + j) - 0.5;
    logits[i] = static_cast<float>(scale * sum);
  }
  return logits;
}

/// The distribution that `params` ask for, from the definition of each control.
std::vector<double> PlainDistribution(const std::vector<float>& logits, const SamplingParams& params) {
  std::vector<double> p(logits.size());
  std::vector<size_t> order;
  double max = -kInf;
  for (float l : logits) {
    if (std::isfinite(l)) max = std::max(max, static_cast<double>(l));
  }
  for (size_t i = 0; i < p.size(); ++i) {
    if (!std::isfinite(logits[i])) continue;
    p[i] = std::exp((static_cast<double>(logits[i]) - max) / params.temperature);
    order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  if (params.top_k > 0 && order.size() > static_cast<size_t>(params.top_k)) {
    order.resize(static_cast<size_t>(params.top_k));
  }
  double total = 0, reached = 0;
  for (size_t i : order) total += p[i];
  for (size_t kept = 0; kept < order.size(); ++kept) {
    reached += p[order[kept]];
    if (params.top_p < 1 && reached >= params.top_p * total) {
      order.resize(kept + 1);
      break;
    }
  }
  std::erase_if(order, [&](size_t i) { return p[i] < params.min_p * p[order[0]]; });
  std::vector<double> out(p.size());
  total = 0;
  for (size_t i : order) total += p[i];
  for (size_t i : order) out[i] = p[i] / total;
  return out;
}

/// Draws `count` tokens and expects each to be the one at which the plain distribution's running sum passes the same
/// random number, give or take `slack` of probability.
void ExpectInverseCdf(const std::vector<float>& logits, const SamplingParams& params, int count, double slack = 2e-6) {
  const std::vector<double> p = PlainDistribution(logits, params);
  std::vector<double> upper(p.size());
  std::partial_sum(p.begin(), p.end(), upper.begin());
  const RandomStream random(params.seed, Fnv1a64("sampling"));
  Sampler sampler(params);
  for (int n = 0; n < count; ++n) {
    std::vector<float> scratch = logits;
    const auto id = static_cast<size_t>(sampler.Sample(scratch, static_cast<uint64_t>(n)).id);
    ASSERT_LT(id, p.size());
    ASSERT_GT(p[id], 0) << "token " << id << " is excluded";
    const double u = random.Uniform(static_cast<uint64_t>(n));
    ASSERT_GE(u, upper[id] - p[id] - slack) << "draw " << n;
    ASSERT_LE(u, upper[id] + slack) << "draw " << n;
  }
}

TEST(Sampler, MatchesThePlainDistribution) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    SamplingParams params;
    params.seed = seed;
    ExpectInverseCdf(RandomLogits(1000, 4, seed), params, 500);
    ExpectInverseCdf(RandomLogits(257, 4, seed), params, 500);
    ExpectInverseCdf(RandomLogits(1, 4, seed), params, 3);
  }
}

TEST(Sampler, MatchesThePlainDistributionOverTheWholeVocabulary) {
  for (double top_p : {1.0, 0.9}) {
    SamplingParams params;
    params.top_p = top_p;
    params.seed = 7;
    ExpectInverseCdf(RandomLogits(201088, 6, 3), params, 25);
  }
}

TEST(Sampler, EachControlAlone) {
  const std::vector<float> logits = RandomLogits(3000, 5, 11);
  for (double temperature : {0.1, 0.7, 1.5, 10.0}) {
    SamplingParams params;
    params.temperature = temperature;
    ExpectInverseCdf(logits, params, 300);
  }
  for (int top_k : {1, 2, 40, 2999, 3000, 100000}) {
    SamplingParams params;
    params.top_k = top_k;
    ExpectInverseCdf(logits, params, 300);
  }
  for (double top_p : {1e-9, 0.1, 0.5, 0.95, 0.999}) {
    SamplingParams params;
    params.top_p = top_p;
    ExpectInverseCdf(logits, params, 300);
  }
  for (double min_p : {0.01, 0.3, 1.0}) {
    SamplingParams params;
    params.min_p = min_p;
    ExpectInverseCdf(logits, params, 300);
  }
}

TEST(Sampler, ControlsTogether) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    const RandomStream random(seed, "controls");
    SamplingParams params;
    params.temperature = 0.2 + 2 * random.Uniform(0);
    params.top_k = static_cast<int>(random.Word(1) % 200);
    params.top_p = 0.05 + 0.95 * random.Uniform(2);
    params.min_p = 0.2 * random.Uniform(3);
    params.seed = seed;
    ExpectInverseCdf(RandomLogits(500, 4, seed), params, 50);
  }
}

/// Pearson's statistic over k cells has mean k - 1 and variance 2 (k - 1); six standard deviations are exceeded by
/// chance about once in 10^7 at these k.
TEST(Sampler, FrequenciesFollowTheDistribution) {
  const std::vector<float> logits = RandomLogits(40, 2, 5);
  SamplingParams params;
  params.seed = 99;
  const std::vector<double> p = PlainDistribution(logits, params);
  constexpr int kDraws = 40000;
  std::vector<int> counts(p.size());
  Sampler sampler(params);
  for (int n = 0; n < kDraws; ++n) {
    std::vector<float> scratch = logits;
    ++counts[static_cast<size_t>(sampler.Sample(scratch, static_cast<uint64_t>(n)).id)];
  }
  double statistic = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double expected = p[i] * kDraws;
    ASSERT_GT(expected, 5);
    statistic += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  const double freedom = static_cast<double>(p.size() - 1);
  EXPECT_LT(statistic, freedom + 6 * std::sqrt(2 * freedom));
  EXPECT_GT(statistic, freedom - 6 * std::sqrt(2 * freedom));  // nor suspiciously even
}

TEST(Sampler, TiesGoToTheLowestId) {
  std::vector<float> logits(100, 1.0f);
  logits[50] = logits[60] = logits[99] = 2.0f;
  SamplingParams greedy;
  greedy.temperature = 0;
  std::vector<float> scratch = logits;
  EXPECT_EQ(Sampler(greedy).Sample(scratch, 0).id, 50);

  SamplingParams params;
  params.top_k = 5;  // the three, then 0 and 1
  std::set<int32_t> seen;
  Sampler sampler(params);
  for (uint64_t n = 0; n < 500; ++n) {
    scratch = logits;
    seen.insert(sampler.Sample(scratch, n).id);
  }
  EXPECT_THAT(seen, testing::ElementsAre(0, 1, 50, 60, 99));

  // Four equal tokens: half of the mass is exactly two of them.
  SamplingParams half;
  half.top_p = 0.5;
  Sampler half_sampler(half);
  seen.clear();
  for (uint64_t n = 0; n < 200; ++n) {
    scratch.assign(4, -3.0f);
    seen.insert(half_sampler.Sample(scratch, n).id);
  }
  EXPECT_THAT(seen, testing::ElementsAre(0, 1));
}

TEST(Sampler, GreedyFindsTheLargestWhereverItIs) {
  SamplingParams greedy;
  greedy.temperature = 0;
  for (int n : {1, 15, 16, 17, 4095, 4096, 4097, 9000}) {
    for (int at : {0, n / 2, n - 1}) {
      std::vector<float> logits(static_cast<size_t>(n), -1e30f);
      logits[static_cast<size_t>(at)] = -1e29f;
      EXPECT_EQ(Sampler(greedy).Sample(logits, 0).id, at) << n;
    }
  }
}

TEST(Sampler, MaskAllowsOnlyItsTokens) {
  constexpr int kVocab = 100;  // not a multiple of 64
  const std::vector<float> logits = RandomLogits(kVocab, 3, 1);
  for (int only = 0; only < kVocab; ++only) {
    // Bits past the vocabulary mean nothing.
    std::vector<uint64_t> mask = {0, ~uint64_t{0} << 36};
    mask[static_cast<size_t>(only / 64)] |= uint64_t{1} << (only % 64);
    for (double temperature : {0.0, 1.0}) {
      SamplingParams params;
      params.temperature = temperature;
      std::vector<float> scratch = logits;
      EXPECT_EQ(Sampler(params).Sample(scratch, 3, mask).id, only);
    }
  }
  const std::vector<uint64_t> mask = {0x0000FFFFFFFFFFFF, 0x10000FFFF};
  std::vector<float> masked = logits;
  for (size_t i = 0; i < kVocab; ++i) {
    if ((mask[i / 64] >> (i % 64) & 1) == 0) masked[i] = -kInf;
  }
  Sampler sampler{SamplingParams{}};
  for (uint64_t n = 0; n < 300; ++n) {
    std::vector<float> a = logits, b = masked;
    EXPECT_EQ(sampler.Sample(a, n, mask).id, sampler.Sample(b, n).id);
  }
}

TEST(Sampler, MaskHoldsWithEveryProcessorAndLogprobsStayTheModels) {
  constexpr int kVocab = 200;
  const std::vector<float> logits = RandomLogits(kVocab, 3, 4);
  SamplingParams params;
  params.top_k = 20;
  params.top_p = 0.9;
  params.min_p = 0.01;
  params.repetition_penalty = 1.3;
  params.frequency_penalty = 0.5;
  params.presence_penalty = 0.5;
  params.logit_bias = {{0, 100.0f}, {64, 100.0f}};  // forbidden ones, made likely
  params.top_logprobs = 2;
  const std::vector<uint64_t> mask = {0xF0, 0, 0xFFFF0000, 0};
  Sampler masked(params), free(params);
  for (uint64_t n = 0; n < 200; ++n) {
    std::vector<float> a = logits, b = logits;
    const SampledToken token = masked.Sample(a, n, mask);
    const auto id = static_cast<size_t>(token.id);
    ASSERT_TRUE(mask[id / 64] >> (id % 64) & 1) << id;
    ASSERT_EQ(token.top[0].id, free.Sample(b, n).top[0].id);
    SamplingParams all;
    all.top_logprobs = kVocab;
    std::vector<float> c = logits;
    for (const TokenLogprob& t : Sampler(all).Sample(c, n).top) {
      if (t.id == token.id) {
        ASSERT_EQ(t.logprob, token.logprob);
      }
    }
    masked.Accept(token.id);
  }
}

TEST(Sampler, LogprobsAmongTheAllowedWhenAskedFor) {
  constexpr int kVocab = 200;
  const std::vector<float> logits = RandomLogits(kVocab, 3, 4);
  const std::vector<uint64_t> mask = {0xF0, 0, 0xFFFF0000, 0};
  SamplingParams params;
  params.top_logprobs = kVocab;
  params.frequency_penalty = 1;
  const auto sample = [&](bool masked) {
    params.masked_logprobs = masked;
    Sampler sampler(params);
    sampler.Accept(5);  // penalties change the draw, not what is reported
    std::vector<float> scratch = logits;
    return sampler.Sample(scratch, 1, mask);
  };
  const SampledToken before = sample(false), after = sample(true);
  EXPECT_EQ(before.id, after.id);
  EXPECT_EQ(before.top.size(), static_cast<size_t>(kVocab));
  ASSERT_EQ(after.top.size(), 20u);
  double allowed = 0, sum = 0;
  for (const TokenLogprob& t : before.top) {
    const auto id = static_cast<size_t>(t.id);
    if ((mask[id / 64] >> (id % 64) & 1) != 0) allowed += std::exp(static_cast<double>(t.logprob));
  }
  for (const TokenLogprob& t : after.top) sum += std::exp(static_cast<double>(t.logprob));
  EXPECT_NEAR(sum, 1, 1e-5);
  EXPECT_NEAR(after.logprob, before.logprob - std::log(allowed), 1e-5);
}

TEST(Sampler, NeverPicksWhatIsNotFinite) {
  std::vector<float> logits = RandomLogits(5000, 3, 2);
  for (size_t i = 0; i < logits.size(); i += 3) logits[i] = i % 2 == 0 ? kNan : (i % 5 == 0 ? kInf : -kInf);
  for (double top_p : {1.0, 0.8}) {
    SamplingParams params;
    params.top_p = top_p;
    ExpectInverseCdf(logits, params, 200);
  }
  SamplingParams greedy;
  greedy.temperature = 0;
  greedy.top_logprobs = 3;
  std::vector<float> scratch = logits;
  const SampledToken token = Sampler(greedy).Sample(scratch, 0);
  EXPECT_TRUE(token.finite);
  for (float l : logits) EXPECT_TRUE(!std::isfinite(l) || l <= logits[static_cast<size_t>(token.id)]);
  ASSERT_EQ(token.top.size(), 3u);
  EXPECT_EQ(token.top[0].id, token.id);
}

TEST(Sampler, SaysWhenNoLogitIsFinite) {
  for (double temperature : {0.0, 1.0}) {
    SamplingParams params;
    params.temperature = temperature;
    params.top_logprobs = 2;
    std::vector<float> logits = {kNan, kInf, -kInf, kNan};
    const std::vector<uint64_t> mask = {0b1100};
    SampledToken token = Sampler(params).Sample(logits, 0, mask);
    EXPECT_FALSE(token.finite);
    EXPECT_EQ(token.id, 2);
    logits = {kNan, kNan};
    token = Sampler(params).Sample(logits, 0);
    EXPECT_FALSE(token.finite);
    EXPECT_EQ(token.id, 0);
    EXPECT_TRUE(token.top.empty());
  }
}

TEST(Sampler, ExtremeTemperatures) {
  std::vector<float> logits = {1.0f, 3.0f, 2.9999f, -1e38f, 3.0f, kNan};
  for (double temperature : {1e-300, 5e-324, 1e-6}) {
    SamplingParams params;
    params.temperature = temperature;
    std::set<int32_t> seen;
    Sampler sampler(params);
    for (uint64_t n = 0; n < 100; ++n) {
      std::vector<float> scratch = logits;
      seen.insert(sampler.Sample(scratch, n).id);
    }
    EXPECT_THAT(seen, testing::ElementsAre(1, 4)) << temperature;
  }
  SamplingParams flat;
  flat.temperature = 1e30;
  std::map<int32_t, int> counts;
  Sampler sampler(flat);
  const std::vector<float> wide = {1e6f, -1e6f, 0.0f, -kInf};
  for (uint64_t n = 0; n < 3000; ++n) {
    std::vector<float> scratch = wide;
    ++counts[sampler.Sample(scratch, n).id];
  }
  EXPECT_EQ(counts.count(3), 0u);
  // Binomial(3000, 1/3): mean 1000, standard deviation 26; six of them.
  for (int32_t id = 0; id < 3; ++id) EXPECT_NEAR(counts[id], 1000, 6 * 26);
}

TEST(Sampler, PenaltiesAndBias) {
  const std::vector<float> logits = {2.0f, -1.0f, 0.5f, 0.25f, 1.0f};
  SamplingParams params;
  params.temperature = 0;
  const auto pick = [&](const SamplingParams& p, std::span<const int32_t> prompt, std::span<const int32_t> output) {
    Sampler sampler(p);
    sampler.SetPrompt(prompt);
    for (int32_t id : output) sampler.Accept(id);
    std::vector<float> scratch = logits;
    sampler.Sample(scratch, 0);
    return scratch;  // greedy leaves the changed logits behind
  };
  using testing::ElementsAre;
  using testing::FloatEq;
  SamplingParams repetition = params;
  repetition.repetition_penalty = 2;
  // 0 in both, 1 in the prompt, 2 in the output: each once, however often it occurs.
  EXPECT_THAT(pick(repetition, std::vector<int32_t>{0, 1, 1}, std::vector<int32_t>{0, 2, 2}),
              ElementsAre(1.0f, -2.0f, 0.25f, 0.25f, 1.0f));
  SamplingParams frequency = params;
  frequency.frequency_penalty = 0.5;
  EXPECT_THAT(pick(frequency, std::vector<int32_t>{3}, std::vector<int32_t>{0, 0, 2}),
              ElementsAre(1.0f, -1.0f, 0.0f, 0.25f, 1.0f));
  SamplingParams presence = params;
  presence.presence_penalty = -1.5;
  EXPECT_THAT(pick(presence, std::vector<int32_t>{3}, std::vector<int32_t>{0, 0, 2}),
              ElementsAre(3.5f, -1.0f, 2.0f, 0.25f, 1.0f));
  SamplingParams bias = params;
  bias.logit_bias = {{1, 100.0f}, {4, -100.0f}};
  EXPECT_THAT(pick(bias, {}, {}), ElementsAre(2.0f, 99.0f, 0.5f, 0.25f, -99.0f));
  // Ids that the row does not have are left alone.
  SamplingParams everything = repetition;
  everything.frequency_penalty = 1;
  EXPECT_THAT(pick(everything, std::vector<int32_t>{-1, 5}, std::vector<int32_t>{7, -9}),
              ElementsAre(2.0f, -1.0f, 0.5f, 0.25f, 1.0f));
}

TEST(Sampler, LogprobsAreTheLogSoftmaxOfTheRawLogits) {
  const std::vector<float> logits = RandomLogits(20000, 8, 21);
  double sum = 0;
  for (float l : logits) sum += std::exp(static_cast<double>(l));
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  SamplingParams params;
  params.temperature = 0.7;
  params.top_p = 0.95;
  params.repetition_penalty = 1.3;
  params.frequency_penalty = 0.4;
  params.logit_bias = {{order[1], -3.0f}, {order[50], 9.0f}};
  params.top_logprobs = 20;
  Sampler sampler(params);
  sampler.SetPrompt(std::vector<int32_t>{order[0], order[50]});
  for (uint64_t n = 0; n < 20; ++n) {
    std::vector<float> scratch = logits;
    const SampledToken token = sampler.Sample(scratch, n);
    sampler.Accept(token.id);
    const auto expected = [&](int32_t id) {
      return static_cast<double>(logits[static_cast<size_t>(id)]) - std::log(sum);
    };
    // The sum is good to 3e-7 of itself, and the result is rounded to float at a magnitude below 32.
    EXPECT_NEAR(token.logprob, expected(token.id), 4e-6);
    ASSERT_EQ(token.top.size(), 20u);
    for (size_t i = 0; i < 20; ++i) {
      EXPECT_EQ(token.top[i].id, order[i]);
      EXPECT_NEAR(token.top[i].logprob, expected(order[i]), 4e-6);
    }
  }
  params.top_logprobs = 0;
  std::vector<float> scratch = logits;
  EXPECT_TRUE(Sampler(params).Sample(scratch, 0).top.empty());
  params.top_logprobs = 5;
  std::vector<float> three = {1.0f, 1.0f, 2.0f};
  const SampledToken token = Sampler(params).Sample(three, 0);
  ASSERT_EQ(token.top.size(), 3u);
  EXPECT_EQ(token.top[0].id, 2);
  EXPECT_EQ(token.top[1].id, 0);
}

TEST(Sampler, SameSeedAndPositionSameTokenWhateverCameBefore) {
  const std::vector<float> logits = RandomLogits(5000, 3, 8);
  SamplingParams params;
  params.seed = 1234;
  Sampler first(params), second(params);
  std::vector<int32_t> tokens;
  for (uint64_t n = 0; n < 64; ++n) {
    std::vector<float> scratch = logits;
    tokens.push_back(first.Sample(scratch, n).id);
  }
  for (uint64_t n = 64; n-- > 0;) {
    std::vector<float> scratch = logits;
    EXPECT_EQ(second.Sample(scratch, n).id, tokens[n]);
  }
  params.seed = 1235;
  Sampler other(params);
  int same = 0;
  for (uint64_t n = 0; n < 64; ++n) {
    std::vector<float> scratch = logits;
    same += other.Sample(scratch, n).id == tokens[n];
  }
  // No token has more than 1 % here: 64 independent draws agree in about half a case.
  EXPECT_LT(same, 8);
}

TEST(Sampler, ValidationNamesTheField) {
  const auto message = [](auto&& set) {
    SamplingParams params;
    set(params);
    const Status status = ValidateSampling(params, 100);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return status.message();
  };
  using testing::HasSubstr;
  EXPECT_TRUE(ValidateSampling(SamplingParams{}, 100).ok());
  EXPECT_THAT(message([](auto& p) { p.temperature = -0.1; }), HasSubstr("temperature"));
  EXPECT_THAT(message([](auto& p) { p.temperature = static_cast<double>(kNan); }), HasSubstr("temperature"));
  EXPECT_THAT(message([](auto& p) { p.temperature = static_cast<double>(kInf); }), HasSubstr("temperature"));
  EXPECT_THAT(message([](auto& p) { p.top_p = 0; }), HasSubstr("top_p"));
  EXPECT_THAT(message([](auto& p) { p.top_p = 1.01; }), HasSubstr("top_p"));
  EXPECT_THAT(message([](auto& p) { p.top_k = -1; }), HasSubstr("top_k"));
  EXPECT_THAT(message([](auto& p) { p.min_p = 2; }), HasSubstr("min_p"));
  EXPECT_THAT(message([](auto& p) { p.repetition_penalty = 0; }), HasSubstr("repetition_penalty"));
  EXPECT_THAT(message([](auto& p) { p.frequency_penalty = 2.5; }), HasSubstr("frequency_penalty"));
  EXPECT_THAT(message([](auto& p) { p.presence_penalty = -2.5; }), HasSubstr("presence_penalty"));
  EXPECT_THAT(message([](auto& p) { p.logit_bias = {{100, 1.0f}}; }), HasSubstr("token 100"));
  EXPECT_THAT(message([](auto& p) { p.logit_bias = {{5, 101.0f}}; }), HasSubstr("token 5"));
  EXPECT_THAT(message([](auto& p) { p.top_logprobs = -2; }), HasSubstr("top_logprobs"));
}

}  // namespace
}  // namespace gptoss
