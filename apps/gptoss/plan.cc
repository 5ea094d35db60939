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

void PrintPlan(const Checkpoint& checkpoint, const RunnerOptions& options, const MemoryPlan& plan, uint64_t available) {
  const auto line = [](const char* what, uint64_t bytes) {
    std::printf("  %-28s %12s\n", what, FormatBytes(static_cast<double>(bytes)).c_str());
  };
  std::printf("%s, %d sequence%s of %d tokens\n", checkpoint.Describe().c_str(), options.max_sequences,
              options.max_sequences == 1 ? "" : "s", options.max_context);
  line("experts", plan.weights.experts);
  line("attention", plan.weights.attention);
  line("embedding", plan.weights.embedding);
  line("output matrix", plan.weights.unembedding);
  line("norms, biases, router", plan.weights.small);
  line("key/value cache, when full", plan.kv_cache);
  line("activations", plan.activations);
  line("program", plan.process);
  line("total", plan.total());
  if (plan.mapped > 0) {
    std::printf("  the embedding (%s) is read from the file as needed and can be dropped by the system at any time\n",
                FormatBytes(static_cast<double>(plan.mapped)).c_str());
  }
  std::printf("available now: %s: %s\n", FormatBytes(static_cast<double>(available)).c_str(),
              plan.total() <= available ? "it fits" : "it does not fit");
  std::printf("largest context for %d: %d tokens; most sequences of %d tokens: %d\n", options.max_sequences,
              plan.largest_context, options.max_context, plan.most_sequences);
}

int RunPlan(const ModelFlags& flags, bool json) {
  if (const auto ops = OpsOf(flags); !ops.ok()) return Fail(ops.status());
  const auto checkpoint = OpenModelArgument(flags.model);
  if (!checkpoint.ok()) return Fail(checkpoint.status());
  const RunnerOptions options = RunnerOptionsOf(flags, (*checkpoint)->config());
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
  auto json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("plan", "Say what a model, a context and a number of sequences will need");
  AddModelFlags(*command, flags.get());
  command->add_option("--sequences", flags->sequences, "Sequences at the same time")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_flag("--json", *json, "One JSON document");
  command->footer("Example:\n  gptoss plan --model gpt-oss-20b --context 32768 --sequences 4");
  command->callback([flags, json, exit_code] { *exit_code = RunPlan(*flags, *json); });
}

}  // namespace gptoss::cli
