// The reference ops against numbers from the official PyTorch code, and against double precision.

#include "ops/ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "tensor/npy.h"

namespace gptoss {
namespace {

NpyArray Golden(const std::string& name) {
  auto array = ReadNpy(std::string(GPTOSS_TEST_DATA) + "/golden/" + name + ".npy");
  EXPECT_TRUE(array.ok()) << array.status().message();
  return array.ok() ? *std::move(array) : NpyArray{};
}

class ReferenceTest : public testing::Test {
 protected:
  ThreadPool pool_{1};
  ScratchArena scratch_;
  ExecContext context_{pool_, scratch_};
  const Ops& ops_ = ReferenceOps();
};

/// Float sums of n products err by at most about n * epsilon * sum |a b|; two such sums (ours and torch's) differ by
/// twice.
float SumTolerance(int64_t n, float magnitude) { return 2.0f * static_cast<float>(n) * 0x1.0p-24f * magnitude; }

TEST_F(ReferenceTest, RmsNorm) {
  const NpyArray x = Golden("ops/rmsnorm.x"), scale = Golden("ops/rmsnorm.scale"), want = Golden("ops/rmsnorm.y");
  const int64_t n = static_cast<int64_t>(x.shape[0]), width = static_cast<int64_t>(x.shape[1]);
  std::vector<float> y(n * width);
  ops_.rms_norm(context_, {x.As<float>().data(), scale.As<float>().data(), 1e-5f, n, width, y.data()});
  // The mean of squares has relative error width * epsilon, halved by the root; a few roundings more.
  const float relative = (static_cast<float>(width) / 2 + 4) * 0x1.0p-24f;
  for (int64_t i = 0; i < n * width; ++i) {
    EXPECT_NEAR(y[i], want.As<float>()[i], relative * std::abs(want.As<float>()[i]));
  }
}

TEST_F(ReferenceTest, RouterChoosesAndWeighsAsTheOfficialCode) {
  const NpyArray logits = Golden("ops/router.logits"), index = Golden("ops/router.index"),
                 weight = Golden("ops/router.weight");
  const int64_t n = 50, experts = 32, k = 4;
  // Logits are the input: identity weights over one-hot scaling, x = logits.
  std::vector<float> identity(experts * experts, 0.0f), zero(experts, 0.0f), out(n * experts), w(n * k);
  for (int i = 0; i < experts; ++i) identity[i * experts + i] = 1.0f;
  std::vector<int32_t> e(n * k), offsets(experts + 1), token(n * k), row(n * k);
  Routing routing{n, experts, k, e, w, offsets, token, row};
  const WeightMatrix matrix{.dtype = DType::kF32,
                            .rows = experts,
                            .cols = experts,
                            .data = reinterpret_cast<const std::byte*>(identity.data())};
  ops_.router(context_, {logits.As<float>().data(), matrix, zero.data(), out.data(), &routing});
  for (int64_t i = 0; i < n * k; ++i) {
    const auto want = static_cast<int64_t>(index.As<int32_t>()[i]);
    // torch.topk breaks ties in no specified order: equal logits may swap, different ones may not.
    EXPECT_EQ(out[i / k * experts + e[i]], out[i / k * experts + want]) << i;
    EXPECT_NEAR(w[i], weight.As<float>()[i], 8 * 0x1.0p-24f);
  }
}

TEST_F(ReferenceTest, GroupingIsAPermutationSortedByExpert) {
  std::vector<int32_t> expert = {3, 1, 0, 3, 1, 0}, offsets(5), token(6), row(6);
  std::vector<float> weight(6);
  Routing routing{3, 4, 2, expert, weight, offsets, token, row};
  GroupByExpert(&routing);
  EXPECT_EQ(offsets, (std::vector<int32_t>{0, 2, 4, 4, 6}));
  EXPECT_EQ(token, (std::vector<int32_t>{1, 2, 0, 2, 0, 1}));
  for (int i = 0; i < 6; ++i) EXPECT_EQ(token[row[i]], i / 2);
}

TEST_F(ReferenceTest, Mxfp4MatrixTimesVector) {
  const NpyArray blocks = Golden("mxfp4/matrix.blocks"), scales = Golden("mxfp4/matrix.scales"),
                 x = Golden("mxfp4/matrix.x"), want = Golden("mxfp4/matrix.matvec_f64"),
                 values = Golden("mxfp4/matrix.values");
  std::vector<float> y(12);
  const WeightMatrix w{.dtype = DType::kMxfp4,
                       .rows = 12,
                       .cols = 96,
                       .data = reinterpret_cast<const std::byte*>(blocks.bytes.data()),
                       .scales = reinterpret_cast<const std::byte*>(scales.bytes.data())};
  ops_.linear(context_, {x.As<float>().data(), 1, w, nullptr, false, y.data()});
  for (int r = 0; r < 12; ++r) {
    float magnitude = 0;
    for (int i = 0; i < 96; ++i) magnitude += std::abs(values.As<float>()[r * 96 + i] * x.As<float>()[i]);
    EXPECT_NEAR(y[r], want.As<double>()[r], SumTolerance(96, magnitude)) << r;
  }
}

struct SdpaCase {
  int id, tokens, kv_heads, q_per_kv, window;
};
class SdpaTest : public ReferenceTest, public testing::WithParamInterface<SdpaCase> {};

TEST_P(SdpaTest, AttentionWithSinksAndWindow) {
  const SdpaCase c = GetParam();
  const std::string name = "ops/sdpa" + std::to_string(c.id);
  const NpyArray q = Golden(name + ".q"), k = Golden(name + ".k"), v = Golden(name + ".v"),
                 sinks = Golden(name + ".sinks"), want = Golden(name + ".y");
  const int dim = 64, heads = c.kv_heads * c.q_per_kv;
  const int blocks = (c.tokens + kKvBlockSize - 1) / kKvBlockSize;
  std::vector<float> cache_k(blocks * c.kv_heads * kKvBlockSize * dim), cache_v(cache_k.size());
  KvGroupBatch group;
  group.blocks_per_sequence = blocks;
  for (int b = 0; b < blocks; ++b) group.block_tables.push_back(blocks - 1 - b);  // any order must do
  for (int t = 0; t < c.tokens; ++t) {
    for (int h = 0; h < c.kv_heads; ++h) {
      const int64_t to =
          ((group.block_tables[t / kKvBlockSize] * c.kv_heads + h) * kKvBlockSize + t % kKvBlockSize) * dim;
      const int64_t from = (static_cast<int64_t>(t) * c.kv_heads + h) * dim;
      std::copy_n(k.As<float>().data() + from, dim, cache_k.data() + to);
      std::copy_n(v.As<float>().data() + from, dim, cache_v.data() + to);
    }
  }
  const std::vector<SequenceSpan> spans = {{0, c.tokens, 0}};
  std::vector<float> out(static_cast<size_t>(c.tokens) * heads * dim);
  const KvLayer kv{DType::kF32, reinterpret_cast<std::byte*>(cache_k.data()),
                   reinterpret_cast<std::byte*>(cache_v.data())};
  ops_.attention(context_, {q.As<float>().data(), heads, c.kv_heads, dim, spans, &group, kv, c.window,
                            sinks.As<float>().data(), out.data()});
  float largest = 0;
  for (float value : v.As<float>()) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < out.size(); ++i) {
    EXPECT_NEAR(out[i], want.As<float>()[i], SumTolerance(c.tokens + dim, largest)) << i;
  }
}
INSTANTIATE_TEST_SUITE_P(Golden, SdpaTest,
                         testing::Values(SdpaCase{0, 1, 2, 4, 0}, SdpaCase{1, 9, 2, 4, 4}, SdpaCase{2, 9, 2, 4, 0},
                                         SdpaCase{3, 140, 1, 3, 128}));

TEST_F(ReferenceTest, SwigluClampsAsTheOfficialCode) {
  const NpyArray x = Golden("ops/swiglu.x"), want = Golden("ops/swiglu.y");
  // One expert with identity rows: gate_up gives back its input, x [22, 44] padded to 64 columns, even = gate, odd =
  // up.
  const int n = 22, width = 22, cols = 64;
  std::vector<float> padded(n * cols, 0.0f), identity(2 * width * cols, 0.0f), bias(2 * width, 0.0f), weight(n);
  for (int t = 0; t < n; ++t) std::copy_n(x.As<float>().data() + t * 2 * width, 2 * width, padded.data() + t * cols);
  for (int i = 0; i < 2 * width; ++i) identity[i * cols + i] = 1.0f;
  std::vector<int32_t> expert(n, 0), offsets(2), token(n), row(n);
  Routing routing{n, 1, 1, expert, weight, offsets, token, row};
  GroupByExpert(&routing);
  std::vector<float> h(n * width);
  const WeightMatrix matrix{.dtype = DType::kF32,
                            .rows = 2 * width,
                            .cols = cols,
                            .data = reinterpret_cast<const std::byte*>(identity.data())};
  ops_.moe_gate_up(context_, {padded.data(), matrix, bias.data(), 7.0f, &routing, h.data()});
  for (int i = 0; i < n * width; ++i) {
    // exp, sum, division and two products: a handful of roundings.
    EXPECT_NEAR(h[i], want.As<float>()[i], 8 * 0x1.0p-24f * std::abs(want.As<float>()[i]) + 1e-37f) << i;
  }
}

TEST_F(ReferenceTest, RotationPairsHalves) {
  const NpyArray q = Golden("rope/real.q"), cos = Golden("rope/real.cos"), sin = Golden("rope/real.sin"),
                 want = Golden("rope/real.q_rotated");
  // q [2, 64] rotated at 7 positions; two query heads, one kv head whose weights are zero.
  const int n = 7, heads = 2, dim = 64;
  std::vector<float> identity((heads + 2) * dim * heads * dim, 0.0f), bias((heads + 2) * dim, 0.0f), x,
      out(n * heads * dim);
  for (int i = 0; i < heads * dim; ++i) identity[i * heads * dim + i] = 1.0f;
  for (int t = 0; t < n; ++t) x.insert(x.end(), q.As<float>().begin(), q.As<float>().end());
  std::vector<float> k(kKvBlockSize * dim), v(k.size());
  std::vector<int32_t> slots(n);
  std::iota(slots.begin(), slots.end(), 0);
  const WeightMatrix w{.dtype = DType::kF32,
                       .rows = (heads + 2) * dim,
                       .cols = heads * dim,
                       .data = reinterpret_cast<const std::byte*>(identity.data())};
  const KvLayer kv{DType::kF32, reinterpret_cast<std::byte*>(k.data()), reinterpret_cast<std::byte*>(v.data())};
  ops_.qkv_rope(context_, {x.data(), n, w, bias.data(), heads, 1, dim, cos.As<float>().data(), sin.As<float>().data(),
                           slots, kv, out.data()});
  for (size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], want.As<float>()[i], 4 * 0x1.0p-24f * 4) << i;
}

}  // namespace
}  // namespace gptoss
