#include <cstdio>

#include "commands.h"
#include "json/json.h"
#include "model_session.h"
#include "progress.h"

namespace gptoss::cli {
namespace {

Json PlanJson(const Checkpoint& checkpoint, const RunnerOptions& options, const MemoryPlan& plan, uint64_t available) {
  return {{"model", checkpoint.Describe()},
          {"context", options.max_context},
          {"sequences", options.max_sequences},
          {"bytes",
           {{"experts", plan.weights.experts},
            {"attention", plan.weights.attention},
            {"embedding", plan.weights.embedding},
            {"output", plan.weights.unembedding},
            {"norms_biases_router", plan.weights.small},
            {"kv_cache", plan.kv_cache},
            {"activations", plan.activations},
            {"process", plan.process}}},
          {"total_bytes", plan.total()},
          {"total_without_kv_bytes", plan.total() - plan.kv_cache},
          {"mapped_bytes", plan.mapped},
          {"available_bytes", available},
          {"fits", plan.total() <= available},
          {"largest_context", plan.largest_context},
          {"most_sequences", plan.most_sequences}};
}

void PrintLine(const char* what, uint64_t bytes) {
  std::printf("  %-28s %12s\n", what, FormatBytes(static_cast<double>(bytes)).c_str());
}

/// What both kinds of plan say.
void PrintParts(const Checkpoint& checkpoint, const RunnerOptions& options, const MemoryPlan& plan) {
  std::printf("%s, %d sequence%s of %d tokens\n", checkpoint.Describe().c_str(), options.max_sequences,
              options.max_sequences == 1 ? "" : "s", options.max_context);
  PrintLine("experts", plan.weights.experts);
  PrintLine("attention", plan.weights.attention);
  PrintLine("embedding", plan.weights.embedding);
  PrintLine("output matrix", plan.weights.unembedding);
  PrintLine("norms, biases, router", plan.weights.small);
  PrintLine("key/value cache, when full", plan.kv_cache);
  PrintLine("activations", plan.activations);
  PrintLine("program", plan.process);
  PrintLine("total", plan.total());
}

void PrintLargest(const RunnerOptions& options, const MemoryPlan& plan) {
  std::printf("largest context for %d: %d tokens; most sequences of %d tokens: %d\n", options.max_sequences,
              plan.largest_context, options.max_context, plan.most_sequences);
}

void PrintPlan(const Checkpoint& checkpoint, const RunnerOptions& options, const MemoryPlan& plan, uint64_t available) {
  PrintParts(checkpoint, options, plan);
  if (plan.mapped > 0) {
    std::printf("  the embedding (%s) is read from the file as needed and can be dropped by the system at any time\n",
                FormatBytes(static_cast<double>(plan.mapped)).c_str());
  }
  std::printf("available now: %s: %s\n", FormatBytes(static_cast<double>(available)).c_str(),
              plan.total() <= available ? "it fits" : "it does not fit");
  PrintLargest(options, plan);
}

/// Bytes that may be taken of the GPU: --gpu-memory, where no GPU is needed to plan for one, or what is free.
Result<uint64_t> GpuMemoryOf(const ModelFlags& flags) {
  if (flags.gpu_memory > 0) return flags.gpu_memory;
  const auto gpu = OpenCuda(0, Precision::kFast);
  if (!gpu.ok()) return gpu.status().WithContext("--device cuda without --gpu-memory");
  return gpu->device->free_bytes();
}

int PlanForGpu(const ModelFlags& flags, const Checkpoint& checkpoint, const RunnerOptions& options, bool json) {
  const auto available = GpuMemoryOf(flags);
  if (!available.ok()) return Fail(available.status());
  const GpuPlan plan = PlanGpu(checkpoint, DenseOf(flags), options, CudaScratchBytes, *available);
  const uint64_t host = AvailableMemory();
  const bool fits = plan.fits_gpu && plan.on_host <= host;
  if (json) {
    Json document = PlanJson(checkpoint, options, plan.memory, *available);
    document["fits"] = fits;
    document["gpu_bytes"] = plan.on_gpu;
    document["host_bytes"] = plan.on_host;
    document["host_layers"] = plan.host_layers;
    document["host_available_bytes"] = host;
    std::printf("%s\n", WriteJson(document).c_str());
    return 0;
  }
  PrintParts(checkpoint, options, plan.memory);
  PrintLine("of this on the GPU", plan.on_gpu);
  PrintLine("on the host", plan.on_host);
  std::printf("experts of %d of %d layers stay on the host\n", plan.host_layers, checkpoint.config().num_layers);
  std::printf("available now: %s on the GPU, %s on the host: %s\n",
              FormatBytes(static_cast<double>(*available)).c_str(), FormatBytes(static_cast<double>(host)).c_str(),
              fits ? "it fits" : "it does not fit");
  PrintLargest(options, plan.memory);
  return 0;
}

/// A model of released shape without its file, in the published precision.
Result<std::shared_ptr<const Checkpoint>> OfShape(const std::string& like) {
  SynthOptions options;
  GPTOSS_ASSIGN_OR_RETURN(options.config, NamedConfig(like));
  options.shape_name = like;
  GPTOSS_ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> shape, MakeSyntheticCheckpoint(options));
  return std::shared_ptr<const Checkpoint>(std::move(shape));
}

int RunPlan(const ModelFlags& flags, const std::string& like, bool json) {
  if (const auto ops = OpsOf(flags); !ops.ok()) return Fail(ops.status());
  const auto checkpoint = like.empty() ? OpenModelArgument(flags.model) : OfShape(like);
  if (!checkpoint.ok()) return Fail(checkpoint.status());
  const RunnerOptions options = RunnerOptionsOf(flags, (*checkpoint)->config());
  if (flags.device == "cuda") return PlanForGpu(flags, **checkpoint, options, json);
  const uint64_t available = AvailableMemory();
  const MemoryPlan plan = PlanMemory(**checkpoint, DenseOf(flags), options, available);
  if (json) {
    std::printf("%s\n", WriteJson(PlanJson(**checkpoint, options, plan, available)).c_str());
  } else {
    PrintPlan(**checkpoint, options, plan, available);
  }
  return 0;
}

}  // namespace

void RegisterPlan(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<ModelFlags>();
  auto like = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("plan", "Say what a model, a context and a number of sequences will need");
  AddModelFlags(*command, flags.get());
  command->add_option("--like", *like, "Plan for a model of this shape that need not be there: 20b or 120b")
      ->excludes("--model");
  command->add_option("--sequences", flags->sequences, "Sequences at the same time")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_flag("--json", *json, "One JSON document");
  command->footer(
      "Examples:\n  gptoss plan --model gpt-oss-20b --context 32768 --sequences 4\n"
      "  gptoss plan --like 120b --device cuda --gpu-memory 24GB");
  command->callback([flags, like, json, exit_code] { *exit_code = RunPlan(*flags, *like, *json); });
}

}  // namespace gptoss::cli
