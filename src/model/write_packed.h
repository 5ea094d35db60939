// gptoss convert --packed: a model as it would lie in memory, into one file (checkpoint/packed.h).
#pragma once

#include <string>

#include "checkpoint/checkpoint.h"
#include "model/weights.h"

namespace gptoss {

struct PackOptions {
  DensePrecision dense = DensePrecision::kDefault;
  WeightLayout layout = WeightLayout::kRowMajor;  // of the matrices that it can hold: Ops::weight_layout
  std::string tokenizer_form;                     // "tokenizer.json" or "gguf"; empty: the file carries no tokenizer
  std::string tokenizer_bytes;                    // as docs/formats.md says for that form
  WriteProgress* progress = nullptr;
};

/// Streams: holds a few megabytes of rows a thread. The file appears under its name only when it is complete and on the
/// disk; an existing file is refused (kInvalidArgument).
/// On failure: the checkpoint's error, kIo, kResourceExhausted (disk), kCancelled, or kUnsupported as LoadWeights.
Status WritePacked(const Checkpoint& source, const std::string& path, const PackOptions& options);

}  // namespace gptoss
