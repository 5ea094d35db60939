// Directories of .safetensors files in either of the two public layouts.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

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

/// A model that lies in memory: config.json of the Hugging Face layout, model.safetensors and tokenizer.json. The bytes
/// are not copied and must outlive the checkpoint; `name` stands in errors. On failure: as above.
Result<std::unique_ptr<Checkpoint>> OpenSafetensorsMemory(const std::string& name, std::string_view config_json,
                                                          std::span<const std::byte> safetensors,
                                                          std::string_view tokenizer_json);

}  // namespace gptoss
