// Training end to end on a tiny model: it learns eight conversations by heart, goes on with the same bits after a stop,
// and what it exports gives the trained answers.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>

#include "base/mmap_file.h"
#include "checkpoint/row_convert.h"
#include "served.h"
#include "tiny.h"
#include "training/export.h"
#include "training/training_state.h"

namespace gptoss {
namespace {

class Training : public testing::Test {
 protected:
  Trainer MakeTrainer(const TrainerOptions& options) {
    auto trainer = Trainer::Create(TinyConfig(), InitialParameters(FlatLayout(TinyConfig()), 1), data_, options,
                                   ReferenceTrainingOps<float>());
    EXPECT_TRUE(trainer.ok()) << trainer.status().message();
    return *std::move(trainer);
  }
  std::vector<double> Run(Trainer* trainer, int steps) {
    std::vector<double> losses;
    for (int i = 0; i < steps; ++i) {
      const Result<StepReport> report = trainer->Step(context_);
      EXPECT_TRUE(report.ok()) << report.status().message();
      losses.push_back(report.ok() ? report->loss : NAN);
    }
    return losses;
  }
  double Loss(std::span<const float> values) {
    return EvaluateLoss(context_, FlatLayout(TinyConfig()), values, ReferenceTrainingOps<float>(), data_, 512);
  }

  /// Of all rows, through the trainer's forward pass.
  std::vector<float> TrainedLogits(std::span<const float> values, const TrainingBatch& batch) {
    const GptOssBackward<float> model(TinyConfig(), ReferenceTrainingOps<float>());
    std::vector<int32_t> rows(static_cast<size_t>(batch.rows()));
    std::iota(rows.begin(), rows.end(), 0);
    std::vector<float> logits(rows.size() * kTinyVocabulary);
    const FlatLayout layout(TinyConfig());
    model.Logits(context_, BindParameters<float>(layout, values.data()), batch, rows, logits.data());
    return logits;
  }

  Dataset data_ = TinyDataset();
  ThreadPool pool_{1};
  ScratchArena scratch_;
  ExecContext context_{pool_, scratch_};
};

/// Logits of the whole sequence from a checkpoint on disk, through the forward pass that serves.
std::vector<float> ServedLogits(const std::string& directory, const std::vector<int32_t>& tokens) {
  ThreadPool pool(1);
  auto checkpoint = OpenCheckpoint(directory);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  if (!checkpoint.ok()) return {};
  auto weights =
      LoadWeights(std::shared_ptr<const Checkpoint>(*std::move(checkpoint)), DensePrecision::kAsStored, pool);
  EXPECT_TRUE(weights.ok()) << weights.status().message();
  return ServedLogits(GptOss(*weights, ReferenceOps()), pool, tokens);
}

TEST_F(Training, LearnsEightConversationsByHeartAndExportsThem) {
  TrainerOptions options;
  options.schedule = {.kind = ScheduleKind::kCosine, .peak = 1e-2, .warmup_steps = 10, .total_steps = 250};
  options.batch_tokens = 512;
  options.adamw.weight_decay = 0.01;
  Trainer trainer = MakeTrainer(options);
  const double before = Loss(trainer.state().values);
  EXPECT_NEAR(before, std::log(kTinyVocabulary), 0.3);  // nothing known: all tokens about equally likely
  Run(&trainer, 250);
  EXPECT_LT(Loss(trainer.state().values), 0.01);

  const FlatLayout layout(TinyConfig());
  const Result<Rounding> rounded = RoundAsExported(layout, trainer.state().values);
  ASSERT_TRUE(rounded.ok()) << rounded.status().message();
  EXPECT_GT(rounded->experts.relative_rms, 0.01);
  EXPECT_LT(rounded->experts.relative_rms, 0.2);
  EXPECT_LT(rounded->others.relative_rms, 0x1.0p-8);

  const ScopedDirectory directory;
  const auto checkpoint = MakeFlatCheckpoint(layout, trainer.state().values, "tiny");
  WriteOptions write;
  write.allow_lossy = true;
  const Status written = WriteHf(*checkpoint, directory / "hf", write);
  ASSERT_TRUE(written.ok()) << written.message();
  write.gguf_dense = DType::kBF16;
  const Status original = WriteOriginal(*checkpoint, directory / "original", write);
  const Status gguf = WriteGguf(*checkpoint, directory / "tiny.gguf", write);
  ASSERT_TRUE(original.ok()) << original.message();
  ASSERT_TRUE(gguf.ok()) << gguf.message();
  const std::vector<int32_t>& first = data_.examples[0].tokens;
  EXPECT_EQ(ServedLogits(directory / "hf", first), ServedLogits(directory / "original", first));
  // The served model computes what the trainer computes from the rounded weights, and most answers survive rounding.
  // GGUF keeps norms, biases, sinks and routers in float.
  std::vector<float> in_gguf = rounded->values;
  for (const FlatTensor& tensor : layout.tensors()) {
    if (tensor.spec.is_expert_weight || IsDenseMatrix(tensor.spec)) continue;
    std::copy_n(trainer.state().values.begin() + static_cast<int64_t>(tensor.offset), tensor.count,
                in_gguf.begin() + static_cast<int64_t>(tensor.offset));
  }
  int right = 0, targets = 0;
  for (const Example& example : data_.examples) {
    const TrainingBatch batch = PackExamples({&example});
    const std::vector<float> got = ServedLogits(directory / "hf", example.tokens);
    EXPECT_LE(Relative(TrainedLogits(rounded->values, batch), got), 2e-5) << "line " << example.line;
    EXPECT_LE(Relative(TrainedLogits(in_gguf, batch), ServedLogits(directory / "tiny.gguf", example.tokens)), 2e-5)
        << "line " << example.line;
    for (size_t i = 0; i < batch.targets.size(); ++i) {
      const float* logits = got.data() + batch.target_rows[i] * kTinyVocabulary;
      right += std::max_element(logits, logits + kTinyVocabulary) - logits == batch.targets[i];
      ++targets;
    }
  }
  EXPECT_GE(right, targets * 9 / 10) << right << " of " << targets;
}

TEST_F(Training, ExpertsTrainedAsRoundedLoseNothingWhenExported) {
  TrainerOptions options;
  options.schedule = {.kind = ScheduleKind::kCosine, .peak = 1e-2, .warmup_steps = 10, .total_steps = 250};
  options.batch_tokens = 512;
  options.round_experts = true;
  Trainer trainer = MakeTrainer(options);
  Run(&trainer, 250);
  const Result<Rounding> rounded = RoundAsExported(trainer.layout(), trainer.state().values);
  ASSERT_TRUE(rounded.ok()) << rounded.status().message();
  EXPECT_GT(rounded->experts.relative_rms, 0.01);
  EXPECT_LT(Loss(rounded->values), 0.02);
}

TEST_F(Training, StoppedAndResumedRunHasTheSameBits) {
  TrainerOptions options;
  options.schedule = {.kind = ScheduleKind::kCosine, .peak = 3e-3, .warmup_steps = 10, .total_steps = 200};
  options.batch_tokens = 110;  // a few conversations: the position in the data matters
  options.accumulation = 2;
  Trainer straight = MakeTrainer(options);
  const std::vector<double> want = Run(&straight, 200);

  const ScopedDirectory directory;
  std::vector<double> got;
  {
    Trainer first = MakeTrainer(options);
    got = Run(&first, 50);
    ASSERT_TRUE(SaveState(first, data_.Fingerprint(), directory.path(), 1).ok());
    const std::vector<double> more = Run(&first, 50);
    got.insert(got.end(), more.begin(), more.end());
    const Status saved = SaveState(first, data_.Fingerprint(), directory.path(), 1);
    ASSERT_TRUE(saved.ok()) << saved.message();
  }
  const auto newest = NewestState(directory.path());
  ASSERT_TRUE(newest.has_value());
  EXPECT_TRUE(newest->ends_with("step-00000100"));
  EXPECT_FALSE(std::filesystem::exists(directory / "step-00000050"));
  Trainer second = MakeTrainer(options);
  const Status loaded = LoadState(*newest, data_.Fingerprint(), &second);
  ASSERT_TRUE(loaded.ok()) << loaded.message();
  const std::vector<double> rest = Run(&second, 100);
  got.insert(got.end(), rest.begin(), rest.end());
  EXPECT_EQ(got, want);
  EXPECT_EQ(second.state().values, straight.state().values);
  EXPECT_EQ(second.state().v, straight.state().v);
  EXPECT_EQ(second.state().position, straight.state().position);
}

TEST_F(Training, MomentsInEightBitsLearnAsWellAndGoOnWithTheSameBits) {
  TrainerOptions options;
  options.schedule = {.kind = ScheduleKind::kCosine, .peak = 1e-2, .warmup_steps = 10, .total_steps = 250};
  options.batch_tokens = 512;
  options.byte_moments = true;
  Trainer straight = MakeTrainer(options), first = MakeTrainer(options), second = MakeTrainer(options);
  Run(&straight, 250);
  EXPECT_LT(Loss(straight.state().values), 0.01);
  EXPECT_TRUE(straight.state().m.empty());

  const ScopedDirectory directory;
  Run(&first, 10);
  ASSERT_TRUE(SaveState(first, 1, directory.path(), 1).ok());
  const std::string state = *NewestState(directory.path());
  ASSERT_TRUE(LoadState(state, 1, &second).ok());
  Run(&first, 10);
  Run(&second, 10);
  EXPECT_EQ(second.state().values, first.state().values);
  EXPECT_EQ(second.state().v_codes, first.state().v_codes);
  EXPECT_EQ(second.state().m_scales, first.state().m_scales);
  options.byte_moments = false;
  Trainer other = MakeTrainer(options);
  EXPECT_NE(LoadState(state, 1, &other).message().find("\"moments\""), std::string::npos);
}

TEST_F(Training, TheBalanceLossKeepsAllExpertsInUse) {
  TrainerOptions options;
  options.schedule = {.kind = ScheduleKind::kConstant, .peak = 1e-2, .total_steps = 60};
  options.batch_tokens = 512;
  double last[2] = {};
  for (const bool strong : {false, true}) {
    options.balance = strong ? 1.0 : 1e-9;  // the latter measures and does not matter
    Trainer trainer = MakeTrainer(options);
    Run(&trainer, 59);
    const Result<StepReport> report = trainer.Step(context_);
    ASSERT_TRUE(report.ok());
    last[strong ? 1 : 0] = report->balance_loss;
  }
  EXPECT_LT(last[1], 1.02);
  EXPECT_GT(last[0], last[1] + 0.02);
}

TEST_F(Training, StatesOfOtherRunsAndDamagedOnesAreRefused) {
  TrainerOptions options;
  Trainer trainer = MakeTrainer(options);
  Run(&trainer, 1);
  const ScopedDirectory directory;
  EXPECT_FALSE(NewestState(directory.path()).has_value());
  ASSERT_TRUE(SaveState(trainer, 1, directory.path(), 2).ok());
  const std::string path = *NewestState(directory.path());
  EXPECT_EQ(*ReadStateConfig(path), TinyConfig());
  Trainer same = MakeTrainer(options);
  EXPECT_TRUE(LoadState(path, 1, &same).ok());
  EXPECT_NE(LoadState(path, 2, &same).message().find("\"data\""), std::string::npos);
  // A state of an earlier program: what it does not say has its default, and nothing else.
  const std::string text = *ReadTextFile(path + "/state.json");
  Json json = *ParseJson(text);
  for (const char* key : {"moments", "round_from", "round_experts"}) json["run"].erase(key);
  std::ofstream(path + "/state.json") << WriteJson(json);
  EXPECT_TRUE(LoadState(path, 1, &same).ok());
  TrainerOptions rounding = options;
  rounding.round_experts = true;
  Trainer rounded = MakeTrainer(rounding);
  EXPECT_NE(LoadState(path, 1, &rounded).message().find("\"round_experts\""), std::string::npos);
  std::ofstream(path + "/state.json") << text;
  options.seed = 9;
  Trainer other = MakeTrainer(options);
  EXPECT_NE(LoadState(path, 1, &other).message().find("\"seed\""), std::string::npos);
  {
    std::fstream file(path + "/state.bin", std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(1000);
    file.put('\x55');
  }
  EXPECT_EQ(LoadState(path, 1, &same).code(), StatusCode::kCorruptData);
  std::filesystem::resize_file(path + "/state.bin", 1000);
  EXPECT_EQ(LoadState(path, 1, &same).code(), StatusCode::kCorruptData);
}

TEST_F(Training, AccumulationIsOneLargeBatch) {
  TrainerOptions whole;
  whole.batch_tokens = 10000;
  TrainerOptions parts = whole;
  parts.batch_tokens = 1;  // one conversation each
  parts.accumulation = 8;
  Trainer a = MakeTrainer(whole), b = MakeTrainer(parts);
  const Result<StepReport> x = a.Step(context_), y = b.Step(context_);
  ASSERT_TRUE(x.ok() && y.ok());
  EXPECT_EQ(x->targets, y->targets);
  EXPECT_NEAR(x->loss, y->loss, 1e-6 * x->loss);
  EXPECT_NEAR(x->gradient_norm, y->gradient_norm, 1e-4 * x->gradient_norm);
}

TEST_F(Training, OnlyTheNamedTensorsChange) {
  TrainerOptions options;
  options.trained = {"router.weight", "layers.1.q.bias"};
  Trainer trainer = MakeTrainer(options);
  const std::vector<float> before = trainer.state().values;
  Run(&trainer, 3);
  for (const FlatTensor& tensor : trainer.layout().tensors()) {
    const bool trained = tensor.spec.name.ends_with("router.weight") || tensor.spec.name == "layers.1.q.bias";
    const bool same = std::equal(before.begin() + static_cast<int64_t>(tensor.offset),
                                 before.begin() + static_cast<int64_t>(tensor.offset + tensor.count),
                                 trainer.state().values.begin() + static_cast<int64_t>(tensor.offset));
    EXPECT_EQ(same, !trained) << tensor.spec.name;
  }
  options.trained = {"no.such"};
  const auto refused = Trainer::Create(TinyConfig(), before, data_, options, ReferenceTrainingOps<float>());
  EXPECT_NE(refused.status().message().find("no.such"), std::string::npos);
}

TEST_F(Training, ALossThatIsNoNumberChangesNothing) {
  TrainerOptions options;
  std::vector<float> values = InitialParameters(FlatLayout(TinyConfig()), 1);
  values[FlatLayout(TinyConfig()).Find("final_norm").offset] = INFINITY;
  auto trainer = Trainer::Create(TinyConfig(), values, data_, options, ReferenceTrainingOps<float>());
  ASSERT_TRUE(trainer.ok());
  EXPECT_NE(trainer->Step(context_).status().message().find("step 1"), std::string::npos);
  EXPECT_EQ(trainer->state().values, values);
  EXPECT_FALSE(RoundAsExported(FlatLayout(TinyConfig()), values).ok());
}

}  // namespace
}  // namespace gptoss
