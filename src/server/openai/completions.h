// POST /v1/completions: raw continuation of a text, without harmony.
#pragma once

#include "server/api_context.h"
#include "server/http.h"

namespace gptoss::server {

/// `api` must outlive the router.
void AddCompletionsRoutes(Router& router, const ApiContext& api);

}  // namespace gptoss::server
