// The bytes and stages that reports quote are those of the passes that ran.

#include "engine/traffic.h"

#include <gtest/gtest.h>

#include "golden_model.h"

namespace gptoss {
namespace {

/// Counts experts with rows on its own.
class ExpertCounter : public ActivationHook {
 public:
  void OnActivation(int, Stage, std::span<const float>) override {}
  void OnRouting(int, const Routing& routing) override {
    std::vector<bool> seen(static_cast<size_t>(routing.num_experts));
    for (int32_t e : routing.expert) seen[static_cast<size_t>(e)] = true;
    experts += std::count(seen.begin(), seen.end(), true);
  }
  int64_t experts = 0;
};

TEST(Traffic, CountsWhatThePassesTouched) {
  auto loaded = LoadGolden(GoldenCheckpoint("micro", "hf"), **CpuOps("", Precision::kFast), DensePrecision::kAsStored,
                           {.max_context = 400, .max_sequences = 2, .chunk_tokens = 150});
  ASSERT_NE(loaded, nullptr);
  const ModelConfig& c = loaded->model->config();
  const auto all = GoldenTokens("micro", "s300");
  auto one = loaded->runner->NewSequence(), two = loaded->runner->NewSequence();
  one->Append(std::span(all).first(200));
  two->Append(std::span(all).first(40));

  Profiler profiler;
  ExpertCounter experts;
  loaded->runner->set_profiler(&profiler);
  const auto ignore = [](int, LogitRow&) { return Status(); };
  ASSERT_TRUE(loaded->runner->Compute(*one, 199, ignore, &experts).ok());
  EXPECT_EQ(profiler.counts().passes, 2);  // chunks of 150 and 50
  EXPECT_EQ(profiler.counts().rows, 200);
  EXPECT_EQ(profiler.counts().head_passes, 1);
  EXPECT_EQ(profiler.counts().experts, experts.experts);
  EXPECT_GT(experts.experts, 2 * c.num_layers);
  // Full layers read 150, then 200 positions; sliding ones at most the window and the chunk.
  const int64_t sliding = (c.num_layers + 1) / 2, full = c.num_layers - sliding;
  EXPECT_EQ(profiler.counts().kv_positions, full * (150 + 200) + sliding * (150 + 127 + 50));

  loaded->runner->set_profiler(nullptr);
  ASSERT_TRUE(loaded->runner->Compute(*two, 40, nullptr).ok());
  EXPECT_EQ(profiler.counts().rows, 200) << "nothing is counted without a profiler";

  profiler.Reset();
  loaded->runner->set_profiler(&profiler);
  one->Append(1);
  two->Append(2);
  Sequence* both[] = {one.get(), two.get()};
  std::vector<float> logits(2 * static_cast<size_t>(c.vocab_size));
  ASSERT_TRUE(ComputeLast(*loaded->runner, both, logits).ok());
  loaded->runner->set_profiler(nullptr);
  EXPECT_EQ(profiler.counts().passes, 1);
  EXPECT_EQ(profiler.counts().kv_positions, full * (201 + 41) + sliding * (128 + 41));

  const StageReport report = ReportStages(profiler, loaded->weights, DType::kBF16, 10.0);
  double seconds = 0, bytes = 0;
  for (const StageCost& stage : report.stages) {
    seconds += stage.seconds;
    bytes += stage.bytes;
    EXPECT_GT(stage.seconds, 0) << stage.stage;
  }
  EXPECT_NEAR(seconds, 10.0, 1e-9);
  EXPECT_EQ(bytes, report.bytes());
  EXPECT_EQ(report.kv_bytes, static_cast<double>(profiler.counts().kv_positions) * 2 * c.kv_size() * 2);
  EXPECT_LE(report.waiting_s, 10.0);
  EXPECT_EQ(report.experts_per_layer, static_cast<double>(profiler.counts().experts) / c.num_layers);
  // By hand: BF16 matrices once, MXFP4 experts (17 bytes for 32 values) as often as they were used, a float router.
  const double h = c.hidden_size, i = c.intermediate_size, q = c.q_size(), kv = c.kv_size();
  const double expected = c.num_layers * (2 * h * (q + 2 * kv) + 2 * h * q + 4 * h * c.num_experts) +
                          2.0 * h * c.vocab_size + static_cast<double>(profiler.counts().experts) * 3 * h * i * 17 / 32;
  EXPECT_NEAR(report.weight_bytes, expected, 1.0);
}

TEST(Traffic, PrefillInPartsAddsUp) {
  const auto config = NamedConfig("20b");
  ASSERT_TRUE(config.ok());
  const double head = 2.0 * config->vocab_size * config->hidden_size;
  EXPECT_NEAR(PrefillFlop(*config, 0, 300) + PrefillFlop(*config, 300, 500) - head, PrefillFlop(*config, 0, 500), 1e3);
  // 3.6 billion parameters a token, two operations each, and attention.
  EXPECT_NEAR(DecodeFlop(*config, 1, 0), 2 * 3.6e9, 0.05e9);
  EXPECT_NEAR(DecodeFlop(*config, 8, 100), 8 * DecodeFlop(*config, 1, 100), 1.0);
}

}  // namespace
}  // namespace gptoss
