// Requests of POST /v1/messages and /v1/messages/count_tokens. Source: docs.anthropic.com/en/api/messages and the types
// of the npm package @anthropic-ai/sdk.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "json/json.h"
#include "server/api/ids.h"
#include "server/api_context.h"
#include "server/replay/replay_store.h"
#include "server/turn.h"

namespace gptoss::server {

struct MessagesRequest {
  TurnRequest turn;  // without history
  std::vector<HistoryEntry> entries;
  std::string model;
  bool stream = false;
  bool show_thinking = false;  // blocks of thinking are part of the answer
  bool omit_thinking = false;  // … without their text
};

/// `counting`: max_tokens may be absent. Thinking: "disabled" closes the analysis channel; where the request says
/// nothing the model reasons with the server's default effort and the blocks are left out. Tools that only Anthropic's
/// servers run (web_search, web_fetch, code_execution, tool_search) are not shown to the model; other tools with a type
/// of their own are refused.
/// On failure: kInvalidArgument or kUnsupported, "path: what is wrong".
Result<MessagesRequest> ParseMessagesRequest(const Json& body, const ApiOptions& options, bool counting);

}  // namespace gptoss::server
