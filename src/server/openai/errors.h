// Errors in OpenAI's shape: {"error": {"message", "type", "param", "code"}} with the HTTP status that their clients
// expect. Source: platform.openai.com/docs/guides/error-codes.
#pragma once

#include <string>

#include "base/status.h"
#include "json/json.h"
#include "server/http.h"

namespace gptoss::server {

struct ApiError {
  int http_status = 500;
  std::string type = "server_error";  // "invalid_request_error", "rate_limit_error", …
  std::string message;
  std::string param;      // the field at fault; empty: null
  std::string code;       // empty: null
  int retry_after_s = 0;  // for the header Retry-After; 0: none
};

/// What a Status means to a client:
/// - kInvalidArgument, kCorruptData, kUnsupported: 400 (code "context_length_exceeded" for a prompt that is too long,
///   see kContextLengthExceeded in turn.h); the field's path before the first ": " becomes `param`;
/// - kNotFound: 404; kResourceExhausted: 429 with Retry-After (the queue is full);
/// - kCancelled: 503 with Retry-After (the server is draining); anything else: 500.
ApiError ApiErrorOf(const Status& status);
/// 400 of type invalid_request_error about `param`.
ApiError BadRequest(std::string message, std::string param = {}, std::string code = {});

Json ErrorJson(const ApiError& error);
/// The whole answer, header Retry-After included.
void SendError(Responder& responder, const ApiError& error);
void SendJson(Responder& responder, int http_status, const Json& body);

/// The body as a JSON object of at most kMaxJsonDepth levels. On failure: the 400 to send.
inline constexpr int kMaxJsonDepth = 128;
Result<Json> ParseBody(const HttpRequest& request);

}  // namespace gptoss::server
