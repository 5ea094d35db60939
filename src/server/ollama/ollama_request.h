// Requests of Ollama's POST /api/chat and /api/generate. Source: github.com/ollama/ollama, docs/api.md.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "json/json.h"
#include "server/api_context.h"
#include "server/replay/replay_store.h"
#include "server/turn.h"

namespace gptoss::server {

struct OllamaRequest {
  TurnRequest turn;  // without history
  std::vector<HistoryEntry> entries;
  std::string model;
  bool stream = true;
  bool logprobs = false;
  bool show_thinking = true;
  bool raw = false;  // generate: `prompt` is continued as it stands
  std::string prompt;
  bool load_only = false;  // no messages: only asks that the model be there
  bool unload = false;     // … or that it go (keep_alive 0), which this server does not do
};

/// `think` false closes the analysis channel, "low", "medium" and "high" set the effort. num_ctx and the like, which
/// configure a model's loading, are ignored.
/// On failure: kInvalidArgument or kUnsupported, "path: what is wrong".
Result<OllamaRequest> ParseOllamaChat(const Json& body, const ApiOptions& options);
Result<OllamaRequest> ParseOllamaGenerate(const Json& body, const ApiOptions& options);

}  // namespace gptoss::server
