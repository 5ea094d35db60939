// Requests of POST /v1/chat/completions. Source: platform.openai.com/docs/api-reference/chat/create, the types of the
// npm package openai, and the fields that vLLM, llama.cpp and OpenRouter have added for models that reason.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "json/json.h"
#include "server/api_context.h"
#include "server/replay/replay_store.h"
#include "server/turn.h"

namespace gptoss::server {

struct ChatRequest {
  TurnRequest turn;                   // without history
  std::vector<HistoryEntry> entries;  // the history, with the ids of tool calls
  std::string model;
  int choices = 1;
  bool stream = false, include_usage = false, logprobs = false;
};

/// Unknown fields and model names are accepted. On failure: kInvalidArgument or kUnsupported, "path: what is wrong".
Result<ChatRequest> ParseChatRequest(const Json& body, const ApiOptions& options);

}  // namespace gptoss::server
