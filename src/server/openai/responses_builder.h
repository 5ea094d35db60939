// From a turn's items to a response object and the events of its stream, free of HTTP. Order of events: created,
// [queued,] in_progress, then for each item output_item.added, content_part.added, deltas, the matching done events;
// last completed, incomplete or failed. Source: platform.openai.com/docs/api-reference/responses-streaming.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "json/json.h"
#include "server/api/ids.h"
#include "server/openai/responses_request.h"
#include "server/turn.h"

namespace gptoss::server {

struct BuilderOptions {
  std::map<std::string, ToolRef> tools;
  bool withhold_reasoning = false;
  bool encrypted_reasoning = false;
  SealKey seal_key{};
  bool logprobs = false;
  bool background = false;
};

/// The "usage" of a response.
Json ResponseUsageJson(const TurnResult& result);

/// One response. Not thread-safe.
class ResponseBuilder {
 public:
  /// Called with each event, its sequence_number included. The type is in event["type"].
  using Sink = std::function<void(const Json& event)>;

  /// `echo`: as in ResponsesRequest. `tokenizer` must outlive this. `sink` may be empty.
  ResponseBuilder(std::string id, int64_t created_s, const Json& echo, BuilderOptions options,
                  const Tokenizer& tokenizer, Sink sink);

  void Created();
  void ItemStart(const TurnItem& item);
  void Delta(std::string_view text, std::span<const ItemLogprob> logprobs);
  void ItemEnd(const TurnItem& item);
  /// Sets status, usage and what else is known at the end, without an event; an item that is still open is ended.
  void Finish(const TurnResult& result, int64_t completed_s);
  /// What storing changed: the client is told that nothing is stored, and why.
  void StorageFailed(const Status& status);
  /// The last event, which goes to no sink: it is sent once the response is stored.
  Json EndEvent() const;

  const std::string& id() const { return id_; }
  const Json& response() const { return response_; }
  /// Ids under which the turn is to be found again: of the response, its items and calls.
  const std::vector<std::string>& replay_ids() const { return replay_ids_; }

 private:
  void Emit(const char* type, Json fields);
  void EmitWithResponse(const char* type);
  void StartText(Json part);
  void EndText(bool reasoning);
  void EndCall();

  const std::string id_;
  const BuilderOptions options_;
  const Tokenizer& tokenizer_;
  const Sink sink_;
  Json response_;
  int64_t sequence_ = 0;

  // The item that is open.
  bool open_ = false;
  TurnItem::Kind kind_ = TurnItem::Kind::kAnswer;
  bool custom_ = false;
  Json item_;
  std::string text_;  // so far
  Json logprobs_ = Json::array();
  std::vector<std::string> replay_ids_;
};

/// The events of a response that is complete, as if it had been streamed.
std::vector<Json> EventsOf(const Json& response);

}  // namespace gptoss::server
