// The tile kernel, with its instructions emulated and, where the machine has them, for real.

#include <gtest/gtest.h>

#include <bit>
#include <vector>

#include "backends/cpu/amx/amx_kernels.h"
#include "backends/cpu/amx/amx_support.h"
#include "backends/cpu/cpu_ops.h"
#include "backends/test_util.h"
#include "tensor/weight_layout.h"

namespace gptoss {
namespace {

using namespace testing_util;  // NOLINT

constexpr DType kDTypes[] = {DType::kBF16, DType::kQ8_0, DType::kMxfp4};

/// How far a sum of `n` products on tiles may lie from the float sum of the values themselves. Activations err by half
/// a unit of 8 bits of what the first BF16 left, which is half a unit itself; weights of Q8_0 by as much, and by as
/// much again for the product of both second parts, which is left out. Then the roundings of the two sums, of 3 n and
/// of n terms, as in DotTolerance; then what underflows: 3 n products, or operands of a product, below 2^-126.
float Bf16Tolerance(DType dtype, const float* w, const float* x, int64_t n) {
  float magnitude = 0.0f, largest = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    magnitude += std::abs(w[i] * x[i]);
    largest = std::max({largest, std::abs(w[i]), std::abs(x[i])});
  }
  const float rounding = dtype == DType::kQ8_0 ? 3.1f * 0x1.0p-18f : 0x1.0p-18f;
  return (rounding + static_cast<float>(4 * n + 4) * 0x1.0p-24f) * magnitude +
         static_cast<float>(3 * n) * 0x1.0p-126f * (largest + 1.0f);
}

/// The same matrix with eight rows side by side.
OwnedMatrix Rows8(const OwnedMatrix& from, int64_t matrices) {
  OwnedMatrix m = from;
  const WeightMatrix& w = from.view;
  PackRows8(w.dtype, matrices * w.rows, w.cols, std::as_bytes(std::span(from.data)),
            std::as_bytes(std::span(from.scales)), std::as_writable_bytes(std::span(m.data)),
            std::as_writable_bytes(std::span(m.scales)));
  m.view.layout = WeightLayout::kRows8;
  m.view.data = reinterpret_cast<const std::byte*>(m.data.data());
  m.view.scales = reinterpret_cast<const std::byte*>(m.scales.data());
  return m;
}

struct AmxParam {
  std::string name;
  const Ops* ops;
};

/// The emulated table, and the real one where the machine has it.
std::vector<AmxParam> Tables() {
  std::vector<AmxParam> tables;
  if (const Ops* emulated = cpu::EmulatedAmxOps()) tables.push_back({"emulated", emulated});
  const auto real = CpuOps("amx", Precision::kFast);
  if (real.ok()) tables.push_back({"amx", *real});
  return tables;
}

std::string AmxTableName(const testing::TestParamInfo<AmxParam>& info) { return info.param.name; }

class AmxTest : public testing::TestWithParam<AmxParam>, protected OpsRunner {
 protected:
  const Ops& ops() const { return *GetParam().ops; }
};

TEST_P(AmxTest, ProductsAreTheReferencesWithinTheRoundings) {
  // One block, blocks that do not fill a group of four, rows that do not fill a tile, the models' width, and rows
  // enough for large panels.
  const struct { int64_t rows, cols; } kShapes[] = {{1, 32}, {37, 96}, {64, 320}, {40, 2880}, {1152, 160}};
  for (const auto& shape : kShapes) {
    const int64_t n = 50;
    const std::vector<float> x = RandomFloats(n * shape.cols, 1), bias = RandomFloats(shape.rows, 2);
    for (const DType dtype : kDTypes) {
      const OwnedMatrix w = RandomMatrix(dtype, 1, shape.rows, shape.cols, 3);
      const std::vector<float> values = Decoded(w.view, 1);
      const std::vector<float> want = Linear(ReferenceOps(), x, n, w.view, bias.data());
      const std::vector<float> got = Linear(ops(), x, n, w.view, bias.data());
      for (int64_t i = 0; i < n * shape.rows; ++i) {
        const int64_t row = i % shape.rows, t = i / shape.rows;
        const float tolerance =
            Bf16Tolerance(dtype, values.data() + row * shape.cols, x.data() + t * shape.cols, shape.cols);
        ASSERT_NEAR(got[i], want[i], tolerance + 0x1.0p-23f * std::abs(bias[row]))
            << DTypeName(dtype) << " [" << shape.rows << ", " << shape.cols << "] row " << row << " token " << t;
      }
    }
  }
}

TEST_P(AmxTest, ActivationsOfBf16LoseNothing) {
  // Such activations and weights are exact: only the order of the sum differs, and small integers have no roundings.
  const int64_t n = 33, rows = 48, cols = 288;
  std::vector<float> x(n * cols);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(i * 7 % 17) - 8);
  OwnedMatrix w = RandomMatrix(DType::kMxfp4, 1, rows, cols, 4);
  std::fill(w.scales.begin(), w.scales.end(), uint8_t{128});
  EXPECT_EQ(Linear(ops(), x, n, w.view, nullptr), Linear(ReferenceOps(), x, n, w.view, nullptr));
}

TEST_P(AmxTest, ScalesOfAllSizes) {
  // One weight row for each of the 256 scales; one activation at a time, a power of two so that its product is exact.
  // What BF16 or its product cannot hold as a normal number is zero; what is too large for float is infinite.
  const int64_t n = 32, rows = 256, cols = 32;
  std::vector<uint8_t> codes(rows * 16), scales(rows);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>((2 * i) % 16 | (2 * i + 1) % 16 << 4);
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<uint8_t>(i);
  const WeightMatrix w{.dtype = DType::kMxfp4,
                       .rows = rows,
                       .cols = cols,
                       .data = reinterpret_cast<const std::byte*>(codes.data()),
                       .scales = reinterpret_cast<const std::byte*>(scales.data())};
  const std::vector<float> values = Decoded(w, 1);
  std::vector<float> x(n * cols, 0.0f);
  for (int64_t t = 0; t < n; ++t) x[t * cols + t] = 0.5f;
  const std::vector<float> y = Linear(ops(), x, n, w, nullptr);
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t r = 0; r < rows; ++r) {
      const float weight = values[r * cols + t], want = weight * 0.5f, got = y[t * rows + r];
      // Infinite weights make the other products of the row (zero times infinity) no numbers.
      bool infinite = false;
      for (int64_t i = 0; i < cols; ++i) infinite |= !std::isfinite(values[r * cols + i]);
      if (infinite) {
        EXPECT_FALSE(std::isfinite(got)) << "scale " << r << " column " << t;
      } else if (std::abs(weight) < 0x1.0p-126f || std::abs(want) < 0x1.0p-126f) {
        EXPECT_EQ(got, 0.0f) << "scale " << r << " column " << t;
      } else {
        EXPECT_EQ(got, want) << "scale " << r << " column " << t;
      }
    }
  }
}

TEST_P(AmxTest, NotANumberAndInfinityShow) {
  const OwnedMatrix w = RandomMatrix(DType::kMxfp4, 1, 32, 96, 9);
  for (const float bad : {std::nanf(""), -std::nanf(""), std::bit_cast<float>(0x7FFFFFFFu), HUGE_VALF}) {
    std::vector<float> x = RandomFloats(8 * 96, 10);
    x[3 * 96 + 40] = bad;
    const std::vector<float> y = Linear(ops(), x, 8, w.view, nullptr);
    for (int64_t i = 0; i < 8 * 32; ++i) EXPECT_EQ(std::isfinite(y[i]), i / 32 != 3) << i;
  }
}

TEST_P(AmxTest, EightRowsSideBySideGiveTheSameBits) {
  for (const DType dtype : {DType::kMxfp4, DType::kQ8_0}) {
    for (const int64_t cols : {32, 160, 288}) {
      const int64_t rows = 72, n = 40;
      const OwnedMatrix w = RandomMatrix(dtype, 1, rows, cols, 5), packed = Rows8(w, 1);
      const std::vector<float> x = RandomFloats(n * cols, 6);
      EXPECT_EQ(Linear(ops(), x, n, w.view, nullptr), Linear(ops(), x, n, packed.view, nullptr))
          << DTypeName(dtype) << " " << cols;
    }
  }
}

TEST_P(AmxTest, OtherRowsAndThreadsDoNotMatterAmongGroupsThatTakeTiles) {
  for (const DType dtype : kDTypes) {
    const int64_t rows = 500, cols = 352, most = 70;
    const OwnedMatrix w = RandomMatrix(dtype, 1, rows, cols, 7);
    const std::vector<float> x = RandomFloats(most * cols, 8);
    const std::vector<float> full = Linear(ops(), x, most, w.view, nullptr);
    for (const int64_t n : {8, 15, 16, 17, 31, 33, 64}) {
      if (n < cpu::AmxMinRows(dtype)) continue;
      for (const int threads : {1, 3}) {
        ThreadPool pool(threads);
        ExecContext context{pool, scratch_};
        std::vector<float> y(n * rows);
        ops().linear(context, {x.data(), n, w.view, nullptr, false, y.data()});
        ASSERT_EQ(std::memcmp(y.data(), full.data(), y.size() * sizeof(float)), 0) << DTypeName(dtype) << " " << n;
      }
    }
  }
}

/// Tokens of 6 experts, of which expert 0 gets none, 1 and 2 fewer rows than tiles need, 3 just enough, 4 all.
struct MoeData {
  static constexpr int64_t kTokens = 40, kHidden = 96, kInner = 64;
  static constexpr int kExperts = 6, kChosen = 2;

  MoeData() {
    for (int64_t t = 0; t < kTokens; ++t) {
      const int32_t other = t < 1 ? 1 : t < 8 ? 2 : t < 16 ? 3 : 5;
      routing.expert[t * kChosen] = 4;
      routing.expert[t * kChosen + 1] = other;
      routing.weight[t * kChosen] = 0.75f;
      routing.weight[t * kChosen + 1] = 0.25f;
    }
    GroupByExpert(&routing.view);
  }

  OwnedMatrix up = RandomMatrix(DType::kMxfp4, kExperts, 2 * kInner, kHidden, 11);
  OwnedMatrix down = RandomMatrix(DType::kMxfp4, kExperts, kHidden, kInner, 12);
  std::vector<float> up_bias = RandomFloats(kExperts * 2 * kInner, 13),
                     down_bias = RandomFloats(kExperts * kHidden, 14), x = RandomFloats(kTokens * kHidden, 15);
  OwnedRouting routing{kTokens, kExperts, kChosen};
};

TEST_P(AmxTest, ExpertsUp) {
  MoeData data;
  const std::vector<float> values = Decoded(data.up.view, MoeData::kExperts);
  std::vector<float> h(data.routing.row.size() * MoeData::kInner), want(h.size());
  const auto run = [&](const Ops& table, std::vector<float>* out) {
    table.moe_gate_up(context_,
                      {data.x.data(), data.up.view, data.up_bias.data(), 7.0f, &data.routing.view, out->data()});
  };
  run(ops(), &h);
  run(ReferenceOps(), &want);
  for (int e = 0; e < MoeData::kExperts; ++e) {
    for (int32_t r = data.routing.offsets[e]; r < data.routing.offsets[e + 1]; ++r) {
      const float* x = data.x.data() + data.routing.token[r] * MoeData::kHidden;
      for (int64_t i = 0; i < MoeData::kInner; ++i) {
        const float* w = values.data() + (e * 2 * MoeData::kInner + 2 * i) * MoeData::kHidden;
        // Small groups round activations to 16-bit integers instead; which of the two bounds holds is left open.
        const float gate =
            Bf16Tolerance(DType::kMxfp4, w, x, MoeData::kHidden) + DotTolerance(w, x, MoeData::kHidden, true);
        const float up = Bf16Tolerance(DType::kMxfp4, w + MoeData::kHidden, x, MoeData::kHidden) +
                         DotTolerance(w + MoeData::kHidden, x, MoeData::kHidden, true);
        // |d swiglu / d gate| <= 1.1 (|up| + 1) <= 8.8; |d swiglu / d up| <= 7; then roundings of the result.
        const float got = h[r * MoeData::kInner + i], expected = want[r * MoeData::kInner + i];
        ASSERT_NEAR(got, expected, 8.8f * gate + 7.0f * up + 32 * 0x1.0p-24f * (std::abs(expected) + 1)) << e;
      }
    }
  }
}

TEST_P(AmxTest, ExpertsDown) {
  MoeData data;
  const std::vector<float> values = Decoded(data.down.view, MoeData::kExperts);
  const std::vector<float> h = RandomFloats(data.routing.row.size() * MoeData::kInner, 16);
  std::vector<float> x = data.x, want = data.x;
  ops().moe_down(context_, {h.data(), data.down.view, data.down_bias.data(), &data.routing.view, x.data()});
  ReferenceOps().moe_down(context_, {h.data(), data.down.view, data.down_bias.data(), &data.routing.view, want.data()});
  for (int64_t t = 0; t < MoeData::kTokens; ++t) {
    for (int64_t i = 0; i < MoeData::kHidden; ++i) {
      const float expected = want[t * MoeData::kHidden + i];
      float tolerance = 16 * 0x1.0p-24f * (std::abs(expected) + 8.0f);
      for (int j = 0; j < MoeData::kChosen; ++j) {
        const int64_t at = t * MoeData::kChosen + j;
        const float* w = values.data() + (data.routing.expert[at] * MoeData::kHidden + i) * MoeData::kInner;
        const float* hr = h.data() + data.routing.row[at] * MoeData::kInner;
        tolerance += data.routing.weight[at] * (Bf16Tolerance(DType::kMxfp4, w, hr, MoeData::kInner) +
                                                DotTolerance(w, hr, MoeData::kInner, true));
      }
      ASSERT_NEAR(x[t * MoeData::kHidden + i], expected, tolerance) << "token " << t;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, AmxTest, testing::ValuesIn(Tables()), AmxTableName);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(AmxTest);  // portable machines emulate nothing

TEST(Amx, TheProcessorsTilesEqualTheEmulatedOnesBitForBit) {
  const Result<const Ops*> real = CpuOps("amx", Precision::kFast);
  if (!real.ok()) GTEST_SKIP() << "target amx: " << real.status().message();
  ThreadPool pool(2);
  ScratchArena scratch;
  ExecContext context{pool, scratch};
  for (const DType dtype : kDTypes) {
    const int64_t n = 50, rows = 80, cols = 2880;
    const OwnedMatrix w = RandomMatrix(dtype, 1, rows, cols, 3);
    const std::vector<float> x = RandomFloats(n * cols, 1);
    std::vector<float> got(n * rows), want(n * rows);
    (*real)->linear(context, {x.data(), n, w.view, nullptr, false, got.data()});
    cpu::EmulatedAmxOps()->linear(context, {x.data(), n, w.view, nullptr, false, want.data()});
    EXPECT_EQ(got, want) << DTypeName(dtype);
  }
}

TEST(Amx, IsAvailableOrSaysWhyNot) {
  for (const CpuTarget& target : ListCpuTargets()) {
    if (target.name != "amx") continue;
    const Result<const Ops*> ops = CpuOps("amx", Precision::kFast);
    EXPECT_EQ(ops.ok(), target.available);
    if (!target.available) {
      EXPECT_NE(ops.status().message().find("cannot be used: "), std::string::npos) << ops.status().message();
    } else {
      EXPECT_EQ(cpu::WhyNoAmx(), nullptr);
    }
  }
}

}  // namespace
}  // namespace gptoss
