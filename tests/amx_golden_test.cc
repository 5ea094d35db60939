// Whole models through the tile kernel, its instructions emulated and, where the machine has them, for real: what
// rounding activations to BF16 costs.

#include <gtest/gtest.h>

#include <cstdio>

#include "backends/cpu/amx/amx_kernels.h"
#include "engine/logit_metrics.h"
#include "golden_model.h"

namespace gptoss {
namespace {

constexpr int kRows = 300;

LogitMetrics Compare(const std::string& model, std::span<const float> got) {
  const NpyArray golden = GoldenArray(model + "/s300.logits.f32.npy");
  const std::span<const float> want = golden.As<float>();
  LogitMetrics metrics;
  EXPECT_EQ(got.size(), want.size());
  if (got.size() != want.size()) return metrics;
  const size_t vocabulary = want.size() / kRows;
  for (size_t i = 0; i < kRows; ++i) {
    metrics.Add(want.subspan(i * vocabulary, vocabulary), got.subspan(i * vocabulary, vocabulary));
  }
  return metrics;
}

std::vector<float> Logits(const std::string& model, const Ops& ops, DensePrecision dense, DType kv) {
  auto loaded = LoadGolden(GoldenCheckpoint(model, "hf"), ops, dense,
                           {.max_context = 512, .max_sequences = 1, .chunk_tokens = 512, .kv_dtype = kv});
  EXPECT_NE(loaded, nullptr);
  if (loaded == nullptr) return {};
  return LastLogits(*loaded->runner, GoldenTokens(model, "s300"), kRows);
}

// 300 tokens at once: every product but those of rarely chosen experts takes tiles.
void ExpectNoFurtherThanOfficialBf16(const std::string& model, const Ops& ops) {
  const std::vector<float> exact_rest = Logits(model, ops, DensePrecision::kAsStored, DType::kF32);
  EXPECT_NE(exact_rest, Logits(model, **CpuOps("", Precision::kExact), DensePrecision::kAsStored, DType::kF32))
      << "the tile kernel did not run";
  const LogitMetrics alone = Compare(model, exact_rest);
  const LogitMetrics ours = Compare(model, Logits(model, ops, DensePrecision::kDefault, DType::kBF16));
  const NpyArray bf16 = GoldenArray(model + "/s300.logits.bf16.npy");
  const LogitMetrics official = Compare(model, bf16.As<float>());
  for (const auto& [name, m] : {std::pair{"tiles alone", &alone}, {"default", &ours}, {"official BF16", &official}}) {
    std::printf("%s, %s, %-13s: mean KL %.2e, rel L2 %.2e, top-1 %.4f\n", std::string(ops.name).c_str(), model.c_str(),
                name, m->kl_mean(), m->rel_l2(), m->top1());
  }
  EXPECT_LE(ours.kl_mean(), official.kl_mean()) << model;
  EXPECT_LE(ours.rel_l2(), official.rel_l2()) << model;
  EXPECT_EQ(ours.nonfinite(), 0);
}

TEST(AmxGolden, PrefillIsNoFurtherFromTheTruthThanTheOfficialBf16Run) {
  const Ops* ops = cpu::EmulatedAmxOps();
  if (ops == nullptr) GTEST_SKIP() << "emulated AMX: this machine has only the portable kernels";
  for (const std::string model : {"micro", "small"}) ExpectNoFurtherThanOfficialBf16(model, *ops);
}

TEST(AmxGolden, SoWithTheProcessorsTiles) {
  const auto ops = CpuOps("amx", Precision::kFast);
  if (!ops.ok()) GTEST_SKIP() << ops.status().message();
  for (const std::string model : {"micro", "small"}) ExpectNoFurtherThanOfficialBf16(model, **ops);
}

}  // namespace
}  // namespace gptoss
