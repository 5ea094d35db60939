// Requests of POST /v1/responses. Source: platform.openai.com/docs/api-reference/responses/create and the types of the
// npm package openai.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "json/json.h"
#include "server/api/ids.h"
#include "server/api_context.h"
#include "server/replay/replay_store.h"
#include "server/turn.h"

namespace gptoss::server {

/// A tool as the client knows it. The model knows tools of namespaces by their bare name where no other has it.
struct ToolRef {
  std::string name, name_space;
  bool custom = false;
};

struct ResponsesRequest {
  TurnRequest turn;                      // without instructions and history: see AddItems
  std::string instructions;              // of this request alone
  std::map<std::string, ToolRef> tools;  // by the name for the model
  Json items;                            // the input as an array of items, each with type and id
  std::string previous_response_id;
  bool stream = false, background = false, store = true;
  bool truncate = false;  // the oldest items are left out when the context is too short
  bool include_encrypted_reasoning = false;
  Json echo;  // what the response object repeats of the request, in its order
};

/// Unknown fields are ignored. On failure: kInvalidArgument or kUnsupported, "path: what is wrong".
/// Tools that only OpenAI's servers have (web_search, image_generation, tool_search …) are not shown to the model, as
/// long as tool_choice does not ask for them: clients such as Codex send them with every request. Those on which an
/// application would rely (file_search, code_interpreter, computer use, mcp) are refused.
Result<ResponsesRequest> ParseResponsesRequest(const Json& body, const ApiOptions& options);

/// How items become a conversation.
struct ItemContext {
  const SealKey* seal_key = nullptr;
  /// The item that an item_reference names. On failure: kNotFound.
  std::function<Result<Json>(const std::string& id)> find_item;
};

/// Messages to harmony's: what developers say before the conversation begins goes to `instructions`.
/// `path` comes before the index in errors ("input[3]"). On failure: as ParseResponsesRequest.
Status AddItems(const Json& items, const std::string& path, const std::map<std::string, ToolRef>& tools,
                const ItemContext& context, std::string* instructions, std::vector<HistoryEntry>* entries);

}  // namespace gptoss::server
