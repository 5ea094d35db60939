// The training kernels of every target against the plain ops in double, and against themselves on other numbers of
// threads.
//
// A float sum of n products errs by at most (n + 2) roundings of partial sums that are at most the sum of the products'
// magnitudes: that sum is computed by the same op on absolute values. What is nonlinear (softmax, swiglu, norms) is
// checked with bounds that its comment derives.
#include "backends/cpu/training/training_ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "backends/test_util.h"

namespace gptoss {
namespace {

using namespace testing_util;  // NOLINT

constexpr double kEps = 0x1.0p-24;  // half a unit in the last place of 1

using Doubles = std::vector<double>;
Doubles Widened(const std::vector<float>& values) { return {values.begin(), values.end()}; }
Doubles Absolute(Doubles values) {
  for (double& v : values) v = std::abs(v);
  return values;
}
DoubleMatrix Matrix(const Doubles& values, int64_t rows, int64_t cols) { return {rows, cols, values.data()}; }

/// Targets of this machine whose products round their operands to BF16, or those whose products are in float. Targets
/// that only extend another one train with its kernels.
std::vector<std::string> TargetsThat(bool round) {
  std::vector<std::string> names;
  for (const CpuTarget& target : ListCpuTargets()) {
    if (!target.available) continue;
    const TrainingOps<float>& ops = **CpuTrainingOps(target.name);
    if (ops.name == target.name && ops.rounds_products == round) names.push_back(target.name);
  }
  return names;
}
std::vector<std::string> Targets() { return TargetsThat(/*round=*/false); }

constexpr std::string_view kEmulated = "emulated_amx_on_";

/// All of them: besides, those that round where the machine has them, and emulated tiles.
std::vector<std::string> TargetsOfProducts() {
  std::vector<std::string> names = Targets();
  for (const std::string& name : Targets()) {
    if (cpu::EmulatedAmxTrainingOps(name) != nullptr) names.push_back(std::string(kEmulated) + name);
  }
  for (const std::string& name : TargetsThat(/*round=*/true)) names.push_back(name);
  return names;
}

class TrainingKernels : public testing::TestWithParam<std::string> {
 protected:
  const TrainingOps<float>& ops() const {
    const std::string& name = GetParam();
    if (name.starts_with(kEmulated)) return *cpu::EmulatedAmxTrainingOps(name.substr(kEmulated.size()));
    return **CpuTrainingOps(name);
  }
  const TrainingOps<double>& plain() const { return ReferenceTrainingOps<double>(); }

  /// |got - want| <= bound, element by element, and not all zero.
  static void Compare(const std::string& what, const std::vector<float>& got, const Doubles& want,
                      const Doubles& bound) {
    double largest = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      largest = std::max(largest, std::abs(want[i]));
      ASSERT_LE(std::abs(static_cast<double>(got[i]) - want[i]), bound[i]) << what << " [" << i << "]: " << want[i];
    }
    EXPECT_GT(largest, 0) << what << ": nothing to compare";
  }
  static Doubles Scaled(Doubles values, double factor) {
    for (double& v : values) v = v * factor + 1e-30;
    return values;
  }
  static Doubles Same(size_t count, double value) { return Doubles(count, value); }

  ThreadPool pool_{3}, single_{1};
  ScratchArena scratch_, single_scratch_;
  ExecContext context_{pool_, scratch_}, alone_{single_, single_scratch_};
};

struct LinearCase {
  int64_t n, rows, cols;
};
class TrainingProducts : public TrainingKernels {
 protected:
  /// Of a product whose operands are rounded: 2^-8 each in BF16. `exact` says that one of them is in BF16 already.
  double Rounding(bool exact) const {
    if (!ops().rounds_products) return 0.0;
    return exact ? 0x1.0p-8 : 0x1.01p-7;
  }
  /// The table with the same instructions but those that round.
  const TrainingOps<float>& InFloat() const {
    const std::string& name = GetParam();
    return **CpuTrainingOps(name.starts_with(kEmulated) ? name.substr(kEmulated.size()) : "avx512");
  }
};

// Fewer rows than a tile, edges of panels, several steps of depth in each of the three products, several tiles.
constexpr LinearCase kLinear[] = {{1, 8, 32},    {7, 37, 96},    {130, 66, 320}, {300, 140, 544},
                                  {517, 96, 32}, {1040, 20, 32}, {24, 1040, 32}, {33, 17, 1056}};

TEST_P(TrainingProducts, LinearAndItsGradients) {
  for (const auto& [n, rows, cols] : kLinear) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kMxfp4}) {
      const std::string what = std::string(DTypeName(dtype)) + " " + std::to_string(n) + " x " + std::to_string(rows) +
                               " x " + std::to_string(cols) + " ";
      const OwnedMatrix w = RandomMatrix(dtype, 1, rows, cols, 3);
      const std::vector<float> x = RandomFloats(static_cast<size_t>(n * cols), 1), bias = RandomFloats(rows, 2);
      const std::vector<float> dy = RandomFloats(static_cast<size_t>(n * rows), 4);
      std::vector<float> y = RandomFloats(static_cast<size_t>(n * rows), 5);
      const Doubles wd = Widened(Decoded(w.view, 1)), xd = Widened(x), dyd = Widened(dy), bd = Widened(bias);
      const Doubles wa = Absolute(wd), xa = Absolute(xd), dya = Absolute(dyd), ba = Absolute(bd);

      const double weights = Rounding(dtype != DType::kF32), activations = Rounding(false);
      Doubles want = Widened(y), bound = Absolute(want);
      plain().linear(context_, {xd.data(), n, Matrix(wd, rows, cols), bd.data(), true, want.data()});
      plain().linear(context_, {xa.data(), n, Matrix(wa, rows, cols), ba.data(), true, bound.data()});
      std::vector<float> again = y;
      ops().linear(context_, {x.data(), n, w.view, bias.data(), true, y.data()});
      Compare(what + "y", y, want, Scaled(bound, weights + static_cast<double>(cols + 4) * kEps));
      ops().linear(alone_, {x.data(), n, w.view, bias.data(), true, again.data()});
      EXPECT_EQ(y, again) << what;
      if (activations > 0 && n > 16 && rows > 16) {
        std::vector<float> in_float(y.size());
        InFloat().linear(context_, {x.data(), n, w.view, bias.data(), false, in_float.data()});
        ops().linear(context_, {x.data(), n, w.view, bias.data(), false, again.data()});
        EXPECT_NE(again, in_float) << what << "tiles were not used";
      }

      std::vector<float> dx(x.size(), 0.5f), dw(wd.size(), 0.5f), db(bd.size(), 0.5f);
      Doubles dx_want = Widened(dx), dw_want = Widened(dw), db_want = Widened(db);
      Doubles dx_bound = dx_want, dw_bound = dw_want, db_bound = db_want;
      plain().linear_backward(
          context_, {xd.data(), n, Matrix(wd, rows, cols), dyd.data(), dx_want.data(), dw_want.data(), db_want.data()});
      plain().linear_backward(context_, {xa.data(), n, Matrix(wa, rows, cols), dya.data(), dx_bound.data(),
                                         dw_bound.data(), db_bound.data()});
      ops().linear_backward(context_, {x.data(), n, w.view, dy.data(), dx.data(), dw.data(), db.data()});
      Compare(what + "dx", dx, dx_want, Scaled(dx_bound, weights + static_cast<double>(rows + 4) * kEps));
      Compare(what + "dw", dw, dw_want, Scaled(dw_bound, activations + static_cast<double>(n + 4) * kEps));
      Compare(what + "db", db, db_want, Scaled(db_bound, static_cast<double>(n + 4) * kEps));
      std::vector<float> dx1(x.size(), 0.5f), dw1(wd.size(), 0.5f), db1(bd.size(), 0.5f);
      ops().linear_backward(alone_, {x.data(), n, w.view, dy.data(), dx1.data(), dw1.data(), db1.data()});
      EXPECT_EQ(dx, dx1) << what;
      EXPECT_EQ(dw, dw1) << what;
      EXPECT_EQ(db, db1) << what;
    }
  }
}

/// Attention: scores are s = q·k d^-1/2 with |error| at most S = (d + 3) kEps max|q| max|k| d^1/2. Probabilities are
/// exp(s - lse): the relative error is at most 2S (score and normaliser) plus (keys + 8) kEps for exp and its sum. So
/// out, an average of v, errs by at most R max|v| with R = 2S + (2 keys + 16) kEps.
///
/// Backwards dP - mean is at most 2 max|dout| max|v| d, known to (2 d + R d) relative roundings of that size; dS is P
/// times it. A row of P sums to at most 1, a column to at most the rows that see the key: dq is a sum over P's row,
/// dk and dv over its column.
TEST_P(TrainingKernels, AttentionAndItsGradients) {
  for (const int dim : {16, 64}) {
    const HeadShape heads{4, 2, dim};
    const std::vector<SequenceSpan> spans = {{0, 1, 0}, {1, 70, 0}, {71, 200, 0}};
    const int64_t n = 271;
    for (const int window : {0, 5, 100}) {
      const std::string what = "dim " + std::to_string(dim) + " window " + std::to_string(window) + " ";
      const std::vector<float> qkv = RandomFloats(static_cast<size_t>(n * heads.qkv_size()), 1, 2.0f);
      const std::vector<float> sinks = RandomFloats(4, 2),
                               dout = RandomFloats(static_cast<size_t>(n * heads.q_size()), 3, 2.0f);
      std::vector<float> out(dout.size()), lse(n * 4), dqkv(qkv.size()), dsinks(4, 0.5f);
      const Doubles qkv_d = Widened(qkv), sinks_d = Widened(sinks), dout_d = Widened(dout);
      Doubles out_d(out.size()), lse_d(lse.size()), dqkv_d(qkv.size()), dsinks_d(4, 0.5);
      plain().attention(context_, {qkv_d.data(), heads, spans, window, sinks_d.data(), out_d.data(), lse_d.data()});
      plain().attention_backward(context_, {qkv_d.data(), heads, spans, window, sinks_d.data(), out_d.data(),
                                            lse_d.data(), dout_d.data(), dqkv_d.data(), dsinks_d.data()});
      ops().attention(context_, {qkv.data(), heads, spans, window, sinks.data(), out.data(), lse.data()});
      ops().attention_backward(context_, {qkv.data(), heads, spans, window, sinks.data(), out.data(), lse.data(),
                                          dout.data(), dqkv.data(), dsinks.data()});

      const double largest = 2.0, d = dim, keys = window == 0 ? 200 : std::min(window, 200);
      const double score = (d + 3) * kEps * largest * largest * std::sqrt(d);
      const double relative = 2 * score + (2 * keys + 16) * kEps;
      Compare(what + "out", out, out_d, Same(out.size(), relative * largest));
      Compare(what + "lse", lse, lse_d, Same(lse.size(), score + (keys + 16) * kEps * 8));
      const double centered = 2 * largest * largest * d,
                   slope = centered * (relative + (2 * d + 8) * kEps + relative * d);
      Doubles bound(dqkv.size());
      for (size_t i = 0; i < bound.size(); ++i) {
        const auto at = static_cast<int64_t>(i) % heads.qkv_size();
        const double through_scores = slope * largest / std::sqrt(d), through_values = relative * largest;
        const double sums = at < heads.q_size() ? 1.0 : 2.0 * keys;  // two query heads read a key
        bound[i] = at < heads.q_size() + heads.kv_size() ? sums * through_scores : sums * through_values;
      }
      Compare(what + "dqkv", dqkv, dqkv_d, bound);
      Compare(what + "dsinks", dsinks, dsinks_d, Same(4, static_cast<double>(n) * slope));
      // The bounds above are worst cases; on the whole the error is as that of the plain float ops.
      std::vector<float> out_f(out.size()), lse_f(lse.size()), dqkv_f(qkv.size()), dsinks_f(4, 0.5f);
      const auto& in_float = ReferenceTrainingOps<float>();
      in_float.attention(context_, {qkv.data(), heads, spans, window, sinks.data(), out_f.data(), lse_f.data()});
      in_float.attention_backward(context_, {qkv.data(), heads, spans, window, sinks.data(), out_f.data(), lse_f.data(),
                                             dout.data(), dqkv_f.data(), dsinks_f.data()});
      double ours = 0, theirs = 0;
      for (size_t i = 0; i < dqkv.size(); ++i) {
        ours += std::pow(dqkv[i] - dqkv_d[i], 2);
        theirs += std::pow(dqkv_f[i] - dqkv_d[i], 2);
      }
      EXPECT_LE(std::sqrt(ours), 2 * std::sqrt(theirs)) << what;

      std::vector<float> out1(out.size()), lse1(lse.size()), dqkv1(qkv.size()), dsinks1(4, 0.5f);
      ops().attention(alone_, {qkv.data(), heads, spans, window, sinks.data(), out1.data(), lse1.data()});
      ops().attention_backward(alone_, {qkv.data(), heads, spans, window, sinks.data(), out1.data(), lse1.data(),
                                        dout.data(), dqkv1.data(), dsinks1.data()});
      EXPECT_EQ(out, out1) << what;
      EXPECT_EQ(lse, lse1) << what;
      EXPECT_EQ(dqkv, dqkv1) << what;
      EXPECT_EQ(dsinks, dsinks1) << what;
    }
  }
}

TEST_P(TrainingKernels, ASequenceDoesNotDependOnItsNeighbours) {
  const HeadShape heads{4, 2, 32};
  const int64_t width = heads.qkv_size(), n = 90;
  const std::vector<float> qkv = RandomFloats(static_cast<size_t>(2 * n * width), 1), sinks = RandomFloats(4, 2);
  std::vector<float> both(2 * n * heads.q_size()), alone(n * heads.q_size()), lse(2 * n * 4);
  const std::vector<SequenceSpan> two = {{0, n, 0}, {n, n, 0}}, one = {{0, n, 0}};
  ops().attention(context_, {qkv.data(), heads, two, 0, sinks.data(), both.data(), lse.data()});
  ops().attention(context_, {qkv.data() + n * width, heads, one, 0, sinks.data(), alone.data(), lse.data()});
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), both.begin() + n * heads.q_size()));
}

/// All experts' ops together, on one routing.
class Experts {
 public:
  static constexpr int64_t kTokens = 150, kWidth = 96, kInner = 64;
  static constexpr int kExperts = 5, kChosen = 2;
  static constexpr int64_t kRows = kTokens * kChosen;

  Experts() : routing(kTokens, kExperts, kChosen) {
    // Expert 3 gets nothing, expert 0 one token only.
    for (int64_t t = 0; t < kTokens; ++t) {
      routing.expert[static_cast<size_t>(2 * t)] = t == 17 ? 0 : 1 + static_cast<int32_t>(t % 2);
      routing.expert[static_cast<size_t>(2 * t + 1)] = 4;
    }
    GroupByExpert(&routing.view);
  }
  OwnedRouting routing;
  std::vector<float> x = RandomFloats(kTokens * kWidth, 1), up_bias = RandomFloats(kExperts * 2 * kInner, 2),
                     down_bias = RandomFloats(kExperts * kWidth, 3), weight = RandomFloats(kRows, 4, 1.0f),
                     dx_out = RandomFloats(kTokens * kWidth, 5);
  OwnedMatrix gate_up = RandomMatrix(DType::kF32, kExperts, 2 * kInner, kWidth, 6);
  OwnedMatrix down = RandomMatrix(DType::kF32, kExperts, kWidth, kInner, 7);
};

TEST_P(TrainingProducts, ExpertsDownAndItsGradients) {
  const Experts e;
  const std::vector<float> h = RandomFloats(Experts::kRows * Experts::kInner, 8);
  std::vector<float> x = e.x, dh(h.size()), droute(Experts::kRows), dw(e.down.data.size() / 4, 0.5f),
                     db(e.down_bias.size(), 0.5f);
  const auto run = [&](auto&& table, auto& xs, auto& hs, auto& w, auto& bias, auto& route, auto& dout, auto& dhs,
                       auto& droutes, auto& dws, auto& dbs, auto matrix) {
    (void)w;
    table.moe_down(context_, {hs.data(), matrix, bias.data(), &e.routing.view, route.data(), xs.data()});
    table.moe_down_backward(context_, {hs.data(), matrix, bias.data(), &e.routing.view, route.data(), dout.data(),
                                       dhs.data(), droutes.data(), dws.data(), dbs.data()});
  };
  run(ops(), x, h, e.down, e.down_bias, e.weight, e.dx_out, dh, droute, dw, db, e.down.view);
  const auto plainly = [&](bool absolute) {
    const auto part = [&](const std::vector<float>& v) { return absolute ? Absolute(Widened(v)) : Widened(v); };
    struct Out {
      Doubles x, dh, droute, dw, db;
    } out{part(e.x), Doubles(dh.size()), Doubles(droute.size()), Doubles(dw.size(), 0.5), Doubles(db.size(), 0.5)};
    const Doubles w = part(Decoded(e.down.view, Experts::kExperts)), hs = part(h), bias = part(e.down_bias),
                  route = part(e.weight), dout = part(e.dx_out);
    run(plain(), out.x, hs, w, bias, route, dout, out.dh, out.droute, out.dw, out.db,
        Matrix(w, Experts::kWidth, Experts::kInner));
    return out;
  };
  const auto want = plainly(false), bound = plainly(true);
  // Each value is a sum of sums: at most width + inner + tokens roundings one after the other.
  const double factor =
      Rounding(false) + static_cast<double>(Experts::kWidth + Experts::kInner + Experts::kTokens) * kEps;
  Compare("x", x, want.x, Scaled(bound.x, factor));
  Compare("dh", dh, want.dh, Scaled(bound.dh, factor));
  Compare("routing", droute, want.droute, Scaled(bound.droute, factor));
  Compare("dw", dw, want.dw, Scaled(bound.dw, factor));
  Compare("db", db, want.db, Scaled(bound.db, factor));
}

/// pre is a sum, so it errs by at most e = (width + 4) kEps sum|w x|. swiglu's slope is at most 1.1 |up + 1| in the
/// gate and |gate| in up, all within the limit L: h errs by at most e (1.1 (L + 1) + L) + 8 kEps L (L + 1). Backwards
/// the gate's second derivative is at most 1.702: dpre errs by at most |dh| (e (1.702 + 1.1) (L + 1) + 16 kEps (L + 1)
/// (L + 1)). Values within e of a clamp may fall on either side: the seed gives none, which is checked.
TEST_P(TrainingKernels, ExpertsGateUpAndItsGradients) {
  Experts e;
  const float limit = 7.0f;
  const int64_t inner = Experts::kInner, width = Experts::kWidth, rows = Experts::kRows;
  const std::vector<float> dh = RandomFloats(static_cast<size_t>(rows * inner), 8, 2.0f);
  std::vector<float> pre(rows * 2 * inner), h(dh.size()), dx = e.x, dw(e.gate_up.data.size() / 4, 0.5f),
                                                          db(e.up_bias.size(), 0.5f);
  ops().moe_gate_up(context_,
                    {e.x.data(), e.gate_up.view, e.up_bias.data(), limit, &e.routing.view, pre.data(), h.data()});
  const Doubles w = Widened(Decoded(e.gate_up.view, Experts::kExperts)), x = Widened(e.x), bias = Widened(e.up_bias);
  const Doubles wa = Absolute(w), xa = Absolute(x), ba = Absolute(bias), dhd = Widened(dh);
  Doubles pre_want(pre.size()), h_want(h.size()), pre_bound(pre.size()), unused(h.size());
  plain().moe_gate_up(context_, {x.data(), Matrix(w, 2 * inner, width), bias.data(), limit, &e.routing.view,
                                 pre_want.data(), h_want.data()});
  plain().moe_gate_up(context_, {xa.data(), Matrix(wa, 2 * inner, width), ba.data(), limit, &e.routing.view,
                                 pre_bound.data(), unused.data()});
  pre_bound = Scaled(pre_bound, static_cast<double>(width + 4) * kEps);
  Compare("pre", pre, pre_want, pre_bound);
  const double l = limit;
  Doubles h_bound(h.size()), dpre_bound(pre.size());
  int clamped = 0;
  for (size_t i = 0; i < h.size(); ++i) {
    const double error = std::max(pre_bound[2 * i], pre_bound[2 * i + 1]);
    h_bound[i] = error * (1.1 * (l + 1) + l) + 8 * kEps * l * (l + 1);
    dpre_bound[2 * i] = dpre_bound[2 * i + 1] =
        std::abs(dhd[i]) * (error * 2.802 * (l + 1) + 16 * kEps * (l + 1) * (l + 1)) + 1e-30;
    for (const double v : {pre_want[2 * i] - l, pre_want[2 * i + 1] - l, pre_want[2 * i + 1] + l}) {
      ASSERT_GT(std::abs(v), error) << "a value at a clamp's edge: take another seed";
    }
    clamped += pre_want[2 * i] > l || std::abs(pre_want[2 * i + 1]) > l;
  }
  EXPECT_GT(clamped, 0);
  Compare("h", h, h_want, h_bound);

  Doubles dx_want = x, dw_want(dw.size(), 0.5), db_want(db.size(), 0.5), pre_taken = pre_want;
  plain().moe_gate_up_backward(
      context_, {x.data(), Matrix(w, 2 * inner, width), limit, &e.routing.view, pre_taken.data(), dhd.data(),
                 dx_want.data(), dw_want.data(), db_want.data()});
  ops().moe_gate_up_backward(context_, {e.x.data(), e.gate_up.view, limit, &e.routing.view, pre.data(), dh.data(),
                                        dx.data(), dw.data(), db.data()});
  Compare("dpre", pre, pre_taken, dpre_bound);
  // The sums of dpre times what it meets: its own error, and the roundings of a sum of |dpre| times it.
  const double dpre_largest = *std::max_element(dpre_bound.begin(), dpre_bound.end());
  const double size = 8 * 20 * (l + 1);  // |dh| <= 2, slopes below 1.1 (l + 1), factors up to 4 (weights), 20 (x)
  const double dx_bound = 2 * 2 * inner * 4 * (dpre_largest + (2 * inner + 8) * kEps * size);
  const double dw_bound = Experts::kTokens * 20 * (dpre_largest + (Experts::kTokens + 8) * kEps * size);
  Compare("dx", dx, dx_want, Same(dx.size(), dx_bound));
  Compare("dw", dw, dw_want, Same(dw.size(), dw_bound));
  Compare("db", db, db_want, Same(db.size(), dw_bound));
}

TEST_P(TrainingKernels, NormsRotationRoutingAndEmbedding) {
  const int64_t n = 300, width = 96;
  const std::vector<float> x = RandomFloats(n * width, 1, 3.0f), scale = RandomFloats(width, 2),
                           dy = RandomFloats(n * width, 3);
  std::vector<float> y(x.size()), dx(x.size(), 0.5f), dscale(width, 0.5f);
  const Doubles xd = Widened(x), scale_d = Widened(scale), dyd = Widened(dy);
  Doubles y_want(x.size()), dx_want(x.size(), 0.5), dscale_want(width, 0.5);
  const double eps = 1e-5f;
  plain().rms_norm(context_, {xd.data(), scale_d.data(), eps, n, width, y_want.data()});
  plain().rms_norm_backward(context_,
                            {xd.data(), scale_d.data(), eps, n, width, dyd.data(), dx_want.data(), dscale_want.data()});
  ops().rms_norm(context_, {x.data(), scale.data(), 1e-5f, n, width, y.data()});
  ops().rms_norm_backward(context_, {x.data(), scale.data(), 1e-5f, n, width, dy.data(), dx.data(), dscale.data()});
  // 1 / rms is below 3 here and known to width relative roundings; all other factors are at most 20 in size.
  const double relative = (static_cast<double>(width) + 16) * kEps;
  Compare("y", y, y_want, Same(y.size(), 3 * 3 * 20 * relative));
  Compare("dx", dx, dx_want, Same(dx.size(), 3 * 20 * 20 * 3 * 3 * relative));
  Compare("dscale", dscale, dscale_want,
          Same(dscale.size(), static_cast<double>(n) * 3 * 20 * 3 * (relative + static_cast<double>(n) * kEps)));
  std::vector<float> dx1(x.size(), 0.5f), dscale1(width, 0.5f);
  ops().rms_norm_backward(alone_, {x.data(), scale.data(), 1e-5f, n, width, dy.data(), dx1.data(), dscale1.data()});
  EXPECT_EQ(dx, dx1);
  EXPECT_EQ(dscale, dscale1);

  const std::vector<int32_t> tokens = {4, 0, 4, 2};
  std::vector<float> table(5 * width, 1.0f);
  Doubles table_want(table.size(), 1.0);
  ops().embed_backward(context_, {tokens, width, x.data(), table.data()});
  plain().embed_backward(context_, {tokens, width, xd.data(), table_want.data()});
  Compare("table", table, table_want, Same(table.size(), 4 * 7 * kEps));

  const OwnedMatrix matrix = RandomMatrix(DType::kF32, 1, 6, width, 7);
  const std::vector<float> bias = RandomFloats(6, 8), dweight = RandomFloats(n * 2, 9);
  OwnedRouting ours(n, 6, 2), theirs(n, 6, 2);
  std::vector<float> logits(n * 6), weight(n * 2), logits_r(n * 6), weight_r(n * 2);
  const TrainingOps<float>& in_float = ReferenceTrainingOps<float>();
  ops().router(context_, {x.data(), matrix.view, bias.data(), logits.data(), weight.data(), &ours.view});
  in_float.router(context_, {x.data(), matrix.view, bias.data(), logits_r.data(), weight_r.data(), &theirs.view});
  EXPECT_EQ(ours.expert, theirs.expert);
  EXPECT_EQ(ours.row, theirs.row);
  // Two float sums of the same `width` products of at most 3 * 4, through a softmax whose slope is at most 1/4 each.
  const double logit = 2.0 * static_cast<double>(width * (width + 4)) * 12 * kEps;
  for (size_t i = 0; i < weight.size(); ++i) EXPECT_NEAR(weight[i], weight_r[i], logit / 2 + 8 * kEps);
  std::vector<float> rx(x.size()), rw(6 * width), rb(6), rx_r(x.size()), rw_r(6 * width), rb_r(6);
  ops().router_backward(
      context_, {x.data(), matrix.view, &ours.view, weight_r.data(), dweight.data(), rx.data(), rw.data(), rb.data()});
  in_float.router_backward(context_, {x.data(), matrix.view, &theirs.view, weight_r.data(), dweight.data(), rx_r.data(),
                                      rw_r.data(), rb_r.data()});
  for (size_t i = 0; i < rx.size(); ++i) ASSERT_NEAR(rx[i], rx_r[i], 2.0 * 6 * 10 * 4 * 20 * kEps);
  for (size_t i = 0; i < rw.size(); ++i) ASSERT_NEAR(rw[i], rw_r[i], 2.0 * n * (n + 4) * 3 * 20 * kEps);
}

/// A row's loss is log-sum-exp minus a logit: logits err by e = (width + 4) kEps sum|w h|, the loss by twice that and
/// (vocabulary + 16) kEps of the log; probabilities by 2 e relative, and so on through the products.
TEST_P(TrainingKernels, CrossEntropyOverSeveralPieces) {
  const int64_t n = 200, width = 64, vocab = 77;
  const std::vector<float> hidden = RandomFloats(n * width, 1, 1.0f), factor = RandomFloats(n, 3, 1.0f);
  OwnedMatrix w = RandomMatrix(DType::kF32, 1, vocab, width, 2);
  std::vector<int32_t> target(n);
  for (int64_t i = 0; i < n; ++i) target[static_cast<size_t>(i)] = static_cast<int32_t>(i % vocab);
  std::vector<float> loss(n), dhidden(hidden.size(), 0.5f), dweight(vocab * width, 0.5f);
  Doubles loss_want(n), dhidden_want(hidden.size(), 0.5), dweight_want(dweight.size(), 0.5);
  const Doubles hd = Widened(hidden), wd = Widened(Decoded(w.view, 1)), fd = Widened(factor);
  plain().cross_entropy(context_, {hd.data(), n, Matrix(wd, vocab, width), target, fd, loss_want.data(),
                                   dhidden_want.data(), dweight_want.data()});
  ops().cross_entropy(context_,
                      {hidden.data(), n, w.view, target, factor, loss.data(), dhidden.data(), dweight.data()});
  const double e = static_cast<double>((width + 4) * width) * 4 * kEps,
               p = 2 * e + (static_cast<double>(vocab) + 16) * kEps * 8;
  Compare("loss", loss, loss_want, Same(loss.size(), 2 * e + (static_cast<double>(vocab) + 16) * kEps * 8));
  Compare("dhidden", dhidden, dhidden_want,
          Same(dhidden.size(), 2 * 4 * (p + (static_cast<double>(vocab) + 8) * kEps)));
  Compare("dweight", dweight, dweight_want,
          Same(dweight.size(), static_cast<double>(n) * (p + static_cast<double>(n) * kEps)));
  std::vector<float> only(n);
  ops().cross_entropy(alone_, {hidden.data(), n, w.view, target, factor, only.data(), nullptr, nullptr});
  EXPECT_EQ(only, loss);
}

INSTANTIATE_TEST_SUITE_P(AllTargets, TrainingKernels, testing::ValuesIn(Targets()));
INSTANTIATE_TEST_SUITE_P(AllTargets, TrainingProducts, testing::ValuesIn(TargetsOfProducts()));

TEST(TrainingOpsRegistry, UnknownTargetsAreNamed) {
  const auto unknown = CpuTrainingOps("mmx");
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.status().message().find("mmx"), std::string::npos);
}

}  // namespace
}  // namespace gptoss
