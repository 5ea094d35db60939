// The whole model's gradients: central differences in double on the golden micro model, every parameter of every
// layer; the training forward pass against logits of the official PyTorch code.

#include "model/gpt_oss_backward.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "base/mmap_file.h"
#include "base/rng.h"
#include "model/flat_parameters.h"
#include "tensor/npy.h"

namespace gptoss {
namespace {

const std::string kGolden = std::string(GPTOSS_TEST_DATA) + "/golden/micro/";

std::vector<int32_t> GoldenTokens(const std::string& sequence) {
  auto text = ReadTextFile(kGolden + "sequences.json");
  EXPECT_TRUE(text.ok());
  return ParseJson(*text)->at(sequence).get<std::vector<int32_t>>();
}

/// Whole sequences, with every next token as a target.
TrainingBatch BatchOf(const std::vector<std::vector<int32_t>>& sequences) {
  TrainingBatch batch;
  for (const std::vector<int32_t>& tokens : sequences) {
    const int first = static_cast<int>(batch.rows()), count = static_cast<int>(tokens.size());
    batch.sequences.push_back({first, count, 0});
    for (int i = 0; i < count; ++i) {
      batch.tokens.push_back(tokens[static_cast<size_t>(i)]);
      batch.positions.push_back(i);
      if (i + 1 == count) continue;
      batch.target_rows.push_back(first + i);
      batch.targets.push_back(tokens[static_cast<size_t>(i) + 1]);
      batch.weights.push_back(i % 3 == 0 ? 0.5f : 1.0f);
    }
  }
  return batch;
}

class GptOssBackwardTest : public testing::Test {
 protected:
  void SetUp() override {
    auto checkpoint = OpenCheckpoint(kGolden + "checkpoint/hf");
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
    config_ = (*checkpoint)->config();
    auto values = ReadFlatParameters(**checkpoint, FlatLayout(config_));
    ASSERT_TRUE(values.ok()) << values.status().message();
    values_ = *std::move(values);
  }

  ThreadPool pool_{1};
  ScratchArena scratch_;
  ExecContext context_{pool_, scratch_};
  ModelConfig config_;
  std::vector<float> values_;
};

double Relative(std::span<const float> want, std::span<const float> got) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (want[i] - got[i]) * static_cast<double>(want[i] - got[i]);
    norm += want[i] * static_cast<double>(want[i]);
  }
  return std::sqrt(error / norm);
}

TEST_F(GptOssBackwardTest, ForwardGivesTheOfficialLogits) {
  const FlatLayout layout(config_);
  const GptOssBackward<float> model(config_, ReferenceTrainingOps<float>());
  for (const std::string name : {"s7", "s300"}) {
    const auto golden = ReadNpy(kGolden + name + ".logits.f32.npy");
    ASSERT_TRUE(golden.ok()) << golden.status().message();
    const TrainingBatch batch = BatchOf({GoldenTokens(name)});
    const auto rows = static_cast<size_t>(golden->shape[0]);
    std::vector<int32_t> wanted(rows);
    std::iota(wanted.begin(), wanted.end(), static_cast<int32_t>(batch.rows()) - static_cast<int32_t>(rows));
    std::vector<float> logits(rows * static_cast<size_t>(config_.vocab_size));
    model.Logits(context_, BindParameters<float>(layout, values_.data()), batch, wanted, logits.data());
    EXPECT_LE(Relative(golden->As<float>(), logits), 2e-5) << name;
  }
}

/// The micro model in double with a window that sequences of a few tokens exceed.
struct DoubleModel {
  ModelConfig config;
  FlatLayout layout;
  std::vector<double> values;
  GptOssBackward<double> model;
  TrainingBatch batch = BatchOf({GoldenTokens("s7"), {5, 400, 17, 93, 250, 5, 17, 600, 3, 88, 211, 5}});

  DoubleModel(ModelConfig c, const std::vector<float>& floats)
      : config(WithWindow(c)),
        layout(config),
        values(floats.begin(), floats.end()),
        model(config, ReferenceTrainingOps<double>()) {}
  static ModelConfig WithWindow(ModelConfig c) {
    c.sliding_window = 4;
    return c;
  }
  double Loss(ExecContext& context, ModelGradients<double>* gradients = nullptr) {
    return model.Loss(context, BindParameters<double>(layout, values.data()), batch, 0.25, gradients);
  }
};

/// (L(v + h d) - L(v - h d)) / 2h along direction d of one tensor. The step is at most 1e-5, and where the gradient is
/// steep so small that the loss changes by a millionth: the larger the change, the likelier a clamp or a router's
/// choice flips in between, where there is no derivative.
double Directional(DoubleModel* m, ExecContext& context, size_t offset, const std::vector<double>& d, double expected) {
  const std::vector<double> kept(m->values.begin() + static_cast<int64_t>(offset),
                                 m->values.begin() + static_cast<int64_t>(offset + d.size()));
  const auto loss_at = [&](double step) {
    for (size_t i = 0; i < d.size(); ++i) m->values[offset + i] = kept[i] + step * d[i];
    return m->Loss(context);
  };
  const double h = std::min(1e-5, 1e-6 * loss_at(0) / std::abs(expected));
  const double derivative = (loss_at(h) - loss_at(-h)) / (2 * h);
  std::copy(kept.begin(), kept.end(), m->values.begin() + static_cast<int64_t>(offset));
  return derivative;
}

TEST_F(GptOssBackwardTest, EveryParameterOfTheMicroModelAgainstDifferences) {
  DoubleModel m(config_, values_);
  std::vector<double> gradient(m.layout.size(), 0.0);
  ModelGradients<double> g = BindGradients<double>(m.layout, gradient.data(), [](const TensorSpec&) { return true; });
  m.Loss(context_, &g);
  for (const FlatTensor& tensor : m.layout.tensors()) {
    const double* own = gradient.data() + tensor.offset;
    double norm = 0;
    for (size_t i = 0; i < tensor.count; ++i) norm += own[i] * own[i];
    norm = std::sqrt(norm);
    ASSERT_GT(norm, 1e-4) << tensor.spec.name << ": too small for differences of the loss to show it";
    // Along the gradient plus a random unit vector: all elements take part, and none can cancel the others.
    const RandomStream random(11, tensor.spec.name);
    std::vector<double> direction(tensor.count);
    double random_norm = 0, want = 0;
    for (size_t i = 0; i < tensor.count; ++i) random_norm += std::pow(random.Uniform(i) - 0.5, 2);
    for (size_t i = 0; i < tensor.count; ++i) {
      direction[i] = own[i] / norm + (random.Uniform(i) - 0.5) / std::sqrt(random_norm);
      want += direction[i] * own[i];
    }
    const double got = Directional(&m, context_, tensor.offset, direction, want);
    EXPECT_LE(std::abs(got - want), 1e-5 * std::max(std::abs(got), std::abs(want))) << tensor.spec.name;
    // And the largest element by itself.
    const auto largest = static_cast<size_t>(
        std::max_element(own, own + tensor.count, [](double a, double b) { return std::abs(a) < std::abs(b); }) - own);
    const double one = Directional(&m, context_, tensor.offset + largest, {1.0}, own[largest]);
    EXPECT_LE(std::abs(one - own[largest]), 1e-5 * std::max(std::abs(one), std::abs(own[largest])))
        << tensor.spec.name << "[" << largest << "]";
  }
}

TEST_F(GptOssBackwardTest, BalanceLossOfTheMicroModelAgainstDifferences) {
  DoubleModel m(config_, values_);
  const double factor = 2.0;
  std::vector<double> gradient(m.layout.size(), 0.0), unused(m.layout.size(), 0.0);
  const auto all = [](const TensorSpec&) { return true; };
  ModelGradients<double> g = BindGradients<double>(m.layout, gradient.data(), all);
  ModelGradients<double> g_unused = BindGradients<double>(m.layout, unused.data(), all);
  const auto loss_at = [&](ModelGradients<double>* gradients) {
    BalanceTerm balance{.factor = factor};
    const double loss =
        m.model.Loss(context_, BindParameters<double>(m.layout, m.values.data()), m.batch, 0.25, gradients, &balance);
    EXPECT_GT(balance.loss, 0.5);
    return loss + factor * balance.loss;
  };
  loss_at(&g);
  m.Loss(context_, &g_unused);
  // A router, and what reaches routers through the stream only.
  for (const std::string name : {"layers.1.router.weight", "layers.0.router.bias", "layers.0.down.weight"}) {
    const FlatTensor& tensor = m.layout.Find(name);
    const double* own = gradient.data() + tensor.offset;
    double square = 0, difference = 0;
    for (size_t i = 0; i < tensor.count; ++i) {
      square += own[i] * own[i];
      difference += std::pow(own[i] - unused[tensor.offset + i], 2);
    }
    EXPECT_GT(difference, 1e-6 * square) << name << ": the balance loss has no part in it";
    const auto moved = [&](double step) {
      const std::vector<double> kept = m.values;
      for (size_t i = 0; i < tensor.count; ++i) m.values[tensor.offset + i] += step * own[i];
      const double loss = loss_at(&g_unused);
      m.values = kept;
      return loss;
    };
    const double h = std::min(1e-5, 1e-6 / square);
    const double got = (moved(h) - moved(-h)) / (2 * h);
    EXPECT_LE(std::abs(got - square), 1e-5 * std::max(got, square)) << name;
  }
}

TEST_F(GptOssBackwardTest, FloatGradientsAreTheDoubleOnesRounded) {
  DoubleModel m(config_, values_);
  std::vector<double> in_double(m.layout.size(), 0.0);
  std::vector<float> in_float(m.layout.size(), 0.0f);
  const auto all = [](const TensorSpec&) { return true; };
  ModelGradients<double> gd = BindGradients<double>(m.layout, in_double.data(), all);
  ModelGradients<float> gf = BindGradients<float>(m.layout, in_float.data(), all);
  const double loss = m.Loss(context_, &gd);
  const GptOssBackward<float> model(m.config, ReferenceTrainingOps<float>());
  const ModelParameters<float> parameters = BindParameters<float>(m.layout, values_.data());
  EXPECT_NEAR(model.Loss(context_, parameters, m.batch, 0.25, &gf), loss, 1e-5 * loss);
  for (const FlatTensor& tensor : m.layout.tensors()) {
    const std::vector<float> want(in_double.begin() + static_cast<int64_t>(tensor.offset),
                                  in_double.begin() + static_cast<int64_t>(tensor.offset + tensor.count));
    EXPECT_LE(Relative(want, std::span(in_float).subspan(tensor.offset, tensor.count)), 2e-4) << tensor.spec.name;
  }
}

TEST_F(GptOssBackwardTest, PackedSequencesDoNotSeeEachOther) {
  DoubleModel m(config_, values_);
  const std::vector<int32_t> a = GoldenTokens("s7"), b = {9, 100, 2, 630, 44, 21};
  m.batch = BatchOf({a});
  double separate = m.Loss(context_);
  m.batch = BatchOf({b});
  separate += m.Loss(context_);
  m.batch = BatchOf({a, b});
  EXPECT_NEAR(m.Loss(context_), separate, 1e-12 * separate);
}

TEST_F(GptOssBackwardTest, MaskedGradientsStayUntouchedAndOthersKeepTheirBits) {
  DoubleModel m(config_, values_);
  std::vector<double> all(m.layout.size(), 0.0), some(m.layout.size(), 0.0);
  ModelGradients<double> ga = BindGradients<double>(m.layout, all.data(), [](const TensorSpec&) { return true; });
  const auto wanted = [](const TensorSpec& spec) { return spec.name.ends_with("router.weight"); };
  ModelGradients<double> gs = BindGradients<double>(m.layout, some.data(), wanted);
  m.Loss(context_, &ga);
  m.Loss(context_, &gs);
  for (const FlatTensor& tensor : m.layout.tensors()) {
    for (size_t i = tensor.offset; i < tensor.offset + tensor.count; ++i) {
      ASSERT_EQ(some[i], wanted(tensor.spec) ? all[i] : 0.0) << tensor.spec.name;
    }
  }
}

}  // namespace
}  // namespace gptoss
