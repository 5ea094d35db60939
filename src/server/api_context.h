// What every API's handlers share: the service that runs turns, and how the operator wants to be served.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "server/turn.h"

namespace gptoss::server {

struct ApiOptions {
  std::string model;    // the id that /v1/models lists and that answers carry when a request names no model
  int64_t created = 0;  // seconds since 1970: of the model's loading
  std::string version;  // of this program
  ReasoningEffort effort = ReasoningEffort::kMedium;  // of requests that name none
  bool withhold_reasoning = false;                    // the chain of thought never leaves the server
  std::vector<std::string> adapters;                  // that requests choose as their model
};

/// TurnRequest::adapter for a request that names `model`: 0 for any name that is not an adapter's. Ollama's clients
/// append ":latest".
inline int AdapterOf(const ApiOptions& options, std::string_view model) {
  if (model.ends_with(":latest")) model.remove_suffix(std::string_view(":latest").size());
  for (size_t i = 0; i < options.adapters.size(); ++i) {
    if (options.adapters[i] == model) return static_cast<int>(i) + 1;
  }
  return 0;
}

/// Must outlive the routes that were added with it.
struct ApiContext {
  TurnService* turns = nullptr;
  ApiOptions options;
};

}  // namespace gptoss::server
