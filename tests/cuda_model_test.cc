// The whole model on an emulated GPU, whose memory the host cannot touch, against numbers of OpenAI's own
// implementation: what the kernels' tests leave is how the model, the cache and the loader use a device.

#include <gtest/gtest.h>

#include "backends/cuda/cuda_ops.h"
#include "backends/cuda/emulator/emulator.h"
#include "engine/verify.h"
#include "golden_model.h"

namespace gptoss {
namespace {

RunnerOptions Options(DType kv, int chunk) {
  return {.max_context = 512, .max_sequences = 1, .chunk_tokens = chunk, .kv_dtype = kv};
}

TEST(CudaModel, FloatLogits) {
  const auto gpu = cuda::EmulatedDevice();
  auto loaded = LoadGolden(GoldenCheckpoint("micro", "hf"), cuda::ExactOps(), DensePrecision::kAsStored,
                           Options(DType::kF32, 64), *gpu);
  ASSERT_NE(loaded, nullptr);
  const LogitMetrics few =
      CompareWithGolden(LastLogits(*loaded->runner, GoldenTokens("micro", "s7"), 7), "micro/s7.logits.f32.npy", 7);
  EXPECT_LE(few.rel_l2(), 2e-5);  // as on CPUs: golden_test.cc
  EXPECT_EQ(few.rows(), 7);
  const LogitMetrics past_the_window = CompareWithGolden(LastLogits(*loaded->runner, GoldenTokens("micro", "r244"), 10),
                                                         "micro/r244.logits.f32.npy", 10);
  EXPECT_LE(past_the_window.rel_l2(), 2e-5);
  EXPECT_EQ(past_the_window.nonfinite(), 0);
}

// Tensor cores for the chunk of 300 rows, single rows afterwards.
TEST(CudaModel, DefaultPrecisionIsNoFurtherFromTheTruthThanTheOfficialBf16Run) {
  const auto gpu = cuda::EmulatedDevice();
  auto loaded = LoadGolden(GoldenCheckpoint("micro", "hf"), cuda::FastOps(), DensePrecision::kDefault,
                           Options(DType::kBF16, 512), *gpu);
  ASSERT_NE(loaded, nullptr);
  const LogitMetrics ours = CompareWithGolden(LastLogits(*loaded->runner, GoldenTokens("micro", "s300"), 300),
                                              "micro/s300.logits.f32.npy", 300);
  const NpyArray bf16 = GoldenArray("micro/s300.logits.bf16.npy");
  const auto official_logits = bf16.As<float>();
  const LogitMetrics official =
      CompareWithGolden({official_logits.begin(), official_logits.end()}, "micro/s300.logits.f32.npy", 300);
  EXPECT_LE(ours.kl_mean(), official.kl_mean());
  EXPECT_LE(ours.rel_l2(), official.rel_l2());
}

TEST(CudaModel, VerifyPassesAndSeesAWrongWindow) {
  const auto gpu = cuda::EmulatedDevice();
  auto on_gpu = LoadGolden(GoldenCheckpoint("micro", "hf"), cuda::FastOps(), DensePrecision::kDefault,
                           Options(DType::kBF16, 64), *gpu);
  auto on_host =
      LoadGolden(GoldenCheckpoint("micro", "hf"), ReferenceOps(), DensePrecision::kDefault, Options(DType::kBF16, 64));
  ASSERT_NE(on_gpu, nullptr);
  ASSERT_NE(on_host, nullptr);
  const VerifyOptions options{.positions = {0, 127}};
  const auto verify = [&](const Ops& ops) {
    return VerifyOps(on_gpu->weights, ops, ReferenceOps(), on_host->pool, options, nullptr, &on_host->weights);
  };
  const auto report = verify(cuda::FastOps());
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_TRUE(report->passed) << report->failure;
  Ops broken = cuda::FastOps();
  broken.attention = [](ExecContext& context, const AttentionArgs& args) {
    AttentionArgs wrong = args;
    if (wrong.window > 0) --wrong.window;
    cuda::FastOps().attention(context, wrong);
  };
  const auto seen = verify(broken);
  ASSERT_TRUE(seen.ok()) << seen.status().message();
  EXPECT_FALSE(seen->passed);
}

}  // namespace
}  // namespace gptoss
