// POST /v1/chat/completions.
#pragma once

#include "server/api_context.h"
#include "server/http.h"
#include "server/replay/replay_store.h"

namespace gptoss::server {

/// All must outlive the router. `replay` may be null: then histories are always rendered.
void AddChatCompletionsRoutes(Router& router, const ApiContext& api, ReplayStore* replay);

}  // namespace gptoss::server
