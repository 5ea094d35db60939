#include "server/anthropic/messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/anthropic/messages_request.h"
#include "server/api/history.h"
#include "server/api/testing.h"

namespace gptoss::server {
namespace {

using testing::HasSubstr;
using testing::Not;

struct MessagesTest : testing::Test {
  ReplayStore replay;
  ApiFixture http;
  MessagesTest() { AddAnthropicRoutes(http.router, http.api, replay); }

  Json Body(Json more = Json::object()) {
    Json body = {
        {"model", "m"}, {"max_tokens", 100}, {"messages", Json::array({{{"role", "user"}, {"content", "q"}}})}};
    body.update(more);
    return body;
  }
  Json Create(const Json& body) {
    const auto answer = http.Run("POST", "/v1/messages", body);
    EXPECT_EQ(answer->status(), 200) << answer->body();
    return answer->json();
  }
  std::string ErrorOf(const Json& more) {
    const auto answer = http.Run("POST", "/v1/messages", Body(more));
    EXPECT_EQ(answer->status(), 400) << answer->body();
    EXPECT_EQ(answer->json()["type"], "error");
    EXPECT_EQ(answer->json()["error"]["type"], "invalid_request_error");
    return answer->json()["error"].value("message", "");
  }
};

const Json kTools = Json::array({{{"name", "get"}, {"description", "d"}, {"input_schema", {{"type", "object"}}}},
                                 {{"type", "web_search_20250305"}, {"name", "web_search"}}});
const Json kThinking = {{"type", "enabled"}, {"budget_tokens", 64}};

TEST_F(MessagesTest, AnAdaptersNameChoosesIt) {
  http.api.options.adapters = {"legal", "sql"};
  EXPECT_EQ(Create(Body({{"model", "sql"}}))["model"], "sql");
  Create(Body());
  EXPECT_EQ(http.turns.requests()[0].adapter, 2);
  EXPECT_EQ(http.turns.requests()[1].adapter, 0);
}

TEST_F(MessagesTest, AnswersWithAndWithoutThinking) {
  http.turns.Push({{Thinks({"hm"}), Answers({"It is ", "42."})}});
  Json m = Create(Body());
  EXPECT_EQ(m["type"], "message");
  EXPECT_EQ(m["role"], "assistant");
  EXPECT_EQ(m["content"], Json::array({{{"type", "text"}, {"text", "It is 42."}}}));
  EXPECT_EQ(m["stop_reason"], "end_turn");
  EXPECT_TRUE(m["stop_sequence"].is_null());
  EXPECT_EQ(m["usage"]["input_tokens"].get<int>() + m["usage"]["cache_read_input_tokens"].get<int>(),
            http.Run("POST", "/v1/messages/count_tokens", Body())->json()["input_tokens"].get<int>());
  http.turns.Push({{Thinks({"h", "m"}), Answers({"42"})}});
  m = Create(Body({{"thinking", kThinking}}));
  EXPECT_EQ(http.turns.requests().back().reasoning_budget, 64);
  EXPECT_EQ(m["content"][0]["thinking"], "hm");
  EXPECT_FALSE(m["content"][0]["signature"].get<std::string>().empty());
}

TEST_F(MessagesTest, StreamsAreInOrder) {
  for (const bool thinking : {false, true}) {
    http.turns.Push({{Thinks({"a", "b"}), Says({"I look."}), Calls("get", {"{\"x\"", ":1}"})}, TurnEnd::kToolCall});
    Json body = Body({{"stream", true}, {"tools", kTools}});
    if (thinking) body["thinking"] = kThinking;
    const auto events = http.Run("POST", "/v1/messages", body)->events();
    EXPECT_EQ(CheckMessageEvents(events), "");
    std::string json;
    for (const Json& e : events) {
      if (e["type"] == "content_block_delta") json += e["delta"].value("partial_json", "");
    }
    EXPECT_EQ(json, "{\"x\":1}");
    EXPECT_EQ(events[events.size() - 2]["delta"]["stop_reason"], "tool_use");
    EXPECT_EQ(events[2]["content_block"]["type"], thinking ? "thinking" : "text");
  }
  http.turns.Push({{}, TurnEnd::kMaxTokens});
  const auto events = http.Run("POST", "/v1/messages", Body({{"stream", true}}))->events();
  EXPECT_EQ(CheckMessageEvents(events), "");
}

TEST_F(MessagesTest, AToolTurnComesBackWithItsReasoning) {
  http.turns.Push({{Thinks({"secret plan"}), Says({"I look."}), Calls("get", {"{\"x\": 1}"})}, TurnEnd::kToolCall});
  const Json m = Create(Body({{"tools", kTools}}));
  ASSERT_EQ(m["content"].size(), 2u);
  EXPECT_EQ(m["content"][1]["input"], Json({{"x", 1}}));
  http.turns.Push({{Answers({"42"})}});
  const Json result = {{"type", "tool_result"}, {"tool_use_id", m["content"][1]["id"]}, {"content", "7"}};
  const Json messages =
      Json::array({{{"role", "user"}, {"content", "q"}},
                   {{"role", "assistant"}, {"content", m["content"]}},
                   {{"role", "user"}, {"content", Json::array({result, {{"type", "text"}, {"text", "go on"}}})}}});
  Create(Body({{"tools", kTools}, {"messages", messages}}));
  const TurnRequest turn = http.turns.requests().back();
  ASSERT_EQ(turn.tools.size(), 1u);
  ASSERT_EQ(turn.history.size(), 6u);
  EXPECT_EQ(TextOf(turn.history[1].message), "secret plan");
  EXPECT_EQ(turn.history[4].message.author.name, "functions.get");
  EXPECT_EQ(TextOf(turn.history[5].message), "go on");
}

TEST_F(MessagesTest, ThinkingThatIsSentBackIsKept) {
  http.turns.Push({{Thinks({"plan"}), Calls("get", {})}, TurnEnd::kToolCall});
  const Json m = Create(Body({{"tools", kTools}, {"thinking", kThinking}}));
  EXPECT_EQ(m["content"][1]["input"], Json::object());
  http.turns.Push({{Answers({"42"})}});
  Json changed = m["content"];
  changed[0]["thinking"] = "another plan";
  changed[1]["id"] = "toolu_x";
  const Json messages = Json::array(
      {{{"role", "user"}, {"content", "q"}},
       {{"role", "assistant"}, {"content", changed}},
       {{"role", "user"},
        {"content", Json::array({{{"type", "tool_result"}, {"tool_use_id", "toolu_x"}, {"is_error", true}}})}}});
  Create(Body({{"tools", kTools}, {"messages", messages}}));
  const TurnRequest turn = http.turns.requests().back();
  EXPECT_EQ(TextOf(turn.history[1].message), "another plan");
  EXPECT_TRUE(turn.history[1].tokens.empty());
  EXPECT_THAT(TextOf(turn.history[3].message), HasSubstr("Error"));
}

TEST_F(MessagesTest, OptionsReachTheTurn) {
  const auto turn = [&](const Json& more) {
    http.turns.Push({{Answers({"a"})}});
    Create(Body(more));
    return http.turns.requests().back();
  };
  EXPECT_TRUE(turn({{"thinking", {{"type", "disabled"}}}}).no_reasoning);
  EXPECT_EQ(turn({{"max_tokens", 131072}}).max_tokens, 131072);
  EXPECT_EQ(turn({{"tools", kTools}, {"tool_choice", {{"type", "any"}}}}).tool_choice.kind,
            ToolChoice::Kind::kRequired);
  EXPECT_EQ(turn({{"tools", kTools}, {"tool_choice", {{"type", "tool"}, {"name", "get"}}}}).tool_choice.allowed,
            std::vector<std::string>{"get"});
  EXPECT_EQ(turn({{"tools", kTools}, {"tool_choice", {{"type", "none"}}}}).tool_choice.kind, ToolChoice::Kind::kNone);
  EXPECT_EQ(turn({{"system", Json::array({{{"type", "text"}, {"text", "a"}}, {{"type", "text"}, {"text", "b"}}})}})
                .instructions,
            "a\nb");
  EXPECT_EQ(turn({{"output_config", {{"effort", "high"}}}}).effort, ReasoningEffort::kHigh);
  EXPECT_EQ(
      turn({{"output_config", {{"format", {{"type", "json_schema"}, {"schema", {{"type", "object"}}}}}}}}).format.kind,
      AnswerFormat::Kind::kJsonSchema);
  Script script({Answers({"a"})}, TurnEnd::kStopSequence);
  script.stop = "END";
  http.turns.Push(script);
  const Json stopped = Create(Body({{"stop_sequences", {"FIN", "END"}}}));
  EXPECT_EQ(stopped["stop_reason"], "stop_sequence");
  EXPECT_EQ(stopped["stop_sequence"], "END");
}

TEST_F(MessagesTest, ErrorsNameTheField) {
  EXPECT_THAT(ErrorOf({{"max_tokens", nullptr}}), HasSubstr("max_tokens: is missing"));
  EXPECT_THAT(ErrorOf({{"messages", Json::array()}}), HasSubstr("messages"));
  EXPECT_THAT(
      ErrorOf({{"messages", Json::array({{{"role", "user"}, {"content", Json::array({{{"type", "image"}}})}}})}}),
      HasSubstr("messages[0].content[0].type"));
  EXPECT_THAT(ErrorOf({{"tools", Json::array({{{"type", "computer_20250124"}, {"name", "c"}}})}}),
              HasSubstr("tools[0].type"));
  EXPECT_THAT(ErrorOf({{"tool_choice", {{"type", "tool"}, {"name", "x"}}}}), HasSubstr("tool_choice.name"));
  EXPECT_THAT(ErrorOf({{"messages",
                        Json::array({{{"role", "user"},
                                      {"content", Json::array({{{"type", "tool_result"}, {"tool_use_id", "x"}}})}}})}}),
              HasSubstr("tool_use_id"));
  EXPECT_EQ(http.Run("POST", "/v1/messages", Json("{"))->json()["type"], "error");
  http.turns.RefuseWith(ResourceExhausted("full"));
  EXPECT_EQ(http.Run("POST", "/v1/messages", Body())->json()["error"]["type"], "rate_limit_error");
}

TEST_F(MessagesTest, WithheldReasoningNeverLeaves) {
  http.api.options.withhold_reasoning = true;
  http.turns.Push({{Thinks({"secret"}), Answers({"42"})}});
  EXPECT_THAT(http.Run("POST", "/v1/messages", Body({{"thinking", kThinking}, {"stream", true}}))->body(),
              Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace gptoss::server
