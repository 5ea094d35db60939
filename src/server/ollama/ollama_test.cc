#include "server/ollama/ollama.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/api/history.h"
#include "server/api/testing.h"

namespace gptoss::server {
namespace {

using testing::HasSubstr;

struct OllamaTest : testing::Test {
  ReplayStore replay;
  ApiFixture http;
  OllamaTest() {
    ModelCard card;
    card.parameters = 20'914'757'184;
    card.context = 131072;
    card.format = "gguf";
    AddOllamaRoutes(http.router, http.api, replay, card);
  }

  Json Body(Json more = Json::object()) {
    Json body = {{"model", "m"}, {"stream", false}, {"messages", Json::array({{{"role", "user"}, {"content", "q"}}})}};
    body.update(more);
    return body;
  }
  std::vector<Json> Lines(FakeResponder& answer) {
    std::vector<Json> lines;
    std::string text = answer.body();
    for (size_t at = 0; at < text.size();) {
      const size_t end = text.find('\n', at);
      const auto line = ParseJson(std::string_view(text).substr(at, end - at));
      EXPECT_TRUE(line.ok() && end != std::string::npos) << text;
      lines.push_back(*line);
      at = end + 1;
    }
    return lines;
  }
};

const Json kTools =
    Json::array({{{"type", "function"}, {"function", {{"name", "get"}, {"parameters", {{"type", "object"}}}}}}});

TEST_F(OllamaTest, AnAdaptersNameChoosesIt) {
  http.api.options.adapters = {"legal", "sql"};
  EXPECT_EQ(http.Run("POST", "/api/chat", Body({{"model", "sql:latest"}}))->status(), 200);
  EXPECT_EQ(http.Run("POST", "/api/generate", {{"model", "legal"}, {"prompt", "q"}, {"stream", false}})->status(), 200);
  EXPECT_EQ(http.Run("POST", "/api/chat", Body())->status(), 200);
  std::vector<int> chosen;
  for (const TurnRequest& request : http.turns.requests()) chosen.push_back(request.adapter);
  EXPECT_EQ(chosen, (std::vector<int>{2, 1, 0}));
  const Json tags = http.Run("GET", "/api/tags")->json()["models"];
  ASSERT_EQ(tags.size(), 3);
  EXPECT_EQ(tags[2]["name"], "sql");
}

TEST_F(OllamaTest, ChatWholeAndInLines) {
  http.turns.Push({{Thinks({"h", "m"}), Answers({"It is ", "42."})}});
  const Json whole = http.Run("POST", "/api/chat", Body())->json();
  EXPECT_EQ(whole["message"]["content"], "It is 42.");
  EXPECT_EQ(whole["message"]["thinking"], "hm");
  EXPECT_EQ(whole["done"], true);
  EXPECT_EQ(whole["done_reason"], "stop");
  EXPECT_GT(whole["prompt_eval_count"], 0);
  http.turns.Push({{Thinks({"h", "m"}), Answers({"It is ", "42."})}});
  const auto answer = http.Run("POST", "/api/chat", Body({{"stream", true}}));
  EXPECT_EQ(answer->content_type(), "application/x-ndjson");
  const auto lines = Lines(*answer);
  std::string content, thinking;
  for (const Json& line : lines) {
    content += line["message"].value("content", "");
    thinking += line["message"].value("thinking", "");
    EXPECT_EQ(line["done"], &line == &lines.back());
  }
  EXPECT_EQ(content, "It is 42.");
  EXPECT_EQ(thinking, "hm");
  EXPECT_EQ(lines.back()["eval_count"], whole["eval_count"]);
}

TEST_F(OllamaTest, ToolCallsAreObjectsAndComeBackWithTheirReasoning) {
  http.turns.Push({{Thinks({"secret plan"}), Calls("get", {"{\"x\"", ": 1}"})}, TurnEnd::kToolCall});
  const auto lines = Lines(*http.Run("POST", "/api/chat", Body({{"stream", true}, {"tools", kTools}})));
  const Json& call = lines[lines.size() - 2]["message"]["tool_calls"][0];
  EXPECT_EQ(call["function"]["arguments"], Json({{"x", 1}}));
  // Ollama's clients send neither thinking nor ids.
  Json sent = call;
  sent.erase("id");
  http.turns.Push({{Answers({"42"})}});
  http.Run(
      "POST", "/api/chat",
      Body({{"tools", kTools},
            {"messages", Json::array({{{"role", "user"}, {"content", "q"}},
                                      {{"role", "assistant"}, {"content", ""}, {"tool_calls", Json::array({sent})}},
                                      {{"role", "tool"}, {"tool_name", "get"}, {"content", "7"}}})}}));
  const TurnRequest turn = http.turns.requests().back();
  ASSERT_EQ(turn.history.size(), 4u);
  EXPECT_EQ(TextOf(turn.history[1].message), "secret plan");
  EXPECT_FALSE(turn.history[2].tokens.empty());
  EXPECT_EQ(turn.history[3].message.author.name, "functions.get");
}

TEST_F(OllamaTest, OptionsReachTheTurn) {
  const auto turn = [&](const Json& more) {
    http.turns.Push({{Answers({"a"})}});
    const auto answer = http.Run("POST", "/api/chat", Body(more));
    EXPECT_EQ(answer->status(), 200) << answer->body();
    return http.turns.requests().back();
  };
  EXPECT_EQ(turn(Json::object()).effort, ReasoningEffort::kMedium);
  EXPECT_EQ(turn({{"think", "high"}}).effort, ReasoningEffort::kHigh);
  EXPECT_TRUE(turn({{"think", false}}).no_reasoning);
  EXPECT_FALSE(turn({{"think", true}}).no_reasoning);
  EXPECT_EQ(turn({{"format", "json"}}).format.kind, AnswerFormat::Kind::kJsonObject);
  EXPECT_EQ(turn({{"format", {{"type", "object"}}}}).format.kind, AnswerFormat::Kind::kJsonSchema);
  const TurnRequest t = turn(
      {{"options",
        {{"temperature", 0}, {"num_predict", 7}, {"seed", 3}, {"top_k", 5}, {"stop", {"a", "b"}}, {"num_ctx", 4096}}}});
  EXPECT_EQ(t.sampling.temperature, 0);
  EXPECT_EQ(t.sampling.seed, 3u);
  EXPECT_EQ(t.sampling.top_k, 5);
  EXPECT_EQ(t.max_tokens, 7);
  EXPECT_EQ(t.stops, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(turn({{"options", {{"num_predict", -1}}}}).max_tokens, std::nullopt);
}

TEST_F(OllamaTest, GenerateRawAndLoading) {
  http.turns.Push({{Thinks({"hm"}), Answers({"42"})}});
  const Json g = http.Run("POST", "/api/generate", {{"prompt", "q"}, {"system", "s"}, {"stream", false}})->json();
  EXPECT_EQ(g["response"], "42");
  EXPECT_EQ(g["thinking"], "hm");
  EXPECT_EQ(http.turns.requests().back().instructions, "s");
  http.turns.Push({{Answers({"b", "c"})}});
  const auto lines = Lines(*http.Run("POST", "/api/generate", {{"prompt", "a"}, {"raw", true}}));
  EXPECT_EQ(lines[0]["response"], "b");
  EXPECT_EQ(lines.back()["prompt_eval_count"], 1);
  EXPECT_EQ(http.Run("POST", "/api/generate", {{"model", "m"}})->json()["done_reason"], "load");
  EXPECT_EQ(http.Run("POST", "/api/chat", {{"model", "m"}, {"keep_alive", 0}})->json()["done_reason"], "unload");
}

TEST_F(OllamaTest, TheModelIsDescribed) {
  EXPECT_EQ(http.Run("GET", "/api/tags")->json()["models"][0]["name"], "gpt-oss-test");
  EXPECT_EQ(http.Run("GET", "/api/ps")->json()["models"][0]["context_length"], 131072);
  EXPECT_EQ(http.Run("GET", "/api/version")->json()["version"], kOllamaApiVersion);
  const Json show = http.Run("POST", "/api/show", {{"model", "m"}})->json();
  EXPECT_EQ(show["details"]["parameter_size"], "20.9B");
  EXPECT_EQ(show["model_info"]["gptoss.context_length"], 131072);
  EXPECT_THAT(show["capabilities"].dump(), HasSubstr("tools"));
}

TEST_F(OllamaTest, ErrorsAreSentences) {
  const auto error = [&](const Json& body) {
    const auto answer = http.Run("POST", "/api/chat", body);
    EXPECT_EQ(answer->status(), 400);
    return answer->json()["error"].get<std::string>();
  };
  EXPECT_THAT(error(Body({{"think", "much"}})), HasSubstr("think"));
  EXPECT_THAT(error(Body({{"messages", Json::array({{{"role", "user"}, {"images", {"x"}}}})}})), HasSubstr("images"));
  EXPECT_THAT(error(Body({{"messages", Json::array({{{"role", "tool"}, {"content", "x"}}})}})), HasSubstr("tool_name"));
  EXPECT_THAT(error(Body({{"options", {{"temperature", 9}}}})), HasSubstr("options.temperature"));
  EXPECT_THAT(error(Json("[]")), HasSubstr("object"));
}

}  // namespace
}  // namespace gptoss::server
