// Verification must pass for every target of this machine and fail for kernels that are wrong on purpose.

#include "engine/verify.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "golden_model.h"

namespace gptoss {
namespace {

constexpr RunnerOptions kOptions = {
    .max_context = 256, .max_sequences = 1, .chunk_tokens = 64, .kv_dtype = DType::kBF16};

VerifyReport Verify(const Ops& ops) {
  auto loaded = LoadGolden(GoldenCheckpoint("micro", "hf"), ops, DensePrecision::kDefault, kOptions);
  EXPECT_NE(loaded, nullptr);
  VerifyOptions options;
  options.positions = {0, 127, 4095};
  auto report = VerifyOps(loaded->weights, ops, ReferenceOps(), loaded->pool, options, nullptr);
  EXPECT_TRUE(report.ok()) << report.status().message();
  return report.ok() ? *report : VerifyReport{};
}

TEST(Verify, PassesOnEveryTarget) {
  for (const NamedOps& ops : AllOps(Precision::kFast)) {
    const VerifyReport report = Verify(*ops.ops);
    EXPECT_TRUE(report.passed) << ops.name << ": " << report.failure;
    EXPECT_EQ(report.probes.size(), 3u);
    EXPECT_GT(report.probes[0].logits.rows(), 0);
  }
}

// The window is one key too short: nothing shows before position 127.
void AttentionWithShortWindow(ExecContext& context, const AttentionArgs& args) {
  AttentionArgs wrong = args;
  if (wrong.window > 0) --wrong.window;
  ReferenceOps().attention(context, wrong);
}

TEST(Verify, FailsWhenTheWindowIsOneKeyShort) {
  Ops broken = ReferenceOps();
  broken.attention = AttentionWithShortWindow;
  const VerifyReport report = Verify(broken);
  EXPECT_FALSE(report.passed);
  EXPECT_EQ(report.probes[0].worst_rel_l2, 0.0);  // three tokens from position 0 see everything
  EXPECT_NE(report.failure.find("position 127"), std::string::npos) << report.failure;
}

// The experts' clamp is left out.
void GateUpWithoutClamp(ExecContext& context, const MoeGateUpArgs& args) {
  MoeGateUpArgs wrong = args;
  wrong.limit = 1e30f;
  ReferenceOps().moe_gate_up(context, wrong);
}

TEST(Verify, FailsWhenTheClampIsMissing) {
  Ops broken = ReferenceOps();
  broken.moe_gate_up = GateUpWithoutClamp;
  EXPECT_FALSE(Verify(broken).passed);
}

// Sinks are ignored.
void AttentionWithoutSinks(ExecContext& context, const AttentionArgs& args) {
  const std::vector<float> none(static_cast<size_t>(args.num_heads), -1e30f);
  AttentionArgs wrong = args;
  wrong.sinks = none.data();
  ReferenceOps().attention(context, wrong);
}

TEST(Verify, FailsWhenSinksAreIgnored) {
  Ops broken = ReferenceOps();
  broken.attention = AttentionWithoutSinks;
  EXPECT_FALSE(Verify(broken).passed);
}

// The logits are right, the choice is not.
void RouterThatMissesTheBest(ExecContext& context, const RouterArgs& args) {
  ReferenceOps().router(context, args);
  Routing& routing = *args.routing;
  const auto k = static_cast<size_t>(routing.experts_per_token);
  for (size_t t = 0; t < static_cast<size_t>(routing.n); ++t) {
    const auto chosen = routing.expert.subspan(t * k, k);
    int32_t other = 0;
    while (std::ranges::find(chosen, other) != chosen.end()) ++other;
    chosen[0] = other;
  }
  GroupByExpert(&routing);
}

TEST(Verify, FailsWhenTheChoiceOfExpertsIsNotThatOfTheLogits) {
  Ops broken = ReferenceOps();
  broken.router = RouterThatMissesTheBest;
  const VerifyReport report = Verify(broken);
  EXPECT_FALSE(report.passed);
  EXPECT_NE(report.failure.find("other experts"), std::string::npos) << report.failure;
}

}  // namespace
}  // namespace gptoss
