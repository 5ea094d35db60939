// The parsers of requests take any JSON: they refuse it with one line, or give a turn. The first byte picks the API.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "server/anthropic/messages_request.h"
#include "server/ollama/ollama_request.h"
#include "server/openai/responses_request.h"

namespace {

using namespace gptoss;
using namespace gptoss::server;

void CheckError(const Status& status) {
  if (status.ok()) return;
  const std::string& message = status.message();
  if (message.empty() || message.size() > 1000 || message.find('\n') != std::string::npos) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto json = ParseJson(text);
  if (!json.ok()) return 0;
  const ApiOptions options;
  switch (data[0] % 5) {
    case 0: {
      const auto request = ParseResponsesRequest(*json, options);
      CheckError(request.status());
      if (!request.ok()) return 0;
      std::string instructions;
      std::vector<HistoryEntry> entries;
      CheckError(AddItems(request->items, "input", request->tools, {}, &instructions, &entries));
      ReplayStore replay(1 << 16);
      const size_t n = entries.size();
      if (replay.Apply("", std::move(entries)).size() != n) std::abort();
      return 0;
    }
    case 1:
      CheckError(ParseMessagesRequest(*json, options, false).status());
      return 0;
    case 2:
      CheckError(ParseOllamaChat(*json, options).status());
      return 0;
    case 3:
      CheckError(ParseOllamaGenerate(*json, options).status());
      return 0;
    default:
      (void)ReadTurn(text);
      return 0;
  }
}
