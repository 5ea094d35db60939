// Flags that every command with a model shares, and the way from them to a model that is ready to run.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "backends/registry.h"
#include "checkpoint/checkpoint.h"
#include "engine/memory_plan.h"
#include "engine/model_runner.h"
#include "model/weights.h"
#include "model_argument.h"
#include "tokenizer/tokenizer.h"

namespace gptoss::cli {

struct ModelFlags {
  std::string model = "nano";
  std::string tokenizer;  // file; empty: the model's own, or the embedded vocabulary
  std::string device = "cpu";
  std::string cpu;                    // target; empty: GPTOSS_CPU or the best
  std::string dense = "auto";         // auto | int8 | bf16
  std::vector<std::string> adapters;  // directories, or NAME=DIRECTORY where requests choose among them
  bool named_adapters = false;        // the latter is allowed
  int context = 8192;
  int sequences = 1;
  int64_t total_context = 0;  // tokens of all sequences together; 0: each may have the whole context
  uint64_t cache_bytes = 0;   // for prefixes of earlier sequences
  uint64_t gpu_memory = 0;    // most bytes to take on a GPU; 0: what is free
  int threads = 0;            // 0: one per core
  int chunk = 512;
  bool exact = false;
  bool quiet = false;
};

/// Adds --model, --adapter, --context, --dense, --exact, --threads, --cpu, --device, --gpu-memory, --quiet.
void AddModelFlags(CLI::App& command, ModelFlags* flags);

DensePrecision DenseOf(const ModelFlags& flags);
/// The context is clamped to what the model has.
RunnerOptions RunnerOptionsOf(const ModelFlags& flags, const ModelConfig& config);
int ThreadsOf(const ModelFlags& flags);
/// The table of the CPU. On failure: what CpuOps says.
Result<const Ops*> OpsOf(const ModelFlags& flags);

/// The tokenizer that belongs to the model: --tokenizer, else the vocabulary that comes with it (in a GGUF or packed
/// file, or as tokenizer.json beside the checkpoint), else the embedded one.
Result<std::shared_ptr<const Tokenizer>> OpenTokenizer(const ModelFlags& flags);

/// A loaded model. Members are in order of construction; each may point into those before it.
struct ModelSession {
  std::shared_ptr<const Checkpoint> checkpoint;
  std::unique_ptr<Device> device;  // null: the host
  std::unique_ptr<ThreadPool> pool;
  Ops ops;
  ModelWeights weights;
  std::unique_ptr<AdapterWeights> adapter;  // null without --adapter
  std::vector<std::string> adapter_names;   // those that requests choose: owner 1, 2, …
  std::unique_ptr<GptOss> model;
  std::unique_ptr<ModelRunner> runner;
  double load_s = 0;

  /// Plans the memory, refuses what cannot fit (kResourceExhausted, saying what would), loads with a progress bar.
  static Result<std::unique_ptr<ModelSession>> Open(const ModelFlags& flags);
};

/// One line on stderr for the model random.
void WarnIfRandom(const ModelFlags& flags);

/// Token ids from FILE: one JSON array, or JSONL of arrays. On failure: kCorruptData naming file and line.
Result<std::vector<std::vector<int32_t>>> ReadTokensFile(const std::string& path);

}  // namespace gptoss::cli
