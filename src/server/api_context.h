// What every API's handlers share: the service that runs turns, and how the operator wants to be served.
#pragma once

#include <cstdint>
#include <string>

#include "server/turn.h"

namespace gptoss::server {

struct ApiOptions {
  std::string model;    // the id that /v1/models lists and that answers carry when a request names no model
  int64_t created = 0;  // seconds since 1970: of the model's loading
  std::string version;  // of this program
  ReasoningEffort effort = ReasoningEffort::kMedium;  // of requests that name none
  bool withhold_reasoning = false;                    // the chain of thought never leaves the server
};

/// Must outlive the routes that were added with it.
struct ApiContext {
  TurnService* turns = nullptr;
  ApiOptions options;
};

}  // namespace gptoss::server
