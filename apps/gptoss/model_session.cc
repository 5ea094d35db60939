#include "model_session.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <sstream>
#include <thread>

#include "base/mmap_file.h"
#include "engine/expert_offload.h"
#include "json/json.h"
#include "progress.h"
#include "training/adapter_file.h"

namespace gptoss::cli {
namespace {

/// Shows the bytes read on the progress bar.
class LoadProgress : public WriteProgress {
 public:
  LoadProgress(uint64_t total, bool quiet) : bar_("loading", total, ProgressUnit::kBytes, quiet) {}
  bool Update(uint64_t done, uint64_t) override {
    bar_.Update(done);
    return true;
  }
  void Finish() { bar_.Finish(); }

 private:
  ProgressBar bar_;
};

struct AdapterFlag {
  std::string name;  // empty: it takes part in every request
  std::string directory;
};

/// A directory may have a "=" in its path; NAME may not have a "/".
AdapterFlag ParseAdapterFlag(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || text.find('/') < equals || std::filesystem::exists(text)) return {"", text};
  return {text.substr(0, equals), text.substr(equals + 1)};
}

/// The flags --adapter, those of every request first. On failure: kInvalidArgument naming the flag at fault.
Result<std::vector<AdapterFlag>> AdapterFlagsOf(const ModelFlags& flags) {
  std::vector<AdapterFlag> parsed;
  for (const std::string& text : flags.adapters) {
    AdapterFlag flag = ParseAdapterFlag(text);
    if (!flag.name.empty() && !flags.named_adapters) {
      return InvalidArgument("--adapter " + text + ": names are for gptoss serve; here, give the directory");
    }
    const bool again = std::ranges::any_of(parsed, [&](const AdapterFlag& f) { return f.name == flag.name; });
    if (!flag.name.empty() && again) return InvalidArgument("--adapter " + text + ": the name is taken already");
    parsed.push_back(std::move(flag));
  }
  std::stable_partition(parsed.begin(), parsed.end(), [](const AdapterFlag& flag) { return flag.name.empty(); });
  return parsed;
}

/// The adapters of --adapter; null when there are none. Fills `names`.
Result<std::unique_ptr<AdapterWeights>> LoadAdapters(const ModelFlags& flags, const ModelConfig& config,
                                                     std::vector<std::string>* names) {
  std::vector<AdapterLayout> layouts;
  std::vector<std::vector<float>> values;
  std::vector<uint8_t> owners;
  GPTOSS_ASSIGN_OR_RETURN(const std::vector<AdapterFlag> parsed, AdapterFlagsOf(flags));
  for (const AdapterFlag& flag : parsed) {
    GPTOSS_ASSIGN_OR_RETURN(Adapter adapter, LoadAdapter(flag.directory, config));
    layouts.push_back(std::move(adapter.layout));
    values.push_back(std::move(adapter.values));
    if (!flag.name.empty()) names->push_back(flag.name);
    owners.push_back(static_cast<uint8_t>(flag.name.empty() ? 0 : names->size()));
  }
  if (names->size() >= AdapterWeights::kMaxOwners) {
    return InvalidArgument("--adapter: at most " + std::to_string(AdapterWeights::kMaxOwners - 1) + " names");
  }
  if (layouts.empty()) return std::unique_ptr<AdapterWeights>();
  return AdapterWeights::Make(layouts, values, owners);
}

Status DoesNotFit(const Checkpoint& checkpoint, const ModelFlags& flags, const RunnerOptions& options,
                  const MemoryPlan& plan, uint64_t needed, uint64_t available, const std::string& where) {
  std::string advice = "close other programs or use a machine with more memory";
  if (plan.largest_context > 0) {
    advice = "--context " + std::to_string(plan.largest_context) + " would fit";
  } else if (DenseOf(flags) != DensePrecision::kInt8) {
    advice = "try --dense int8";
  }
  return ResourceExhausted(checkpoint.Describe() + " with a context of " + std::to_string(options.max_context) +
                           " needs " + FormatBytes(static_cast<double>(needed)) + " of memory" + where + ", " +
                           FormatBytes(static_cast<double>(available)) + " are available: " + advice);
}

/// How a model is shared between a GPU and the host.
struct Sharing {
  int host_layers = 0;
  int64_t bring_from_rows = std::numeric_limits<int64_t>::max();
};

/// Experts of some layers stay on the host: where passes of many rows compute those, by what was measured here.
Result<Sharing> ShareLayers(const Checkpoint& checkpoint, const ModelFlags& flags, const RunnerOptions& options,
                            const GpuPlan& roomy, const GpuPlan& plain, const Ops& host_ops, ThreadPool& pool,
                            Device& device) {
  OffloadRates rates;
  GPTOSS_ASSIGN_OR_RETURN(rates.host_macs_s, MeasureHostMacs(host_ops, pool));
  GPTOSS_ASSIGN_OR_RETURN(rates.upload_bytes_s, MeasureUpload(device));
  const int64_t rows = RowsToBring(checkpoint.config(), roomy.memory.weights.layer_mlp, rates);
  const bool brings = roomy.brings_experts && flags.adapters.empty() && rows <= options.chunk_tokens;
  const GpuPlan& plan = brings ? roomy : plain;
  if (!flags.quiet) {
    const std::string many = brings ? ", and the GPU for " + std::to_string(rows) + " tokens or more together" : "";
    std::fprintf(stderr,
                 "gptoss: experts of %d of %d layers stay in the machine's memory (%s): the CPU computes them%s\n",
                 plan.host_layers, checkpoint.config().num_layers,
                 FormatBytes(static_cast<double>(plan.on_host)).c_str(), many.c_str());
  }
  Sharing sharing{.host_layers = plan.host_layers};
  if (brings) sharing.bring_from_rows = rows;
  return sharing;
}

/// What goes to `device`, and what does not. On failure: kResourceExhausted.
Result<Sharing> PlanSharing(const Checkpoint& checkpoint, const ModelFlags& flags, const RunnerOptions& options,
                            const Ops& ops, ThreadPool& pool, Device& device) {
  const uint64_t free = device.free_bytes();
  const uint64_t available = flags.gpu_memory == 0 ? free : std::min(free, flags.gpu_memory);
  const auto plan = [&](bool bring_experts) {
    return PlanGpu(checkpoint, DenseOf(flags), options, ops.scratch_bytes, available, bring_experts);
  };
  const GpuPlan plain = plan(false), roomy = plan(true);
  if (!plain.fits_gpu) {
    return DoesNotFit(checkpoint, flags, options, plain.memory, plain.on_gpu, available, " on the GPU");
  }
  if (const uint64_t host = AvailableMemory(); roomy.on_host > host) {
    return ResourceExhausted(checkpoint.Describe() + ": beside what fits the GPU, " +
                             FormatBytes(static_cast<double>(roomy.on_host)) + " of the machine's memory are needed, " +
                             FormatBytes(static_cast<double>(host)) + " are available");
  }
  if (plain.host_layers == 0) return Sharing();
  return ShareLayers(checkpoint, flags, options, roomy, plain, *ops.host, pool, device);
}

Status CheckThatItFits(const Checkpoint& checkpoint, const ModelFlags& flags, const RunnerOptions& options) {
  const uint64_t available = AvailableMemory();
  const MemoryPlan plan = PlanMemory(checkpoint, DenseOf(flags), options, available);
  if (plan.total() <= available) return Status();
  return DoesNotFit(checkpoint, flags, options, plan, plan.total(), available, "");
}

}  // namespace

void AddModelFlags(CLI::App& command, ModelFlags* flags) {
  command.add_option(
      "-m,--model", flags->model,
      "Checkpoint directory, .gguf or packed file, name of a pulled model, nano (built in, tiny) or random");
  command.add_option("--adapter", flags->adapters,
                     flags->named_adapters
                         ? "Directory of an adapter (gptoss train --lora) for all requests; with NAME=DIRECTORY for "
                           "those whose model is NAME"
                         : "Directory of an adapter (gptoss train --lora) to add to the model; several add up");
  command.add_option("-c,--context", flags->context, "Most tokens of one conversation")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  command
      .add_option("--dense", flags->dense,
                  "Attention and output weights: auto (q, k, v as stored, the rest in int8 groups of 32), int8 (all of "
                  "them: faster, less exact), bf16 (as stored)")
      ->check(CLI::IsMember({"auto", "int8", "bf16"}))
      ->capture_default_str();
  command.add_flag("--exact", flags->exact, "Weights as stored, float arithmetic and float cache: slower");
  command.add_option("-t,--threads", flags->threads, "Threads (default: one per core)")->check(CLI::Range(0, 1024));
  command.add_option("--cpu", flags->cpu, "Instruction set to use (see gptoss info)");
  command.add_option("--device", flags->device, "Where to compute: cpu, or cuda (the first GPU)")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  command
      .add_option(
          "--gpu-memory", flags->gpu_memory,
          "Most memory to take on the GPU, e.g. 12GB (default: what is free); experts that do not fit stay with "
          "the CPU")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
  command.add_option("--chunk", flags->chunk, "Prompt tokens of one forward pass")
      ->check(CLI::Range(1, 8192))
      ->capture_default_str();
  command.add_flag("-q,--quiet", flags->quiet, "No progress on stderr");
}

DensePrecision DenseOf(const ModelFlags& flags) {
  if (flags.exact || flags.dense == "bf16") return DensePrecision::kAsStored;
  return flags.dense == "int8" ? DensePrecision::kInt8 : DensePrecision::kDefault;
}

RunnerOptions RunnerOptionsOf(const ModelFlags& flags, const ModelConfig& config) {
  return {.max_context = std::min(flags.context, config.max_context),
          .max_sequences = flags.sequences,
          .chunk_tokens = flags.chunk,
          .kv_dtype = flags.exact ? DType::kF32 : DType::kBF16,
          .total_context = flags.total_context,
          .cache_bytes = flags.cache_bytes};
}

int ThreadsOf(const ModelFlags& flags) {
  if (flags.threads > 0) return flags.threads;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

Result<const Ops*> OpsOf(const ModelFlags& flags) {
  if (flags.cpu == "reference") return &ReferenceOps();
  return CpuOps(flags.cpu, flags.exact ? Precision::kExact : Precision::kFast);
}

Result<std::shared_ptr<const Tokenizer>> OpenTokenizer(const ModelFlags& flags) {
  if (!flags.tokenizer.empty()) return Tokenizer::FromFile(flags.tokenizer);
  if (IsRandomModel(flags.model)) return Tokenizer::Embedded();
  GPTOSS_ASSIGN_OR_RETURN(const auto checkpoint, OpenModelArgument(flags.model));
  GPTOSS_ASSIGN_OR_RETURN(std::optional<Vocabulary> own, OwnVocabulary(*checkpoint));
  if (!own) return Tokenizer::Embedded();
  auto tokenizer = Tokenizer::FromVocabulary(*std::move(own));
  if (!tokenizer.ok()) return tokenizer.status().WithContext(checkpoint->Describe());
  return tokenizer;
}

Result<std::unique_ptr<ModelSession>> ModelSession::Open(const ModelFlags& flags) {
  const auto start = std::chrono::steady_clock::now();
  auto session = std::make_unique<ModelSession>();
  GPTOSS_ASSIGN_OR_RETURN(const Ops* const host_ops, OpsOf(flags));
  session->ops = *host_ops;
  if (flags.device == "cuda") {
    auto gpu = OpenCuda(0, flags.exact ? Precision::kExact : Precision::kFast);
    if (!gpu.ok()) return gpu.status().WithContext("--device cuda");
    session->device = std::move(gpu->device);
    session->ops = *gpu->ops;
    session->ops.host = host_ops;
  }
  GPTOSS_ASSIGN_OR_RETURN(session->checkpoint, OpenModelArgument(flags.model));
  const RunnerOptions options = RunnerOptionsOf(flags, session->checkpoint->config());
  session->pool = std::make_unique<ThreadPool>(ThreadsOf(flags));
  WeightPlacement placement{.layout = session->ops.weight_layout, .host_layout = host_ops->weight_layout};
  Sharing sharing;
  if (session->device == nullptr) {
    GPTOSS_RETURN_IF_ERROR(CheckThatItFits(*session->checkpoint, flags, options));
  } else {
    placement.device = session->device.get();
    GPTOSS_ASSIGN_OR_RETURN(
        sharing, PlanSharing(*session->checkpoint, flags, options, session->ops, *session->pool, *session->device));
    placement.host_layers = sharing.host_layers;
  }
  LoadProgress progress(PlanWeights(*session->checkpoint, DenseOf(flags)).total(), flags.quiet);
  GPTOSS_ASSIGN_OR_RETURN(session->weights,
                          LoadWeights(session->checkpoint, DenseOf(flags), *session->pool, &progress, placement));
  progress.Finish();
  GPTOSS_ASSIGN_OR_RETURN(session->adapter,
                          LoadAdapters(flags, session->checkpoint->config(), &session->adapter_names));
  if (session->adapter != nullptr && session->device != nullptr) {
    const Status moved = session->adapter->MoveTo(*session->device, session->weights.host_layers);
    if (!moved.ok()) return moved.WithContext("--adapter");
  }
  session->model = std::make_unique<GptOss>(session->weights, session->ops, session->adapter.get());
  session->model->BringExpertsFrom(sharing.bring_from_rows);
  GPTOSS_ASSIGN_OR_RETURN(session->runner, ModelRunner::Create(*session->model, *session->pool, options));
  session->load_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return session;
}

void WarnIfRandom(const ModelFlags& flags) {
  if (!IsRandomModel(flags.model) || flags.quiet) return;
  std::fprintf(stderr,
               "gptoss: this model has random weights and answers with noise; "
               "get a real one with: gptoss pull gpt-oss-20b\n");
}

Result<std::vector<std::vector<int32_t>>> ReadTokensFile(const std::string& path) {
  GPTOSS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, 1u << 30));
  const auto to_ids = [&](const Json& json, const std::string& where) -> Result<std::vector<int32_t>> {
    if (!json.is_array() || json.empty()) return CorruptData(where + ": expected a JSON array of token ids");
    std::vector<int32_t> ids;
    for (const Json& id : json) {
      if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) {
        return CorruptData(where + ": " + WriteJson(id) + " is not a token id");
      }
      ids.push_back(id.get<int32_t>());
    }
    return ids;
  };
  std::vector<std::vector<int32_t>> sequences;
  // One document may span lines; if the whole text is not one, every line must be.
  if (const auto whole = ParseJson(text, {.max_bytes = 1u << 30}); whole.ok()) {
    GPTOSS_ASSIGN_OR_RETURN(auto ids, to_ids(*whole, path));
    sequences.push_back(std::move(ids));
    return sequences;
  }
  std::istringstream lines(text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = path + " line " + std::to_string(number);
    const auto json = ParseJson(line);
    if (!json.ok()) return json.status().WithContext(where);
    GPTOSS_ASSIGN_OR_RETURN(auto ids, to_ids(*json, where));
    sequences.push_back(std::move(ids));
  }
  if (sequences.empty()) return CorruptData(path + ": holds no token ids");
  return sequences;
}

}  // namespace gptoss::cli
