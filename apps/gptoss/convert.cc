// gptoss convert: a checkpoint from one public form to another.
#include <filesystem>
#include <memory>
#include <string>

#include "checkpoint_output.h"
#include "commands.h"

namespace gptoss::cli {
namespace {

struct ConvertFlags {
  std::string model, to, out, dense;
  bool allow_lossy = false;
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
  GPTOSS_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> source, OpenCheckpoint(flags.model));
  WriteOptions options;
  options.allow_lossy = flags.allow_lossy;
  const Status status = WriteCheckpointAs(*source, flags.to, flags.out, flags.dense, options);
  if (status.code() == StatusCode::kUnsupported && !flags.allow_lossy) {
    return Status(status.code(), status.message() + " (--allow-lossy allows losses)");
  }
  GPTOSS_RETURN_IF_ERROR(status);
  return flags.to == "gguf" ? Status() : CopyTokenizerFiles(flags.model, flags.out);
}

}  // namespace

void RegisterConvert(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand("convert", "Write a checkpoint in another public form");
  auto flags = std::make_shared<ConvertFlags>();
  command->add_option("--model", flags->model, "Directory (hf or original layout) or .gguf file to read")->required();
  AddOutputFlags(*command, "--to", &flags->to, &flags->out, &flags->dense);
  command->add_flag("--allow-lossy", flags->allow_lossy, "Round values that the form to write cannot hold exactly");
  command->callback([flags, exit_code] {
    const Status status = Convert(*flags);
    *exit_code = status.ok() ? 0 : Fail(status);
  });
}

}  // namespace gptoss::cli
