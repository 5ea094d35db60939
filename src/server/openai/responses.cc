#include "server/openai/responses.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <utility>

#include "server/api/fields.h"
#include "server/api/simple_run.h"
#include "server/api/sse.h"
#include "server/api/truncate.h"
#include "server/openai/compaction.h"
#include "server/openai/errors.h"
#include "server/openai/responses_run.h"

namespace gptoss::server {
namespace {

constexpr int64_t kDefaultPage = 20, kMaxPage = 100;

/// A request as far as it is ready to run.
struct Prepared {
  ResponsesRequest request;
  TurnRequest turn;
};

class Responses : public std::enable_shared_from_this<Responses> {
 public:
  Responses(const ApiContext& api, ResponseStore& store, ReplayStore& replay) : shared_{&api, &store, &replay} {}

  void Create(const HttpRequest& http, std::shared_ptr<Responder> responder);
  void CountTokens(const HttpRequest& http, Responder& responder);
  void Compact(const HttpRequest& http, std::shared_ptr<Responder> responder);
  void Retrieve(const HttpRequest& http, std::shared_ptr<Responder> responder);
  void Cancel(const HttpRequest& http, std::shared_ptr<Responder> responder);
  void Delete(const HttpRequest& http, Responder& responder);
  void InputItems(const HttpRequest& http, Responder& responder);

 private:
  Result<Prepared> Prepare(const HttpRequest& http);
  Result<Json> FindItem(const std::string& owner, const std::string& id);
  void Replay(const StoredResponse& stored, int64_t after, Responder& responder);

  ResponsesShared shared_;
  const std::shared_ptr<LiveResponses> live_ = std::make_shared<LiveResponses>();
};

/// "resp_1" of "/v1/responses/resp_1/cancel".
std::string IdOf(const HttpRequest& http) {
  constexpr std::string_view prefix = "/v1/responses/";
  const std::string_view rest = std::string_view(http.path).substr(prefix.size());
  return std::string(rest.substr(0, rest.find('/')));
}

/// What is wrong with a request's body.
ApiError BodyError(const Status& status) {
  ApiError error = ApiErrorOf(status);
  // A reference that leads nowhere is the body's fault, not the path's.
  if (error.http_status == 404) error.http_status = 400, error.code = "not_found";
  if (error.param == "previous_response_id") error.code = "previous_response_not_found";
  if (error.param == "messages") error.param = "input";
  return error;
}

ApiError NoResponse(const Status& status) {
  ApiError error = ApiErrorOf(status);
  if (status.code() == StatusCode::kCorruptData) error = {500, "server_error", status.message(), "", "", 0};
  return error;
}

/// The items of a stored response: what came in, then what went out.
Result<Json> ItemsOf(const StoredResponse& stored, bool with_output) {
  GPTOSS_ASSIGN_OR_RETURN(Json items, ParseJson(stored.input));
  if (!with_output) return items;
  GPTOSS_ASSIGN_OR_RETURN(const Json body, ParseJson(stored.body));
  const Json* output = FindField(body, "output");
  if (output != nullptr && output->is_array()) {
    for (const Json& item : *output) items.push_back(item);
  }
  return items;
}

bool IsRunning(const std::string& status) { return status == "queued" || status == "in_progress"; }

int64_t QueryInt(const HttpRequest& http, std::string_view name, int64_t otherwise) {
  const std::string_view text = http.Query(name);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty() ? value : otherwise;
}

Result<Json> Responses::FindItem(const std::string& owner, const std::string& id) {
  GPTOSS_ASSIGN_OR_RETURN(const StoredResponse stored, shared_.store->GetByItem(owner, id));
  GPTOSS_ASSIGN_OR_RETURN(const Json items, ItemsOf(stored, true));
  for (const Json& item : items) {
    const std::string* found = FindString(item, "id");
    if (found != nullptr && *found == id) return item;
  }
  return NotFound("Item with id " + Quoted(id) + " not found.");
}

Result<Prepared> Responses::Prepare(const HttpRequest& http) {
  GPTOSS_ASSIGN_OR_RETURN(const Json body, ParseBody(http));
  GPTOSS_ASSIGN_OR_RETURN(ResponsesRequest request, ParseResponsesRequest(body, shared_.api->options));
  const ItemContext context{&shared_.store->seal_key(),
                            [this, owner = http.key_name](const std::string& id) { return FindItem(owner, id); }};
  TurnRequest turn = request.turn;
  turn.instructions = request.instructions;
  std::vector<HistoryEntry> entries;
  if (!request.previous_response_id.empty()) {
    auto chain = shared_.store->GetChain(http.key_name, request.previous_response_id);
    if (!chain.ok()) return chain.status().WithContext("previous_response_id");
    if (IsRunning(chain->back().status)) {
      return InvalidArgument("previous_response_id: the response '" + chain->back().id + "' is not complete yet");
    }
    for (const StoredResponse& stored : *chain) {
      GPTOSS_ASSIGN_OR_RETURN(const Json items, ItemsOf(stored, true));
      const Status added =
          AddItems(items, "previous_response_id", request.tools, context, &turn.instructions, &entries);
      if (!added.ok()) return added;
    }
  }
  GPTOSS_RETURN_IF_ERROR(AddItems(request.items, "input", request.tools, context, &turn.instructions, &entries));
  turn.history = shared_.replay->Apply(http.key_name, std::move(entries));
  if (request.truncate) TruncateHistory(*shared_.api->turns, &turn);
  return Prepared{std::move(request), std::move(turn)};
}

void Responses::Create(const HttpRequest& http, std::shared_ptr<Responder> responder) {
  auto prepared = Prepare(http);
  if (!prepared.ok()) return SendError(*responder, BodyError(prepared.status()));
  ResponsesRequest& request = prepared->request;
  const ApiOptions& options = shared_.api->options;
  ResponseRun::Plan plan;
  plan.owner = http.key_name;
  plan.previous_id = request.previous_response_id;
  plan.echo = std::move(request.echo);
  plan.items = std::move(request.items);
  plan.store = request.store;
  plan.stream = request.stream;
  plan.builder.tools = std::move(request.tools);
  plan.builder.withhold_reasoning = options.withhold_reasoning;
  plan.builder.encrypted_reasoning = request.include_encrypted_reasoning;
  plan.builder.seal_key = shared_.store->seal_key();
  plan.builder.logprobs = request.turn.sampling.top_logprobs >= 0;
  plan.builder.background = request.background;
  const auto run = std::make_shared<ResponseRun>(shared_, request.store ? live_ : nullptr, std::move(plan));
  const Status status = run->Start(std::move(prepared->turn), responder);
  if (!status.ok()) SendError(*responder, BodyError(status));
}

void Responses::CountTokens(const HttpRequest& http, Responder& responder) {
  auto prepared = Prepare(http);
  if (!prepared.ok()) return SendError(responder, BodyError(prepared.status()));
  const auto tokens = shared_.api->turns->Render(prepared->turn);
  if (!tokens.ok()) return SendError(responder, ApiErrorOf(tokens.status()));
  SendJson(responder, 200, {{"object", "response.input_tokens"}, {"input_tokens", tokens->size()}});
}

void Responses::Compact(const HttpRequest& http, std::shared_ptr<Responder> responder) {
  auto prepared = Prepare(http);
  if (!prepared.ok()) return SendError(*responder, BodyError(prepared.status()));
  Json kept = Json::array();
  if (const std::string& previous = prepared->request.previous_response_id; !previous.empty()) {
    const auto chain = shared_.store->GetChain(http.key_name, previous);
    if (!chain.ok()) return SendError(*responder, BodyError(chain.status().WithContext("previous_response_id")));
    for (const StoredResponse& stored : *chain) {
      const auto items = ItemsOf(stored, false);
      if (items.ok()) KeepUserMessages(*items, &kept);
    }
  }
  KeepUserMessages(prepared->request.items, &kept);
  if (prepared->turn.history.empty()) return SendError(*responder, BadRequest("there is nothing to compact", "input"));
  AskForSummary(&prepared->turn);
  auto output = MakeCompactionOutput(shared_.store->seal_key(), std::move(kept), responder);
  const Status status =
      RunTurn(*shared_.api->turns, nullptr, http.key_name, std::move(prepared->turn), responder, std::move(output));
  if (!status.ok()) SendError(*responder, BodyError(status));
}

/// Sends the events of a stored response after number `after`.
void Responses::Replay(const StoredResponse& stored, int64_t after, Responder& responder) {
  std::vector<std::string> events;
  for (std::string_view rest = stored.events; !rest.empty();) {
    const size_t end = rest.find("\n\n");
    if (end == std::string_view::npos) break;
    events.emplace_back(rest.substr(0, end + 2));
    rest.remove_prefix(end + 2);
  }
  if (events.empty()) {
    const auto body = ParseJson(stored.body);
    if (!body.ok()) return SendError(responder, NoResponse(body.status()));
    for (const Json& event : EventsOf(*body)) {
      events.push_back(NamedEvent(event["type"].get_ref<const std::string&>(), event));
    }
  }
  BeginEvents(responder);
  for (size_t i = static_cast<size_t>(after + 1); i < events.size(); ++i) responder.Write(events[i]);
  responder.End();
}

void Responses::Retrieve(const HttpRequest& http, std::shared_ptr<Responder> responder) {
  const std::string id = IdOf(http);
  const bool stream = http.Query("stream") == "true";
  const int64_t after = std::max<int64_t>(-1, QueryInt(http, "starting_after", -1));
  if (const auto run = live_->Find(http.key_name, id)) {
    if (!stream) return SendJson(*responder, 200, run->Snapshot());
    if (run->Follow(responder, after)) return;
    return SendError(*responder, BadRequest("only a response created with background and stream can be streamed while "
                                            "it is computed",
                                            "stream"));
  }
  const auto stored = shared_.store->Get(http.key_name, id);
  if (!stored.ok()) return SendError(*responder, NoResponse(stored.status()));
  if (stream) return Replay(*stored, after, *responder);
  responder->Send(200, "application/json", stored->body);
}

void Responses::Cancel(const HttpRequest& http, std::shared_ptr<Responder> responder) {
  const std::string id = IdOf(http);
  const auto run = live_->Find(http.key_name, id);
  if (run != nullptr && run->background()) return run->Cancel(responder);
  if (run != nullptr) {
    return SendError(*responder, BadRequest("only background responses can be cancelled; close the connection to end "
                                            "this one",
                                            "response_id"));
  }
  const auto stored = shared_.store->Get(http.key_name, id);
  if (!stored.ok()) return SendError(*responder, NoResponse(stored.status()));
  const auto body = ParseJson(stored->body);
  if (!body.ok() || body->value("background", false) == false) {
    return SendError(*responder, BadRequest("only background responses can be cancelled", "response_id"));
  }
  responder->Send(200, "application/json", stored->body);  // it is over, as it was
}

void Responses::Delete(const HttpRequest& http, Responder& responder) {
  const std::string id = IdOf(http);
  const auto run = live_->Find(http.key_name, id);
  if (run != nullptr) {
    run->Forget();
    live_->Remove(id, /*keep=*/false);  // its turn may take a moment to end; nobody shall find it meanwhile
  }
  const auto deleted = shared_.store->Delete(http.key_name, id);
  if (!deleted.ok()) return SendError(responder, ApiErrorOf(deleted.status()));
  if (!*deleted && run == nullptr) {
    return SendError(responder, ApiErrorOf(NotFound("Response with id " + Quoted(id) + " not found.")));
  }
  SendJson(responder, 200, {{"id", id}, {"object", "response"}, {"deleted", true}});
}

void Responses::InputItems(const HttpRequest& http, Responder& responder) {
  const std::string id = IdOf(http);
  Json own;
  std::string previous;
  if (const auto run = live_->Find(http.key_name, id)) {
    own = run->items();
    previous = run->previous_id();
  } else {
    const auto stored = shared_.store->Get(http.key_name, id);
    if (!stored.ok()) return SendError(responder, NoResponse(stored.status()));
    auto items = ItemsOf(*stored, false);
    if (!items.ok()) return SendError(responder, NoResponse(items.status()));
    own = *std::move(items);
    previous = stored->previous_id;
  }
  std::vector<Json> items;
  if (!previous.empty()) {
    // A response before this one that is gone takes its items along; the others are still shown.
    const auto chain = shared_.store->GetChain(http.key_name, previous);
    if (chain.ok()) {
      for (const StoredResponse& stored : *chain) {
        const auto earlier = ItemsOf(stored, true);
        if (earlier.ok()) items.insert(items.end(), earlier->begin(), earlier->end());
      }
    }
  }
  items.insert(items.end(), own.begin(), own.end());
  if (http.Query("order") != "asc") std::reverse(items.begin(), items.end());
  const auto place_of = [&](std::string_view wanted) {
    return std::find_if(items.begin(), items.end(), [&](const Json& item) {
      const std::string* found = FindString(item, "id");
      return found != nullptr && *found == wanted;
    });
  };
  auto begin = items.begin();
  if (const std::string_view after = http.Query("after"); !after.empty()) {
    begin = place_of(after);
    if (begin == items.end()) return SendError(responder, BadRequest("no such item", "after"));
    ++begin;
  }
  const int64_t limit = QueryInt(http, "limit", kDefaultPage);
  if (limit < 1 || limit > kMaxPage) return SendError(responder, BadRequest("must be from 1 to 100", "limit"));
  const auto end = items.end() - begin > limit ? begin + limit : items.end();
  Json page = {{"object", "list"}, {"data", Json::array()}};
  for (auto it = begin; it != end; ++it) page["data"].push_back(*it);
  const auto id_at = [&](const Json& item) { return FindField(item, "id") == nullptr ? Json() : item["id"]; };
  page["first_id"] = begin == end ? Json() : id_at(*begin);
  page["last_id"] = begin == end ? Json() : id_at(*(end - 1));
  page["has_more"] = end != items.end();
  SendJson(responder, 200, page);
}

}  // namespace

void AddResponsesRoutes(Router& router, const ApiContext& api, ResponseStore& store, ReplayStore& replay) {
  const auto responses = std::make_shared<Responses>(api, store, replay);
  using Request = const HttpRequest&;
  using Out = std::shared_ptr<Responder>;
  router.Add("POST", "/v1/responses", [responses](Request in, Out out) { responses->Create(in, std::move(out)); });
  router.Add("POST", "/v1/responses/input_tokens",
             [responses](Request in, Out out) { responses->CountTokens(in, *out); });
  router.Add("POST", "/v1/responses/compact",
             [responses](Request in, Out out) { responses->Compact(in, std::move(out)); });
  router.Add("GET", "/v1/responses/{}", [responses](Request in, Out out) { responses->Retrieve(in, std::move(out)); });
  router.Add("DELETE", "/v1/responses/{}", [responses](Request in, Out out) { responses->Delete(in, *out); });
  router.Add("POST", "/v1/responses/{}/cancel",
             [responses](Request in, Out out) { responses->Cancel(in, std::move(out)); });
  router.Add("GET", "/v1/responses/{}/input_items",
             [responses](Request in, Out out) { responses->InputItems(in, *out); });
}

}  // namespace gptoss::server
