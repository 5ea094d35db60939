// Every backward op against central differences of its forward op, in double: relative error at most 1e-5, element by
// element. The forward ops themselves are compared with those of ops.h in model/gpt_oss_backward_test.cc.

#include "ops/backward_ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "ops/balance_loss.h"

namespace gptoss {
namespace {

using Vec = std::vector<double>;

/// Values in [-scale, scale), the same in every run.
Vec Random(const std::string& name, int64_t count, double scale = 1.0) {
  const RandomStream stream(5, name);
  Vec values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = scale * (2 * stream.Uniform(i) - 1);
  return values;
}

DoubleMatrix Matrix(const Vec& values, int64_t rows, int64_t cols) { return {rows, cols, values.data()}; }

double Sum(const Vec& a, const Vec& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// `gradient` against (f(v + h) - f(v - h)) / 2h for every element v of `values`.
void CheckGradient(const std::string& what, Vec* values, const Vec& gradient, const std::function<double()>& f) {
  ASSERT_EQ(values->size(), gradient.size()) << what;
  const double h = 1e-5;
  double largest = 0;
  for (const double g : gradient) largest = std::max(largest, std::abs(g));
  EXPECT_GT(largest, 1e-3) << what << ": nothing to compare";
  for (size_t i = 0; i < values->size(); ++i) {
    const double kept = (*values)[i];
    (*values)[i] = kept + h;
    const double above = f();
    (*values)[i] = kept - h;
    const double below = f();
    (*values)[i] = kept;
    const double difference = (above - below) / (2 * h);
    // An element much smaller than the largest is known to the same absolute precision only: h^2 and rounding / h.
    const double size = std::max({std::abs(difference), std::abs(gradient[i]), 1e-4 * largest});
    EXPECT_LE(std::abs(difference - gradient[i]), 1e-5 * size) << what << "[" << i << "]";
  }
}

class BackwardOps : public testing::Test {
 protected:
  ThreadPool pool_{1};
  ScratchArena scratch_;
  ExecContext context_{pool_, scratch_};
  const TrainingOps<double>& ops_ = ReferenceTrainingOps<double>();
};

TEST_F(BackwardOps, RmsNorm) {
  const int64_t n = 3, width = 20;
  Vec x = Random("x", n * width), scale = Random("scale", width), c = Random("c", n * width), y(c.size());
  Vec dx(x.size(), 0.0), dscale(scale.size(), 0.0);
  const auto f = [&] {
    ops_.rms_norm(context_, {x.data(), scale.data(), 1e-2, n, width, y.data()});
    return Sum(c, y);
  };
  ops_.rms_norm_backward(context_, {x.data(), scale.data(), 1e-2, n, width, c.data(), dx.data(), dscale.data()});
  CheckGradient("x", &x, dx, f);
  CheckGradient("scale", &scale, dscale, f);
}

TEST_F(BackwardOps, LinearAddsToWhatIsThereAndSkipsWhatIsNotWanted) {
  const int64_t n = 4, rows = 6, cols = 11;
  Vec x = Random("x", n * cols), w = Random("w", rows * cols), bias = Random("bias", rows), c = Random("c", n * rows);
  Vec y(c.size()), dx(x.size(), 0.0), dw(w.size(), 0.0), db(rows, 0.0);
  const auto f = [&] {
    ops_.linear(context_, {x.data(), n, Matrix(w, rows, cols), bias.data(), false, y.data()});
    return Sum(c, y);
  };
  ops_.linear_backward(context_, {x.data(), n, Matrix(w, rows, cols), c.data(), dx.data(), dw.data(), db.data()});
  CheckGradient("x", &x, dx, f);
  CheckGradient("weight", &w, dw, f);
  CheckGradient("bias", &bias, db, f);
  const Vec once = dw;
  ops_.linear_backward(context_, {x.data(), n, Matrix(w, rows, cols), c.data(), nullptr, dw.data(), nullptr});
  for (size_t i = 0; i < dw.size(); ++i) EXPECT_NEAR(dw[i], 2 * once[i], 1e-14);
}

TEST_F(BackwardOps, Embedding) {
  const int64_t width = 5;
  const std::vector<int32_t> tokens = {2, 0, 2};  // one token twice: its gradients add up
  Vec table = Random("table", 4 * width), c = Random("c", 3 * width), x(c.size()), dtable(table.size(), 0.0);
  const auto f = [&] {
    ops_.embed(context_, {Matrix(table, 4, width), tokens, x.data()});
    return Sum(c, x);
  };
  ops_.embed_backward(context_, {tokens, width, c.data(), dtable.data()});
  CheckGradient("table", &table, dtable, f);
}

TEST_F(BackwardOps, QkvRope) {
  const HeadShape heads{4, 2, 6};
  const int64_t n = 3, width = 10, out = heads.qkv_size();
  Vec x = Random("x", n * width), w = Random("w", out * width), bias = Random("bias", out), c = Random("c", n * out);
  Vec angle = Random("angle", n * 3, 3.0), cos(angle.size()), sin(angle.size()), y(c.size());
  for (size_t i = 0; i < angle.size(); ++i) {
    cos[i] = 1.3 * std::cos(angle[i]);  // with a concentration
    sin[i] = 1.3 * std::sin(angle[i]);
  }
  const auto f = [&] {
    ops_.qkv_rope(context_, {x.data(), n, Matrix(w, out, width), bias.data(), heads, cos.data(), sin.data(), y.data()});
    return Sum(c, y);
  };
  Vec dqkv = c, dx(x.size(), 0.0), dw(w.size(), 0.0), db(bias.size(), 0.0);
  ops_.qkv_rope_backward(context_, {x.data(), n, Matrix(w, out, width), heads, cos.data(), sin.data(), dqkv.data(),
                                    dx.data(), dw.data(), db.data()});
  CheckGradient("x", &x, dx, f);
  CheckGradient("weight", &w, dw, f);
  CheckGradient("bias", &bias, db, f);
}

TEST_F(BackwardOps, AttentionWithSinksWindowAndSequenceBorders) {
  const HeadShape heads{4, 2, 6};
  const std::vector<SequenceSpan> spans = {{0, 7, 0}, {7, 4, 0}};
  const int64_t n = 11;
  for (const int window : {0, 3}) {
    Vec qkv = Random("qkv", n * heads.qkv_size(), 1.5), sinks = Random("sinks", 4), c = Random("c", n * heads.q_size());
    Vec out(c.size()), lse(n * 4), dqkv(qkv.size()), dsinks(4, 0.0);
    const auto f = [&] {
      ops_.attention(context_, {qkv.data(), heads, spans, window, sinks.data(), out.data(), lse.data()});
      return Sum(c, out);
    };
    f();
    ops_.attention_backward(context_, {qkv.data(), heads, spans, window, sinks.data(), out.data(), lse.data(), c.data(),
                                       dqkv.data(), dsinks.data()});
    CheckGradient("qkv", &qkv, dqkv, f);
    CheckGradient("sinks", &sinks, dsinks, f);
  }
}

/// Buffers of a routing.
struct RoutingBuffers {
  std::vector<int32_t> expert, offsets, token, row;
  std::vector<float> unused;
  Routing routing;
  RoutingBuffers(int64_t n, int experts, int k)
      : expert(static_cast<size_t>(n * k)),
        offsets(static_cast<size_t>(experts + 1)),
        token(expert.size()),
        row(expert.size()),
        routing{n, experts, k, expert, unused, offsets, token, row} {}
  RoutingBuffers(const RoutingBuffers&) = delete;  // the routing points into the vectors
};

TEST_F(BackwardOps, RouterThroughTheSoftmaxOverTheChosen) {
  const int64_t n = 5, experts = 6, width = 8, k = 3;
  RoutingBuffers b(n, experts, k);
  Vec x = Random("x", n * width), w = Random("w", experts * width), bias = Random("bias", experts),
      c = Random("c", n * k);
  Vec logits(n * experts), weight(n * k), dx(x.size(), 0.0), dw(w.size(), 0.0), db(bias.size(), 0.0);
  const auto f = [&] {
    ops_.router(context_, {x.data(), Matrix(w, experts, width), bias.data(), logits.data(), weight.data(), &b.routing});
    return Sum(c, weight);
  };
  f();
  const std::vector<int32_t> chosen = b.expert;
  ops_.router_backward(context_, {x.data(), Matrix(w, experts, width), &b.routing, weight.data(), c.data(), dx.data(),
                                  dw.data(), db.data()});
  CheckGradient("x", &x, dx, f);
  CheckGradient("weight", &w, dw, f);
  CheckGradient("bias", &bias, db, f);
  f();
  EXPECT_EQ(chosen, b.expert);
}

TEST_F(BackwardOps, BalanceLossThroughTheRouter) {
  const int64_t n = 5, experts = 4, width = 6, k = 2;
  RoutingBuffers b(n, experts, k);
  Vec x = Random("x", n * width), w = Random("w", experts * width), bias = Random("bias", experts);
  Vec logits(n * experts), weight(n * k), none(n * k, 0.0), dx(x.size(), 0.0), dw(w.size(), 0.0), db(bias.size(), 0.0);
  const double factor = 0.3;
  const auto f = [&] {
    ops_.router(context_, {x.data(), Matrix(w, experts, width), bias.data(), logits.data(), weight.data(), &b.routing});
    return factor * BalanceLoss(b.routing, logits.data());
  };
  f();
  const std::vector<int32_t> chosen = b.expert;
  RouterBackwardArgs<double> args = {
      x.data(), Matrix(w, experts, width), &b.routing, weight.data(), none.data(), dx.data(), dw.data(), db.data()};
  args.logits = logits.data();
  args.balance = factor;
  ops_.router_backward(context_, args);
  CheckGradient("x", &x, dx, f);
  CheckGradient("weight", &w, dw, f);
  CheckGradient("bias", &bias, db, f);
  f();
  EXPECT_EQ(chosen, b.expert);
}

TEST_F(BackwardOps, BalanceLossIsOneWhenAllExpertsAreUsedAlikeAndTheirNumberWhenOneIs) {
  RoutingBuffers even(2, 4, 2), one(2, 4, 1);
  even.expert = {0, 1, 2, 3};
  one.expert = {3, 3};
  even.routing.expert = even.expert;
  one.routing.expert = one.expert;
  GroupByExpert(&even.routing);
  GroupByExpert(&one.routing);
  const Vec zero(8, 0.0), sharp = {0, 0, 0, 99, 0, 0, 0, 99};
  EXPECT_NEAR(BalanceLoss(even.routing, zero.data()), 1.0, 1e-12);
  EXPECT_NEAR(BalanceLoss(one.routing, sharp.data()), 4.0, 1e-12);
  EXPECT_NEAR(BalanceLoss(one.routing, zero.data()), 1.0, 1e-12);  // P is even, whatever f is
}

/// 4 tokens go to 2 of 3 experts each; expert 1 gets none.
void FillRouting(RoutingBuffers* b) {
  static constexpr int32_t kExperts[] = {2, 0, 0, 2, 2, 0, 0, 2};
  std::copy(std::begin(kExperts), std::end(kExperts), b->expert.begin());
  GroupByExpert(&b->routing);
}

TEST_F(BackwardOps, MoeGateUpWithClamps) {
  RoutingBuffers b(4, 3, 2);
  FillRouting(&b);
  const int64_t n = 4, width = 8, inner = 5, rows = 8;
  // A limit of 1.5 on values of up to about 3: some are clamped above, some below, most not.
  const double limit = 1.5;
  Vec x = Random("x", n * width), w = Random("w", 3 * 2 * inner * width), bias = Random("bias", 3 * 2 * inner),
      c = Random("c", rows * inner);
  Vec pre(rows * 2 * inner), h(rows * inner), dx(x.size(), 0.0), dw(w.size(), 0.0), db(bias.size(), 0.0);
  const auto f = [&] {
    ops_.moe_gate_up(context_,
                     {x.data(), Matrix(w, 2 * inner, width), bias.data(), limit, &b.routing, pre.data(), h.data()});
    return Sum(c, h);
  };
  f();
  int clamped_gates = 0, clamped_ups = 0;
  for (size_t i = 0; i < pre.size(); i += 2) {
    clamped_gates += pre[i] > limit;
    clamped_ups += std::abs(pre[i + 1]) > limit;
    for (const double edge : {pre[i] - limit, pre[i + 1] - limit, pre[i + 1] + limit}) ASSERT_GT(std::abs(edge), 1e-4);
  }
  ASSERT_GT(clamped_gates, 0);
  ASSERT_GT(clamped_ups, 0);
  ops_.moe_gate_up_backward(context_, {x.data(), Matrix(w, 2 * inner, width), limit, &b.routing, pre.data(), c.data(),
                                       dx.data(), dw.data(), db.data()});
  CheckGradient("x", &x, dx, f);
  CheckGradient("weight", &w, dw, f);
  CheckGradient("bias", &bias, db, f);
}

TEST_F(BackwardOps, MoeDown) {
  RoutingBuffers b(4, 3, 2);
  FillRouting(&b);
  const int64_t n = 4, width = 6, inner = 5, rows = 8;
  Vec h = Random("h", rows * inner), w = Random("w", 3 * width * inner), bias = Random("bias", 3 * width),
      weight = Random("weight", rows), c = Random("c", n * width);
  Vec x(c.size()), dh(h.size()), dweight(rows), dw(w.size(), 0.0), db(bias.size(), 0.0);
  const auto f = [&] {
    std::fill(x.begin(), x.end(), 0.0);
    ops_.moe_down(context_, {h.data(), Matrix(w, width, inner), bias.data(), &b.routing, weight.data(), x.data()});
    return Sum(c, x);
  };
  ops_.moe_down_backward(context_, {h.data(), Matrix(w, width, inner), bias.data(), &b.routing, weight.data(), c.data(),
                                    dh.data(), dweight.data(), dw.data(), db.data()});
  CheckGradient("h", &h, dh, f);
  CheckGradient("routing weight", &weight, dweight, f);
  CheckGradient("weight", &w, dw, f);
  CheckGradient("bias", &bias, db, f);
}

TEST_F(BackwardOps, CrossEntropyOverSeveralChunks) {
  const int64_t n = 37, width = 6, vocab = 9;
  Vec hidden = Random("hidden", n * width), w = Random("w", vocab * width, 2.0), factor = Random("factor", n);
  std::vector<int32_t> target(static_cast<size_t>(n));
  for (size_t i = 0; i < target.size(); ++i) target[i] = static_cast<int32_t>(i % static_cast<size_t>(vocab));
  Vec row_loss(n), dhidden(hidden.size(), 0.0), dw(w.size(), 0.0);
  const auto f = [&] {
    ops_.cross_entropy(context_,
                       {hidden.data(), n, Matrix(w, vocab, width), target, factor, row_loss.data(), nullptr, nullptr});
    return Sum(factor, row_loss);
  };
  // By hand, from the definition.
  const double loss = f();
  double want = 0;
  for (int64_t r = 0; r < n; ++r) {
    double sum = 0, chosen = 0;
    for (int64_t v = 0; v < vocab; ++v) {
      double logit = 0;
      for (int64_t i = 0; i < width; ++i) logit += hidden[r * width + i] * w[v * width + i];
      sum += std::exp(logit);
      if (v == target[static_cast<size_t>(r)]) chosen = logit;
    }
    want += factor[static_cast<size_t>(r)] * (std::log(sum) - chosen);
  }
  EXPECT_NEAR(loss, want, 1e-12);
  ops_.cross_entropy(context_, {hidden.data(), n, Matrix(w, vocab, width), target, factor, row_loss.data(),
                                dhidden.data(), dw.data()});
  CheckGradient("hidden", &hidden, dhidden, f);
  CheckGradient("weight", &w, dw, f);
}

TEST_F(BackwardOps, FrozenMatricesOfBlockTypesGiveTheirDecodedGradient) {
  // dx through an MXFP4 matrix is dx through its values: what adapters over frozen experts rely on.
  const int64_t n = 3, rows = 4, cols = 64;
  std::vector<uint8_t> codes(rows * cols / 2), scales(rows * cols / 32, 126);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(37 * i + 11);
  const WeightMatrix frozen{.dtype = DType::kMxfp4,
                            .rows = rows,
                            .cols = cols,
                            .data = reinterpret_cast<const std::byte*>(codes.data()),
                            .scales = reinterpret_cast<const std::byte*>(scales.data())};
  static constexpr double kValues[16] = {0, .5, 1, 1.5, 2, 3, 4, 6, -0.0, -.5, -1, -1.5, -2, -3, -4, -6};
  const Vec dy = Random("dy", n * rows);
  std::vector<float> dy_float(dy.begin(), dy.end()), dx(n * cols, 0.0f);
  ReferenceTrainingOps<float>().linear_backward(context_,
                                                {nullptr, n, frozen, dy_float.data(), dx.data(), nullptr, nullptr});
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t c = 0; c < cols; ++c) {
      double want = 0;
      for (int64_t r = 0; r < rows; ++r) {
        const int code = codes[r * cols / 2 + c / 2] >> (4 * (c % 2)) & 15;
        want += dy_float[t * rows + r] * kValues[code] / 2;  // scale 126 is 2^-1
      }
      EXPECT_NEAR(dx[t * cols + c], want, 1e-5);
    }
  }
}

}  // namespace
}  // namespace gptoss
