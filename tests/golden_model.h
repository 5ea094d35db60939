// Opens the golden models and their recorded numbers for the tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/registry.h"
#include "base/mmap_file.h"
#include "checkpoint/checkpoint.h"
#include "engine/logit_metrics.h"
#include "engine/model_runner.h"
#include "json/json.h"
#include "tensor/npy.h"

namespace gptoss {

inline std::string GoldenPath(const std::string& name) { return std::string(GPTOSS_TEST_DATA) + "/golden/" + name; }

/// Directory of a golden checkpoint: micro is in the repository, small is rebuilt by tests/CMakeLists.txt.
inline std::string GoldenCheckpoint(const std::string& model, const std::string& layout) {
  return model == "micro" ? GoldenPath("micro/checkpoint/" + layout)
                          : std::string(GPTOSS_SMALL_CHECKPOINT) + "/" + layout;
}

inline NpyArray GoldenArray(const std::string& name) {
  auto array = ReadNpy(GoldenPath(name));
  EXPECT_TRUE(array.ok()) << array.status().message();
  return array.ok() ? *std::move(array) : NpyArray{};
}

inline Json GoldenJson(const std::string& name) {
  auto text = ReadTextFile(GoldenPath(name));
  EXPECT_TRUE(text.ok()) << text.status().message();
  auto json = ParseJson(*text);
  EXPECT_TRUE(json.ok()) << json.status().message();
  return *json;
}

inline std::vector<int32_t> GoldenTokens(const std::string& model, const std::string& sequence) {
  return GoldenJson(model + "/sequences.json").at(sequence).get<std::vector<int32_t>>();
}

/// A loaded model with everything that it needs to run.
struct LoadedGolden {
  ThreadPool pool{2};
  ModelWeights weights;
  std::unique_ptr<GptOss> model;
  std::unique_ptr<ModelRunner> runner;
};

inline std::unique_ptr<LoadedGolden> LoadGolden(const std::string& path, const Ops& ops, DensePrecision dense,
                                                const RunnerOptions& options, Device& device = HostDevice(),
                                                int host_layers = 0) {
  auto loaded = std::make_unique<LoadedGolden>();
  auto checkpoint = OpenCheckpoint(path);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  if (!checkpoint.ok()) return nullptr;
  WeightPlacement placement{.device = &device, .layout = ops.weight_layout, .host_layers = host_layers};
  if (ops.host != nullptr) placement.host_layout = ops.host->weight_layout;
  auto weights =
      LoadWeights(std::shared_ptr<const Checkpoint>(*std::move(checkpoint)), dense, loaded->pool, nullptr, placement);
  EXPECT_TRUE(weights.ok()) << weights.status().message();
  if (!weights.ok()) return nullptr;
  loaded->weights = *std::move(weights);
  loaded->model = std::make_unique<GptOss>(loaded->weights, ops);
  auto runner = ModelRunner::Create(*loaded->model, loaded->pool, options);
  EXPECT_TRUE(runner.ok()) << runner.status().message();
  if (!runner.ok()) return nullptr;
  loaded->runner = *std::move(runner);
  return loaded;
}

/// Logits of the last `rows` positions, [rows, V].
inline std::vector<float> LastLogits(ModelRunner& runner, const std::vector<int32_t>& tokens, int rows,
                                     ActivationHook* hook = nullptr) {
  auto sequence = runner.NewSequence();
  sequence->Append(tokens);
  std::vector<float> all;
  const Status status = runner.Compute(
      *sequence, static_cast<int>(tokens.size()) - rows,
      [&](int, LogitRow& row) {
        const std::span<float> logits = *row.OnHost();
        all.insert(all.end(), logits.begin(), logits.end());
        return Status();
      },
      hook);
  EXPECT_TRUE(status.ok()) << status.message();
  return all;
}

/// `got` [rows, V] against the official logits in the golden file of that name.
inline LogitMetrics CompareWithGolden(const std::vector<float>& got, const std::string& golden, int rows) {
  const NpyArray array = GoldenArray(golden);
  const std::span<const float> want = array.As<float>();
  LogitMetrics metrics;
  EXPECT_EQ(got.size(), want.size());
  if (got.size() != want.size()) return metrics;
  const size_t vocab = want.size() / static_cast<size_t>(rows);
  for (size_t i = 0; i < static_cast<size_t>(rows); ++i) {
    metrics.Add(want.subspan(i * vocab, vocab), std::span(got).subspan(i * vocab, vocab));
  }
  return metrics;
}

struct NamedOps {
  std::string name;
  const Ops* ops;
};

/// The reference and every CPU target that this machine can run.
inline std::vector<NamedOps> AllOps(Precision precision) {
  std::vector<NamedOps> all;
  if (precision == Precision::kExact) all.push_back({"reference", &ReferenceOps()});
  for (const CpuTarget& target : ListCpuTargets()) {
    if (!target.available) {
      std::printf("[ SKIPPED  ] target %s: this machine cannot run it\n", target.name.c_str());
      continue;
    }
    auto ops = CpuOps(target.name, precision);
    EXPECT_TRUE(ops.ok()) << ops.status().message();
    if (ops.ok()) all.push_back({target.name, *ops});
  }
  return all;
}

/// Computes the last token of each sequence, all in one step. logits [sequences, V].
inline Status ComputeLast(ModelRunner& runner, std::span<Sequence* const> sequences, std::span<float> logits) {
  std::vector<StepItem> items;
  for (Sequence* sequence : sequences) items.push_back({sequence, 1, 1});
  const auto vocab = static_cast<size_t>(runner.model().config().vocab_size);
  const auto copy = [&](size_t item, int, LogitRow& row) -> Status {
    GPTOSS_ASSIGN_OR_RETURN(const std::span<float> read, row.OnHost());
    std::ranges::copy(read, logits.subspan(item * vocab, vocab).begin());
    return Status();
  };
  return runner.Advance(items, {.on_logits = copy, .on_computed = nullptr});
}

}  // namespace gptoss
