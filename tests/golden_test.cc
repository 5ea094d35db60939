// The whole model against logits, hidden states and router choices of OpenAI's own implementation
// (tests/data/golden/README.md), through the reference ops and through every CPU target.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/logit_metrics.h"
#include "golden_model.h"

namespace gptoss {
namespace {

struct Case {
  std::string model, sequence;
  int rows;  // recorded positions, the last ones
};

const std::vector<Case> kCases = {{"micro", "s7", 7},     {"micro", "s300", 300}, {"micro", "r244", 10},
                                  {"micro", "r266", 10},  {"micro", "r275", 10},  {"small", "s7", 7},
                                  {"small", "s300", 300}, {"small", "r178", 10}};

LogitMetrics Compare(const Case& c, const std::vector<float>& got) {
  return CompareWithGolden(got, c.model + "/" + c.sequence + ".logits.f32.npy", c.rows);
}

RunnerOptions Options(DType kv, int chunk = 512, int context = 8192) {
  return {.max_context = context, .max_sequences = 1, .chunk_tokens = chunk, .kv_dtype = kv};
}

// Float arithmetic in any order stays within 2e-5 of the official float run (measured noise of equivalent runs: 3e-6).
TEST(Golden, FloatLogitsOfEverySequenceOnEveryTarget) {
  for (const NamedOps& ops : AllOps(Precision::kExact)) {
    for (const std::string model : {"micro", "small"}) {
      auto loaded =
          LoadGolden(GoldenCheckpoint(model, "hf"), *ops.ops, DensePrecision::kAsStored, Options(DType::kF32));
      ASSERT_NE(loaded, nullptr);
      for (const Case& c : kCases) {
        if (c.model != model) continue;
        const auto tokens = GoldenTokens(model, c.sequence);
        const LogitMetrics m = Compare(c, LastLogits(*loaded->runner, tokens, c.rows));
        EXPECT_LE(m.rel_l2(), 2e-5) << ops.name << " " << model << "/" << c.sequence;
        EXPECT_EQ(m.nonfinite(), 0);
        EXPECT_EQ(m.rows(), c.rows);
      }
    }
  }
}

// Past YaRN's initial context; float rotary angles alone account for 6e-5.
TEST(Golden, FloatLogitsPastTheInitialContext) {
  const Case c = {"micro", "s5000", 8};
  for (const NamedOps& ops : AllOps(Precision::kExact)) {
    auto loaded =
        LoadGolden(GoldenCheckpoint("micro", "hf"), *ops.ops, DensePrecision::kAsStored, Options(DType::kF32));
    ASSERT_NE(loaded, nullptr);
    const LogitMetrics m = Compare(c, LastLogits(*loaded->runner, GoldenTokens("micro", "s5000"), 8));
    EXPECT_LE(m.rel_l2(), 3e-4) << ops.name;
    EXPECT_EQ(m.top1(), 1.0) << ops.name;
  }
}

// The default precision (int8 output projections, BF16 cache, the target's fast kernels) must not be further from the
// float truth than the official code is when run as shipped, in BF16.
TEST(Golden, DefaultPrecisionIsNoFurtherFromTheTruthThanTheOfficialBf16Run) {
  for (const NamedOps& ops : AllOps(Precision::kFast)) {
    for (const std::string model : {"micro", "small"}) {
      const Case c = {model, "s300", 300};
      auto loaded =
          LoadGolden(GoldenCheckpoint(model, "hf"), *ops.ops, DensePrecision::kDefault, Options(DType::kBF16));
      ASSERT_NE(loaded, nullptr);
      const LogitMetrics ours = Compare(c, LastLogits(*loaded->runner, GoldenTokens(model, "s300"), 300));
      const NpyArray bf16 = GoldenArray(model + "/s300.logits.bf16.npy");
      const auto official_logits = bf16.As<float>();
      const LogitMetrics official = Compare(c, {official_logits.begin(), official_logits.end()});
      std::printf("%-9s %s: mean KL %.2e (official BF16 %.2e), rel L2 %.2e (%.2e), top-1 %.4f (%.4f)\n",
                  ops.name.c_str(), model.c_str(), ours.kl_mean(), official.kl_mean(), ours.rel_l2(), official.rel_l2(),
                  ours.top1(), official.top1());
      EXPECT_LE(ours.kl_mean(), official.kl_mean()) << ops.name << " " << model;
      EXPECT_LE(ours.rel_l2(), official.rel_l2()) << ops.name << " " << model;
    }
  }
}

/// Collects what the hook sees, by layer and stage, and the routing.
class Recorder : public ActivationHook {
 public:
  void OnActivation(int layer, Stage stage, std::span<const float> values) override {
    auto& all = activations[{layer, stage}];
    all.insert(all.end(), values.begin(), values.end());
  }
  void OnRouting(int layer, const Routing& routing) override {
    auto& e = experts[layer];
    e.insert(e.end(), routing.expert.begin(), routing.expert.end());
    auto& w = weights[layer];
    w.insert(w.end(), routing.weight.begin(), routing.weight.end());
    rows[layer].assign(routing.grouped_row.begin(), routing.grouped_row.end());
  }
  std::map<std::pair<int, Stage>, std::vector<float>> activations;
  std::map<int, std::vector<int32_t>> experts, rows;
  std::map<int, std::vector<float>> weights;
};

double RelL2(std::span<const float> want, std::span<const float> got) {
  EXPECT_EQ(want.size(), got.size());
  double d = 0, n = 0;
  for (size_t i = 0; i < std::min(want.size(), got.size()); ++i) {
    d += (double{want[i]} - got[i]) * (double{want[i]} - got[i]);
    n += double{want[i]} * want[i];
  }
  return std::sqrt(d / n);
}

TEST(Golden, EveryStageOfEveryLayer) {
  const struct {
    Stage stage;
    const char* file;
  } kStages[] = {{Stage::kAttnNorm, "attn_norm"},
                 {Stage::kQuery, "q_rope"},
                 {Stage::kAttention, "sdpa"},
                 {Stage::kMlpNorm, "mlp_norm"}};
  for (const NamedOps& ops : AllOps(Precision::kExact)) {
    auto loaded =
        LoadGolden(GoldenCheckpoint("micro", "hf"), *ops.ops, DensePrecision::kAsStored, Options(DType::kF32));
    ASSERT_NE(loaded, nullptr);
    Recorder recorder;
    LastLogits(*loaded->runner, GoldenTokens("micro", "s7"), 7, &recorder);
    EXPECT_EQ(
        RelL2(GoldenArray("micro/stages_s7/embedding.npy").As<float>(), recorder.activations[{-1, Stage::kEmbedding}]),
        0.0);
    EXPECT_LE(
        RelL2(GoldenArray("micro/stages_s7/final_norm.npy").As<float>(), recorder.activations[{-1, Stage::kFinalNorm}]),
        2e-5);
    for (const auto& [stage, file] : kStages) {
      const NpyArray golden = GoldenArray(std::string("micro/stages_s7/") + file + ".npy");
      const size_t size = golden.As<float>().size() / 4;
      for (int layer = 0; layer < 4; ++layer) {
        EXPECT_LE(RelL2(golden.As<float>().subspan(layer * size, size), recorder.activations[{layer, stage}]), 2e-5)
            << ops.name << " " << file << " layer " << layer;
      }
    }
    // Our SwiGLU rows are grouped by expert; the golden ones stand by token and choice.
    const NpyArray swiglu = GoldenArray("micro/stages_s7/swiglu.npy");
    for (int layer = 0; layer < 4; ++layer) {
      std::vector<float> regrouped;
      for (int32_t row : recorder.rows[layer]) {
        const float* h = recorder.activations[{layer, Stage::kSwiglu}].data() + row * 128;
        regrouped.insert(regrouped.end(), h, h + 128);
      }
      EXPECT_LE(RelL2(swiglu.As<float>().subspan(layer * regrouped.size(), regrouped.size()), regrouped), 2e-5)
          << ops.name << " layer " << layer;
    }
  }
}

TEST(Golden, HiddenStatesAndRouterChoicesOverTheWindow) {
  for (const NamedOps& ops : AllOps(Precision::kExact)) {
    auto loaded =
        LoadGolden(GoldenCheckpoint("micro", "hf"), *ops.ops, DensePrecision::kAsStored, Options(DType::kF32));
    ASSERT_NE(loaded, nullptr);
    Recorder recorder;
    LastLogits(*loaded->runner, GoldenTokens("micro", "s300"), 300, &recorder);
    const NpyArray attn = GoldenArray("micro/s300.hidden_attn.f32.npy"),
                   mlp = GoldenArray("micro/s300.hidden_mlp.f32.npy");
    const NpyArray logits = GoldenArray("micro/s300.router_logits.f32.npy"),
                   index = GoldenArray("micro/s300.router_index.f32.npy");
    const size_t hidden = 300 * 128, experts = 300 * 8, k = 4;
    for (int layer = 0; layer < 4; ++layer) {
      EXPECT_LE(
          RelL2(attn.As<float>().subspan(layer * hidden, hidden), recorder.activations[{layer, Stage::kAfterAttn}]),
          2e-5);
      EXPECT_LE(RelL2(mlp.As<float>().subspan(layer * hidden, hidden), recorder.activations[{layer, Stage::kAfterMlp}]),
                2e-5);
      const auto want = logits.As<float>().subspan(layer * experts, experts);
      EXPECT_LE(RelL2(want, recorder.activations[{layer, Stage::kRouterLogits}]), 2e-5);
      for (size_t t = 0; t < 300; ++t) {
        std::vector<float> sorted(want.begin() + static_cast<int64_t>(t * 8),
                                  want.begin() + static_cast<int64_t>(t * 8 + 8));
        std::sort(sorted.rbegin(), sorted.rend());
        if (sorted[k - 1] - sorted[k] <= 1e-3f) continue;  // a near tie may fall either way
        std::vector<int32_t> a(recorder.experts[layer].begin() + static_cast<int64_t>(t * k),
                               recorder.experts[layer].begin() + static_cast<int64_t>(t * k + k));
        const auto golden = index.As<int32_t>().subspan((layer * 300 + t) * k, k);
        std::vector<int32_t> b(golden.begin(), golden.end());
        std::sort(a.begin(), a.end());
        std::sort(b.begin(), b.end());
        EXPECT_EQ(a, b) << ops.name << " layer " << layer << " token " << t;
      }
    }
  }
}

TEST(Golden, GreedyTokensOfTheFloatRun) {
  for (const NamedOps& ops : AllOps(Precision::kExact)) {
    for (const std::string model : {"micro", "small"}) {
      auto loaded =
          LoadGolden(GoldenCheckpoint(model, "hf"), *ops.ops, DensePrecision::kAsStored, Options(DType::kF32));
      ASSERT_NE(loaded, nullptr);
      const Json greedy = GoldenJson(model + "/greedy.json");
      for (const Case& c : kCases) {
        if (c.model != model || !greedy.contains(c.sequence)) continue;
        const auto want = greedy.at(c.sequence).at("f32").at("tokens").get<std::vector<int32_t>>();
        auto sequence = loaded->runner->NewSequence();
        sequence->Append(GoldenTokens(model, c.sequence));
        std::vector<float> logits(loaded->weights.config.vocab_size);
        std::vector<int32_t> got;
        Sequence* const one[] = {sequence.get()};
        const Status prefilled = loaded->runner->Compute(*sequence, static_cast<int>(sequence->tokens().size()) - 1,
                                                         [&](int, LogitRow& row) {
                                                           std::ranges::copy(*row.OnHost(), logits.begin());
                                                           return Status();
                                                         });
        ASSERT_TRUE(prefilled.ok());
        while (got.size() < want.size()) {
          got.push_back(static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
          sequence->Append(got.back());
          ASSERT_TRUE(ComputeLast(*loaded->runner, one, logits).ok());
        }
        EXPECT_EQ(got, want) << ops.name << " " << model << "/" << c.sequence;
      }
    }
  }
}

TEST(Golden, BothLayoutsGiveTheSameBits) {
  for (const std::string model : {"micro", "small"}) {
    std::vector<std::vector<float>> logits;
    for (const std::string layout : {"hf", "original"}) {
      auto loaded =
          LoadGolden(GoldenCheckpoint(model, layout), ReferenceOps(), DensePrecision::kAsStored, Options(DType::kF32));
      ASSERT_NE(loaded, nullptr);
      logits.push_back(LastLogits(*loaded->runner, GoldenTokens(model, "s7"), 7));
    }
    EXPECT_EQ(logits[0], logits[1]) << model;
  }
}

}  // namespace
}  // namespace gptoss
