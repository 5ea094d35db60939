// What `--model` names, and the vocabulary that comes with it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "tokenizer/vocabulary.h"

namespace gptoss::cli {

/// True for "random": generated weights over the vocabulary of the released models, for measuring and testing.
bool IsRandomModel(const std::string& model);

/// Opens what `--model` names: a path, "nano" (built in), "random", or a pulled model. On failure: kNotFound saying
/// what was looked for.
Result<std::shared_ptr<const Checkpoint>> OpenModelArgument(const std::string& model);

/// The vocabulary that comes with the checkpoint: the one in its file (GGUF, packed), or tokenizer.json beside it.
/// nullopt when there is none. On failure: what Vocabulary says, with the file in front.
Result<std::optional<Vocabulary>> OwnVocabulary(const Checkpoint& checkpoint);

}  // namespace gptoss::cli
