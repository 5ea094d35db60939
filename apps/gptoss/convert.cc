// gptoss convert: a checkpoint from one public form to another, or to the packed form.
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint_output.h"
#include "commands.h"
#include "model_argument.h"
#include "training/adapter_file.h"

namespace gptoss::cli {
namespace {

struct ConvertFlags {
  std::string model;
  std::vector<std::string> adapters;  // to merge
  OutputFlags output;
  bool packed = false, bf16_experts = false, allow_lossy = false;
};

/// A directory without its tokenizer would be of no use to other programs.
Status CopyTokenizerFiles(const std::string& from, const std::string& to) {
  namespace fs = std::filesystem;
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}) {
    std::error_code error;
    const fs::path source = fs::path(from) / name;
    if (!fs::is_regular_file(source, error)) continue;
    fs::copy_file(source, fs::path(to) / name, error);
    if (error) return IoError(source.string() + ": cannot copy to " + to + ": " + error.message());
  }
  return Status();
}

Status Convert(const ConvertFlags& flags) {
  GPTOSS_ASSIGN_OR_RETURN(std::shared_ptr<const Checkpoint> source, OpenModelArgument(flags.model));
  for (const std::string& path : flags.adapters) {
    GPTOSS_ASSIGN_OR_RETURN(Adapter adapter, LoadAdapter(path, source->config()));
    source = MergeAdapter(source, std::move(adapter), flags.bf16_experts ? ExpertForm::kBf16 : ExpertForm::kMxfp4);
  }
  WriteOptions options;
  options.allow_lossy = flags.allow_lossy || !flags.adapters.empty();  // sums are rounded to the form
  options.bf16_experts = flags.bf16_experts;
  const Status status = WriteCheckpointAs(*source, flags.output, options);
  if (status.code() == StatusCode::kUnsupported && !flags.allow_lossy && flags.output.format != "packed") {
    return Status(status.code(), status.message() + " (--allow-lossy allows losses)");
  }
  GPTOSS_RETURN_IF_ERROR(status);
  const bool is_directory = flags.output.format == "hf" || flags.output.format == "original";
  return is_directory ? CopyTokenizerFiles(source->Describe(), flags.output.out) : Status();
}

int RunConvert(ConvertFlags flags) {
  if (flags.packed) flags.output.format = "packed";
  if (flags.output.format.empty()) return UsageError("convert needs --to FORM or --packed");
  const Status status = Convert(flags);
  return status.ok() ? 0 : Fail(status);
}

}  // namespace

void RegisterConvert(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand("convert", "Write a checkpoint in another form");
  auto flags = std::make_shared<ConvertFlags>();
  command
      ->add_option("-m,--model", flags->model,
                   "Directory (hf or original layout), .gguf or packed file, or name of a pulled model")
      ->required();
  AddOutputFlags(*command, "--to", OutputForms::kPublicAndPacked, &flags->output);
  command
      ->add_flag("--packed", flags->packed,
                 "One file with the bytes that the loaded model holds, which starts at once (the same as --to packed)")
      ->excludes("--to");
  command->add_option(
      "--merge", flags->adapters,
      "Adapter (gptoss train --lora) to add to the weights, which are rounded again; repeat for several");
  command->add_flag("--bf16-experts", flags->bf16_experts,
                    "Experts in BF16 instead of MXFP4 (hf and gguf; four times the size)");
  command->add_flag("--allow-lossy", flags->allow_lossy, "Round values that the form to write cannot hold exactly");
  command->footer("Example:\n  gptoss convert --packed --model gpt-oss-20b --out gpt-oss-20b.gptoss");
  command->callback([flags, exit_code] { *exit_code = RunConvert(*flags); });
}

}  // namespace gptoss::cli
