// gptoss train: trains all weights of a model, or some, on conversations; from scratch or from a checkpoint.
#include <unistd.h>
#include <algorithm>
#include <chrono>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <thread>

#include "backends/cpu/training/training_ops.h"
#include "base/mmap_file.h"
#include "checkpoint/xxh64.h"
#include "commands.h"
#include "jsonl.h"
#include "model_argument.h"
#include "parallel/host_buffer.h"
#include "progress.h"
#include "tokenizer/gguf_vocabulary.h"
#include "train_flags.h"
#include "train_page.h"
#include "train_preview.h"
#include "training/adapter_file.h"
#include "training/export.h"
#include "training/training_state.h"

namespace gptoss::cli {
namespace {

namespace fs = std::filesystem;

volatile std::sig_atomic_t g_stop = 0;
void OnInterrupt(int) { g_stop = 1; }

/// The model to begin with. The checkpoint is null when it begins from scratch.
struct Start {
  ModelConfig config;
  std::shared_ptr<const Checkpoint> checkpoint;
  std::shared_ptr<const Tokenizer> tokenizer;
};

Result<Start> OpenStart(const TrainFlags& flags) {
  Start start;
  if (!flags.model.empty()) {
    GPTOSS_ASSIGN_OR_RETURN(start.checkpoint, OpenModelArgument(flags.model));
    start.config = start.checkpoint->config();
  } else if (fs::exists(flags.from_scratch)) {
    GPTOSS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(flags.from_scratch, 1 << 20));
    const Result<Json> json = ParseJson(text);
    if (!json.ok()) return json.status().WithContext(flags.from_scratch);
    const Result<ModelConfig> config = ParseHfConfig(*json);
    if (!config.ok()) return config.status().WithContext(flags.from_scratch);
    start.config = *config;
  } else {
    const Result<ModelConfig> config = NamedConfig(flags.from_scratch);
    if (!config.ok()) return config.status().WithContext("--from-scratch: no such file, and");
    start.config = *config;
  }
  std::optional<Vocabulary> own;
  if (flags.tokenizer.empty() && start.checkpoint != nullptr) {
    GPTOSS_ASSIGN_OR_RETURN(own, OwnVocabulary(*start.checkpoint));
  }
  if (own) {
    GPTOSS_ASSIGN_OR_RETURN(start.tokenizer, Tokenizer::FromVocabulary(*std::move(own)));
  } else {
    GPTOSS_ASSIGN_OR_RETURN(start.tokenizer, OpenTokenizer(flags.tokenizer));
  }
  return start;
}

/// Reads and reports a data file. On failure: also when it has bad lines, which have been printed then.
Result<Dataset> LoadData(const Renderer& renderer, const std::string& path, const TrainFlags& flags,
                         const ModelConfig& config) {
  DatasetOptions options;
  options.vocab_size = config.vocab_size;
  options.max_tokens = flags.max_tokens > 0 ? std::min(flags.max_tokens, config.max_context) : config.max_context;
  options.analysis_weight = flags.analysis_weight;
  options.commentary_weight = flags.commentary_weight;
  options.final_weight = flags.final_weight;
  GPTOSS_ASSIGN_OR_RETURN(Dataset dataset, ReadDatasetFile(renderer, path, options));
  if (PrintBadLines(path, dataset)) {
    return InvalidArgument(path + ": " + std::to_string(dataset.bad_lines.size()) +
                           " lines cannot be trained on; correct or remove them");
  }
  if (dataset.examples.empty()) return InvalidArgument(path + ": holds no conversations");
  PrintStatistics(path, dataset);
  return dataset;
}

int ThreadCount(const TrainFlags& flags) {
  if (flags.exact) return 1;
  return flags.threads > 0 ? flags.threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

/// What a run holds at its peak, printed, and checked against the machine. `trained`: values that change; `frozen`:
/// bytes of weights that do not.
Status CheckMemory(const ModelConfig& config, size_t trained, uint64_t frozen, const TrainFlags& flags) {
  const bool whole = flags.lora == 0;
  // Masters, gradients and the two moments; a copy to export, and one that is rounded.
  const uint64_t arrays = 2u + (flags.byte_moments ? 0u : 2u) + (whole && !flags.export_to.empty() ? 1u : 0u) +
                          (flags.round_experts ? 1u : 0u);
  const uint64_t moments = flags.byte_moments ? 2 * (trained + MomentBlocks(trained) * sizeof(float)) : 0u;
  const uint64_t state = arrays * trained * sizeof(float) + moments;
  const uint64_t layer = GptOssBackward<float>::LayerActivationBytes(config, flags.batch_tokens);
  const auto layers = static_cast<uint64_t>(config.num_layers);
  const bool kept = static_cast<double>(layer * layers) <= flags.activation_gb * 1e9;
  const uint64_t stream = static_cast<uint64_t>(flags.batch_tokens) * static_cast<uint64_t>(config.hidden_size) *
                          (layers + 4) * sizeof(float);
  const uint64_t logits = uint64_t{1024} * static_cast<uint64_t>(config.hidden_size) * 4 + (uint64_t{64} << 20);
  const uint64_t passes = layer * (kept ? layers + 1 : 3) + stream + logits;
  const auto text = [](uint64_t bytes) { return FormatBytes(static_cast<double>(bytes)); };
  std::fprintf(stderr, "%zu weights change; %s for them, their gradients and moments\n", trained, text(state).c_str());
  if (frozen > 0) std::fprintf(stderr, "%s of frozen weights\n", text(frozen).c_str());
  std::fprintf(stderr, "about %s for the passes: activations are %s\n", text(passes).c_str(),
               kept ? "kept" : "computed twice");
  const uint64_t bytes = state + frozen + passes;
  const auto pages = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES));
  const uint64_t memory = pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  if (bytes <= memory) return Status();
  return ResourceExhausted("this training needs " + text(bytes) + ", this machine has " + text(memory) +
                           (whole ? "; take a smaller model, or --lora" : "; take fewer --batch-tokens"));
}

/// Lines of metrics.jsonl. A resumed run first drops the lines of steps that it will do again.
class Metrics {
 public:
  Status Open(const std::string& path, int64_t last_step) {
    std::string kept;
    if (fs::exists(path)) {
      GPTOSS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, uint64_t{1} << 30));
      for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        const Result<Json> line = ParseJson(std::string_view(text).substr(at, end - at));
        const Result<int64_t> step = line.ok() ? GetInt(*line, "step") : Result<int64_t>(line.status());
        if (step.ok() && *step <= last_step) {
          kept += text.substr(at, end - at) + "\n";
          lines_.push_back(*line);
        }
        at = end + 1;
      }
    }
    GPTOSS_RETURN_IF_ERROR(WriteFileAtomically(path, kept));
    path_ = path;
    out_.open(path, std::ios::app);
    return out_.good() ? Status() : IoError(path + ": cannot be written");
  }
  /// All lines of the run so far.
  const std::vector<Json>& lines() const { return lines_; }
  Status Write(const Json& line) {
    lines_.push_back(line);
    out_ << WriteJson(line) << "\n" << std::flush;
    return out_.good() ? Status() : IoError(path_ + ": cannot be written");
  }

 private:
  std::string path_;
  std::ofstream out_;
  std::vector<Json> lines_;
};

/// One run: its data, its trainer, and where it writes.
class TrainRun {
 public:
  TrainRun(const TrainFlags& flags, const TrainingOps<float>& ops)
      : flags_(flags), ops_(ops), pool_(ThreadCount(flags)) {}

  Status Run() {
    GPTOSS_RETURN_IF_ERROR(CheckTrainFlags(flags_));
    GPTOSS_ASSIGN_OR_RETURN(start_, OpenStart(flags_));
    GPTOSS_ASSIGN_OR_RETURN(const Renderer renderer, Renderer::Create(start_.tokenizer));
    GPTOSS_ASSIGN_OR_RETURN(data_, LoadData(renderer, flags_.data, flags_, start_.config));
    if (flags_.preview > 0) {
      PrintPreview(renderer, data_, flags_.preview);
      return Status();
    }
    if (flags_.eval_split > 0) {
      eval_ = SplitOff(&data_, flags_.eval_split, flags_.seed);
      if (eval_.examples.empty() || data_.examples.empty()) {
        return InvalidArgument("--eval-split: leaves nothing to train on or to measure on; give another share");
      }
      std::fprintf(stderr, "%zu of them are held out, to measure on\n", eval_.examples.size());
    } else if (!flags_.eval_data.empty()) {
      GPTOSS_ASSIGN_OR_RETURN(eval_, LoadData(renderer, flags_.eval_data, flags_, start_.config));
    }
    GPTOSS_RETURN_IF_ERROR(CheckOutputs());
    GPTOSS_ASSIGN_OR_RETURN(Made made, Make());
    if (flags_.dry_run) return Status();
    GPTOSS_ASSIGN_OR_RETURN(Trainer trainer, Trainer::Create(std::move(made.model), std::move(made.values), data_,
                                                             TrainerOptionsOf(flags_), ops_));
    GPTOSS_RETURN_IF_ERROR(Prepare(&trainer));
    GPTOSS_RETURN_IF_ERROR(Train(&trainer));
    if (flags_.export_to.empty() || g_stop != 0) return Status();
    if (flags_.export_best) {
      const auto best = NewestState(BestPath());
      if (best) GPTOSS_RETURN_IF_ERROR(LoadState(*best, fingerprint_, &trainer));
    }
    return flags_.lora > 0 ? ExportAdapter(&trainer) : Export(trainer);
  }

 private:
  struct Made {
    std::unique_ptr<TrainedModel> model;
    std::vector<float> values;
  };

  /// What is trained, with its first values; nothing of it in a dry run.
  Result<Made> Make() {
    Made made;
    const FlatLayout layout(start_.config);
    if (flags_.lora > 0) return MakeAdapter();
    GPTOSS_RETURN_IF_ERROR(CheckMemory(start_.config, layout.size(), 0, flags_));
    if (flags_.dry_run) return made;
    const TrainerOptions options = TrainerOptionsOf(flags_);
    GPTOSS_ASSIGN_OR_RETURN(made.model,
                            TrainWeights(start_.config, options.trained, options.round_experts, options.round_from));
    if (start_.checkpoint == nullptr) {
      made.values = InitialParameters(layout, flags_.seed);
      return made;
    }
    GPTOSS_ASSIGN_OR_RETURN(made.values, ReadFlatParameters(*start_.checkpoint, layout));
    return made;
  }

  Result<Made> MakeAdapter() {
    GPTOSS_ASSIGN_OR_RETURN(const AdapterOptions options, AdapterOptionsOf(flags_));
    adapter_ = AdapterLayout(start_.config, options);
    const WeightPlan plan = PlanWeights(*start_.checkpoint, DensePrecision::kAsStored);
    GPTOSS_RETURN_IF_ERROR(CheckMemory(start_.config, adapter_->size(), plan.total(), flags_));
    Made made;
    if (flags_.dry_run) return made;
    GPTOSS_ASSIGN_OR_RETURN(weights_, LoadWeights(start_.checkpoint, DensePrecision::kAsStored, pool_));
    // Tells this base from another one of the same shape: states of a run must meet the weights that they began with.
    const size_t row = RowBytes(weights_.unembedding.dtype, static_cast<uint64_t>(weights_.unembedding.cols));
    const uint64_t base =
        Xxh64(std::span(weights_.unembedding.data, row)) ^
        Xxh64(std::as_bytes(std::span(weights_.final_norm, static_cast<size_t>(start_.config.hidden_size))));
    made.model = TrainAdapter(weights_, options, std::to_string(base));
    made.values = InitialAdapter(*adapter_, flags_.seed);
    return made;
  }

  std::string BestPath() const { return flags_.out + "/best"; }

  /// Before hours of work, not after them.
  Status CheckOutputs() const {
    if (!flags_.export_to.empty() && fs::exists(flags_.export_to)) {
      return InvalidArgument("--export " + flags_.export_to + ": already exists; remove it or choose another path");
    }
    if (!flags_.resume && !flags_.out.empty() && NewestState(flags_.out)) {
      return InvalidArgument("--out " + flags_.out + ": holds a run already; add --resume or choose another directory");
    }
    return Status();
  }

  Status Prepare(Trainer* trainer) {
    fingerprint_ = data_.Fingerprint();
    std::error_code error;
    fs::create_directories(flags_.out, error);
    if (error) return IoError("--out " + flags_.out + ": cannot be made: " + error.message());
    if (flags_.resume) {
      const auto newest = NewestState(flags_.out);
      if (!newest) return NotFound("--resume: " + flags_.out + " holds no saved state");
      GPTOSS_RETURN_IF_ERROR(LoadState(*newest, fingerprint_, trainer));
      std::fprintf(stderr, "going on from %s\n", newest->c_str());
    }
    return metrics_.Open(flags_.out + "/metrics.jsonl", trainer->state().step);
  }

  Status Train(Trainer* trainer) {
    std::signal(SIGINT, OnInterrupt);
    std::signal(SIGTERM, OnInterrupt);
    ProgressBar bar("training", static_cast<uint64_t>(flags_.steps), ProgressUnit::kCount, flags_.quiet);
    int64_t saved = trainer->state().step;
    while (trainer->state().step < flags_.steps && g_stop == 0) {
      const auto begin = std::chrono::steady_clock::now();
      GPTOSS_ASSIGN_OR_RETURN(const StepReport report, trainer->Step(context_));
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      GPTOSS_RETURN_IF_ERROR(Report(report, seconds, &bar));
      const bool last = report.step == flags_.steps;
      bool stop = false;
      if (!eval_.examples.empty() && (last || report.step % flags_.eval_every == 0)) {
        GPTOSS_ASSIGN_OR_RETURN(stop, Measure(trainer, report.step, &bar));
      }
      if (last || stop || report.step % flags_.save_every == 0) {
        GPTOSS_RETURN_IF_ERROR(SaveState(*trainer, fingerprint_, flags_.out, flags_.keep));
        GPTOSS_RETURN_IF_ERROR(WritePage());
        saved = report.step;
      }
      if (stop) {
        bar.Note("stopped early: no better loss on --eval-data in " + std::to_string(flags_.patience) +
                 " measurements");
        break;
      }
    }
    bar.Finish();
    if (g_stop == 0) return Status();
    if (saved != trainer->state().step) {
      GPTOSS_RETURN_IF_ERROR(SaveState(*trainer, fingerprint_, flags_.out, flags_.keep));
    }
    return Cancelled("stopped after step " + std::to_string(trainer->state().step) + "; --resume goes on from there");
  }

  /// Measures the loss on the eval data, and keeps the state when none was lower. Returns whether it is time to stop.
  Result<bool> Measure(Trainer* trainer, int64_t step, ProgressBar* bar) {
    GPTOSS_ASSIGN_OR_RETURN(const double loss, trainer->Evaluate(context_, eval_));
    double best = std::numeric_limits<double>::infinity();
    int64_t since_best = 0;
    for (const Json& line : metrics_.lines()) {
      const Json* before = FindField(line, "eval_loss");
      if (before == nullptr || !before->is_number()) continue;
      const bool better = before->get<double>() < best;
      since_best = better ? 0 : since_best + 1;
      if (better) best = before->get<double>();
    }
    const bool better = loss < best;
    GPTOSS_RETURN_IF_ERROR(metrics_.Write({{"step", step}, {"eval_loss", loss}}));
    char note[64];
    std::snprintf(note, sizeof(note), "step %lld: eval loss %.4f%s", static_cast<long long>(step), loss,
                  better ? ", the best so far" : "");
    bar->Note(note);
    if (better) {
      std::error_code error;
      fs::remove_all(BestPath() + "/" + fs::path(NewestState(BestPath()).value_or("none")).filename().string(), error);
      GPTOSS_RETURN_IF_ERROR(SaveState(*trainer, fingerprint_, BestPath(), 1));
    }
    return flags_.patience > 0 && !better && since_best + 1 >= flags_.patience;
  }

  Status WritePage() const {
    return WriteFileAtomically(flags_.out + "/curves.html",
                               CurvesPage(fs::path(flags_.out).filename().string(), metrics_.lines()));
  }

  Status Report(const StepReport& report, double seconds, ProgressBar* bar) {
    const double rate = static_cast<double>(report.tokens) / seconds;
    char detail[96];
    std::snprintf(detail, sizeof(detail), "loss %.4f  %.0f tok/s", report.loss, rate);
    bar->Update(static_cast<uint64_t>(report.step), detail);
    Json line = {{"step", report.step},
                 {"epoch", report.epoch},
                 {"loss", report.loss},
                 {"gradient_norm", report.gradient_norm},
                 {"learning_rate", report.learning_rate},
                 {"tokens", report.tokens},
                 {"targets", report.targets},
                 {"seconds", seconds},
                 {"tok_s", rate}};
    if (flags_.balance > 0) line["balance_loss"] = report.balance_loss;
    return metrics_.Write(line);
  }

  double Evaluate(const FlatLayout& layout, std::span<const float> values, const Dataset& dataset) {
    return EvaluateLoss(context_, layout, values, ops_, dataset, flags_.batch_tokens);
  }

  Status ExportAdapter(Trainer* trainer) {
    GPTOSS_RETURN_IF_ERROR(SaveAdapter(*adapter_, trainer->state().values, flags_.export_to));
    const bool held_out = !eval_.examples.empty();
    GPTOSS_ASSIGN_OR_RETURN(const double loss, trainer->Evaluate(context_, held_out ? eval_ : data_));
    std::fprintf(stderr, "%s: adapter of rank %d; loss on the %s data %.4f\n", flags_.export_to.c_str(), flags_.lora,
                 held_out ? "eval" : "training", loss);
    return Status();
  }

  /// Writes the model, and says what rounding to its form does to the weights and to the loss.
  Status Export(const Trainer& trainer) {
    const FlatLayout& layout = trainer.layout();
    const std::vector<float>& values = trainer.state().values;
    const bool bf16 = flags_.export_experts == "bf16";
    const ExpertForm form = bf16 ? ExpertForm::kBf16 : ExpertForm::kMxfp4;
    GPTOSS_ASSIGN_OR_RETURN(const Rounding rounding, RoundAsExported(layout, values, form));
    const auto checkpoint = MakeFlatCheckpoint(layout, values, "the trained model", form);
    WriteOptions options;
    options.bf16_experts = bf16;
    options.allow_lossy = true;  // the weights are float; what rounding costs is printed below
    GgufVocabularyData vocabulary;
    if (flags_.export_format == "gguf") {
      GgufVocabulary exported = ExportForGguf(start_.tokenizer->vocabulary(), start_.config.vocab_size);
      vocabulary = {std::move(exported.tokens), std::move(exported.types), std::move(exported.merges)};
      options.vocabulary = &vocabulary;
    }
    const auto write = flags_.export_format == "gguf" ? WriteGguf
                       : flags_.export_format == "hf" ? WriteHf
                                                      : WriteOriginal;
    GPTOSS_RETURN_IF_ERROR(write(*checkpoint, flags_.export_to, options));
    GPTOSS_RETURN_IF_ERROR(CopyTokenizer());

    const bool held_out = !eval_.examples.empty();
    const Dataset& dataset = held_out ? eval_ : data_;
    std::fprintf(stderr, "%s: experts rounded to %s (relative error %.4f), the rest to BF16 (%.5f)\n",
                 flags_.export_to.c_str(), bf16 ? "BF16" : "MXFP4", rounding.experts.relative_rms,
                 rounding.others.relative_rms);
    std::fprintf(stderr, "loss on the %s data: %.4f in float, %.4f rounded\n", held_out ? "eval" : "training",
                 Evaluate(layout, values, dataset), Evaluate(layout, rounding.values, dataset));
    return Status();
  }

  /// A directory takes along the tokenizer.json that was used.
  Status CopyTokenizer() const {
    fs::path from = flags_.tokenizer;
    if (from.empty() && start_.checkpoint != nullptr) from = fs::path(start_.checkpoint->Describe()) / "tokenizer.json";
    if (flags_.export_format == "gguf" || from.extension() != ".json" || !fs::exists(from)) return Status();
    std::error_code error;
    const fs::path to = fs::path(flags_.export_to) / "tokenizer.json";
    fs::copy_file(from, to, error);
    return error ? IoError(to.string() + ": cannot be written: " + error.message()) : Status();
  }

  const TrainFlags& flags_;
  Start start_;
  Dataset data_, eval_;
  ModelWeights weights_;                  // frozen ones, with --lora
  std::optional<AdapterLayout> adapter_;  // likewise
  uint64_t fingerprint_ = 0;
  Metrics metrics_;
  const TrainingOps<float>& ops_;
  ThreadPool pool_;
  ScratchArena scratch_;
  ExecContext context_{pool_, scratch_};
};

int Train(CLI::App& command, TrainFlags* flags) {
  if (!flags->config.empty()) {
    const Status status = ApplyConfigFile(command, flags->config);
    if (!status.ok()) return Fail(status);
  }
  if (const Status status = CheckTrainFlags(*flags); !status.ok()) return UsageError(status.message());
  const TrainingOps<float>* ops = &ReferenceTrainingOps<float>();
  if (!flags->exact) {
    const Result<const TrainingOps<float>*> chosen = CpuTrainingOps();
    if (!chosen.ok()) return Fail(chosen.status());
    ops = *chosen;
  }
  const Status status = TrainRun(*flags, *ops).Run();
  return status.ok() ? 0 : Fail(status);
}

}  // namespace

void RegisterTrain(CLI::App& app, int* exit_code) {
  CLI::App* command =
      app.add_subcommand("train", "Train a model's weights, or an adapter beside them, on conversations");
  auto flags = std::make_shared<TrainFlags>();
  AddTrainFlags(command, flags.get());
  command->footer(
      "One conversation a line of --data: {\"messages\": [...]} as gptoss render takes it. All weights are trained in "
      "float with AdamW on all cores. metrics.jsonl in --out gets one line a "
      "step. SIGINT saves the state and stops.");
  command->callback([command, flags, exit_code] { *exit_code = Train(*command, flags.get()); });
}

}  // namespace gptoss::cli
