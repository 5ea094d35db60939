#include "server/api/testing.h"

#include <algorithm>
#include <chrono>

#include "harmony/render.h"
#include "server/api/history.h"
#include "server/turn_prompt.h"

namespace gptoss::server {
namespace {

using Kind = TurnItem::Kind;
constexpr auto kPatience = std::chrono::seconds(10);

class FakeEngine : public Engine {
 public:
  Result<RequestId> Submit(EngineRequest, std::shared_ptr<EngineListener>) override { return Unsupported("fake"); }
  void Cancel(RequestId) override {}
  void Drain(std::chrono::steady_clock::time_point) override {}
  EngineStats stats() const override { return {}; }
  int max_context() const override { return max_context_; }
  int max_context_ = 131072;
};

Message MessageOf(const ScriptedItem& item, const std::string& text) {
  switch (item.kind) {
    case Kind::kReasoning:
      return Reasoning(text);
    case Kind::kPreamble:
      return Preamble(text);
    case Kind::kToolCall:
      return item.custom ? CustomCall(item.tool, text) : FunctionCall(item.tool, text);
    case Kind::kAnswer:
      break;
  }
  return Answer(text);
}

}  // namespace

ScriptedItem Thinks(std::vector<std::string> pieces) { return {Kind::kReasoning, std::move(pieces), "", false}; }
ScriptedItem Answers(std::vector<std::string> pieces) { return {Kind::kAnswer, std::move(pieces), "", false}; }
ScriptedItem Says(std::vector<std::string> pieces) { return {Kind::kPreamble, std::move(pieces), "", false}; }
ScriptedItem Calls(std::string tool, std::vector<std::string> pieces, bool custom) {
  return {Kind::kToolCall, std::move(pieces), std::move(tool), custom};
}

FakeTurnService::FakeTurnService() : tokenizer_(*Tokenizer::Embedded()), engine_(std::make_unique<FakeEngine>()) {}

FakeTurnService::~FakeTurnService() {
  Release();
  for (std::thread& thread : threads_) thread.join();
}

Engine& FakeTurnService::engine() { return *engine_; }
void FakeTurnService::set_max_context(int tokens) { static_cast<FakeEngine&>(*engine_).max_context_ = tokens; }

void FakeTurnService::Push(Script script) {
  std::lock_guard lock(mutex_);
  scripts_.push_back(std::move(script));
}

void FakeTurnService::Hold() {
  std::lock_guard lock(mutex_);
  hold_ = true;
}

void FakeTurnService::Release() {
  std::lock_guard lock(mutex_);
  hold_ = false;
  changed_.notify_all();
}

std::vector<TurnRequest> FakeTurnService::requests() {
  std::lock_guard lock(mutex_);
  return requests_;
}

int FakeTurnService::cancelled() {
  std::lock_guard lock(mutex_);
  return static_cast<int>(cancelled_.size());
}

void FakeTurnService::Cancel(RequestId id) {
  std::lock_guard lock(mutex_);
  cancelled_[id] = true;
  changed_.notify_all();
}

Result<std::vector<TokenId>> FakeTurnService::Render(const TurnRequest& request) const {
  GPTOSS_ASSIGN_OR_RETURN(const Renderer renderer, Renderer::Create(tokenizer_));
  GPTOSS_ASSIGN_OR_RETURN(TurnPrompt prompt, BuildPrompt(renderer, request, "2025-06-28"));
  return std::move(prompt.tokens);
}

Result<RequestId> FakeTurnService::Start(TurnRequest request, std::shared_ptr<TurnListener> listener) {
  if (!refusal_.ok()) return refusal_;
  GPTOSS_ASSIGN_OR_RETURN(const auto prompt, Render(request));
  return Begin(std::move(request), static_cast<int>(prompt.size()), std::move(listener));
}

Result<RequestId> FakeTurnService::StartRaw(std::vector<TokenId> prompt, TurnRequest limits,
                                            std::shared_ptr<TurnListener> listener) {
  if (!refusal_.ok()) return refusal_;
  return Begin(std::move(limits), static_cast<int>(prompt.size()), std::move(listener));
}

Result<RequestId> FakeTurnService::Begin(TurnRequest request, int prompt_tokens,
                                         std::shared_ptr<TurnListener> listener) {
  Script script;
  RequestId id = 0;
  {
    std::lock_guard lock(mutex_);
    requests_.push_back(std::move(request));
    if (!scripts_.empty()) {
      script = std::move(scripts_.front());
      scripts_.erase(scripts_.begin());
    }
    id = next_++;
  }
  if (inside_) {
    Play(script, id, prompt_tokens, *listener);
    return id;
  }
  std::lock_guard lock(mutex_);
  threads_.emplace_back([this, script, id, prompt_tokens, listener] { Play(script, id, prompt_tokens, *listener); });
  return id;
}

void FakeTurnService::Play(const Script& script, RequestId id, int prompt_tokens, TurnListener& listener) {
  TurnResult result;
  result.end = script.end;
  result.status = script.status;
  result.stop = script.stop;
  result.usage.prompt_tokens = prompt_tokens;
  result.usage.cached_tokens = prompt_tokens / 2;
  for (size_t i = 0; i < script.items.size(); ++i) {
    const ScriptedItem& said = script.items[i];
    TurnItem item{said.kind, said.tool, said.custom, "", false};
    listener.OnItemStart(i, item);
    for (const std::string& piece : said.pieces) {
      item.text += piece;
      std::vector<ItemLogprob> logprobs;
      for (const TokenId token : tokenizer_->Encode(piece)) logprobs.push_back({token, -0.5f, {{token, -0.5f}}});
      listener.OnDelta(i, piece, logprobs);
    }
    if (said.kind == Kind::kToolCall && item.text.empty() && !said.custom) item.text = "{}";
    const bool early =
        script.end != TurnEnd::kAnswered && script.end != TurnEnd::kToolCall && script.end != TurnEnd::kStopSequence;
    item.cut = early && i + 1 == script.items.size();
    listener.OnItemEnd(i, item);
    const std::vector<TokenId> tokens = tokenizer_->Encode(item.text);
    result.usage.output_tokens += static_cast<int>(tokens.size());
    if (said.kind == Kind::kReasoning) result.reasoning_tokens += static_cast<int>(tokens.size());
    result.items.push_back(item);
    result.history.push_back({MessageOf(said, item.text), tokens});
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !hold_ || cancelled_.contains(id); });
    if (cancelled_.contains(id)) {
      result.end = TurnEnd::kCancelled;
      break;
    }
  }
  listener.OnFinish(result);
}

void FakeResponder::Send(int status, std::string_view content_type, std::string body, Headers) {
  std::lock_guard lock(mutex_);
  misused_ = misused_ || done_ || streaming_;
  status_ = status;
  type_ = content_type;
  body_ = std::move(body);
  done_ = true;
  changed_.notify_all();
}

void FakeResponder::BeginStream(int status, std::string_view content_type, Headers) {
  std::lock_guard lock(mutex_);
  misused_ = misused_ || done_ || streaming_;
  status_ = status;
  type_ = content_type;
  streaming_ = true;
}

bool FakeResponder::Write(std::string_view bytes) {
  std::lock_guard lock(mutex_);
  misused_ = misused_ || done_ || !streaming_;
  if (closed_) return false;
  body_ += bytes;
  changed_.notify_all();
  return true;
}

void FakeResponder::End() {
  std::lock_guard lock(mutex_);
  misused_ = misused_ || done_ || !streaming_;
  done_ = true;
  changed_.notify_all();
}

void FakeResponder::OnClosed(std::function<void()> callback) {
  std::unique_lock lock(mutex_);
  if (!closed_) {
    on_closed_ = std::move(callback);
    return;
  }
  lock.unlock();
  callback();
}

void FakeResponder::Close() {
  std::function<void()> callback;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    callback = std::move(on_closed_);
  }
  if (callback) callback();
}

bool FakeResponder::Wait() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] { return done_; });
}

bool FakeResponder::WaitFor(std::string_view text) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] { return body_.find(text) != std::string::npos; });
}

int FakeResponder::status() {
  std::lock_guard lock(mutex_);
  return status_;
}

std::string FakeResponder::body() {
  std::lock_guard lock(mutex_);
  return body_;
}

std::string FakeResponder::content_type() {
  std::lock_guard lock(mutex_);
  return type_;
}

bool FakeResponder::misused() {
  std::lock_guard lock(mutex_);
  return misused_;
}

Json FakeResponder::json() {
  auto parsed = ParseJson(body());
  return parsed.ok() ? *parsed : Json();
}

std::vector<Json> FakeResponder::events() {
  std::vector<Json> events;
  const std::string text = body();
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find("\n\n", at);
    if (end == std::string::npos) return {};
    const std::string event = text.substr(at, end - at);
    at = end + 2;
    const size_t line = event.find('\n');
    const auto data = ParseJson(std::string_view(event).substr(std::min(event.size(), line + 7)));
    if (line == std::string::npos || !event.starts_with("event: ") || event.compare(line, 7, "\ndata: ") != 0 ||
        !data.ok() || (*data)["type"] != event.substr(7, line - 7)) {
      return {};
    }
    events.push_back(*data);
  }
  return events;
}

ApiFixture::ApiFixture() {
  api.turns = &turns;
  api.options.model = "gpt-oss-test";
  api.options.created = 1'700'000'000;
}

std::shared_ptr<FakeResponder> ApiFixture::Call(const std::string& method, const std::string& target, const Json& body,
                                                const std::string& key_name) {
  HttpRequest request;
  request.method = method;
  const size_t question = target.find('?');
  request.path = target.substr(0, question);
  for (size_t at = question; at != std::string::npos;) {
    const size_t next = target.find('&', at + 1);
    const std::string pair = target.substr(at + 1, next == std::string::npos ? next : next - at - 1);
    const size_t equals = pair.find('=');
    request.query.emplace_back(pair.substr(0, equals), pair.substr(equals + 1));
    at = next;
  }
  if (!body.is_null()) request.body = body.is_string() ? body.get<std::string>() : WriteJson(body);
  request.key_name = key_name;
  auto responder = std::make_shared<FakeResponder>();
  const Router::Match match = router.Find(method, request.path);
  if (match.handler != nullptr) (*match.handler)(request, responder);
  return responder;
}

std::shared_ptr<FakeResponder> ApiFixture::Run(const std::string& method, const std::string& target, const Json& body,
                                               const std::string& key_name) {
  auto responder = Call(method, target, body, key_name);
  responder->Wait();
  return responder;
}

namespace {

/// Follows a Responses stream.
class ResponseEventChecker {
 public:
  std::string Check(const std::vector<Json>& events) {
    if (events.size() < 3) return "fewer than three events";
    for (size_t i = 0; i < events.size(); ++i) {
      if (events[i].value("sequence_number", -1) != static_cast<int>(i))
        return "sequence_number of event " + At(events, i);
      const std::string wrong = One(events[i], i, events.size());
      if (!wrong.empty()) return wrong + " at event " + At(events, i);
    }
    return item_.is_null() ? "" : "an item is still open";
  }

 private:
  static std::string At(const std::vector<Json>& events, size_t i) {
    return std::to_string(i) + ": " + events[i].dump();
  }

  std::string One(const Json& event, size_t i, size_t n) {
    const std::string type = event.value("type", "");
    if (i == 0) return type == "response.created" ? "" : "the first is not created";
    if (i + 1 == n) return End(type, event);
    if (type == "response.queued") return i == 1 ? "" : "queued is late";
    if (type == "response.in_progress") return std::exchange(running_, true) ? "in_progress twice" : "";
    if (!running_) return "before in_progress";
    if (event.value("output_index", -1) != static_cast<int>(output_.size())) return "output_index";
    if (type == "response.output_item.added") {
      if (!item_.is_null()) return "an item inside an item";
      item_ = event["item"];
      text_.clear();
      text_done_ = false;
      return item_.value("status", "") == "in_progress" ? "" : "status of a new item";
    }
    if (item_.is_null()) return "outside an item";
    if (type == "response.output_item.done") return ItemDone(event["item"]);
    if (event.value("item_id", "") != item_["id"]) return "item_id";
    if (type == "response.content_part.added") return std::exchange(part_, true) ? "a part inside a part" : "";
    const bool call = item_["type"] == "function_call" || item_["type"] == "custom_tool_call";
    if (!call && (!part_ || event.value("content_index", -1) != 0)) return "outside a part, or its index";
    if (type == "response.content_part.done") {
      part_ = false;
      return event["part"]["text"] == text_ && text_done_ ? "" : "text of the part";
    }
    return Text(type, event);
  }

  std::string Text(const std::string& type, const Json& event) {
    const std::string kind = item_["type"];
    const std::string stem = kind == "reasoning"       ? "response.reasoning_text"
                             : kind == "message"       ? "response.output_text"
                             : kind == "function_call" ? "response.function_call_arguments"
                                                       : "response.custom_tool_call_input";
    if (text_done_) return "after the text's end";
    if (type == stem + ".delta") {
      if (event.value("delta", "").empty()) return "an empty delta";
      text_ += event.value("delta", "");
      return "";
    }
    if (type != stem + ".done") return "a type that does not belong to " + kind;
    text_done_ = true;
    const char* field = kind == "function_call" ? "arguments" : kind == "custom_tool_call" ? "input" : "text";
    return event[field] == text_ ? "" : "the text is not that of the deltas";
  }

  std::string ItemDone(const Json& item) {
    if (part_) return "a part is still open";
    if (item["id"] != item_["id"] || item["type"] != item_["type"]) return "another item is done";
    if (item.value("status", "") == "in_progress") return "status of an item that is done";
    output_.push_back(item);
    item_ = nullptr;
    return "";
  }

  std::string End(const std::string& type, const Json& event) {
    if (type != "response.completed" && type != "response.incomplete" && type != "response.failed") return "no end";
    if (!item_.is_null()) return "the end inside an item";
    const Json& output = event["response"]["output"];
    if (output.size() != output_.size()) return "the output is not that of the events";
    for (size_t i = 0; i < output.size(); ++i) {
      if (output[i]["id"] != output_[i]["id"] ||
          output[i].value("content", Json()) != output_[i].value("content", Json())) {
        return "the output's items are not those of the events";
      }
    }
    return "";
  }

  Json item_;
  std::vector<Json> output_;
  std::string text_;
  bool part_ = false, text_done_ = false, running_ = false;
};

}  // namespace

std::string CheckResponseEvents(const std::vector<Json>& events) { return ResponseEventChecker().Check(events); }

std::string CheckMessageEvents(const std::vector<Json>& events) {
  if (events.size() < 4) return "fewer than four events";
  int open = -1, next = 0;
  std::string kind;
  for (size_t i = 0; i < events.size(); ++i) {
    const std::string type = events[i].value("type", "");
    const std::string at = " at event " + std::to_string(i) + ": " + events[i].dump();
    const bool last = i + 1 == events.size(), before_last = i + 2 == events.size();
    if ((i == 0) != (type == "message_start") || last != (type == "message_stop") ||
        before_last != (type == "message_delta")) {
      return "order" + at;
    }
    if (type == "content_block_start") {
      if (open >= 0 || events[i]["index"] != next) return "start" + at;
      open = next++;
      kind = events[i]["content_block"]["type"];
    } else if (type == "content_block_delta") {
      const std::string delta = events[i]["delta"]["type"];
      if (open < 0 || events[i]["index"] != open) return "delta" + at;
      const bool fits = kind == "text"       ? delta == "text_delta"
                        : kind == "thinking" ? delta == "thinking_delta" || delta == "signature_delta"
                                             : delta == "input_json_delta";
      if (!fits) return "a delta of another kind" + at;
    } else if (type == "content_block_stop") {
      if (open < 0 || events[i]["index"] != open) return "stop" + at;
      open = -1;
    }
  }
  return open < 0 ? "" : "a block is still open";
}

}  // namespace gptoss::server
