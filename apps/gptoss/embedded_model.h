// The model that is built into the program.
#pragma once

#include <memory>

#include "checkpoint/checkpoint.h"

namespace gptoss::cli {

/// models/nano. On failure: kCorruptData (the executable is damaged).
Result<std::shared_ptr<const Checkpoint>> OpenEmbeddedModel();

}  // namespace gptoss::cli
