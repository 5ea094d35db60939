// Products of every dtype on every target against the reference, and bit for bit against themselves in other batches.

#include <gtest/gtest.h>

#include <vector>

#include "backends/test_util.h"
#include "tensor/weight_layout.h"

namespace gptoss {
namespace {

using namespace testing_util;  // NOLINT

constexpr DType kDTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kMxfp4};
constexpr int64_t kBatches[] = {1, 2, 3, 7, 8, 16, 33, 130};
constexpr int64_t kMaxBatch = 130;

struct Shape {
  int64_t rows, cols;
};
// Odd rows, one block, an odd number of blocks, more columns than one pass, and 2880 as the models have.
constexpr Shape kShapes[] = {{1, 32}, {37, 96}, {66, 320}, {35, 2880}, {3, 4096}};

using MatmulTest = BackendTest;

TEST_P(MatmulTest, LinearIsTheReferenceAndTheSameInEveryBatch) {
  for (const Shape& shape : kShapes) {
    const std::vector<float> x = RandomFloats(kMaxBatch * shape.cols, 1), bias = RandomFloats(shape.rows, 2);
    for (const DType dtype : kDTypes) {
      const OwnedMatrix w = RandomMatrix(dtype, 1, shape.rows, shape.cols, 3);
      const std::vector<float> values = Decoded(w.view, 1);
      std::vector<float> want(kMaxBatch * shape.rows), full(want.size());
      // Larger batches may take another way through the sums (Ops::invariant_rows).
      const int64_t same = std::min<int64_t>(kMaxBatch, ops().invariant_rows);
      std::vector<float> few(same * shape.rows);
      ReferenceOps().linear(context_, {x.data(), kMaxBatch, w.view, bias.data(), false, want.data()});
      ops().linear(context_, {x.data(), kMaxBatch, w.view, bias.data(), false, full.data()});
      ops().linear(context_, {x.data(), same, w.view, bias.data(), false, few.data()});
      for (int64_t i = 0; i < kMaxBatch * shape.rows; ++i) {
        const int64_t row = i % shape.rows, t = i / shape.rows;
        const float tolerance = DotTolerance(values.data() + row * shape.cols, x.data() + t * shape.cols, shape.cols,
                                             fast() && RoundsActivations(dtype)) +
                                0x1.0p-23f * std::abs(bias[row]);
        const std::string where = std::string(DTypeName(dtype)) + " [" + std::to_string(shape.rows) + ", " +
                                  std::to_string(shape.cols) + "] row " + std::to_string(row) + " token " +
                                  std::to_string(t);
        ASSERT_NEAR(full[i], want[i], tolerance) << where;
        if (t < same) {
          ASSERT_NEAR(few[i], want[i], tolerance) << where;
        }
      }
      for (const int64_t n : kBatches) {
        std::vector<float> y(n * shape.rows, -1.0f);
        ops().linear(context_, {x.data(), n, w.view, bias.data(), false, y.data()});
        const std::vector<float>& expected = n <= same ? few : full;
        ASSERT_EQ(std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)), 0)
            << DTypeName(dtype) << " [" << shape.rows << ", " << shape.cols << "] n " << n;
      }
    }
  }
}

TEST_P(MatmulTest, LayoutsGiveTheSameBits) {
  if (!ops().reads_all_layouts) GTEST_SKIP() << ops().name << " reads one layout";
  for (const DType dtype : {DType::kQ8_0, DType::kMxfp4}) {
    for (const Shape& shape : {Shape{8, 32}, Shape{72, 2880}}) {
      const OwnedMatrix w = RandomMatrix(dtype, 2, shape.rows, shape.cols, 18);
      std::vector<std::byte> data(w.data.size()), scales(w.scales.size());
      PackRows8(dtype, 2 * shape.rows, shape.cols, std::as_bytes(std::span(w.data)), std::as_bytes(std::span(w.scales)),
                data, scales);
      WeightMatrix packed = w.view;
      packed.layout = WeightLayout::kRows8;
      packed.data = data.data();
      packed.scales = scales.data();
      EXPECT_EQ(Decoded(packed, 2), Decoded(w.view, 2));
      for (const int64_t n : {1, 9, 17}) {
        const std::vector<float> x = RandomFloats(n * shape.cols, 19);
        std::vector<float> got(n * shape.rows), want(got.size());
        ops().linear(context_, {x.data(), n, packed, nullptr, false, got.data()});
        ops().linear(context_, {x.data(), n, w.view, nullptr, false, want.data()});
        EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0) << DTypeName(dtype) << " " << n;
      }
    }
  }
}

TEST_P(MatmulTest, LinearAccumulatesAndWorksWithoutBias) {
  const OwnedMatrix w = RandomMatrix(DType::kQ8_0, 1, 37, 96, 4);
  const std::vector<float> x = RandomFloats(5 * 96, 5), start = RandomFloats(5 * 37, 6);
  std::vector<float> plain(5 * 37), added = start;
  ops().linear(context_, {x.data(), 5, w.view, nullptr, false, plain.data()});
  ops().linear(context_, {x.data(), 5, w.view, nullptr, true, added.data()});
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(added[i], start[i] + plain[i]);
}

TEST_P(MatmulTest, ThreadsDoNotChangeBits) {
  for (const DType dtype : kDTypes) {
    const OwnedMatrix w = RandomMatrix(dtype, 1, 500, 352, 7);
    for (const int64_t n : {1, 9}) {
      const std::vector<float> x = RandomFloats(n * 352, 8);
      std::vector<float> first;
      for (const int threads : {1, 2, 3}) {
        ThreadPool pool(threads);
        ExecContext context{pool, scratch_};
        std::vector<float> y(n * 500);
        ops().linear(context, {x.data(), n, w.view, nullptr, false, y.data()});
        if (threads == 1) first = y;
        ASSERT_EQ(std::memcmp(y.data(), first.data(), y.size() * sizeof(float)), 0) << threads << " threads";
      }
    }
  }
}

TEST_P(MatmulTest, ZeroAndTinyAndHugeActivations) {
  const OwnedMatrix w = RandomMatrix(DType::kMxfp4, 1, 8, 96, 9);
  const std::vector<float> values = Decoded(w.view, 1);
  for (const float scale : {0.0f, 1e-30f, 1e-10f, 1e10f, 1e30f}) {
    std::vector<float> x = RandomFloats(96, 10), y(8), want(8);
    for (float& v : x) v *= scale;
    ops().linear(context_, {x.data(), 1, w.view, nullptr, false, y.data()});
    ReferenceOps().linear(context_, {x.data(), 1, w.view, nullptr, false, want.data()});
    for (int r = 0; r < 8; ++r) {
      EXPECT_NEAR(y[r], want[r], DotTolerance(values.data() + r * 96, x.data(), 96, fast())) << scale;
    }
  }
}

TEST_P(MatmulTest, NotANumberShows) {
  const OwnedMatrix w = RandomMatrix(DType::kMxfp4, 1, 8, 96, 9);
  for (const float bad : {std::nanf(""), -std::nanf(""), HUGE_VALF}) {
    std::vector<float> x = RandomFloats(96, 10), y(8);
    x[40] = bad;
    ops().linear(context_, {x.data(), 1, w.view, nullptr, false, y.data()});
    // The weight of x[40] may be zero, and zero times infinity is not a number either.
    for (const float v : y) EXPECT_FALSE(std::isfinite(v));
  }
}

TEST_P(MatmulTest, ExtremeScalesOfMxfp4) {
  // One block each with scale 0 (subnormal values), 1, 2 and 250; codes 0 … 15 twice.
  std::vector<uint8_t> codes(4 * 16), scales = {0, 1, 2, 250};
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>((2 * i) % 16 | (2 * i + 1) % 16 << 4);
  const WeightMatrix w{.dtype = DType::kMxfp4,
                       .rows = 4,
                       .cols = 32,
                       .data = reinterpret_cast<const std::byte*>(codes.data()),
                       .scales = reinterpret_cast<const std::byte*>(scales.data())};
  const std::vector<float> values = Decoded(w, 1);
  std::vector<float> x(32, 0.0f), y(4);
  for (int i = 0; i < 32; ++i) {
    x.assign(32, 0.0f);
    x[i] = 0.5f;
    ops().linear(context_, {x.data(), 1, w, nullptr, false, y.data()});
    // One product per sum. In the fast tables 0.5 is 32639 steps: relative error of a few roundings.
    for (int r = 0; r < 4; ++r) {
      const float want = 0.5f * values[r * 32 + i];
      EXPECT_NEAR(y[r], want, std::max(4 * 0x1.0p-24f * std::abs(want), 0x1.0p-149f)) << r << " " << i;
    }
  }
}

struct MoeData {
  static constexpr int64_t kTokens = 40, kHidden = 96, kInner = 64;
  static constexpr int kExperts = 5, kChosen = 3;
  explicit MoeData(DType dtype)
      : up(RandomMatrix(dtype, kExperts, 2 * kInner, kHidden, 11)),
        down(RandomMatrix(dtype, kExperts, kHidden, kInner, 12)),
        up_bias(RandomFloats(kExperts * 2 * kInner, 13)),
        down_bias(RandomFloats(kExperts * kHidden, 14)),
        x(RandomFloats(kTokens * kHidden, 15)) {}

  /// Routing of tokens first … first + n - 1: one expert is never chosen, one always.
  void Route(int64_t first, OwnedRouting* routing) const {
    for (int64_t t = 0; t < routing->view.n; ++t) {
      const int32_t experts[kChosen] = {2, static_cast<int32_t>((first + t) % 2), 3};
      for (int j = 0; j < kChosen; ++j) {
        routing->expert[t * kChosen + j] = experts[j];
        routing->weight[t * kChosen + j] = 0.5f / static_cast<float>(j + 1);
      }
    }
    GroupByExpert(&routing->view);
  }

  OwnedMatrix up, down;
  std::vector<float> up_bias, down_bias, x;
};

TEST_P(MatmulTest, ExpertsUp) {
  for (const DType dtype : {DType::kF32, DType::kMxfp4}) {
    const MoeData data(dtype);
    const std::vector<float> values = Decoded(data.up.view, MoeData::kExperts);
    OwnedRouting routing(MoeData::kTokens, MoeData::kExperts, MoeData::kChosen);
    data.Route(0, &routing);
    std::vector<float> h(routing.row.size() * MoeData::kInner), want(h.size());
    const auto run = [&](const Ops& table, float* out) {
      table.moe_gate_up(context_, {data.x.data(), data.up.view, data.up_bias.data(), 7.0f, &routing.view, out});
    };
    run(ops(), h.data());
    run(ReferenceOps(), want.data());
    for (int e = 0; e < MoeData::kExperts; ++e) {
      for (int32_t r = routing.offsets[e]; r < routing.offsets[e + 1]; ++r) {
        const float* x = data.x.data() + routing.token[r] * MoeData::kHidden;
        for (int64_t i = 0; i < MoeData::kInner; ++i) {
          const float* w = values.data() + (e * 2 * MoeData::kInner + 2 * i) * MoeData::kHidden;
          const bool rounded = fast() && RoundsActivations(dtype);
          const float gate_error = DotTolerance(w, x, MoeData::kHidden, rounded);
          const float up_error = DotTolerance(w + MoeData::kHidden, x, MoeData::kHidden, rounded);
          // |d swiglu / d gate| <= 1.1 (|up| + 1) <= 8.8; |d swiglu / d up| <= 7; then roundings of the result.
          const float got = h[r * MoeData::kInner + i], expected = want[r * MoeData::kInner + i];
          ASSERT_NEAR(got, expected, 8.8f * gate_error + 7.0f * up_error + 32 * 0x1.0p-24f * (std::abs(expected) + 1));
        }
      }
    }
  }
}

TEST_P(MatmulTest, ExpertsDownAndEveryTokenAlone) {
  for (const DType dtype : {DType::kBF16, DType::kMxfp4}) {
    const MoeData data(dtype);
    const std::vector<float> values = Decoded(data.down.view, MoeData::kExperts);
    OwnedRouting routing(MoeData::kTokens, MoeData::kExperts, MoeData::kChosen);
    data.Route(0, &routing);
    const std::vector<float> h = RandomFloats(routing.row.size() * MoeData::kInner, 16);
    std::vector<float> x = data.x, want = data.x;
    ops().moe_down(context_, {h.data(), data.down.view, data.down_bias.data(), &routing.view, x.data()});
    ReferenceOps().moe_down(context_, {h.data(), data.down.view, data.down_bias.data(), &routing.view, want.data()});
    for (int64_t t = 0; t < MoeData::kTokens; ++t) {
      OwnedRouting alone(1, MoeData::kExperts, MoeData::kChosen);
      data.Route(t, &alone);
      std::vector<float> own_h(MoeData::kChosen * MoeData::kInner);
      for (int j = 0; j < MoeData::kChosen; ++j) {
        std::copy_n(h.data() + routing.row[t * MoeData::kChosen + j] * MoeData::kInner, MoeData::kInner,
                    own_h.data() + alone.row[j] * MoeData::kInner);
      }
      std::vector<float> y(data.x.begin() + t * MoeData::kHidden, data.x.begin() + (t + 1) * MoeData::kHidden);
      ops().moe_down(context_, {own_h.data(), data.down.view, data.down_bias.data(), &alone.view, y.data()});
      for (int64_t i = 0; i < MoeData::kHidden; ++i) {
        const float got = x[t * MoeData::kHidden + i], expected = want[t * MoeData::kHidden + i];
        if (MoeData::kTokens <= ops().invariant_rows) {
          ASSERT_EQ(y[i], got) << "token " << t;
        }
        float tolerance = 16 * 0x1.0p-24f * (std::abs(expected) + 8.0f);
        for (int j = 0; j < MoeData::kChosen; ++j) {
          const int e = routing.expert[t * MoeData::kChosen + j];
          const float* hr = h.data() + routing.row[t * MoeData::kChosen + j] * MoeData::kInner;
          tolerance += routing.weight[t * MoeData::kChosen + j] *
                       DotTolerance(values.data() + (e * MoeData::kHidden + i) * MoeData::kInner, hr, MoeData::kInner,
                                    fast() && RoundsActivations(dtype));
        }
        ASSERT_NEAR(got, expected, tolerance);
        ASSERT_NEAR(y[i], expected, tolerance);
      }
    }
  }
}

TEST_P(MatmulTest, EmbeddingRowsAreExact) {
  for (const DType dtype : kDTypes) {
    const OwnedMatrix w = RandomMatrix(dtype, 1, 20, 96, 17);
    const std::vector<float> values = Decoded(w.view, 1);
    const std::vector<int32_t> tokens = {19, 0, 7, 7};
    std::vector<float> x(tokens.size() * 96);
    ops().embed_lookup(context_, {w.view, tokens, x.data()});
    for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(x[i], values[tokens[i / 96] * 96 + i % 96]);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, MatmulTest, testing::ValuesIn(AllTables()), TableName);

}  // namespace
}  // namespace gptoss
