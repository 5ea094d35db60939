#include "backends/registry.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>
#include <string>

#include "backends/test_util.h"

namespace gptoss {
namespace {

using namespace testing_util;  // NOLINT

/// Sets GPTOSS_CPU for one scope.
class ScopedEnvironment {
 public:
  explicit ScopedEnvironment(const char* value) {
    const char* old = std::getenv("GPTOSS_CPU");
    if (old != nullptr) old_ = old;
    had_ = old != nullptr;
    setenv("GPTOSS_CPU", value, 1);
  }
  ~ScopedEnvironment() { had_ ? setenv("GPTOSS_CPU", old_.c_str(), 1) : unsetenv("GPTOSS_CPU"); }

 private:
  std::string old_;
  bool had_;
};

TEST(Registry, ListsTargetsBestLastAndPicksTheBest) {
  const ScopedEnvironment environment("");
  const std::vector<CpuTarget> targets = ListCpuTargets();
  ASSERT_FALSE(targets.empty());
  EXPECT_TRUE(targets.front().available);
  std::string best;
  for (const CpuTarget& target : targets) {
    if (target.available) best = target.name;
  }
  EXPECT_EQ((*CpuOps("", Precision::kFast))->name, best);
  const Ops* exact = *CpuOps("", Precision::kExact);
  EXPECT_EQ(exact, *CpuOps(best, Precision::kExact));
  EXPECT_TRUE(exact->name.ends_with("-exact")) << exact->name;
}

TEST(Registry, EveryTableIsComplete) {
  for (const TableParam& param : AllTables()) {
    const Ops& ops = **CpuOps(param.target, param.precision);
    EXPECT_TRUE(ops.embed_lookup && ops.rms_norm && ops.linear && ops.qkv_rope && ops.attention && ops.router &&
                ops.moe_gate_up && ops.moe_down)
        << ops.name;
  }
}

TEST(Registry, TheEnvironmentForcesATargetUnlessOneIsNamed) {
  const std::string first = ListCpuTargets().front().name;
  const ScopedEnvironment environment(first.c_str());
  EXPECT_EQ((*CpuOps("", Precision::kFast))->name, first);
  for (const CpuTarget& target : ListCpuTargets()) {
    if (!target.available) continue;
    EXPECT_EQ((*CpuOps(target.name, Precision::kFast))->name, target.name);
  }
}

TEST(Registry, WhatCannotBeIsAClearError) {
  const Result<const Ops*> unknown = CpuOps("mmx", Precision::kFast);
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(unknown.status().message().find("'mmx'"), std::string::npos);
  EXPECT_NE(unknown.status().message().find(ListCpuTargets().front().name), std::string::npos);
  for (const CpuTarget& target : ListCpuTargets()) {
    if (target.available) continue;
    const Result<const Ops*> absent = CpuOps(target.name, Precision::kFast);
    ASSERT_FALSE(absent.ok());
    EXPECT_EQ(absent.status().code(), StatusCode::kUnsupported);
    EXPECT_NE(absent.status().message().find(target.name), std::string::npos);
  }
  const ScopedEnvironment environment("nonsense");
  const Result<const Ops*> forced = CpuOps("", Precision::kExact);
  ASSERT_FALSE(forced.ok());
  EXPECT_NE(forced.status().message().find("GPTOSS_CPU"), std::string::npos);
}

TEST(Registry, AForcedTargetReallyRuns) {
  // Targets with different vector widths add the products of a long row in different orders, so their float sums differ
  // in the last bits: a table that fell back to another target's kernels would show here.
  const int64_t rows = 64, cols = 2880;
  const OwnedMatrix w = RandomMatrix(DType::kF32, 1, rows, cols, 1);
  const std::vector<float> x = RandomFloats(cols, 2);
  ThreadPool pool(1);
  ScratchArena scratch;
  ExecContext context{pool, scratch};
  std::set<std::vector<float>> results;
  std::set<const Ops*> tables;  // targets that extend another one share its exact table
  for (const CpuTarget& target : ListCpuTargets()) {
    if (!target.available || target.name == "amx") continue;  // its exact kernels are those of avx512
    const Ops* ops = *CpuOps(target.name, Precision::kExact);
    if (!tables.insert(ops).second) continue;
    std::vector<float> y(rows);
    ops->linear(context, {x.data(), 1, w.view, nullptr, false, y.data()});
    results.insert(y);
  }
  EXPECT_EQ(results.size(), tables.size());
}

}  // namespace
}  // namespace gptoss
