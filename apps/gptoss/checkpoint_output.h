// What the commands that write checkpoints share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <utility>

#include "base/status.h"
#include "checkpoint/checkpoint.h"
#include "progress.h"

namespace gptoss::cli {

/// A progress bar over the bytes of a file or checkpoint.
class ByteProgress final : public WriteProgress {
 public:
  explicit ByteProgress(std::string label) : bar_(std::move(label), 0, ProgressUnit::kBytes, /*quiet=*/false) {}
  bool Update(uint64_t done, uint64_t total) override;

 private:
  ProgressBar bar_;
};

struct OutputFlags {
  std::string format;  // hf, original, gguf, packed
  std::string out;
  std::string dense;
};

enum class OutputForms : uint8_t { kPublic, kPublicAndPacked };

/// Adds `format_flag` (required, unless a packed file may be asked for otherwise), --out and --dense.
void AddOutputFlags(CLI::App& command, const char* format_flag, OutputForms forms, OutputFlags* flags);

/// Writes `source` with a progress bar. A GGUF file of a model with the full vocabulary carries the embedded one; a
/// packed file carries a tokenizer that the source brings.
/// On failure: what the writers say; kInvalidArgument when `dense` does not go with `format`.
Status WriteCheckpointAs(const Checkpoint& source, const OutputFlags& flags, WriteOptions options);

}  // namespace gptoss::cli
