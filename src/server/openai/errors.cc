#include "server/openai/errors.h"

#include <algorithm>
#include <utility>

#include "server/turn.h"

namespace gptoss::server {
namespace {

constexpr int kQueueRetrySeconds = 2, kDrainRetrySeconds = 10;

/// "tools[0].function.name" of "tools[0].function.name: is missing"; empty when the message begins otherwise.
std::string ParamOf(std::string_view message) {
  const size_t end = message.find(": ");
  if (end == std::string_view::npos || end == 0) return {};
  const std::string_view path = message.substr(0, end);
  const bool is_path = std::all_of(path.begin(), path.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '[' || c == ']';
  });
  return is_path ? std::string(path) : std::string();
}

}  // namespace

ApiError BadRequest(std::string message, std::string param, std::string code) {
  return {400, "invalid_request_error", std::move(message), std::move(param), std::move(code), 0};
}

ApiError ApiErrorOf(const Status& status) {
  const std::string& message = status.message();
  switch (status.code()) {
    case StatusCode::kInvalidArgument:
    case StatusCode::kCorruptData:
    case StatusCode::kUnsupported:
      if (message.starts_with(kContextLengthExceeded))
        return BadRequest(message, "messages", "context_length_exceeded");
      return BadRequest(message, ParamOf(message));
    case StatusCode::kNotFound:
      return {404, "invalid_request_error", message, ParamOf(message), "not_found", 0};
    case StatusCode::kResourceExhausted:
      return {429, "rate_limit_error", message, {}, "rate_limit_exceeded", kQueueRetrySeconds};
    case StatusCode::kCancelled:
      return {503, "server_error", message, {}, "server_draining", kDrainRetrySeconds};
    default:
      return {500, "server_error", message, {}, {}, 0};
  }
}

Json ErrorJson(const ApiError& error) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); };
  return {{"error",
           {{"message", error.message},
            {"type", error.type},
            {"param", or_null(error.param)},
            {"code", or_null(error.code)}}}};
}

void SendJson(Responder& responder, int http_status, const Json& body) {
  responder.Send(http_status, "application/json", WriteJson(body));
}

void SendError(Responder& responder, const ApiError& error) {
  Responder::Headers headers;
  if (error.retry_after_s > 0) headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  responder.Send(error.http_status, "application/json", WriteJson(ErrorJson(error)), std::move(headers));
}

Result<Json> ParseBody(const HttpRequest& request) {
  JsonLimits limits;
  limits.max_depth = kMaxJsonDepth;
  auto body = ParseJson(request.body, limits);
  if (!body.ok()) return InvalidArgument("the body is " + body.status().message());
  if (!body->is_object()) return InvalidArgument("the body must be a JSON object");
  return body;
}

}  // namespace gptoss::server
