// /v1/responses: create, retrieve, cancel, delete, input items, and the counting of input tokens.
#pragma once

#include "server/api_context.h"
#include "server/http.h"
#include "server/replay/replay_store.h"
#include "server/response_store.h"

namespace gptoss::server {

/// All must outlive the router.
void AddResponsesRoutes(Router& router, const ApiContext& api, ResponseStore& store, ReplayStore& replay);

}  // namespace gptoss::server
