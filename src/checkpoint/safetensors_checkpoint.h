// Directories of .safetensors files in either of the two public layouts.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "checkpoint/checkpoint.h"

namespace gptoss {

/// Opens a directory in the Hugging Face or the "original" layout; config.json tells which.
///   Shards: `model.safetensors`, else the files that `model.safetensors.index.json` names, else (original layout)
///   every
///   *.safetensors file of the directory.
/// Tensors beyond the canonical ones are an error, except precomputed rotary frequencies.
/// Dense tensors may be BF16, F16 or F32; expert weights must be MXFP4, in the Hugging Face layout also BF16, F16 or
/// F32 as Transformers saves them when they are not quantised. On failure: kNotFound, kIo, kCorruptData or
/// kUnsupported, naming file and tensor.
Result<std::unique_ptr<Checkpoint>> OpenSafetensorsDirectory(const std::string& directory);

}  // namespace gptoss
