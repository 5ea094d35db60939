#include "train_flags.h"

#include "base/mmap_file.h"
#include "json/json.h"

namespace gptoss::cli {
namespace {

void AddDataFlags(CLI::App* command, TrainFlags* f) {
  command->add_option("--data", f->data, "JSONL of harmony conversations; the loss is on what the assistant writes");
  command->add_option("--eval-data", f->eval_data, "JSONL on which the loss is measured, and never trained on");
  command->add_option("--eval-split", f->eval_split,
                      "Share of --data to measure on instead, chosen by --seed and never trained on");
  command->add_option("--tokenizer", f->tokenizer,
                      "tokenizer.json or .tiktoken file; default: the model's own, else the built-in one");
  command->add_option("--max-tokens", f->max_tokens, "Most tokens of one conversation; default: the model's context");
  command->add_option("--analysis-weight", f->analysis_weight, "Weight of the loss on analysis");
  command->add_option("--commentary-weight", f->commentary_weight, "Weight of the loss on commentary and tool calls");
  command->add_option("--final-weight", f->final_weight, "Weight of the loss on finals");
  command->add_option("--preview", f->preview, "Print the first N conversations with what is trained on, and stop");
}

void AddOptimizerFlags(CLI::App* command, TrainFlags* f) {
  command->add_option("--steps", f->steps, "Updates of the weights in all")->capture_default_str();
  command->add_option("--lr", f->lr, "Highest learning rate")->capture_default_str();
  command->add_option("--lr-floor", f->lr_floor, "Share of it at the end")->capture_default_str();
  command->add_option("--schedule", f->schedule, "How the rate falls after the warm-up")
      ->check(CLI::IsMember({"constant", "linear", "cosine", "wsd"}))
      ->capture_default_str();
  command->add_option("--warmup", f->warmup, "Steps in which the rate rises")->capture_default_str();
  command->add_option("--decay-steps", f->decay_steps, "Steps at the end in which wsd lowers it; constant before them")
      ->capture_default_str();
  command->add_option("--weight-decay", f->weight_decay, "Decoupled decay of matrices")->capture_default_str();
  command->add_option("--beta1", f->beta1, "AdamW's decay of the first moment")->capture_default_str();
  command->add_option("--beta2", f->beta2, "AdamW's decay of the second moment")->capture_default_str();
  command->add_flag("--8bit-moments", f->byte_moments, "Both moments in eight bits: 2 bytes a weight instead of 8");
  command->add_option("--clip", f->clip, "Largest norm of the gradient; 0: any")->capture_default_str();
  command->add_option("--batch-tokens", f->batch_tokens, "Tokens packed into one batch")->capture_default_str();
  command->add_option("--accumulation", f->accumulation, "Batches in one step")->capture_default_str();
  command->add_option("--train", f->trained,
                      "Train only tensors whose names end so, e.g. router.weight (repeat it for several)");
  command->add_option("--lora", f->lora,
                      "Train an adapter of this rank beside the frozen weights of --model; --export writes it");
  command->add_option("--lora-alpha", f->lora_alpha, "Its alpha; the scale is alpha / rank. Default: twice the rank");
  command
      ->add_option("--lora-targets", f->lora_targets,
                   "What it adapts: q, k, v, out, router, gate_up, down, unembedding, or attention, experts, all")
      ->delimiter(',')
      ->capture_default_str();
  command->add_flag("--round-experts", f->round_experts, "Compute with experts in MXFP4, as they will be exported");
  command->add_option("--round-from", f->round_from, "Steps before that begins")->capture_default_str();
  command->add_option("--balance", f->balance, "Factor of the loss that keeps all experts in use; 0.01 is common")
      ->capture_default_str();
  command->add_option("--seed", f->seed, "Order of the data, and weights from scratch")->capture_default_str();
}

std::string ValueText(const Json& value) { return value.is_string() ? value.get<std::string>() : WriteJson(value); }

Status ApplyKey(CLI::App& command, const std::string& key, const Json& value) {
  CLI::Option* option = key == "config" ? nullptr : command.get_option_no_throw("--" + key);
  if (option == nullptr) return InvalidArgument("\"" + key + "\" is no setting; see gptoss train --help");
  if (option->count() > 0 || value.is_null()) return Status();  // the command line wins
  if (value.is_object()) return InvalidArgument("\"" + key + "\": must be a value or a list, not an object");
  try {
    if (value.is_array()) {
      for (const Json& item : value) option->add_result(ValueText(item));
    } else {
      option->add_result(ValueText(value));
    }
    option->run_callback();
  } catch (const CLI::Error& e) {
    return InvalidArgument("\"" + key + "\": " + e.what());
  }
  return Status();
}

}  // namespace

void AddTrainFlags(CLI::App* command, TrainFlags* f) {
  command->add_option("--config", f->config, "JSON file with any of these settings, {\"lr\": 0.0001, ...}");
  command->add_option("--model", f->model, "Model to go on from: a directory or a .gguf file");
  command->add_option("--from-scratch", f->from_scratch,
                      "Begin with random weights instead: a config.json of the Hugging Face layout, or micro");
  AddDataFlags(command, f);
  AddOptimizerFlags(command, f);
  command->add_option("--out", f->out, "Directory of the run: states and metrics.jsonl");
  command->add_option("--save-every", f->save_every, "Steps between two saved states")->capture_default_str();
  command->add_option("--keep", f->keep, "Saved states that stay")->capture_default_str();
  command->add_option("--eval-every", f->eval_every, "Steps between two measurements on --eval-data")
      ->capture_default_str();
  command->add_option("--patience", f->patience, "Stop after so many measurements on --eval-data without a better one");
  command->add_flag("--resume", f->resume, "Go on from the newest state in --out, with the same bits");
  command->add_option("--export", f->export_to, "Where to write the trained model; default: none");
  command->add_option("--export-format", f->export_format, "Form of it; all but the experts becomes BF16 (GGUF: Q8_0)")
      ->check(CLI::IsMember({"hf", "original", "gguf"}))
      ->capture_default_str();
  command->add_option("--export-experts", f->export_experts, "What the experts become; bf16 in hf and gguf only")
      ->check(CLI::IsMember({"mxfp4", "bf16"}))
      ->capture_default_str();
  command->add_option("-t,--threads", f->threads, "Threads; default: one per core")->check(CLI::Range(0, 1024));
  command
      ->add_option("--activation-gb", f->activation_gb,
                   "Memory for activations; what does not fit is computed a second time")
      ->capture_default_str();
  command->add_flag("--exact", f->exact, "The plain reference arithmetic on one thread: slow, to compare with");
  command->add_flag("--export-best", f->export_best, "Export the state with the lowest loss on --eval-data");
  command->add_flag("--dry-run", f->dry_run, "Check everything, say how much memory is needed, and stop");
  command->add_flag("--quiet", f->quiet, "No progress bar");
}

Status ApplyConfigFile(CLI::App& command, const std::string& path) {
  GPTOSS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, 1 << 20));
  const Result<Json> json = ParseJson(text);
  if (!json.ok()) return json.status().WithContext(path);
  if (!json->is_object()) return CorruptData(path + ": must be a JSON object");
  for (const auto& [key, value] : json->items()) {
    const Status status = ApplyKey(command, key, value);
    if (!status.ok()) return status.WithContext(path);
  }
  return Status();
}

Status CheckTrainFlags(const TrainFlags& f) {
  if (f.data.empty()) return InvalidArgument("--data is missing: give a JSONL file of conversations");
  if (f.model.empty() == f.from_scratch.empty()) return InvalidArgument("give either --model or --from-scratch");
  if (f.out.empty() && f.preview == 0 && !f.dry_run) return InvalidArgument("--out is missing: give a directory");
  if (f.steps < 1) return InvalidArgument("--steps: must be at least 1");
  if (f.warmup < 0) return InvalidArgument("--warmup: must not be negative");
  if (f.decay_steps < 0) return InvalidArgument("--decay-steps: must not be negative");
  if ((f.schedule == "wsd") != (f.decay_steps > 0)) {
    return InvalidArgument("--decay-steps belongs to --schedule wsd, which needs it");
  }
  if (f.round_from < 0) return InvalidArgument("--round-from: must not be negative");
  if (f.round_from > 0 && !f.round_experts) {
    return InvalidArgument("--round-from says when --round-experts begins: give that too");
  }
  if (f.save_every < 1) return InvalidArgument("--save-every: must be at least 1");
  if (f.eval_every < 1) return InvalidArgument("--eval-every: must be at least 1");
  if (f.patience < 0) return InvalidArgument("--patience: must not be negative");
  if (!(f.eval_split >= 0 && f.eval_split < 1)) return InvalidArgument("--eval-split: must be at least 0 and below 1");
  if (f.eval_split > 0 && !f.eval_data.empty()) return InvalidArgument("give either --eval-data or --eval-split");
  const bool held_out = f.eval_split > 0 || !f.eval_data.empty();
  if (!held_out && f.patience > 0) return InvalidArgument("--patience needs --eval-data or --eval-split");
  if (!held_out && f.export_best) return InvalidArgument("--export-best needs --eval-data or --eval-split");
  if (f.lora != 0) {
    if (f.model.empty()) return InvalidArgument("--lora needs --model: an adapter belongs to trained weights");
    if (!f.trained.empty() || f.round_experts) {
      return InvalidArgument("--lora excludes --train and --round-experts: the weights stay as they are");
    }
    if (const auto options = AdapterOptionsOf(f); !options.ok()) return options.status();
  }
  if (f.export_experts == "bf16" && f.export_format == "original") {
    return InvalidArgument("--export-experts bf16: the original layout has experts in MXFP4 only");
  }
  if (f.keep < 1) return InvalidArgument("--keep: must be at least 1");
  if (!(f.activation_gb >= 0)) return InvalidArgument("--activation-gb: must not be negative");
  if (!(f.lr > 0)) return InvalidArgument("--lr: must be above 0");
  if (!(f.balance >= 0)) return InvalidArgument("--balance: must not be negative");
  if (!(f.clip >= 0)) return InvalidArgument("--clip: must not be negative");
  if (!(f.weight_decay >= 0)) return InvalidArgument("--weight-decay: must not be negative");
  if (!(f.lr_floor >= 0 && f.lr_floor <= 1)) return InvalidArgument("--lr-floor: must be between 0 and 1");
  if (!(f.beta1 >= 0 && f.beta1 < 1)) return InvalidArgument("--beta1: must be at least 0 and below 1");
  if (!(f.beta2 >= 0 && f.beta2 < 1)) return InvalidArgument("--beta2: must be at least 0 and below 1");
  if (!(f.analysis_weight >= 0 && f.commentary_weight >= 0 && f.final_weight >= 0)) {
    return InvalidArgument("--analysis-weight, --commentary-weight, --final-weight: must not be negative");
  }
  return Status();
}

TrainerOptions TrainerOptionsOf(const TrainFlags& f) {
  TrainerOptions options;
  options.adamw = {.beta1 = f.beta1, .beta2 = f.beta2, .weight_decay = f.weight_decay};
  options.schedule = {.kind = *ScheduleFromName(f.schedule),
                      .peak = f.lr,
                      .warmup_steps = f.warmup,
                      .total_steps = f.steps,
                      .decay_steps = f.decay_steps,
                      .floor = f.lr_floor};
  options.max_gradient_norm = f.clip;
  options.accumulation = f.accumulation;
  options.batch_tokens = f.batch_tokens;
  options.seed = f.seed;
  options.balance = f.balance;
  options.activation_bytes = static_cast<uint64_t>(f.activation_gb * 1e9);
  options.trained = f.trained;
  options.byte_moments = f.byte_moments;
  options.round_experts = f.round_experts;
  options.round_from = f.round_from;
  return options;
}

Result<AdapterOptions> AdapterOptionsOf(const TrainFlags& f) {
  return CheckAdapter(
      {.rank = f.lora, .alpha = f.lora_alpha > 0 ? f.lora_alpha : 2.0 * f.lora, .targets = f.lora_targets});
}

}  // namespace gptoss::cli
