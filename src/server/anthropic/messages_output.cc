#include "server/anthropic/messages_output.h"

#include <utility>

#include "server/api/ids.h"
#include "server/api/sse.h"

namespace gptoss::server {
namespace {

using Kind = TurnItem::Kind;

const char* StopReason(TurnEnd end) {
  switch (end) {
    case TurnEnd::kToolCall:
      return "tool_use";
    case TurnEnd::kStopSequence:
      return "stop_sequence";
    case TurnEnd::kMaxTokens:
    case TurnEnd::kDeadline:
      return "max_tokens";
    case TurnEnd::kContextFull:
      return "model_context_window_exceeded";
    default:
      return "end_turn";
  }
}

const char* ErrorType(int http_status) {
  switch (http_status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return http_status < 500 ? "invalid_request_error" : "api_error";
  }
}

/// Tokens from the cache are counted apart, as this API does it.
Json UsageJson(const TurnResult* result) {
  const EngineUsage usage = result == nullptr ? EngineUsage() : result->usage;
  return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", usage.cached_tokens},
          {"output_tokens", usage.output_tokens},
          {"output_tokens_details", {{"thinking_tokens", result == nullptr ? 0 : result->reasoning_tokens}}},
          {"service_tier", "standard"}};
}

}  // namespace

Json AnthropicErrorJson(const ApiError& error) {
  return {{"type", "error"}, {"error", {{"type", ErrorType(error.http_status)}, {"message", error.message}}}};
}

void SendAnthropicError(Responder& responder, const ApiError& error) {
  Responder::Headers headers;
  if (error.retry_after_s > 0) headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  responder.Send(error.http_status, "application/json", WriteJson(AnthropicErrorJson(error)), std::move(headers));
}

MessagesOutput::MessagesOutput(Options options, std::shared_ptr<Responder> responder)
    : options_(std::move(options)), responder_(std::move(responder)) {
  message_ = {{"id", NewId("msg_")},      {"type", "message"},          {"role", "assistant"},
              {"model", options_.model},  {"content", Json::array()},   {"stop_reason", nullptr},
              {"stop_sequence", nullptr}, {"usage", UsageJson(nullptr)}};
  ids_.push_back(message_["id"]);
}

bool MessagesOutput::Send(const char* type, Json fields) {
  if (!options_.stream) return true;
  Json event = {{"type", type}};
  event.update(fields);
  return responder_->Write(NamedEvent(type, event));
}

void MessagesOutput::Begin() {
  if (!options_.stream) return;
  BeginEvents(*responder_);
  Send("message_start", {{"message", message_}});
  Send("ping", Json::object());
}

void MessagesOutput::OpenBlock(const TurnItem& item) {
  switch (item.kind) {
    case Kind::kReasoning:
      block_ = {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}};
      break;
    case Kind::kPreamble:
    case Kind::kAnswer:
      block_ = {{"type", "text"}, {"text", ""}};
      break;
    case Kind::kToolCall:
      block_ = {{"type", "tool_use"}, {"id", NewId("toolu_")}, {"name", item.tool}, {"input", Json::object()}};
      ids_.push_back(block_["id"]);
      break;
  }
  Send("content_block_start", {{"index", message_["content"].size()}, {"content_block", block_}});
}

void MessagesOutput::ItemStart(const TurnItem& item) {
  text_.clear();
  hidden_ = item.kind == Kind::kReasoning && !options_.show_thinking;
  // Text without any text is no block; a call is one from its name on.
  if (item.kind == Kind::kToolCall) OpenBlock(item);
}

bool MessagesOutput::Delta(const TurnItem& item, std::string_view text, std::span<const ItemLogprob>) {
  text_ += text;
  if (hidden_) return true;
  if (block_.is_null()) OpenBlock(item);
  Json delta;
  if (item.kind == Kind::kReasoning) {
    if (options_.omit_thinking) return true;
    delta = {{"type", "thinking_delta"}, {"thinking", text}};
  } else if (item.kind == Kind::kToolCall) {
    delta = {{"type", "input_json_delta"}, {"partial_json", text}};
  } else {
    delta = {{"type", "text_delta"}, {"text", text}};
  }
  return Send("content_block_delta", {{"index", message_["content"].size()}, {"delta", std::move(delta)}});
}

void MessagesOutput::ItemEnd(const TurnItem& item) {
  if (item.text.size() > text_.size() && item.text.starts_with(text_)) {
    (void)Delta(item, std::string(item.text.substr(text_.size())), {});
  }
  if (block_.is_null()) return;
  const size_t index = message_["content"].size();
  if (item.kind == Kind::kReasoning) {
    // Nothing is signed: it is the id under which the turn is found again.
    ids_.push_back(NewId("sig_"));
    Send("content_block_delta",
         {{"index", index}, {"delta", {{"type", "signature_delta"}, {"signature", ids_.back()}}}});
    block_["thinking"] = options_.omit_thinking ? "" : text_;
    block_["signature"] = ids_.back();
  } else if (item.kind == Kind::kToolCall) {
    // A call that was cut off may be no JSON yet.
    auto input = ParseJson(text_);
    if (input.ok() && input->is_object()) block_["input"] = *std::move(input);
  } else {
    block_["text"] = text_;
  }
  Send("content_block_stop", {{"index", index}});
  message_["content"].push_back(std::exchange(block_, Json()));
}

void MessagesOutput::Finish(const TurnResult& result) {
  if (result.end == TurnEnd::kFailed) {
    const ApiError error{500, "server_error", result.status.message(), "", "", 0};
    if (!options_.stream) return SendAnthropicError(*responder_, error);
    responder_->Write(NamedEvent("error", AnthropicErrorJson(error)));
    return responder_->End();
  }
  message_["stop_reason"] = StopReason(result.end);
  if (!result.stop.empty()) message_["stop_sequence"] = result.stop;
  message_["usage"] = UsageJson(&result);
  if (!options_.stream) return SendJson(*responder_, 200, message_);
  Send("message_delta",
       {{"delta", {{"stop_reason", message_["stop_reason"]}, {"stop_sequence", message_["stop_sequence"]}}},
        {"usage", message_["usage"]}});
  Send("message_stop", Json::object());
  responder_->End();
}

}  // namespace gptoss::server
