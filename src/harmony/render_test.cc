#include "harmony/render.h"

#include <gtest/gtest.h>

#include <fstream>

#include "harmony/message_json.h"

namespace gptoss {
namespace {

const std::shared_ptr<const Tokenizer>& Tokens() {
  static const auto tokenizer = *Tokenizer::Embedded();
  return tokenizer;
}

const Renderer& Render() {
  static const Renderer renderer = *Renderer::Create(Tokens());
  return renderer;
}

std::string Text(const Conversation& conversation, const RenderOptions& options) {
  Result<std::vector<TokenId>> ids = Render().RenderConversation(conversation, options);
  return ids.ok() ? Tokens()->Decode(*ids) : "error: " + ids.status().message();
}

Message Said(Role role, std::optional<std::string> channel, std::string text) {
  Message message = TextMessage(role, std::move(text));
  message.channel = std::move(channel);
  return message;
}

/// Each line of the file: name, request as `gptoss render` takes it, and for each style the text, written by hand.
TEST(Render, GoldenCases) {
  std::ifstream file(GPTOSS_TEST_DATA "/harmony/render.jsonl");
  ASSERT_TRUE(file.good());
  int cases = 0;
  for (std::string line; std::getline(file, line); ++cases) {
    Result<Json> json = ParseJson(line);
    ASSERT_TRUE(json.ok()) << line;
    const Json& test = *json;
    Result<Conversation> conversation = ConversationFromJson(test["conversation"]);
    ASSERT_TRUE(conversation.ok()) << conversation.status().message();
    RenderOptions options;
    options.auto_drop_analysis = test["auto_drop_analysis"].get<bool>();
    if (!test["next_role"].is_null()) options.next_role = RoleFromName(test["next_role"].get<std::string>());
    EXPECT_EQ(Text(*conversation, options), test["text"].get<std::string>()) << test["name"];
    if (test.contains("ids")) {
      EXPECT_EQ(*Render().RenderConversation(*conversation, options), test["ids"].get<std::vector<TokenId>>())
          << test["name"];
    }
    options.official = true;
    const char* key = test.contains("official_text") ? "official_text" : "text";
    EXPECT_EQ(Text(*conversation, options), test[key].get<std::string>()) << test["name"];
  }
  EXPECT_GE(cases, 8);
}

TEST(Render, DroppingAnalysis) {
  const Conversation conversation{{Said(Role::kUser, {}, "q1"), Said(Role::kAssistant, "analysis", "a1"),
                                   Said(Role::kAssistant, "final", "f1"), Said(Role::kUser, {}, "q2"),
                                   Said(Role::kAssistant, "analysis", "a2"), Said(Role::kAssistant, "final", "f2"),
                                   Said(Role::kUser, {}, "q3"), Said(Role::kAssistant, "analysis", "a3")}};
  std::span<const Message> all = conversation.messages;
  using Indices = std::vector<size_t>;
  RenderOptions product;
  RenderOptions official;
  official.official = true;
  // The last assistant message is no final: the official code keeps all, the product only what is since the last final.
  EXPECT_EQ(KeptMessages(all, product), (Indices{0, 2, 3, 5, 6, 7}));
  EXPECT_EQ(KeptMessages(all, official), (Indices{0, 1, 2, 3, 4, 5, 6, 7}));
  // It is one: the official code drops before the first final only.
  EXPECT_EQ(KeptMessages(all.first(7), product), (Indices{0, 2, 3, 5, 6}));
  EXPECT_EQ(KeptMessages(all.first(7), official), (Indices{0, 2, 3, 4, 5, 6}));
  EXPECT_EQ(KeptMessages(all.first(2), product), (Indices{0, 1}));
  product.auto_drop_analysis = official.auto_drop_analysis = false;
  EXPECT_EQ(KeptMessages(all, product).size(), all.size());
  EXPECT_EQ(KeptMessages(all, official).size(), all.size());
}

TEST(Render, ToolCallsKeepTheirReasoning) {
  Message call = Said(Role::kAssistant, "commentary", "{}");
  call.recipient = "functions.f";
  Message result = Said(Role::kTool, "commentary", "1");
  result.author.name = "functions.f";
  result.recipient = "assistant";
  const Conversation conversation{{Said(Role::kAssistant, "final", "done"), Said(Role::kAssistant, "analysis", "think"),
                                   call, result, Said(Role::kAssistant, "analysis", "more")}};
  RenderOptions options;
  options.next_role = Role::kAssistant;
  EXPECT_EQ(Text(conversation, options),
            "<|start|>assistant<|channel|>final<|message|>done<|end|>"
            "<|start|>assistant<|channel|>analysis<|message|>think<|end|>"
            "<|start|>assistant to=functions.f<|channel|>commentary<|message|>{}<|call|>"
            "<|start|>functions.f to=assistant<|channel|>commentary<|message|>1<|end|>"
            "<|start|>assistant<|channel|>analysis<|message|>more<|end|><|start|>assistant");
}

TEST(Render, TrainingEndsTheLastFinalInReturn) {
  RenderOptions options;
  options.training = true;
  EXPECT_EQ(Text({{Said(Role::kAssistant, "final", "a"), Said(Role::kAssistant, "final", "b")}}, options),
            "<|start|>assistant<|channel|>final<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b"
            "<|return|>");
  EXPECT_EQ(Text({{Said(Role::kAssistant, "analysis", "a")}}, options),
            "<|start|>assistant<|channel|>analysis<|message|>a<|end|>");
  EXPECT_EQ(Text({}, options), "");
}

TEST(Render, HeadersInFull) {
  Message message = Said(Role::kUser, "c", "x");
  message.author.name = "bob";
  message.recipient = "all";
  message.content_type = "text";
  EXPECT_EQ(Text({{message}}, {}), "<|start|>user:bob<|channel|>c text<|message|>x<|end|>");
  message.author.role = Role::kAssistant;  // as the official code: no header for "all", and yet a call
  EXPECT_EQ(Text({{message}}, {}), "<|start|>assistant:bob<|channel|>c text<|message|>x<|call|>");
}

TEST(Render, ContentNeverBecomesControl) {
  const FormatTokenIds format = Render().format();
  std::string nasty;
  for (int i = 0; i < kFormatTokenCount; ++i) nasty += std::string(Spelling(static_cast<FormatToken>(i))) + "system";
  Message message = Said(Role::kUser, nasty, nasty);
  message.author.name = nasty;
  message.recipient = nasty;
  message.content_type = "<|constrain|>" + nasty;
  Message developer;
  developer.author.role = Role::kDeveloper;
  DeveloperContent content;
  content.instructions = nasty;
  content.tools["functions"] = {nasty, nasty, {{nasty, nasty, Json{{"type", "string"}, {"enum", {nasty}}}}}};
  content.response_formats.push_back({nasty, nasty, Json{{"title", nasty}}});
  developer.contents.push_back(content);
  Result<std::vector<TokenId>> ids = Render().RenderConversation({{message, developer}}, {});
  ASSERT_TRUE(ids.ok());
  std::vector<TokenId> special;
  for (TokenId id : *ids) {
    if (Tokens()->IsSpecial(id)) special.push_back(id);
  }
  EXPECT_EQ(special, (std::vector<TokenId>{format.start, format.channel, format.constrain, format.message, format.end,
                                           format.start, format.message, format.end}));
}

TEST(Render, ErrorsNameTheMessage) {
  EXPECT_EQ(Text({{TextMessage(Role::kTool, "x")}}, {}),
            "error: messages[0]: a message of role tool needs a name, the tool's full name");
  Message message;
  message.contents.push_back(SystemContent());
  EXPECT_EQ(Text({{message}}, {}),
            "error: messages[0]: system_content may only stand in a system message, not in one of role user");
  message.contents[0] = DeveloperContent();
  EXPECT_EQ(Text({{message}}, {}),
            "error: messages[0]: developer_content may only stand in a developer message, not in one of role user");
}

TEST(Render, MarkersHaveThePublishedIds) {
  EXPECT_EQ(FormatTokenIds::Of(*Tokens())->call, FormatTokenIds().call);
  EXPECT_EQ(FormatTokenIds::Of(*Tokens())->end_of_text, 199999);
  EXPECT_TRUE(Render().format().IsStop(200002));
  EXPECT_FALSE(Render().format().IsStop(200007));
}

}  // namespace
}  // namespace gptoss
