// The whole model on an emulated GPU, whose memory the host cannot touch, against numbers of OpenAI's own
// implementation: what the kernels' tests leave is how the model, the cache and the loader use a device.

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "backends/cuda/cuda_ops.h"
#include "backends/cuda/emulator/emulator.h"
#include "backends/cuda/gpu_peak.h"
#include "backends/cuda/kernels.h"
#include "checkpoint/packed.h"
#include "engine/expert_offload.h"
#include "engine/memory_plan.h"
#include "engine/verify.h"
#include "golden_model.h"
#include "model/write_packed.h"
#include "training/lively.h"

namespace gptoss {
namespace {

RunnerOptions Options(DType kv, int chunk) {
  return {.max_context = 512, .max_sequences = 1, .chunk_tokens = chunk, .kv_dtype = kv};
}

TEST(CudaModel, FloatLogits) {
  const auto gpu = cuda::EmulatedDevice();
  auto loaded = LoadGolden(GoldenCheckpoint("micro", "hf"), cuda::ExactOps(), DensePrecision::kAsStored,
                           Options(DType::kF32, 64), *gpu);
  ASSERT_NE(loaded, nullptr);
  const LogitMetrics few =
      CompareWithGolden(LastLogits(*loaded->runner, GoldenTokens("micro", "s7"), 7), "micro/s7.logits.f32.npy", 7);
  EXPECT_LE(few.rel_l2(), 2e-5);  // as on CPUs: golden_test.cc
  EXPECT_EQ(few.rows(), 7);
  const LogitMetrics past_the_window = CompareWithGolden(LastLogits(*loaded->runner, GoldenTokens("micro", "r244"), 10),
                                                         "micro/r244.logits.f32.npy", 10);
  EXPECT_LE(past_the_window.rel_l2(), 2e-5);
  EXPECT_EQ(past_the_window.nonfinite(), 0);
}

// Tensor cores for the chunk of 300 rows, single rows afterwards.
TEST(CudaModel, DefaultPrecisionIsNoFurtherFromTheTruthThanTheOfficialBf16Run) {
  const auto gpu = cuda::EmulatedDevice();
  auto loaded = LoadGolden(GoldenCheckpoint("micro", "hf"), cuda::FastOps(), DensePrecision::kDefault,
                           Options(DType::kBF16, 512), *gpu);
  ASSERT_NE(loaded, nullptr);
  const LogitMetrics ours = CompareWithGolden(LastLogits(*loaded->runner, GoldenTokens("micro", "s300"), 300),
                                              "micro/s300.logits.f32.npy", 300);
  const NpyArray bf16 = GoldenArray("micro/s300.logits.bf16.npy");
  const auto official_logits = bf16.As<float>();
  const LogitMetrics official =
      CompareWithGolden({official_logits.begin(), official_logits.end()}, "micro/s300.logits.f32.npy", 300);
  EXPECT_LE(ours.kl_mean(), official.kl_mean());
  EXPECT_LE(ours.rel_l2(), official.rel_l2());
}

TEST(CudaModel, VerifyPassesAndSeesAWrongWindow) {
  const auto gpu = cuda::EmulatedDevice();
  auto on_gpu = LoadGolden(GoldenCheckpoint("micro", "hf"), cuda::FastOps(), DensePrecision::kDefault,
                           Options(DType::kBF16, 64), *gpu);
  auto on_host =
      LoadGolden(GoldenCheckpoint("micro", "hf"), ReferenceOps(), DensePrecision::kDefault, Options(DType::kBF16, 64));
  ASSERT_NE(on_gpu, nullptr);
  ASSERT_NE(on_host, nullptr);
  const VerifyOptions options{.positions = {0, 127}};
  const auto verify = [&](const Ops& ops) {
    return VerifyOps(on_gpu->weights, ops, ReferenceOps(), on_host->pool, options, nullptr, &on_host->weights);
  };
  const auto report = verify(cuda::FastOps());
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_TRUE(report->passed) << report->failure;
  Ops broken = cuda::FastOps();
  broken.attention = [](ExecContext& context, const AttentionArgs& args) {
    AttentionArgs wrong = args;
    if (wrong.window > 0) --wrong.window;
    cuda::FastOps().attention(context, wrong);
  };
  const auto seen = verify(broken);
  ASSERT_TRUE(seen.ok()) << seen.status().message();
  EXPECT_FALSE(seen->passed);
}

TEST(CudaModel, WhatMeasuresTheMatrixRateMultiplies) {
  const auto gpu = cuda::EmulatedDevice();
  auto sums = DeviceBuffer::Allocate(*gpu, 2 * cuda::kRateThreads * sizeof(float));
  ASSERT_TRUE(sums.ok()) << sums.status().message();
  cuda::MultiplyRegisters(nullptr, 2, 3, reinterpret_cast<float*>(sums->data()));
  std::vector<float> got(2 * cuda::kRateThreads);
  gpu->Download(got.data(), sums->data(), got.size() * sizeof(float));
  EXPECT_EQ(got, std::vector<float>(got.size(), 4.0f * cuda::kRateChains * 16 * 3));
  const auto peak = cuda::MeasurePeak(*gpu, {.copy_bytes = 4096, .copies = 2, .blocks = 1, .rounds = 1, .runs = 1});
  ASSERT_TRUE(peak.ok()) << peak.status().message();
  EXPECT_GT(peak->copy_gb_s, 0);
  EXPECT_GT(peak->matrix_tflop_s, 0);
}

/// The emulated GPU's ops beside those of the host for the layers that stay there.
Ops WithHost(const Ops& gpu, const Ops& host) {
  Ops both = gpu;
  both.host = &host;
  return both;
}

TEST(CudaModel, LayersThatStayOnTheHostGiveTheSameLogits) {
  const auto gpu = cuda::EmulatedDevice();
  const Ops ops = WithHost(cuda::ExactOps(), ReferenceOps());
  auto all_there =
      LoadGolden(GoldenCheckpoint("micro", "hf"), ops, DensePrecision::kAsStored, Options(DType::kF32, 64), *gpu);
  ASSERT_NE(all_there, nullptr);
  const int layers = all_there->weights.config.num_layers;
  for (const int host_layers : {1, layers}) {
    auto loaded = LoadGolden(GoldenCheckpoint("micro", "hf"), ops, DensePrecision::kAsStored, Options(DType::kF32, 64),
                             *gpu, host_layers);
    ASSERT_NE(loaded, nullptr);
    EXPECT_EQ(loaded->weights.host_layers, host_layers);
    EXPECT_LT(loaded->weights.memory.size(), all_there->weights.memory.size());
    const LogitMetrics metrics = CompareWithGolden(LastLogits(*loaded->runner, GoldenTokens("micro", "r244"), 10),
                                                   "micro/r244.logits.f32.npy", 10);
    EXPECT_LE(metrics.rel_l2(), 2e-5) << host_layers;
    EXPECT_EQ(metrics.nonfinite(), 0);
  }
}

// The same kernels on the same weights: the same bits, from either arrangement on the host.
TEST(CudaModel, ExpertsThatComeForAPassGiveTheSameBits) {
  const auto gpu = cuda::EmulatedDevice();
  const std::vector<int32_t> tokens = GoldenTokens("micro", "s7");
  const auto all_there = LoadGolden(GoldenCheckpoint("micro", "hf"), cuda::FastOps(), DensePrecision::kDefault,
                                    Options(DType::kBF16, 64), *gpu);
  ASSERT_NE(all_there, nullptr);
  const std::vector<float> want = LastLogits(*all_there->runner, tokens, 7);
  for (const WeightLayout layout : {WeightLayout::kRowMajor, WeightLayout::kRows8}) {
    Ops host = ReferenceOps();
    host.weight_layout = layout;
    const Ops ops = WithHost(cuda::FastOps(), host);
    const auto loaded =
        LoadGolden(GoldenCheckpoint("micro", "hf"), ops, DensePrecision::kDefault, Options(DType::kBF16, 64), *gpu, 2);
    ASSERT_NE(loaded, nullptr);
    EXPECT_EQ(loaded->weights.layers[0].gate_up.layout, layout);
    EXPECT_EQ(loaded->model->brought_bytes(), 0u);
    loaded->model->BringExpertsFrom(7);
    const auto runner = ModelRunner::Create(*loaded->model, loaded->pool, Options(DType::kBF16, 64));
    ASSERT_TRUE(runner.ok()) << runner.status().message();
    const size_t reserved = (*runner)->scratch_bytes();
    EXPECT_GE(reserved, loaded->runner->scratch_bytes() + loaded->model->brought_bytes());
    EXPECT_EQ(LastLogits(**runner, tokens, 7), want);
    EXPECT_EQ((*runner)->scratch_bytes(), reserved);
  }
}

// The host's fast kernels want their own arrangement of the weights that stay.
TEST(CudaModel, LayersThatStayOnTheHostAreLaidOutForIt) {
  const auto gpu = cuda::EmulatedDevice();
  const auto cpu = CpuOps("", Precision::kFast);
  ASSERT_TRUE(cpu.ok()) << cpu.status().message();
  const Ops ops = WithHost(cuda::FastOps(), **cpu);
  auto loaded =
      LoadGolden(GoldenCheckpoint("micro", "hf"), ops, DensePrecision::kDefault, Options(DType::kBF16, 64), *gpu, 2);
  auto on_host =
      LoadGolden(GoldenCheckpoint("micro", "hf"), ReferenceOps(), DensePrecision::kDefault, Options(DType::kBF16, 64));
  ASSERT_NE(loaded, nullptr);
  ASSERT_NE(on_host, nullptr);
  EXPECT_EQ(loaded->weights.layers[0].gate_up.layout, (*cpu)->weight_layout);
  EXPECT_EQ(loaded->weights.layers[2].gate_up.layout, WeightLayout::kRowMajor);
  const auto report = VerifyOps(loaded->weights, ops, ReferenceOps(), loaded->pool, {.positions = {0, 127}}, nullptr,
                                &on_host->weights);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_TRUE(report->passed) << report->failure;
}

TEST(CudaModel, ExpertsComeWhereThatTakesLessTime) {
  ModelConfig config;
  config.experts_per_token = 4;
  config.hidden_size = config.intermediate_size = 1000;
  // 12e6 multiply-adds a row, 1 µs at 12e12 a second; a layer comes in 100 µs.
  EXPECT_EQ(RowsToBring(config, 1000000, {.upload_bytes_s = 1e10, .host_macs_s = 12e12}), 100);
  EXPECT_EQ(RowsToBring(config, 1000000, {.upload_bytes_s = 1e10, .host_macs_s = 12e11}), 10);
  EXPECT_EQ(RowsToBring(config, 1000000, {.upload_bytes_s = 0, .host_macs_s = 12e11}),
            std::numeric_limits<int64_t>::max());
  const auto gpu = cuda::EmulatedDevice();
  const auto cpu = CpuOps("", Precision::kFast);
  ASSERT_TRUE(cpu.ok()) << cpu.status().message();
  ThreadPool pool(2);
  for (const auto& rate : {MeasureUpload(*gpu), MeasureHostMacs(**cpu, pool), MeasureHostMacs(ReferenceOps(), pool)}) {
    ASSERT_TRUE(rate.ok()) << rate.status().message();
    EXPECT_GT(*rate, 1e6);
  }
}

TEST(CudaModel, PackedFilesGiveWhatTheirSourceGives) {
  const std::string path = ::testing::TempDir() + "cuda_model_test.packed";
  const auto source = OpenCheckpoint(GoldenCheckpoint("micro", "hf"));
  ASSERT_TRUE(source.ok()) << source.status().message();
  PackOptions options;
  options.layout = WeightLayout::kRows8;
  const Status packed = WritePacked(**source, path, options);
  ASSERT_TRUE(packed.ok()) << packed.message();
  const auto gpu = cuda::EmulatedDevice();
  std::vector<std::vector<float>> logits;
  for (const std::string& model : {GoldenCheckpoint("micro", "hf"), path}) {
    const auto loaded = LoadGolden(model, cuda::FastOps(), DensePrecision::kDefault, Options(DType::kBF16, 64), *gpu);
    ASSERT_NE(loaded, nullptr);
    logits.push_back(LastLogits(*loaded->runner, GoldenTokens("micro", "s7"), 7));
  }
  EXPECT_EQ(logits[0], logits[1]);
  std::filesystem::remove(path);
}

TEST(CudaModel, ThePlanIsWhatIsTaken) {
  const auto gpu = cuda::EmulatedDevice();
  const Ops ops = WithHost(cuda::FastOps(), ReferenceOps());
  const auto opened = OpenCheckpoint(GoldenCheckpoint("micro", "hf"));
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const RunnerOptions options = Options(DType::kBF16, 64);
  const auto plan = [&](uint64_t available) {
    return PlanGpu(**opened, DensePrecision::kDefault, options, CudaScratchBytes, available);
  };
  const GpuPlan everything = plan(1u << 30);
  EXPECT_EQ(everything.host_layers, 0);
  EXPECT_TRUE(everything.fits_gpu);
  const uint64_t layer = everything.memory.weights.layer_mlp;
  EXPECT_EQ(plan(everything.on_gpu).host_layers, 0);
  EXPECT_EQ(plan(everything.on_gpu - 1).host_layers, 1);
  EXPECT_EQ(plan(everything.on_gpu - layer).on_gpu, everything.on_gpu - layer);
  EXPECT_EQ(plan(everything.on_gpu - layer - 1).host_layers, 2);
  // Room for a layer that is brought is one layer less that stays; the staging buffer is larger than this model.
  const auto little = [](const StepShape&) { return uint64_t{1000}; };
  const uint64_t without_staging = PlanGpu(**opened, DensePrecision::kDefault, options, little, 1u << 30).on_gpu;
  const GpuPlan brings = PlanGpu(**opened, DensePrecision::kDefault, options, little, without_staging - 1, true);
  EXPECT_TRUE(brings.brings_experts && brings.fits_gpu);
  EXPECT_EQ(brings.host_layers, 2);
  const GpuPlan no_room =
      PlanGpu(**opened, DensePrecision::kDefault, options, CudaScratchBytes, everything.on_gpu - 1, true);
  EXPECT_FALSE(no_room.brings_experts);
  EXPECT_EQ(no_room.host_layers, 1);
  const GpuPlan nothing = plan(1000);
  EXPECT_FALSE(nothing.fits_gpu);
  EXPECT_EQ(nothing.host_layers, (*opened)->config().num_layers);
  for (const GpuPlan& p : {everything, plan(everything.on_gpu - 1)}) {
    const auto loaded =
        LoadGolden(GoldenCheckpoint("micro", "hf"), ops, DensePrecision::kDefault, options, *gpu, p.host_layers);
    ASSERT_NE(loaded, nullptr);
    const uint64_t taken = loaded->weights.memory.size() + loaded->runner->kv_bytes() + loaded->runner->scratch_bytes();
    EXPECT_GE(taken, p.on_gpu);
    EXPECT_LE(taken, p.on_gpu + (*opened)->tensors().size() * kPackedAlignment);  // each begins on a page
  }
}

// Where another program takes the rest of the memory, a step must not need more.
TEST(CudaModel, AStepTakesNoMoreThanWasReserved) {
  const auto gpu = cuda::EmulatedDevice();
  auto loaded = LoadGolden(GoldenCheckpoint("micro", "hf"), cuda::FastOps(), DensePrecision::kDefault,
                           Options(DType::kBF16, 64), *gpu);
  ASSERT_NE(loaded, nullptr);
  // The context is cut into chunks for single rows: 2,000 positions are four of them.
  const auto runner = ModelRunner::Create(
      *loaded->model, loaded->pool,
      {.max_context = 2048, .max_sequences = 3, .chunk_tokens = 40, .kv_dtype = DType::kBF16, .total_context = 2200});
  ASSERT_TRUE(runner.ok()) << runner.status().message();
  const size_t reserved = (*runner)->scratch_bytes();
  EXPECT_GT(reserved, 0u);
  const std::vector<int32_t> tokens = GoldenTokens("micro", "s300");
  const auto longest = (*runner)->NewSequence(), second = (*runner)->NewSequence(), third = (*runner)->NewSequence();
  for (int i = 0; i < 2001; ++i) longest->Append(tokens[static_cast<size_t>(i) % tokens.size()]);
  ASSERT_TRUE((*runner)->Restore(*longest, 2000, {}, [] { return Status(); }).ok());
  for (const auto& [sequence, count] : {std::pair(second.get(), 39), std::pair(third.get(), 1)}) {
    sequence->Append(std::span(tokens).first(static_cast<size_t>(count)));
  }
  const auto nothing = [](size_t, int, LogitRow&) { return Status(); };
  const std::vector<StepItem> prompt = {{second.get(), 39, 39}, {third.get(), 1, 1}}, decode = {{longest.get(), 1, 1}};
  for (const std::vector<StepItem>& items : {prompt, decode}) {
    const Status status = (*runner)->Advance(items, {.on_logits = nothing, .on_computed = nullptr});
    EXPECT_TRUE(status.ok()) << status.message();
  }
  EXPECT_EQ((*runner)->scratch_bytes(), reserved);
}

/// Logits of all positions of three sequences in one batch, with adapters 2, 0 and 1; [3][7, V].
std::vector<std::vector<float>> LogitsWithAdapters(const LoadedGolden& loaded, const Ops& ops,
                                                   const AdapterWeights& adapters) {
  const GptOss model(loaded.weights, ops, &adapters);
  ThreadPool pool(1);
  auto runner = ModelRunner::Create(model, pool, {.max_context = 64, .max_sequences = 3, .kv_dtype = DType::kF32});
  EXPECT_TRUE(runner.ok()) << runner.status().message();
  const std::vector<int32_t> tokens = GoldenTokens("micro", "s7");
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<StepItem> items;
  for (const int adapter : {2, 0, 1}) {
    sequences.push_back((*runner)->NewSequence(adapter));
    sequences.back()->Append(tokens);
    items.push_back({sequences.back().get(), 7, 7});
  }
  std::vector<std::vector<float>> logits(3);
  const auto take = [&](size_t item, int, LogitRow& logit_row) {
    const std::span<float> row = *logit_row.OnHost();
    logits[item].insert(logits[item].end(), row.begin(), row.end());
    return Status();
  };
  const Status status = (*runner)->Advance(items, {.on_logits = take, .on_computed = nullptr});
  EXPECT_TRUE(status.ok()) << status.message();
  return logits;
}

TEST(CudaModel, EachSequenceHasItsAdapter) {
  const auto gpu = cuda::EmulatedDevice();
  const auto on_gpu = LoadGolden(GoldenCheckpoint("micro", "hf"), cuda::ExactOps(), DensePrecision::kAsStored,
                                 Options(DType::kF32, 64), *gpu);
  const auto on_host =
      LoadGolden(GoldenCheckpoint("micro", "hf"), ReferenceOps(), DensePrecision::kAsStored, Options(DType::kF32, 64));
  ASSERT_NE(on_gpu, nullptr);
  ASSERT_NE(on_host, nullptr);
  const std::vector<AdapterLayout> layouts(3, AdapterLayout(on_host->weights.config, gptoss::Options({"all"})));
  const std::vector<std::vector<float>> values = {LivelyAdapter(layouts[0], 1), LivelyAdapter(layouts[0], 2),
                                                  LivelyAdapter(layouts[0], 3)};
  const std::vector<uint8_t> owners = {0, 1, 2};
  const auto adapters = AdapterWeights::Make(layouts, values, owners),
             moved = AdapterWeights::Make(layouts, values, owners);
  const auto want = LogitsWithAdapters(*on_host, ReferenceOps(), *adapters);
  ASSERT_TRUE(moved->MoveTo(*gpu).ok());
  const auto got = LogitsWithAdapters(*on_gpu, cuda::ExactOps(), *moved);
  const size_t vocab = want[0].size() / 7;
  for (size_t s = 0; s < 3; ++s) {
    ASSERT_EQ(got[s].size(), want[s].size());
    LogitMetrics same, other;
    for (size_t i = 0; i < 7; ++i) {
      const auto row = std::span(want[s]).subspan(i * vocab, vocab);
      same.Add(row, std::span(got[s]).subspan(i * vocab, vocab));
      other.Add(row, std::span(got[(s + 1) % 3]).subspan(i * vocab, vocab));
    }
    EXPECT_LE(same.rel_l2(), 2e-5) << s;  // two float computations that sum in another order
    EXPECT_GT(other.rel_l2(), 0.05) << s;
  }
}

}  // namespace
}  // namespace gptoss
