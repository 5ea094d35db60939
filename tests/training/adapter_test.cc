// Adapters: gradients against central differences in double, on the plain ops; the kernels of every target against
// them; training that reaches what full training reaches; files, merging and serving.
#include <algorithm>
#include <cmath>
#include <fstream>

#include "backends/cpu/training/training_ops.h"
#include "backends/registry.h"
#include "base/rng.h"
#include "lively.h"
#include "served.h"
#include "tiny.h"
#include "training/adapter_file.h"
#include "training/export.h"
#include "training/training_state.h"

namespace gptoss {
namespace {

template <typename T>
std::vector<T> As(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

/// W + scale * B A of every adapted tensor.
template <typename T>
std::vector<T> Merged(const FlatLayout& layout, std::vector<T> values, const AdapterLayout& adapter,
                      const std::vector<T>& own) {
  for (const FlatTensor& tensor : layout.tensors()) {
    std::string name = tensor.spec.name;
    if (name.ends_with(".weight")) name.resize(name.size() - 7);
    const FlatTensor *a = adapter.Find(name + ".lora_a"), *b = adapter.Find(name + ".lora_b");
    if (a == nullptr) continue;
    const uint64_t cols = tensor.spec.cols(), rank = static_cast<uint64_t>(adapter.options().rank);
    const uint64_t per_matrix = tensor.spec.shape[tensor.spec.shape.size() - 2];
    for (uint64_t r = 0; r < tensor.spec.rows(); ++r) {
      for (uint64_t c = 0; c < cols; ++c) {
        T sum = 0;
        for (uint64_t i = 0; i < rank; ++i) {
          sum += own[b->offset + r * rank + i] * own[a->offset + (r / per_matrix * rank + i) * cols + c];
        }
        values[tensor.offset + r * cols + c] += static_cast<T>(adapter.options().scale()) * sum;
      }
    }
  }
  return values;
}

class Adapters : public testing::Test {
 protected:
  TrainingBatch Batch() const { return PackExamples({&data_.examples[0], &data_.examples[6], &data_.examples[7]}); }

  Dataset data_ = TinyDataset();
  FlatLayout layout_{TinyConfig()};
  std::vector<float> base_ = LivelyParameters(layout_, 3);
  ThreadPool pool_{2};
  ScratchArena scratch_;
  ExecContext context_{pool_, scratch_};
};

TEST_F(Adapters, GradientsAreCentralDifferencesForEveryTarget) {
  for (const std::vector<std::string>& targets : {std::vector<std::string>{"all"}, {"q", "v"}}) {
    const AdapterLayout adapter(TinyConfig(), Options(targets));
    const std::vector<double> base = As<double>(base_);
    std::vector<double> own = As<double>(LivelyAdapter(adapter, 5)), gradient(own.size(), 0.0);
    const GptOssBackward<double> model(TinyConfig(), ReferenceTrainingOps<double>());
    const TrainingBatch batch = Batch();
    AdapterBinding<double> binding(adapter);
    ModelParameters<double> parameters = BindParameters<double>(layout_, base.data());
    ModelGradients<double> gradients;
    binding.Bind(own.data(), &parameters);
    binding.BindGradients(gradient.data(), &gradients);
    model.Loss(context_, parameters, batch, 1.0, &gradients);
    binding.CollectGradients(gradient.data());
    const auto loss = [&] {
      binding.Bind(own.data(), &parameters);
      return model.Loss(context_, parameters, batch, 1.0, nullptr);
    };
    for (const FlatTensor& tensor : adapter.tensors()) {
      const auto begin = gradient.begin() + static_cast<int64_t>(tensor.offset);
      double largest = 0;
      for (size_t i = 0; i < tensor.count; ++i) largest = std::max(largest, std::abs(begin[static_cast<int64_t>(i)]));
      ASSERT_GT(largest, 1e-4) << tensor.spec.name << ": nothing to compare";
      for (size_t i = 0; i < tensor.count; i += 1 + tensor.count / 7) {
        double& value = own[tensor.offset + i];
        const double kept = value, h = 1e-5;
        value = kept + h;
        const double above = loss();
        value = kept - h;
        const double below = loss();
        value = kept;
        const double difference = (above - below) / (2 * h), got = gradient[tensor.offset + i];
        // Rounding of the loss over h, for elements that are small beside it.
        const double size = std::max({std::abs(difference), std::abs(got), 1e-3 * largest});
        EXPECT_LE(std::abs(difference - got), 1e-5 * size) << tensor.spec.name << " [" << i << "]";
      }
    }
  }
}

TEST_F(Adapters, MergedWeightsGiveTheSameLoss) {
  const AdapterLayout adapter(TinyConfig(), Options({"all"}));
  const std::vector<double> base = As<double>(base_), own = As<double>(LivelyAdapter(adapter, 5));
  const GptOssBackward<double> model(TinyConfig(), ReferenceTrainingOps<double>());
  AdapterBinding<double> binding(adapter);
  ModelParameters<double> parameters = BindParameters<double>(layout_, base.data());
  const double without = model.Loss(context_, parameters, Batch(), 1.0, nullptr);
  binding.Bind(own.data(), &parameters);
  const double beside = model.Loss(context_, parameters, Batch(), 1.0, nullptr);
  const std::vector<double> merged = Merged(layout_, base, adapter, own);
  const double inside = model.Loss(context_, BindParameters<double>(layout_, merged.data()), Batch(), 1.0, nullptr);
  EXPECT_GT(std::abs(beside - without), 1e-2);
  EXPECT_NEAR(inside, beside, 1e-10 * std::abs(beside));
}

TEST_F(Adapters, KernelsOfEveryTargetGiveTheGradientsOfThePlainOps) {
  const AdapterLayout adapter(TinyConfig(), Options({"all"}));
  const std::vector<float> own = LivelyAdapter(adapter, 5);
  const TrainingBatch batch = Batch();
  const auto run = [&](auto type, const auto& ops, uint64_t activation_bytes) {
    using T = decltype(type);
    const std::vector<T> values = As<T>(own), base = As<T>(base_);
    std::vector<T> gradient(own.size(), T(0));
    const GptOssBackward<T> model(TinyConfig(), ops, activation_bytes);
    AdapterBinding<T> binding(adapter);
    ModelParameters<T> parameters = BindParameters<T>(layout_, base.data());
    ModelGradients<T> gradients;
    binding.Bind(values.data(), &parameters);
    binding.BindGradients(gradient.data(), &gradients);
    model.Loss(context_, parameters, batch, 1.0, &gradients);
    binding.CollectGradients(gradient.data());
    return gradient;
  };
  const std::vector<double> want = run(double{}, ReferenceTrainingOps<double>(), 0);
  for (const CpuTarget& target : ListCpuTargets()) {
    if (!target.available) continue;
    const auto ops = CpuTrainingOps(target.name);
    ASSERT_TRUE(ops.ok());
    const std::vector<float> got = run(float{}, **ops, 0);
    EXPECT_EQ(got, run(float{}, **ops, uint64_t{1} << 30)) << "kept activations change the result";
    for (const FlatTensor& tensor : adapter.tensors()) {
      double error = 0, norm = 0;
      for (size_t i = tensor.offset; i < tensor.offset + tensor.count; ++i) {
        error += std::pow(static_cast<double>(got[i]) - want[i], 2);
        norm += want[i] * want[i];
      }
      // Two layers, each some ten operations deep, with sums of at most 264 products that add up as random walks:
      // 20 * sqrt(264) * 2^-24 is 2e-5; the rest is for the condition of softmax and norms. Where both operands of each
      // of those products are rounded to BF16, that alone is sqrt(2 * 20) * 2^-9 = 1.2e-2; three times that.
      EXPECT_LE(std::sqrt(error / norm), (*ops)->rounds_products ? 3.7e-2 : 2e-4)
          << target.name << " " << tensor.spec.name;
    }
  }
}

std::vector<float> Served(const ModelWeights& weights, const Ops& ops, const AdapterWeights* adapter, ThreadPool& pool,
                          const std::vector<int32_t>& tokens) {
  return ServedLogits(GptOss(weights, ops, adapter), pool, tokens);
}

TEST_F(Adapters, FilesServingAndMergingAgree) {
  const ScopedDirectory directory;
  const Base base = LoadBase(layout_, base_, directory / "base", pool_);
  const AdapterLayout adapter(TinyConfig(), Options({"all"}));
  const std::vector<float> own = LivelyAdapter(adapter, 5);
  const Status saved = SaveAdapter(adapter, own, directory / "adapter");
  ASSERT_TRUE(saved.ok()) << saved.message();
  const auto loaded = LoadAdapter(directory / "adapter", TinyConfig());
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  EXPECT_EQ(loaded->values, own);
  EXPECT_EQ(loaded->layout.options(), adapter.options());

  const TrainingBatch batch = PackExamples({&data_.examples[6]});
  AdapterBinding<float> binding(adapter);
  ModelParameters<float> parameters = FrozenParameters(base.weights);
  binding.Bind(own.data(), &parameters);
  std::vector<int32_t> rows(batch.tokens.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
  std::vector<float> trained(rows.size() * kTinyVocabulary);
  GptOssBackward<float>(TinyConfig(), ReferenceTrainingOps<float>())
      .Logits(context_, parameters, batch, rows, trained.data());
  const std::vector<AdapterLayout> layouts = {adapter};
  const std::vector<std::vector<float>> values = {own};
  const auto weights = AdapterWeights::Make(layouts, values);
  // Two float computations of the same logits: see KernelsOfEveryTarget….
  EXPECT_LE(Relative(trained, Served(base.weights, ReferenceOps(), weights.get(), pool_, batch.tokens)), 2e-5);
  for (const CpuTarget& target : ListCpuTargets()) {
    if (!target.available) continue;
    const Ops& ops = **CpuOps(target.name, Precision::kExact);
    EXPECT_LE(Relative(trained, Served(base.weights, ops, weights.get(), pool_, batch.tokens)), 2e-5) << target.name;
  }
  EXPECT_GT(Relative(trained, Served(base.weights, ReferenceOps(), nullptr, pool_, batch.tokens)), 0.05);

  // Halves of an adapter beside each other are the whole: b in two parts, each with the other's rows zero.
  std::vector<std::vector<float>> halves = {own, own};
  for (const FlatTensor& tensor : adapter.tensors()) {
    if (!tensor.spec.name.ends_with("lora_b")) continue;
    for (size_t i = 0; i < tensor.count; ++i) halves[i % 2][tensor.offset + i] = 0.0f;
  }
  const std::vector<AdapterLayout> twice = {adapter, adapter};
  const auto both = AdapterWeights::Make(twice, halves);
  EXPECT_LE(Relative(trained, Served(base.weights, ReferenceOps(), both.get(), pool_, batch.tokens)), 2e-5);

  // Merged: dense matrices are sums in float here, experts among them rounded to MXFP4 again.
  const auto merged = MergeAdapter(base.checkpoint, *loaded);
  const auto read = ReadFlatParameters(*merged, layout_);
  ASSERT_TRUE(read.ok());
  const auto frozen = ReadFlatParameters(*base.checkpoint, layout_);
  ASSERT_TRUE(frozen.ok());
  std::vector<float> want(layout_.size());
  ASSERT_TRUE(RoundExperts(layout_, Merged(layout_, *frozen, adapter, own), want).ok());
  for (const FlatTensor& tensor : layout_.tensors()) {
    const auto part = [&](const std::vector<float>& all) {
      return std::vector<float>(all.begin() + static_cast<int64_t>(tensor.offset),
                                all.begin() + static_cast<int64_t>(tensor.offset + tensor.count));
    };
    // A sum in another order can fall on the other side between two codes of MXFP4.
    EXPECT_LE(Relative(part(want), part(*read)), tensor.spec.is_expert_weight ? 1e-2 : 1e-6) << tensor.spec.name;
  }
}

TEST_F(Adapters, BadFilesAreNamed) {
  const ScopedDirectory directory;
  const AdapterLayout adapter(TinyConfig(), Options({"q", "down"}));
  ASSERT_TRUE(SaveAdapter(adapter, LivelyAdapter(adapter, 1), directory / "a").ok());
  ModelConfig other = TinyConfig();
  other.num_layers = 3;
  EXPECT_EQ(LoadAdapter(directory / "a", other).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(LoadAdapter(directory / "none", TinyConfig()).status().code(), StatusCode::kNotFound);
  EXPECT_FALSE(SaveAdapter(adapter, LivelyAdapter(adapter, 1), directory / "a").ok());
  std::filesystem::resize_file(directory / "a/adapter_model.safetensors", 4000);
  EXPECT_EQ(LoadAdapter(directory / "a", TinyConfig()).status().code(), StatusCode::kCorruptData);
  std::ofstream(directory / "a/adapter_config.json") << R"({"r": 3, "lora_alpha": 6, "target_modules": ["nose"]})";
  EXPECT_NE(LoadAdapter(directory / "a", TinyConfig()).status().message().find("nose"), std::string::npos);
  EXPECT_FALSE(CheckAdapter({.rank = 0}).ok());
  EXPECT_FALSE(CheckAdapter({.rank = 4, .alpha = 4, .targets = {}}).ok());
}

TEST_F(Adapters, StoppedAndResumedRunHasTheSameBits) {
  const ScopedDirectory directory;
  const Base base = LoadBase(layout_, base_, directory / "base", pool_);
  const AdapterOptions options = Options({"attention", "experts"});
  const AdapterLayout adapter(TinyConfig(), options);
  TrainerOptions training;
  training.schedule = {.kind = ScheduleKind::kCosine, .peak = 3e-3, .warmup_steps = 2, .total_steps = 20};
  training.batch_tokens = 110;
  const auto make = [&](const std::string& name) {
    auto trainer = Trainer::Create(TrainAdapter(base.weights, options, name), InitialAdapter(adapter, 1), data_,
                                   training, **CpuTrainingOps());
    EXPECT_TRUE(trainer.ok());
    return *std::move(trainer);
  };
  Trainer straight = make("a"), first = make("a"), second = make("a"), other = make("b");
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(straight.Step(context_).ok());
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(first.Step(context_).ok());
  ASSERT_TRUE(SaveState(first, 1, directory / "run", 1).ok());
  const std::string state = *NewestState(directory / "run");
  EXPECT_NE(LoadState(state, 1, &other).message().find("\"base\""), std::string::npos);
  ASSERT_TRUE(LoadState(state, 1, &second).ok());
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(second.Step(context_).ok());
  EXPECT_EQ(second.state().values, straight.state().values);
  EXPECT_EQ(second.state().m, straight.state().m);
}

/// Sequences of random tokens whose targets are a teacher's whole distribution: one target for every token, weighted by
/// its probability. The lowest loss is then the teacher's own entropy.
TrainingBatch Lessons(ExecContext& context, const ModelConfig& config, const ModelParameters<float>& teacher) {
  constexpr int kSequences = 4, kLength = 16;
  const RandomStream random(11, "lessons");
  TrainingBatch batch;
  for (int i = 0; i < kSequences * kLength; ++i) {
    if (i % kLength == 0) batch.sequences.push_back({i, kLength, 0});
    batch.tokens.push_back(static_cast<int32_t>(random.Uniform(static_cast<uint64_t>(i)) * config.vocab_size));
    batch.positions.push_back(i % kLength);
  }
  std::vector<int32_t> rows(batch.tokens.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
  std::vector<float> logits(rows.size() * static_cast<size_t>(config.vocab_size));
  GptOssBackward<float>(config, ReferenceTrainingOps<float>()).Logits(context, teacher, batch, rows, logits.data());
  for (const int32_t row : rows) {
    const float* own = logits.data() + static_cast<int64_t>(row) * config.vocab_size;
    double sum = 0;
    for (int v = 0; v < config.vocab_size; ++v) sum += std::exp(static_cast<double>(own[v]));
    for (int v = 0; v < config.vocab_size; ++v) {
      batch.target_rows.push_back(row);
      batch.targets.push_back(v);
      batch.weights.push_back(static_cast<float>(std::exp(static_cast<double>(own[v])) / sum));
    }
  }
  return batch;
}

/// A teacher differs from the base by an update of rank 2 on all experts. An adapter of that rank learns it as well as
/// training all those weights does.
TEST_F(Adapters, RankTwoReachesWhatFullTrainingReachesOnARankTwoTarget) {
  ModelConfig config = TinyConfig();
  config.vocab_size = 64;
  const FlatLayout layout(config);
  const std::vector<float> base = LivelyParameters(layout, 3);
  const TrainingOps<float>& ops = **CpuTrainingOps();
  const AdapterLayout adapter(config, Options({"experts"}, 2));
  const std::vector<float> teacher = Merged(layout, base, adapter, LivelyAdapter(adapter, 9));
  const ModelParameters<float> teaching = BindParameters<float>(layout, teacher.data());
  const TrainingBatch lessons = Lessons(context_, config, teaching);
  const GptOssBackward<float> model(config, ops, uint64_t{1} << 30);
  const double scale = 1.0 / static_cast<double>(lessons.rows());
  const auto loss_of = [&](const ModelParameters<float>& parameters) {
    return model.Loss(context_, parameters, lessons, scale, nullptr);
  };

  constexpr int kSteps = 400;
  const Schedule schedule{.kind = ScheduleKind::kCosine, .peak = 1e-2, .warmup_steps = 10, .total_steps = kSteps};
  const auto learn = [&](TrainedModel* trained, std::vector<float> values) {
    std::vector<float> gradient(values.size()), m(values.size()), v(values.size());
    for (int step = 0; step < kSteps; ++step) {
      std::fill(gradient.begin(), gradient.end(), 0.0f);
      const auto parameters = trained->Parameters(values, step);
      ModelGradients<float> gradients = trained->Gradients(gradient.data());
      model.Loss(context_, *parameters, lessons, scale, &gradients);
      trained->Collect(gradient.data());
      for (const FlatTensor& tensor : trained->tensors()) {
        if (!trained->IsTrained(tensor.spec)) continue;
        const auto part = [&](std::vector<float>& all) { return std::span(all).subspan(tensor.offset, tensor.count); };
        AdamWUpdate({}, step + 1, LearningRate(schedule, step), 1.0, false, part(gradient), part(m), part(v),
                    part(values));
      }
    }
    return loss_of(*trained->Parameters(values, kSteps));
  };
  ModelWeights frozen;
  frozen.config = config;
  const ModelParameters<float> p = BindParameters<float>(layout, base.data());
  frozen.embedding = p.embedding;
  frozen.unembedding = p.unembedding;
  frozen.final_norm = p.final_norm;
  for (const LayerParameters<float>& w : p.layers) {
    frozen.layers.push_back({w.attn_norm, w.qkv, w.qkv_bias, w.sinks, w.out, w.out_bias, w.mlp_norm, w.router,
                             w.router_bias, w.gate_up, w.gate_up_bias, w.down, w.down_bias});
  }
  auto whole = TrainWeights(config, {"gate_up.weight", "down.weight"}, false, 0);
  ASSERT_TRUE(whole.ok());
  const auto low = TrainAdapter(frozen, adapter.options(), "base");
  const double before = loss_of(p), least = loss_of(teaching);
  const double by_all = learn(whole->get(), base), by_adapter = learn(low.get(), InitialAdapter(adapter, 2));
  ASSERT_GT(before - least, 0.05);
  // "Reaches": both are within 3 % of the way from the frozen model to the teacher.
  EXPECT_LE(by_all - least, 0.03 * (before - least)) << before << " " << least << " " << by_all;
  EXPECT_LE(by_adapter - least, 0.03 * (before - least)) << before << " " << least << " " << by_adapter;
}

}  // namespace
}  // namespace gptoss
