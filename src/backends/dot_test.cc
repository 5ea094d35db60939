// Dot products of bytes, their instruction emulated and, where the machine has it, for real: the same bits as products
// of pairs. The other tests of ops run the real ones through all their cases, as any target.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "backends/cpu/cpu_ops.h"
#include "backends/cpu/dots/dot_kernels.h"
#include "backends/test_util.h"

namespace gptoss {
namespace {

using namespace testing_util;  // NOLINT

/// A table with dot products and the one that it extends.
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
  } kExtensions[] = {{"avxvnni", "avx2"}, {"avx512vnni", "avx512"}, {"dotprod", "neon"}};
  for (const auto& extension : kExtensions) {
    const Result<const Ops*> dots = CpuOps(extension.extended, Precision::kFast);
    if (dots.ok()) tables.push_back({extension.extended, *dots, pairs(extension.base)});
  }
  return tables;
}

std::string DotTableName(const testing::TestParamInfo<DotParam>& info) { return info.param.name; }

class DotTest : public testing::TestWithParam<DotParam>, protected OpsRunner {};

TEST_P(DotTest, GivesTheBitsOfPairs) {
  for (const DType dtype : {DType::kMxfp4, DType::kQ8_0}) {
    for (const int64_t cols : {32, 96, 2880}) {
      const OwnedMatrix w = RandomMatrix(dtype, 1, 43, cols, 1);
      for (const int64_t n : {1, 2, 3, 4, 9}) {
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
      const std::vector<float> row(cols, x);
      for (const OwnedMatrix* w : {&mxfp4, &q8}) {
        const std::vector<float> want = Linear(ReferenceOps(), row, 1, w->view, nullptr);
        const std::vector<float> got = Linear(*GetParam().dots, row, 1, w->view, nullptr);
        EXPECT_EQ(got, Linear(*GetParam().pairs, row, 1, w->view, nullptr));
        const std::vector<float> values = Decoded(w->view, 1);
        for (int64_t r = 0; r < rows; ++r) {
          EXPECT_NEAR(got[r], want[r], DotTolerance(values.data() + r * cols, row.data(), cols, true))
              << DTypeName(w->view.dtype) << " " << negative << " " << x;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, DotTest, testing::ValuesIn(DotTables()), DotTableName);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DotTest);  // machines without AVX2 emulate nothing

}  // namespace
}  // namespace gptoss
