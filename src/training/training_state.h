// Training that can be taken up again with the same bits: DIRECTORY/step-00000100/ holds state.json (what belongs
// together, and checksums) and state.bin (the arrays of Trainer::State: weights, then AdamW's two moments, as
// little-endian float or as codes and scales). A directory appears under its name only when it is complete.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "training/trainer.h"

namespace gptoss {

/// The newest complete state in `directory`; nullopt when there is none, or no such directory.
std::optional<std::string> NewestState(const std::string& directory);

/// Writes the state and removes all but the newest `keep` (at least 1) ones of `directory`, which is made.
/// On failure: kIo or kResourceExhausted naming the path; older states are untouched then.
Status SaveState(const Trainer& trainer, uint64_t data_fingerprint, const std::string& directory, int keep);

/// The configuration in a state. On failure: as LoadState.
Result<ModelConfig> ReadStateConfig(const std::string& path);

/// Reads the state at `path` (step-…) into the trainer. On failure: kNotFound, kIo, kCorruptData naming the file; or
/// kInvalidArgument naming what differs from the run that wrote it and would change how it goes on: the model, the
/// data, the seed, batch_tokens, accumulation, the form of the moments.
Status LoadState(const std::string& path, uint64_t data_fingerprint, Trainer* trainer);

}  // namespace gptoss
