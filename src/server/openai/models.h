// /v1/models, /v1/embeddings (refused), /tokenize and /detokenize.
#pragma once

#include "server/api_context.h"
#include "server/http.h"

namespace gptoss::server {

/// `api` must outlive the router.
void AddModelRoutes(Router& router, const ApiContext& api);

}  // namespace gptoss::server
