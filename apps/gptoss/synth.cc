// gptoss synth: a checkpoint of random weights in any public form, for benchmarks and tests.
#include <memory>
#include <string>

#include "checkpoint_output.h"
#include "commands.h"

namespace gptoss::cli {
namespace {

struct SynthFlags {
  std::string like;
  OutputFlags output;
  int layers = 0, experts = 0, vocab = 0;
  uint64_t seed = 1;
};

Result<SynthOptions> OptionsOf(const SynthFlags& flags) {
  SynthOptions options;
  GPTOSS_ASSIGN_OR_RETURN(options.config, NamedConfig(flags.like));
  if (flags.layers > 0) options.config.num_layers = flags.layers;
  if (flags.experts > 0) options.config.num_experts = flags.experts;
  if (flags.vocab > 0) options.config.vocab_size = flags.vocab;
  options.shape_name = flags.like;
  options.seed = flags.seed;
  return options;
}

int Synth(const SynthFlags& flags) {
  const Result<SynthOptions> options = OptionsOf(flags);
  if (!options.ok()) return Fail(options.status());
  const Result<std::unique_ptr<Checkpoint>> source = MakeSyntheticCheckpoint(*options);
  if (!source.ok()) return Fail(source.status());
  WriteOptions write;
  write.allow_lossy = true;  // the weights are random: in whatever type they are written they are the ones meant
  const Status status = WriteCheckpointAs(**source, flags.output, write);
  return status.ok() ? 0 : Fail(status);
}

}  // namespace

void RegisterSynth(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand("synth", "Write a checkpoint of random weights (for benchmarks and tests)");
  auto flags = std::make_shared<SynthFlags>();
  command->add_option("--like", flags->like, "Shape of the model")
      ->required()
      ->check(CLI::IsMember({"20b", "120b", "micro"}));
  command->add_option("--layers", flags->layers, "Number of layers, in place of the shape's")
      ->check(CLI::Range(1, 1024));
  command->add_option("--experts", flags->experts, "Number of experts, in place of the shape's")
      ->check(CLI::Range(1, 4096));
  command->add_option("--vocab", flags->vocab, "Vocabulary size, in place of the shape's")
      ->check(CLI::Range(1, 1 << 22));
  command->add_option("--seed", flags->seed, "Same seed, same weights")->capture_default_str();
  AddOutputFlags(*command, "--format", OutputForms::kPublic, &flags->output);
  command->callback([flags, exit_code] { *exit_code = Synth(*flags); });
}

}  // namespace gptoss::cli
