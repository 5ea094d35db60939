#include "server/openai/responses_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/api/history.h"

namespace gptoss::server {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Json Parsed(std::string_view text) {
  auto json = ParseJson(text);
  EXPECT_TRUE(json.ok()) << json.status().message() << "\n" << text;
  return json.ok() ? *json : Json();
}

Result<ResponsesRequest> Parse(std::string_view text) {
  ApiOptions options;
  options.model = "gpt-oss-test";
  return ParseResponsesRequest(Parsed(text), options);
}

std::string ErrorOf(std::string_view text) { return Parse(text).status().message(); }

struct Said {
  std::string instructions;
  std::vector<std::string> messages;
};

/// Items as lines "role channel recipient: text [id]".
Result<Said> Read(std::string_view items, std::map<std::string, ToolRef> tools = {}, ItemContext context = {}) {
  Said said;
  std::vector<HistoryEntry> entries;
  GPTOSS_RETURN_IF_ERROR(AddItems(Parsed(items), "input", tools, context, &said.instructions, &entries));
  for (const HistoryEntry& e : entries) {
    const Message& m = e.message;
    said.messages.push_back(std::string(RoleName(m.author.role)) + "/" + m.author.name.value_or("") + "/" +
                            m.channel.value_or("") + "/" + m.recipient.value_or("") + ": " + TextOf(m) + " [" + e.id +
                            "]");
  }
  return said;
}

TEST(ResponsesRequest, AnAdaptersNameChoosesIt) {
  ApiOptions options;
  options.adapters = {"legal", "sql"};
  const auto adapter = [&](const char* text) { return ParseResponsesRequest(Parsed(text), options)->turn.adapter; };
  EXPECT_EQ(adapter(R"({"model": "sql", "input": "q"})"), 2);
  EXPECT_EQ(adapter(R"({"model": "other", "input": "q"})"), 0);
  EXPECT_EQ(adapter(R"({"input": "q"})"), 0);
}

TEST(ResponsesRequest, Defaults) {
  const auto request = Parse(R"({"input": "hello"})");
  ASSERT_TRUE(request.ok()) << request.status().message();
  EXPECT_EQ(request->turn.effort, ReasoningEffort::kMedium);
  EXPECT_EQ(request->turn.sampling.temperature, 1.0);
  EXPECT_EQ(request->turn.sampling.top_p, 1.0);
  EXPECT_TRUE(request->store);
  EXPECT_FALSE(request->stream || request->background || request->truncate);
  EXPECT_EQ(request->echo["model"], "gpt-oss-test");
  EXPECT_EQ(request->echo["reasoning"]["effort"], "medium");
  EXPECT_EQ(request->echo["tool_choice"], "auto");
  ASSERT_EQ(request->items.size(), 1u);
  EXPECT_EQ(request->items[0]["type"], "message");
  EXPECT_EQ(request->items[0]["role"], "user");
  // Two requests without a seed are not sampled alike.
  EXPECT_NE(request->turn.sampling.seed, Parse(R"({"input": "hello"})")->turn.sampling.seed);
}

TEST(ResponsesRequest, WhatClientsSendIsAccepted) {
  EXPECT_TRUE(
      Parse(R"({"model": "gpt-9", "input": [], "max_output_tokens": 1000000000000, "unknown": {"a": 1}})").ok());
  EXPECT_TRUE(Parse(R"({"model": "m", "temperature": 2})").ok());
  EXPECT_TRUE(Parse(R"({"input": null, "tools": null, "text": null, "reasoning": null, "stream": null})").ok());
  // The tools of Codex.
  const auto codex = Parse(R"({"input": "x", "store": false, "include": ["reasoning.encrypted_content"], "tools": [
    {"type": "function", "name": "exec", "strict": false, "parameters": {"type": "object"}},
    {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "close", "parameters": {}},
                                                      {"type": "function", "name": "exec", "parameters": {}}]},
    {"type": "web_search", "external_web_access": true}, {"type": "local_shell"}, {"type": "tool_search"}]})");
  ASSERT_TRUE(codex.ok()) << codex.status().message();
  EXPECT_EQ(codex->turn.tools.size(), 3u);
  EXPECT_TRUE(codex->include_encrypted_reasoning);
  ASSERT_TRUE(codex->tools.contains("close"));
  EXPECT_EQ(codex->tools.at("close").name_space, "agents");
  ASSERT_TRUE(codex->tools.contains("agents.exec"));
  EXPECT_EQ(codex->tools.at("agents.exec").name, "exec");
  EXPECT_EQ(codex->echo["tools"].size(), 5u);
}

TEST(ResponsesRequest, ErrorsNameTheField) {
  EXPECT_THAT(ErrorOf("{}"), HasSubstr("input"));
  EXPECT_THAT(ErrorOf(R"({"input": 3})"), testing::StartsWith("input: "));
  EXPECT_THAT(ErrorOf(R"({"input": "x", "temperature": 3})"), testing::StartsWith("temperature: "));
  EXPECT_THAT(ErrorOf(R"({"input": "x", "stream": "yes"})"), testing::StartsWith("stream: "));
  EXPECT_THAT(ErrorOf(R"({"input": "x", "max_output_tokens": 0})"), testing::StartsWith("max_output_tokens: "));
  EXPECT_THAT(ErrorOf(R"({"input": "x", "reasoning": {"effort": "huge"}})"), testing::StartsWith("reasoning.effort: "));
  EXPECT_THAT(ErrorOf(R"({"input": "x", "tools": [{"type": "function"}]})"), testing::StartsWith("tools[0].name: "));
  EXPECT_THAT(ErrorOf(R"({"input": "x", "tools": [{"type": "mcp"}]})"), testing::StartsWith("tools[0].type: "));
  EXPECT_THAT(ErrorOf(R"({"input": "x", "tools": [{"type": "function", "name": "a b"}]})"),
              testing::StartsWith("tools[0].name: "));
  EXPECT_THAT(
      ErrorOf(R"({"input": "x", "tools": [{"type": "function", "name": "f"}, {"type": "function", "name": "f"}]})"),
      HasSubstr("declared twice"));
  EXPECT_THAT(ErrorOf(R"({"input": "x", "tool_choice": "required"})"), testing::StartsWith("tool_choice: "));
  EXPECT_THAT(ErrorOf(R"({"input": "x", "tool_choice": {"type": "function", "name": "f"}})"),
              testing::StartsWith("tool_choice.name: "));
  EXPECT_THAT(ErrorOf(R"({"input": "x", "tool_choice": {"type": "web_search"}})"),
              testing::StartsWith("tool_choice.type: "));
  EXPECT_THAT(ErrorOf(R"({"input": "x", "text": {"format": {"type": "json_schema"}}})"),
              testing::StartsWith("text.format.schema: "));
  EXPECT_THAT(ErrorOf(R"({"input": "x", "background": true, "store": false})"), testing::StartsWith("background: "));
  EXPECT_THAT(ErrorOf(R"({"input": "x", "metadata": {"a": 1}})"), testing::StartsWith("metadata: "));
  EXPECT_THAT(ErrorOf(R"({"input": ["x"]})"), testing::StartsWith("input[0]: "));
}

TEST(ResponsesRequest, ToolsAndChoices) {
  constexpr char kToolsField[] =
      R"("tools": [{"type": "function", "name": "f", "strict": true, "parameters": {"type": "object"}},
    {"type": "custom", "name": "patch", "format": {"type": "grammar", "syntax": "lark", "definition": "start: \"x\""}},
    {"type": "custom", "name": "free"}])";
  const auto with = [&](const std::string& choice) {
    return Parse(std::string("{\"input\": \"x\", ") + kToolsField + ", \"tool_choice\": " + choice + "}");
  };
  const auto plain = with("\"auto\"");
  ASSERT_TRUE(plain.ok()) << plain.status().message();
  EXPECT_TRUE(plain->turn.tools[0].strict);
  EXPECT_EQ(plain->turn.tools[1].input, ToolSpec::Input::kLark);
  EXPECT_EQ(plain->turn.tools[2].input, ToolSpec::Input::kText);
  EXPECT_EQ(with("\"none\"")->turn.tool_choice.kind, ToolChoice::Kind::kNone);
  EXPECT_EQ(with("\"required\"")->turn.tool_choice.kind, ToolChoice::Kind::kRequired);
  const auto named = with(R"({"type": "custom", "name": "patch"})");
  EXPECT_EQ(named->turn.tool_choice.kind, ToolChoice::Kind::kRequired);
  EXPECT_THAT(named->turn.tool_choice.allowed, ElementsAre("patch"));
  const auto allowed =
      with(R"({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"},
                               {"type": "web_search"}]})");
  ASSERT_TRUE(allowed.ok()) << allowed.status().message();
  EXPECT_EQ(allowed->turn.tool_choice.kind, ToolChoice::Kind::kRequired);
  EXPECT_THAT(allowed->turn.tool_choice.allowed, ElementsAre("f"));
}

TEST(ResponsesRequest, EffortAndFormat) {
  EXPECT_TRUE(Parse(R"({"input": "x", "reasoning": {"effort": "none"}})")->turn.no_reasoning);
  EXPECT_EQ(Parse(R"({"input": "x", "reasoning": {"effort": "minimal"}})")->turn.effort, ReasoningEffort::kLow);
  EXPECT_EQ(Parse(R"({"input": "x", "reasoning": {"effort": "high"}})")->echo["reasoning"]["effort"], "high");
  const auto schema = Parse(R"({"input": "x", "text": {"format": {"type": "json_schema", "name": "n",
                               "schema": {"type": "object"}, "strict": true}}})");
  EXPECT_EQ(schema->turn.format.kind, AnswerFormat::Kind::kJsonSchema);
  EXPECT_EQ(schema->turn.format.name, "n");
  EXPECT_EQ(Parse(R"({"input": "x", "text": {"format": {"type": "json_object"}}})")->turn.format.kind,
            AnswerFormat::Kind::kJsonObject);
  EXPECT_EQ(Parse(R"({"input": "x", "top_logprobs": 3})")->turn.sampling.top_logprobs, 3);
  EXPECT_EQ(Parse(R"({"input": "x", "include": ["message.output_text.logprobs"]})")->turn.sampling.top_logprobs, 0);
  EXPECT_EQ(Parse(R"({"input": "x"})")->turn.sampling.top_logprobs, -1);
}

TEST(ResponsesItems, MessagesOfAllForms) {
  const auto said = Read(R"([{"role": "system", "content": "A"}, {"type": "message", "role": "developer", "content":
      [{"type": "input_text", "text": "B"}]}, {"role": "user", "content": "C", "id": "msg_1"},
      {"role": "assistant", "content": [{"type": "output_text", "text": "D"}]}, {"role": "developer", "content": "E"},
      {"role": "user", "content": [{"type": "input_text", "text": "F"}, {"type": "input_text", "text": "G"}]}])");
  ASSERT_TRUE(said.ok()) << said.status().message();
  EXPECT_EQ(said->instructions, "A\n\nB");
  EXPECT_THAT(said->messages,
              ElementsAre("user///: C [msg_1]", "assistant//final/: D []", "developer///: E []", "user///: F\nG []"));
}

TEST(ResponsesItems, ATurnWithCalls) {
  const auto said = Read(R"([{"role": "user", "content": "q"},
      {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
      {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
      {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "get", "arguments": "{\"a\":1}"},
      {"type": "function_call_output", "call_id": "call_1", "output": "42"},
      {"type": "web_search_call", "id": "ws_1", "status": "completed"},
      {"type": "custom_tool_call", "call_id": "call_2", "name": "patch", "input": "*** Begin"},
      {"type": "custom_tool_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "ok"},
                                                                         {"type": "input_image", "image_url": "x"}]},
      {"type": "message", "role": "assistant", "phase": "commentary", "content": [{"type": "output_text", "text": "P"}]}
      ])");
  ASSERT_TRUE(said.ok()) << said.status().message();
  EXPECT_THAT(said->messages,
              ElementsAre("user///: q []", "assistant//analysis/: hm [rs_1]", "assistant//commentary/: I look. []",
                          "assistant//commentary/functions.get: {\"a\":1} [call_1]",
                          "tool/functions.get/commentary/assistant: 42 []",
                          "assistant//commentary/functions.patch: *** Begin [call_2]",
                          HasSubstr("tool/functions.patch/commentary/assistant: ok\n[an image"),
                          "assistant//commentary/: P []"));
}

TEST(ResponsesItems, NamespacesSealedReasoningAndReferences) {
  SealKey key = NewSealKey();
  ItemContext context;
  context.seal_key = &key;
  context.find_item = [](const std::string& id) -> Result<Json> {
    if (id != "msg_1") return NotFound("Item with id '" + id + "' not found.");
    return Json{{"type", "message"}, {"role", "user"}, {"content", "found"}, {"id", id}};
  };
  const std::string items = R"([{"type": "item_reference", "id": "msg_1"},
      {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": ")" +
                            Seal(key, "secret") + R"("},
      {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gAAAA-of-another-server"},
      {"type": "function_call", "call_id": "c", "name": "exec", "namespace": "agents", "arguments": ""}])";
  const auto said = Read(items, {{"exec", {"exec", "", false}}, {"agents.exec", {"exec", "agents", false}}}, context);
  ASSERT_TRUE(said.ok()) << said.status().message();
  EXPECT_THAT(said->messages, ElementsAre("user///: found [msg_1]", "assistant//analysis/: secret [rs_1]",
                                          "assistant//commentary/functions.agents.exec: {} [c]"));
  EXPECT_THAT(Read(R"([{"type": "item_reference", "id": "msg_2"}])", {}, context).status().message(),
              HasSubstr("input[0].id: Item with id 'msg_2' not found."));
}

TEST(ResponsesItems, ErrorsNameTheItem) {
  const auto error = [](std::string_view items) { return Read(items).status().message(); };
  EXPECT_THAT(error(R"([{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}])"),
              testing::StartsWith("input[1].role: "));
  EXPECT_THAT(error(R"([{"role": "user"}])"), testing::StartsWith("input[0].content: "));
  EXPECT_THAT(error(R"([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}])"),
              testing::StartsWith("input[0].content[0].type: "));
  EXPECT_THAT(error(R"([{"type": "function_call_output", "call_id": "c", "output": "x"}])"),
              testing::StartsWith("input[0].call_id: No tool call found"));
  EXPECT_THAT(error(R"([{"type": "function_call", "call_id": "c", "name": "a b", "arguments": "{}"}])"),
              testing::StartsWith("input[0].name: "));
  EXPECT_THAT(error(R"([{"type": "nonsense"}])"), testing::StartsWith("input[0].type: "));
}

TEST(Seal, OnlyTheKeyOpensIt) {
  const SealKey key = NewSealKey();
  for (const std::string text : {"", "a", "chain of thought", "\xff\x00 binary"}) {
    EXPECT_EQ(Unseal(key, Seal(key, text)), text);
  }
  std::string sealed = Seal(key, "chain of thought");
  EXPECT_EQ(sealed.find("chain"), std::string::npos);
  EXPECT_EQ(Unseal(NewSealKey(), sealed), std::nullopt);
  sealed[20] = sealed[20] == 'A' ? 'B' : 'A';
  EXPECT_EQ(Unseal(key, sealed), std::nullopt);
  EXPECT_EQ(Unseal(key, ""), std::nullopt);
  EXPECT_EQ(Unseal(key, "!!"), std::nullopt);
}

}  // namespace
}  // namespace gptoss::server
