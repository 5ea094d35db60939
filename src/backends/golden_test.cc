// Every target against numbers from the official PyTorch code (tests/data/golden).

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "backends/test_util.h"
#include "tensor/npy.h"

namespace gptoss {
namespace {

using namespace testing_util;  // NOLINT

NpyArray Golden(const std::string& name) {
  auto array = ReadNpy(std::string(GPTOSS_TEST_DATA) + "/golden/" + name + ".npy");
  EXPECT_TRUE(array.ok()) << array.status().message();
  return array.ok() ? *std::move(array) : NpyArray{};
}

/// The identity matrix [rows, cols], through which a matrix op shows what it does besides the product.
OwnedMatrix Identity(int64_t rows, int64_t cols) {
  OwnedMatrix m;
  m.data.resize(rows * cols * sizeof(float));
  for (int64_t i = 0; i < std::min(rows, cols); ++i) reinterpret_cast<float*>(m.data.data())[i * cols + i] = 1.0f;
  m.view = {
      .dtype = DType::kF32, .rows = rows, .cols = cols, .data = reinterpret_cast<const std::byte*>(m.data.data())};
  return m;
}

using GoldenTest = BackendTest;

TEST_P(GoldenTest, RmsNorm) {
  const NpyArray x = Golden("ops/rmsnorm.x"), scale = Golden("ops/rmsnorm.scale"), want = Golden("ops/rmsnorm.y");
  const int64_t n = static_cast<int64_t>(x.shape[0]), width = static_cast<int64_t>(x.shape[1]);
  std::vector<float> y(n * width);
  ops().rms_norm(context_, {x.As<float>().data(), scale.As<float>().data(), 1e-5f, n, width, y.data()});
  // torch sums the squares in float: relative error width * 2^-24 at most, halved by the root; ours adds a few
  // roundings.
  const float relative = (static_cast<float>(width) / 2 + 4) * 0x1.0p-24f;
  for (int64_t i = 0; i < n * width; ++i) {
    ASSERT_NEAR(y[i], want.As<float>()[i], relative * std::abs(want.As<float>()[i]));
  }
  std::vector<float> in_place(x.As<float>().begin(), x.As<float>().end());
  ops().rms_norm(context_, {in_place.data(), scale.As<float>().data(), 1e-5f, n, width, in_place.data()});
  EXPECT_EQ(in_place, y);
}

TEST_P(GoldenTest, Router) {
  const NpyArray logits = Golden("ops/router.logits"), index = Golden("ops/router.index"),
                 weight = Golden("ops/router.weight");
  const int64_t n = 50, experts = 32, k = 4;
  const OwnedMatrix identity = Identity(experts, experts);
  const std::vector<float> zero(experts, 0.0f);
  std::vector<float> out(n * experts);
  OwnedRouting routing(n, experts, k), reference(n, experts, k);
  ops().router(context_, {logits.As<float>().data(), identity.view, zero.data(), out.data(), &routing.view});
  ReferenceOps().router(context_, {logits.As<float>().data(), identity.view, zero.data(), out.data(), &reference.view});
  EXPECT_EQ(routing.expert, reference.expert);  // ties included
  EXPECT_EQ(routing.token, reference.token);
  EXPECT_EQ(routing.offsets, reference.offsets);
  for (int64_t i = 0; i < n * k; ++i) {
    // torch.topk breaks ties in no specified order: equal logits may swap, different ones may not.
    const auto want = static_cast<int64_t>(index.As<int32_t>()[i]);
    EXPECT_EQ(logits.As<float>()[i / k * experts + routing.expert[i]], logits.As<float>()[i / k * experts + want]) << i;
    EXPECT_NEAR(routing.weight[i], weight.As<float>()[i], 8 * 0x1.0p-24f);
  }
}

TEST_P(GoldenTest, RouterBreaksTiesByIndexAndKeepsFloatPrecision) {
  // Logits that differ by one part in 2^20, far below what 16-bit activations resolve, and two exact ties.
  const OwnedMatrix identity = Identity(32, 32);
  std::vector<float> x(32, 0.25f), zero(32, 0.0f), logits(32);
  x[0] = 100.0f;
  x[9] = 0.25f + 0x1.0p-20f;
  OwnedRouting routing(1, 32, 4);
  ops().router(context_, {x.data(), identity.view, zero.data(), logits.data(), &routing.view});
  EXPECT_EQ(routing.expert, (std::vector<int32_t>{0, 9, 1, 2}));
}

TEST_P(GoldenTest, Mxfp4MatrixTimesVector) {
  const NpyArray blocks = Golden("mxfp4/matrix.blocks"), scales = Golden("mxfp4/matrix.scales"),
                 x = Golden("mxfp4/matrix.x"), want = Golden("mxfp4/matrix.matvec_f64"),
                 values = Golden("mxfp4/matrix.values");
  std::vector<float> y(12);
  const WeightMatrix w{.dtype = DType::kMxfp4,
                       .rows = 12,
                       .cols = 96,
                       .data = reinterpret_cast<const std::byte*>(blocks.bytes.data()),
                       .scales = reinterpret_cast<const std::byte*>(scales.bytes.data())};
  ops().linear(context_, {x.As<float>().data(), 1, w, nullptr, false, y.data()});
  for (int r = 0; r < 12; ++r) {
    EXPECT_NEAR(y[r], want.As<double>()[r],
                DotTolerance(values.As<float>().data() + r * 96, x.As<float>().data(), 96, fast()))
        << r;
  }
}

TEST_P(GoldenTest, Mxfp4Codes) {
  const NpyArray blocks = Golden("mxfp4/codes.blocks"), scales = Golden("mxfp4/codes.scales"),
                 want = Golden("mxfp4/codes.values");
  const int64_t rows = static_cast<int64_t>(scales.bytes.size()), cols = kBlockSize;
  const WeightMatrix w{.dtype = DType::kMxfp4,
                       .rows = rows,
                       .cols = cols,
                       .data = reinterpret_cast<const std::byte*>(blocks.bytes.data()),
                       .scales = reinterpret_cast<const std::byte*>(scales.bytes.data())};
  ASSERT_EQ(want.As<float>().size(), static_cast<size_t>(rows * cols));
  std::vector<int32_t> tokens(rows);
  std::iota(tokens.begin(), tokens.end(), 0);
  std::vector<float> x(rows * cols);
  ops().embed_lookup(context_, {w, tokens, x.data()});
  for (int64_t i = 0; i < rows * cols; ++i) {
    // The golden values went through bf16, which is exact up to scale 252; larger ones overflow there.
    if (scales.bytes[i / cols] <= 252) {
      EXPECT_EQ(x[i], want.As<float>()[i]) << "scale " << int{scales.bytes[i / cols]} << " element " << i % cols;
    }
  }
}

TEST_P(GoldenTest, Attention) {
  struct Case {
    int id, tokens, kv_heads, q_per_kv, window;
  };
  for (const Case& c : {Case{0, 1, 2, 4, 0}, Case{1, 9, 2, 4, 4}, Case{2, 9, 2, 4, 0}, Case{3, 140, 1, 3, 128}}) {
    const std::string name = "ops/sdpa" + std::to_string(c.id);
    const NpyArray q = Golden(name + ".q"), k = Golden(name + ".k"), v = Golden(name + ".v"),
                   sinks = Golden(name + ".sinks"), want = Golden(name + ".y");
    const int dim = 64, heads = c.kv_heads * c.q_per_kv, blocks = (c.tokens + kKvBlockSize - 1) / kKvBlockSize;
    std::vector<float> cache_k(blocks * c.kv_heads * kKvBlockSize * dim), cache_v(cache_k.size());
    KvGroupBatch group;
    group.blocks_per_sequence = blocks;
    for (int b = 0; b < blocks; ++b) group.block_tables.push_back(blocks - 1 - b);
    for (int t = 0; t < c.tokens; ++t) {
      for (int h = 0; h < c.kv_heads; ++h) {
        const int64_t block = group.block_tables[t / kKvBlockSize];
        const int64_t to = ((block * c.kv_heads + h) * kKvBlockSize + t % kKvBlockSize) * dim;
        const int64_t from = (static_cast<int64_t>(t) * c.kv_heads + h) * dim;
        std::copy_n(k.As<float>().data() + from, dim, cache_k.data() + to);
        std::copy_n(v.As<float>().data() + from, dim, cache_v.data() + to);
      }
    }
    const std::vector<SequenceSpan> spans = {{0, c.tokens, 0}};
    std::vector<float> out(static_cast<size_t>(c.tokens) * heads * dim);
    const KvLayer kv{DType::kF32, reinterpret_cast<std::byte*>(cache_k.data()),
                     reinterpret_cast<std::byte*>(cache_v.data())};
    ops().attention(context_, {q.As<float>().data(), heads, c.kv_heads, dim, spans, &group, kv, c.window,
                               sinks.As<float>().data(), out.data()});
    float largest = 0;
    for (const float value : v.As<float>()) largest = std::max(largest, std::abs(value));
    // Two float sums over at most tokens + dim terms of at most the largest value.
    const float tolerance = 2.0f * static_cast<float>(c.tokens + dim) * 0x1.0p-24f * largest;
    for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], want.As<float>()[i], tolerance) << name << " " << i;
  }
}

TEST_P(GoldenTest, Swiglu) {
  const NpyArray x = Golden("ops/swiglu.x"), want = Golden("ops/swiglu.y");
  const int n = 22, width = 22, cols = 64;  // x [22, 44], even = gate, odd = up
  std::vector<float> padded(n * cols, 0.0f), bias(2 * width, 0.0f), h(n * width);
  for (int t = 0; t < n; ++t) std::copy_n(x.As<float>().data() + t * 2 * width, 2 * width, padded.data() + t * cols);
  const OwnedMatrix identity = Identity(2 * width, cols);
  OwnedRouting routing(n, 1, 1);
  GroupByExpert(&routing.view);
  ops().moe_gate_up(context_, {padded.data(), identity.view, bias.data(), 7.0f, &routing.view, h.data()});
  for (int i = 0; i < n * width; ++i) {
    // exp, sum, division and two products: a handful of roundings.
    EXPECT_NEAR(h[i], want.As<float>()[i], 8 * 0x1.0p-24f * std::abs(want.As<float>()[i]) + 1e-36f) << i;
  }
}

TEST_P(GoldenTest, Rotation) {
  const NpyArray q = Golden("rope/real.q"), cos = Golden("rope/real.cos"), sin = Golden("rope/real.sin"),
                 want = Golden("rope/real.q_rotated");
  const int n = 7, heads = 2, dim = 64;  // q [2, 64] at 7 positions; the kv head's weights are zero
  const OwnedMatrix identity = Identity((heads + 2) * dim, heads * dim);
  std::vector<float> bias((heads + 2) * dim, 0.0f), x, out(n * heads * dim), k(kKvBlockSize * dim), v(k.size());
  for (int t = 0; t < n; ++t) x.insert(x.end(), q.As<float>().begin(), q.As<float>().end());
  std::vector<int32_t> slots(n);
  std::iota(slots.begin(), slots.end(), 0);
  const KvLayer kv{DType::kF32, reinterpret_cast<std::byte*>(k.data()), reinterpret_cast<std::byte*>(v.data())};
  ops().qkv_rope(context_, {x.data(), n, identity.view, bias.data(), heads, 1, dim, cos.As<float>().data(),
                            sin.As<float>().data(), slots, kv, out.data()});
  // Two products of values up to 4 and their difference.
  for (size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], want.As<float>()[i], 4 * 0x1.0p-24f * 4) << i;
}

INSTANTIATE_TEST_SUITE_P(Targets, GoldenTest, testing::ValuesIn(AllTables()), TableName);

}  // namespace
}  // namespace gptoss
