// Any bytes are a request or an error, however they are cut; any JSON is a chat or completion request or one line that
// says why not. The first byte picks which.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "server/openai/chat_request.h"
#include "server/openai/errors.h"
#include "server/request_reader.h"

namespace {

using namespace gptoss;
using namespace gptoss::server;

void ReadRequests(std::string_view bytes, size_t step) {
  RequestReader reader({.max_header_bytes = 2048, .max_body_bytes = 4096});
  for (size_t at = 0; at < bytes.size() && reader.state() != RequestReader::State::kFailed; at += step) {
    reader.Feed(bytes.substr(at, step));
    for (int more = 0; more < 64; ++more) {
      if (reader.state() == RequestReader::State::kDone) {
        if (reader.request().body.size() > 4096 || reader.request().path.empty()) std::abort();
        reader.Next();
      }
      const auto before = reader.state();
      if (reader.Continue() == before) break;
    }
  }
  if (reader.state() == RequestReader::State::kFailed && (reader.error_status() < 400 || reader.error().empty())) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 2, size - 2);
  if (data[0] % 2 == 0) {
    ReadRequests(rest, static_cast<size_t>(data[1]) + 1);
    return 0;
  }
  HttpRequest http;
  http.body = rest;
  const auto body = ParseBody(http);
  if (!body.ok()) return 0;
  const auto request = ParseChatRequest(*body, ApiOptions());
  if (!request.ok()) {
    const Status status = request.status();
    const std::string& message = status.message();
    if (message.empty() || message.find('\n') != std::string::npos) std::abort();
    if (ApiErrorOf(status).http_status != 400) std::abort();
  }
  return 0;
}
