// What the commands that write checkpoints share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/status.h"
#include "checkpoint/checkpoint.h"

namespace gptoss::cli {

/// Adds `format_flag` (hf, original or gguf), --out and --dense.
void AddOutputFlags(CLI::App& command, const char* format_flag, std::string* format, std::string* out,
                    std::string* dense);

/// Writes `source` with a progress bar. A GGUF file of a model with the full vocabulary carries the embedded one.
/// On failure: what the writers say; kInvalidArgument when `dense` does not go with `format`.
Status WriteCheckpointAs(const Checkpoint& source, const std::string& format, const std::string& out,
                         const std::string& dense, WriteOptions options);

}  // namespace gptoss::cli
