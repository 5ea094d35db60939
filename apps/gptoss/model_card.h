// What the server says about its model.
#pragma once

#include "checkpoint/checkpoint.h"
#include "server/ollama/ollama.h"

namespace gptoss::cli {

server::ModelCard ModelCardOf(const Checkpoint& checkpoint);

}  // namespace gptoss::cli
