// Anthropic's /v1/messages and /v1/messages/count_tokens.
#pragma once

#include "server/api_context.h"
#include "server/http.h"
#include "server/replay/replay_store.h"

namespace gptoss::server {

/// All must outlive the router.
void AddAnthropicRoutes(Router& router, const ApiContext& api, ReplayStore& replay);

}  // namespace gptoss::server
