#include "harmony/message_json.h"

#include <gtest/gtest.h>

#include "harmony/builtin_tools.h"

namespace gptoss {
namespace {

std::string ErrorOf(std::string_view text) {
  Result<Json> json = ParseJson(text);
  EXPECT_TRUE(json.ok()) << text;
  return ConversationFromJson(*json).status().message();
}

TEST(MessageJson, RoundTrip) {
  Conversation conversation;
  Message system;
  system.author.role = Role::kSystem;
  SystemContent content = DefaultSystemContent("2025-06-28", ReasoningEffort::kHigh);
  content.tools["browser"] = BrowserTool();
  content.tools["python"] = PythonTool();
  system.contents.push_back(content);
  conversation.messages.push_back(system);
  Message developer;
  developer.author.role = Role::kDeveloper;
  DeveloperContent instructions;
  instructions.instructions = "Be brief.";
  instructions.tools["functions"] = {"functions", std::nullopt, {{"f", "", Json{{"type", "object"}}}}};
  instructions.response_formats.push_back({"list", "a list", Json{{"type", "array"}}});
  developer.contents.push_back(instructions);
  conversation.messages.push_back(developer);
  Message call = TextMessage(Role::kAssistant, "{}");
  call.channel = "commentary";
  call.recipient = "functions.f";
  call.content_type = "<|constrain|>json";
  conversation.messages.push_back(call);
  Message result = TextMessage(Role::kTool, "1");
  result.author.name = "functions.f";
  conversation.messages.push_back(result);

  const Json json = ToJson(conversation);
  EXPECT_EQ(json["messages"][0]["content"][0]["reasoning_effort"], "High");
  EXPECT_TRUE(json["messages"][0]["name"].is_null());
  Result<Conversation> back = ConversationFromJson(json);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_TRUE(*back == conversation);
}

TEST(MessageJson, StringsNullsAndUnknownFields) {
  Result<Conversation> read = ConversationFromJson(
      *ParseJson(R"({"messages":[{"role":"user","content":"hi","name":null,"channel":null,"more":1}],"other":true})"));
  ASSERT_TRUE(read.ok());
  ASSERT_EQ(read->messages.size(), 1u);
  EXPECT_TRUE(read->messages[0] == TextMessage(Role::kUser, "hi"));
}

TEST(MessageJson, ErrorsNameTheField) {
  EXPECT_EQ(ErrorOf("[]"), "conversation: must be an object with \"messages\"");
  EXPECT_EQ(ErrorOf("{}"), "messages: must be a list");
  EXPECT_EQ(ErrorOf(R"({"messages":[3]})"), "messages[0]: must be an object");
  EXPECT_EQ(ErrorOf(R"({"messages":[{"content":"a"}]})"), "messages[0].role: is missing; give a string");
  EXPECT_EQ(ErrorOf(R"({"messages":[{"role":"bot","content":"a"}]})"),
            "messages[0].role: \"bot\" is not one of user, assistant, system, developer, tool");
  EXPECT_EQ(ErrorOf(R"({"messages":[{"role":"user"}]})"), "messages[0].content: is missing; give a string or a list");
  EXPECT_EQ(ErrorOf(R"({"messages":[{"role":"user","content":[{"type":"image"}]}]})"),
            "messages[0].content[0].type: \"image\" is not one of text, system_content, developer_content");
  EXPECT_EQ(ErrorOf(R"({"messages":[{"role":"user","content":"a"},{"role":"user","content":"a","channel":1}]})"),
            "messages[1].channel: must be a string or null");
  EXPECT_EQ(ErrorOf(R"({"messages":[{"role":"system","content":[{"type":"system_content","reasoning_effort":"x"}]}]})"),
            "messages[0].content[0].reasoning_effort: \"x\" is not one of Low, Medium, High");
  EXPECT_EQ(ErrorOf(R"({"messages":[{"role":"system","content":[{"type":"system_content",
                        "channel_config":{"valid_channels":["a",2],"channel_required":true}}]}]})"),
            "messages[0].content[0].channel_config.valid_channels[1]: must be a string");
  EXPECT_EQ(ErrorOf(R"({"messages":[{"role":"developer","content":[{"type":"developer_content",
                        "tools":{"functions":{"name":"functions","tools":[{"name":"a"},{"description":"d"}]}}}]}]})"),
            "messages[0].content[0].tools.functions.tools[1].name: is missing; give a string");
}

}  // namespace
}  // namespace gptoss
