// Sampling from logits on a GPU, emulated or real (test_gpu.h), against sampling on the host: the same numbers, the
// same tokens.

#include "engine/device_logits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "backends/cuda/cuda_ops.h"
#include "base/rng.h"
#include "sampling/sampler.h"
#include "test_gpu.h"

namespace gptoss {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Spread as a model's are, with ties, both zeros, and what is no number.
std::vector<float> Logits(size_t vocab, uint64_t seed) {
  const RandomStream random(seed, 1);
  std::vector<float> logits(vocab);
  for (size_t i = 0; i < vocab; ++i) {  // about normal, of deviation 4
    const double sum = random.Uniform(3 * i) + random.Uniform(3 * i + 1) + random.Uniform(3 * i + 2);
    logits[i] = static_cast<float>((sum - 1.5) * 8);
  }
  for (size_t i = 5; i + 40 < vocab; i += 97) logits[i + 40] = logits[i];
  if (vocab > 20) {
    logits[3] = std::nanf("");
    logits[7] = kInfinity;
    logits[11] = -kInfinity;
    logits[13] = 0.0f;
    logits[14] = -0.0f;
  }
  return logits;
}

class DeviceLogitsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (testing_util::TestGpu() == nullptr) GTEST_SKIP() << testing_util::WhyNoGpu();
  }
};

/// A row on the device and the same on the host.
struct Rows {
  explicit Rows(const std::vector<float>& logits)
      : host_copy(logits), memory(*DeviceBuffer::Allocate(*device, logits.size() * sizeof(float))) {
    device->Upload(memory.data(), logits.data(), memory.size());
  }

  Device* device = testing_util::TestGpu();
  ThreadPool pool{1};
  ScratchArena scratch{*device};
  ExecContext context{pool, scratch};
  DeviceLogits::HostMemory host_memory;
  std::vector<float> host_copy, weights;
  DeviceBuffer memory;
  DeviceLogits on_device{context, cuda::kLogitOps, reinterpret_cast<float*>(memory.data()), host_copy.size(),
                         &host_memory};
  HostLogits on_host{host_copy, &weights};
  bool brought() const { return !host_memory.logits.empty(); }
};

TEST_F(DeviceLogitsTest, LargestAndSummary) {
  for (const size_t vocab : {1u, 2u, 33u, 1024u, 1025u, 5000u}) {
    Rows rows(Logits(vocab, vocab));
    const TokenLogit largest = *rows.on_device.Largest(), expected = *rows.on_host.Largest();
    EXPECT_EQ(largest.id, expected.id) << vocab;
    EXPECT_EQ(largest.logit, expected.logit) << vocab;
    for (const size_t count : {0u, 1u, 20u, 900u}) {
      const LogitSummary summary = *rows.on_device.Summarize(count), wanted = *rows.on_host.Summarize(count);
      // A weight's relative error is at most 3e-7 on both sides, the sums of doubles add nothing to that.
      EXPECT_NEAR(summary.log_sum, wanted.log_sum, 1e-6) << vocab;
      ASSERT_EQ(summary.likeliest.size(), wanted.likeliest.size()) << vocab << " " << count;
      for (size_t i = 0; i < wanted.likeliest.size(); ++i) {
        EXPECT_EQ(summary.likeliest[i].id, wanted.likeliest[i].id) << vocab << " " << count << " " << i;
        EXPECT_EQ(summary.likeliest[i].logit, wanted.likeliest[i].logit);
      }
    }
    EXPECT_FALSE(rows.brought());
  }
}

TEST_F(DeviceLogitsTest, NothingFinite) {
  Rows rows({std::nanf(""), -kInfinity, kInfinity});
  EXPECT_EQ(rows.on_device.Largest()->id, -1);
  EXPECT_EQ(rows.on_device.Summarize(2)->log_sum, static_cast<double>(-kInfinity));
  EXPECT_TRUE(rows.on_device.Summarize(2)->likeliest.empty());
  EXPECT_EQ(rows.on_device.Draw({.uniform = 0.5})->id, -1);
  EXPECT_EQ(rows.on_device.Draw({.top_p = 0.5, .uniform = 0.5})->id, -1);
}

TEST_F(DeviceLogitsTest, ChangesAndMasksShow) {
  Rows rows(Logits(3000, 1));
  std::vector<uint64_t> mask(3000 / 64 + 1, 0x5555555555555555u);
  mask[2] = 0;
  mask[4] = ~uint64_t{0};
  const std::vector<int32_t> ids = {2999, 8, 1500};
  const std::vector<float> values = {30.0f, 20.0f, -1.0f};
  for (LogitRow* row : {static_cast<LogitRow*>(&rows.on_device), static_cast<LogitRow*>(&rows.on_host)}) {
    ASSERT_TRUE(row->Write(ids, values).ok());
    ASSERT_TRUE(row->Forbid(mask).ok());
  }
  EXPECT_EQ(rows.on_device.Largest()->id, 8) << "2999 is odd, and forbidden";
  std::vector<float> read(3);
  ASSERT_TRUE(rows.on_device.Read(ids, read).ok());
  EXPECT_EQ(read, (std::vector<float>{-kInfinity, 20.0f, -1.0f}));
  const std::span<float> all = *rows.on_device.OnHost();
  EXPECT_EQ(std::memcmp(all.data(), rows.host_copy.data(), all.size_bytes()), 0);
  all[10] = 99.0f;
  EXPECT_EQ(rows.on_device.Largest()->id, 10) << "the row lives on the host from then on";
}

TEST_F(DeviceLogitsTest, DrawsInvertTheSameDistribution) {
  for (const size_t vocab : {1u, 100u, 1025u, 4500u}) {
    const std::vector<float> logits = Logits(vocab, 7);
    Rows rows(logits);
    for (const double temperature : {0.3, 1.0, 5.0}) {
      for (const double uniform : {0.0, 1e-9, 0.1, 0.5, 0.77, 0.99999}) {
        const DrawParams params{.temperature = temperature, .uniform = uniform};
        EXPECT_EQ(rows.on_device.Draw(params)->id, rows.on_host.Draw(params)->id)
            << vocab << " " << temperature << " " << uniform;
      }
    }
    EXPECT_FALSE(rows.brought());
  }
}

// Whole samplers: every control, with a mask, with log-probabilities, on both.
TEST_F(DeviceLogitsTest, SamplersChooseTheSameTokens) {
  std::vector<SamplingParams> settings(9);
  settings[0].temperature = 0;
  settings[1].top_logprobs = 20;
  settings[2].top_k = 40;
  settings[3].top_p = 0.9;
  settings[4].min_p = 0.05;
  settings[5].temperature = 0.7;
  settings[5].top_p = 0.8;
  settings[5].top_k = 100;
  settings[5].min_p = 0.01;
  settings[5].top_logprobs = 0;
  settings[6].temperature = 1.5;
  settings[6].repetition_penalty = 1.3;
  settings[6].frequency_penalty = 0.5;
  settings[6].presence_penalty = 0.2;
  settings[6].logit_bias = {{17, 3.5f}, {4000, -100.0f}, {17, 1.0f}};
  settings[7].temperature = 0;
  settings[7].top_logprobs = 3;
  settings[7].masked_logprobs = true;
  settings[7].logit_bias = {{18, 40.0f}};
  settings[8].temperature = 1e-40;
  settings[8].top_p = 0.5;
  std::vector<uint64_t> mask(4500 / 64 + 1, 0xF0F0F0F0F0F0F0F0u);
  for (size_t s = 0; s < settings.size(); ++s) {
    Sampler device(settings[s]), host(settings[s]);
    for (uint64_t position = 0; position < 6; ++position) {
      Rows rows(Logits(4500, position));
      const std::span<const uint64_t> allowed(mask.data(), position % 2 == 0 ? 0 : mask.size());
      const SampledToken got = *device.Sample(rows.on_device, position, allowed);
      const SampledToken want = *host.Sample(rows.on_host, position, allowed);
      EXPECT_EQ(got.id, want.id) << s << " " << position;
      EXPECT_NEAR(got.logprob, want.logprob, 1e-5f) << s;  // of logits up to 16: 16 * 2^-24 twice, and 1e-6
      ASSERT_EQ(got.top.size(), want.top.size());
      for (size_t i = 0; i < want.top.size(); ++i) EXPECT_EQ(got.top[i].id, want.top[i].id);
      EXPECT_FALSE(rows.brought()) << s;
      device.Accept(got.id);
      host.Accept(got.id);
    }
  }
}

// What is not among the likeliest is looked for in the whole row.
TEST_F(DeviceLogitsTest, FlatDistributionsComeOver) {
  std::vector<float> flat(4500, 1.0f);
  for (const DrawParams& params : {DrawParams{.top_p = 0.9, .uniform = 0.8}, DrawParams{.top_k = 2000, .uniform = 0.9},
                                   DrawParams{.min_p = 0.5, .uniform = 0.99}}) {
    Rows rows(flat);
    const TokenLogit drawn = *rows.on_device.Draw(params);
    EXPECT_EQ(drawn.id, rows.on_host.Draw(params)->id);
    EXPECT_GT(drawn.id, 1500);
    EXPECT_TRUE(rows.brought());
  }
  Rows rows(flat);
  EXPECT_EQ(rows.on_device.Summarize(4500)->likeliest.size(), 4500u);
  EXPECT_TRUE(rows.brought());
}

}  // namespace
}  // namespace gptoss
