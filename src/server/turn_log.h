// What users and models say, for operators who ask for it: off by default, and apart from everything else that is
// logged.
#pragma once

#include <memory>

#include "server/log.h"
#include "server/turn.h"

namespace gptoss::server {

/// `turns` with a line for every turn that is begun, which holds its prompt, and one for its end, which holds what the
/// model said. Both must outlive the result.
std::unique_ptr<TurnService> LogTurns(TurnService& turns, Log& log);

}  // namespace gptoss::server
