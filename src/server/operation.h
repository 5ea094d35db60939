// Routes for those who run the server: /health, /ready, /metrics, /openapi.json.
#pragma once

#include <functional>
#include <string>

#include "server/api_context.h"
#include "server/http.h"

namespace gptoss::server {

struct OperationHooks {
  std::function<bool()> ready;           // false while the server drains
  std::function<std::string()> metrics;  // the text of /metrics
};

/// `router`, which must have all other routes already, is described as it is then. Both must outlive the router.
void AddOperationRoutes(Router& router, const ApiContext& api, const OperationHooks& hooks);

/// What is served, as OpenAPI 3.1.
Json OpenApiDocument(const Router& router, const ApiOptions& options);

}  // namespace gptoss::server
