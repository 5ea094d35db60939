#include <cstdio>

#include "commands.h"
#include "model_session.h"
#include "tensor/npy.h"

namespace gptoss::cli {
namespace {

struct LogitsFlags {
  ModelFlags model;
  std::string tokens_file, positions = "all", out;
};

/// "all" or "last:N"; 0 stands for all. Negative when it is neither.
int ParsePositions(const std::string& text) {
  if (text == "all") return 0;
  int n = 0;
  char rest;
  return std::sscanf(text.c_str(), "last:%d%c", &n, &rest) == 1 && n > 0 ? n : -1;
}

/// "x.npy" for one sequence; "x.0.npy", "x.1.npy", … for several.
std::string OutputPath(const std::string& out, size_t index, size_t count) {
  if (count == 1) return out;
  const bool has_suffix = out.ends_with(".npy");
  return (has_suffix ? out.substr(0, out.size() - 4) : out) + "." + std::to_string(index) + ".npy";
}

Status WriteLogits(ModelSession& session, const std::vector<int32_t>& tokens, int last, const std::string& path) {
  const auto count = static_cast<int>(tokens.size());
  const int rows = last == 0 ? count : std::min(last, count);
  auto sequence = session.runner->NewSequence();
  sequence->Append(tokens);
  GPTOSS_ASSIGN_OR_RETURN(auto writer, NpyWriter::Create(path, static_cast<uint64_t>(rows),
                                                         static_cast<uint64_t>(session.model->config().vocab_size)));
  GPTOSS_RETURN_IF_ERROR(session.runner->Compute(*sequence, count - rows, [&](int, LogitRow& row) -> Status {
    GPTOSS_ASSIGN_OR_RETURN(const std::span<float> logits, row.OnHost());
    return writer.Append(logits);
  }));
  return writer.Finish();
}

int RunLogits(LogitsFlags flags) {
  const int last = ParsePositions(flags.positions);
  if (last < 0) return UsageError("--positions takes all or last:N");
  auto sequences = ReadTokensFile(flags.tokens_file);
  if (!sequences.ok()) return Fail(sequences.status());
  size_t longest = 0;
  for (const auto& tokens : *sequences) longest = std::max(longest, tokens.size());
  flags.model.context = static_cast<int>(longest);
  auto session = ModelSession::Open(flags.model);
  if (!session.ok()) return Fail(session.status());
  for (size_t i = 0; i < sequences->size(); ++i) {
    const std::string path = OutputPath(flags.out, i, sequences->size());
    const Status status = WriteLogits(**session, (*sequences)[i], last, path);
    if (!status.ok()) return Fail(status.WithContext(flags.tokens_file + " sequence " + std::to_string(i)));
  }
  return 0;
}

}  // namespace

void RegisterLogits(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<LogitsFlags>();
  CLI::App* command = app.add_subcommand("logits", "Write the model's logits for given tokens as a NumPy array");
  AddModelFlags(*command, &flags->model);
  command->add_option("--tokens-file", flags->tokens_file, "JSON array of token ids, or JSONL of several")->required();
  command->add_option("--positions", flags->positions, "all, or last:N")->capture_default_str();
  command->add_option("--out", flags->out, "Output file (several sequences: OUT.0.npy, OUT.1.npy, ...)")->required();
  command->footer("Example:\n  gptoss logits --model DIR --tokens-file ids.json --positions last:8 --out logits.npy");
  command->callback([flags, exit_code] { *exit_code = RunLogits(*flags); });
}

}  // namespace gptoss::cli
