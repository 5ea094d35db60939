// Shortening a conversation that the context cannot hold, for clients that ask for it.
#pragma once

#include "server/turn.h"

namespace gptoss::server {

/// Drops messages from the front of the history, up to the beginning of a later user's message, until the prompt leaves
/// room for an answer; as few as that takes. The last user's message and what follows it stay: if they alone are too
/// long, the turn is refused as usual.
void TruncateHistory(TurnService& turns, TurnRequest* request);

}  // namespace gptoss::server
