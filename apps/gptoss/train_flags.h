// The flags of `gptoss train`, and the JSON file that can hold them.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "training/trainer.h"

namespace gptoss::cli {

struct TrainFlags {
  std::string config;  // JSON file
  std::string model, from_scratch, tokenizer;
  std::string data, eval_data, out;
  std::string export_to, export_format = "hf", export_experts = "mxfp4";
  std::string schedule = "cosine";
  std::vector<std::string> trained, lora_targets = {"attention", "experts"};
  int64_t steps = 100, warmup = 0, decay_steps = 0, round_from = 0, save_every = 100, eval_every = 100;
  double lr = 1e-4, lr_floor = 0.1, weight_decay = 0.0, beta1 = 0.9, beta2 = 0.95, clip = 1.0;
  float analysis_weight = 1.0f, commentary_weight = 1.0f, final_weight = 1.0f;
  int batch_tokens = 2048, accumulation = 1, max_tokens = 0, keep = 2, preview = 0, threads = 0, patience = 0, lora = 0;
  uint64_t seed = 1;
  double activation_gb = 2.0, lora_alpha = 0.0, balance = 0.0, eval_split = 0.0;
  bool byte_moments = false, round_experts = false, exact = false, export_best = false, resume = false, dry_run = false,
       quiet = false;
};

void AddTrainFlags(CLI::App* command, TrainFlags* flags);

/// Sets every option that the command line left out from `path`, an object whose keys are the long flags without
/// dashes. On failure: one error naming the file and the key.
Status ApplyConfigFile(CLI::App& command, const std::string& path);

/// What the flags alone can get wrong. On failure: kInvalidArgument naming the flag.
Status CheckTrainFlags(const TrainFlags& flags);

TrainerOptions TrainerOptionsOf(const TrainFlags& flags);
/// Of --lora. On failure: as CheckAdapter.
Result<AdapterOptions> AdapterOptionsOf(const TrainFlags& flags);

}  // namespace gptoss::cli
