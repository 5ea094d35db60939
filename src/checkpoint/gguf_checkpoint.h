// GGUF files of architecture `gpt-oss`, single or split.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "checkpoint/checkpoint.h"

namespace gptoss {

/// Opens a .gguf file; of a split model (…-00001-of-00003.gguf) any part opens all, which must lie side by side.
/// Dense matrices may be Q8_0, BF16, F16 or F32; experts also MXFP4; vectors BF16, F16 or F32.
/// On failure: kNotFound, kIo, kCorruptData or kUnsupported, naming file and tensor or key.
Result<std::unique_ptr<Checkpoint>> OpenGguf(const std::string& path);

}  // namespace gptoss
