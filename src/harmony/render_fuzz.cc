// A conversation as JSON, or a schema: both styles give a text or an error, and content gives no marker.
#include "base/check.h"
#include "harmony/message_json.h"
#include "harmony/render.h"
#include "harmony/tool_schema.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gptoss;
  static const auto tokenizer = *Tokenizer::Embedded();
  static const Renderer renderer = *Renderer::Create(tokenizer);
  Result<Json> json = ParseJson(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!json.ok()) return 0;
  for (SchemaStyle style : {SchemaStyle::kOfficial, SchemaStyle::kFaithful}) {
    Result<std::string> text = SchemaToTypeScript(*json, style);
    GPTOSS_CHECK(text.ok() || !text.status().message().empty());
  }
  Result<Conversation> conversation = ConversationFromJson(*json);
  if (!conversation.ok()) return 0;
  Result<Conversation> again = ConversationFromJson(ToJson(*conversation));
  GPTOSS_CHECK(again.ok() && *again == *conversation);
  for (bool official : {false, true}) {
    RenderOptions options;
    options.official = official;
    Result<std::vector<TokenId>> ids = renderer.RenderConversation(*conversation, options);
    if (!ids.ok()) continue;
    size_t starts = 0;
    for (TokenId id : *ids) starts += id == renderer.format().start ? 1 : 0;
    GPTOSS_CHECK(starts == KeptMessages(conversation->messages, options).size());
  }
  return 0;
}
