// Dot products of bytes, and products of many rows in which two columns share a multiplication: their instructions
// emulated and, where the machine has them, for real. The same bits as products of pairs. The other tests of ops run
// the real ones through all their cases, as any target.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "backends/cpu/cpu_ops.h"
#include "backends/cpu/dots/dot_kernels.h"
#include "backends/cpu/winograd/winograd_kernels.h"
#include "backends/test_util.h"

namespace gptoss {
namespace {

using namespace testing_util;  // NOLINT

/// A table with other products and the one that it extends.
struct DotParam {
  std::string name;
  const Ops *dots, *pairs;
};

std::vector<DotParam> DotTables() {
  std::vector<DotParam> tables;
  const auto pairs = [](const char* target) { return *CpuOps(target, Precision::kFast); };
  if (const Ops* emulated = cpu::EmulatedDotOps()) tables.push_back({"emulated", emulated, pairs("avx2")});
  constexpr struct {
    const char *extended, *base;
  } kExtensions[] = {{"avxvnni", "avx2"}, {"avx512vnni", "avx512"}, {"zen4", "avx512"}, {"dotprod", "neon"}};
  for (const auto& extension : kExtensions) {
    const Result<const Ops*> dots = CpuOps(extension.extended, Precision::kFast);
    if (dots.ok()) tables.push_back({extension.extended, *dots, pairs(extension.base)});
  }
  for (const char* target : {"neon", "sse4", "avx2", "avx512"}) {
    const Ops* emulated = cpu::EmulatedWinogradOps(target);
    if (emulated != nullptr) tables.push_back({std::string("winograd_on_") + target, emulated, pairs(target)});
  }
  return tables;
}

std::string DotTableName(const testing::TestParamInfo<DotParam>& info) { return info.param.name; }

/// A group that takes the products of many rows.
constexpr int64_t kManyRows = cpu::kWinogradMinRows + 1;

class DotTest : public testing::TestWithParam<DotParam>, protected OpsRunner {};

TEST_P(DotTest, GivesTheBitsOfPairs) {
  for (const DType dtype : {DType::kMxfp4, DType::kQ8_0}) {
    for (const int64_t cols : {32, 96, 2880}) {
      const OwnedMatrix w = RandomMatrix(dtype, 1, 43, cols, 1);
      for (const int64_t n : {1, 2, 3, 4, 9, 15, 16, 17, 18, 19, 300}) {
        const std::vector<float> x = RandomFloats(n * cols, static_cast<uint64_t>(n));
        EXPECT_EQ(Linear(*GetParam().dots, x, n, w.view, nullptr), Linear(*GetParam().pairs, x, n, w.view, nullptr))
            << DTypeName(dtype) << " " << cols << " " << n;
      }
    }
  }
}

TEST_P(DotTest, LargestSumsDoNotOverflow) {
  // Every weight and every activation of the largest magnitude, of either sign: sums are the largest there are.
  const int64_t rows = 8, cols = 64;
  OwnedMatrix mxfp4 = RandomMatrix(DType::kMxfp4, 1, rows, cols, 2);
  OwnedMatrix q8 = RandomMatrix(DType::kQ8_0, 1, rows, cols, 3);
  for (const bool negative : {false, true}) {
    std::fill(mxfp4.data.begin(), mxfp4.data.end(), static_cast<uint8_t>(negative ? 0xFF : 0x77));
    std::fill(mxfp4.scales.begin(), mxfp4.scales.end(), uint8_t{127});
    std::fill(q8.data.begin(), q8.data.end(), static_cast<uint8_t>(negative ? 0x80 : 0x7F));
    for (const float x : {1.0f, -1.0f}) {
      const std::vector<float> all(kManyRows * cols, x);
      for (const OwnedMatrix* w : {&mxfp4, &q8}) {
        for (const int64_t n : {int64_t{1}, kManyRows}) {
          const std::vector<float> want = Linear(ReferenceOps(), all, n, w->view, nullptr);
          const std::vector<float> got = Linear(*GetParam().dots, all, n, w->view, nullptr);
          EXPECT_EQ(got, Linear(*GetParam().pairs, all, n, w->view, nullptr));
          const std::vector<float> values = Decoded(w->view, 1);
          for (int64_t i = 0; i < n * rows; ++i) {
            const float tolerance = DotTolerance(values.data() + i % rows * cols, all.data(), cols, true);
            EXPECT_NEAR(got[i], want[i], tolerance) << DTypeName(w->view.dtype) << " " << negative << " " << x;
          }
        }
      }
    }
  }
}

TEST_P(DotTest, GroupsOfAllSizesGiveTheBitsOfPairs) {
  // Two experts of each size, one of none, and rows of x in no order.
  constexpr int64_t kRows = 72, kCols = 672;
  const std::vector<int64_t> sizes = {1, 15, 0, 16, 40, 3, 16, 37};
  std::vector<int32_t> expert_of;
  for (size_t e = 0; e < sizes.size(); ++e) expert_of.insert(expert_of.end(), sizes[e], static_cast<int32_t>(e));
  const auto n = static_cast<int64_t>(expert_of.size());
  OwnedRouting routing(n, static_cast<int>(sizes.size()), 1);
  for (int64_t t = 0; t < n; ++t) routing.expert[t] = expert_of[t * 37 % n];
  GroupByExpert(&routing.view);
  const std::vector<float> x = RandomFloats(n * kCols, 4), bias = RandomFloats(sizes.size() * kRows, 5);
  for (const DType dtype : {DType::kMxfp4, DType::kQ8_0}) {
    const OwnedMatrix w = RandomMatrix(dtype, static_cast<int64_t>(sizes.size()), kRows, kCols, 6);
    const auto run = [&](const Ops& table) {
      std::vector<float> h(n * kRows / 2, -1.0f);
      table.moe_gate_up(context_, {x.data(), w.view, bias.data(), 7.0f, &routing.view, h.data()});
      return h;
    };
    EXPECT_EQ(run(*GetParam().dots), run(*GetParam().pairs)) << DTypeName(dtype);
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, DotTest, testing::ValuesIn(DotTables()), DotTableName);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DotTest);  // machines without AVX2 emulate nothing

}  // namespace
}  // namespace gptoss
