#include "server/openai/chat_completions.h"

#include <gtest/gtest.h>

#include "server/api/testing.h"
#include "server/openai/completions.h"
#include "server/openai/models.h"
#include "server/operation.h"

namespace gptoss::server {
namespace {

struct ChatFixture : ApiFixture {
  ReplayStore replay;
  OperationHooks hooks{[] { return true; }, [] { return std::string("metrics"); }};
  ChatFixture() {
    AddChatCompletionsRoutes(router, api, &replay);
    AddCompletionsRoutes(router, api);
    AddModelRoutes(router, api);
    AddOperationRoutes(router, api, hooks);
  }
  std::shared_ptr<FakeResponder> Chat(const char* body) { return Run("POST", "/v1/chat/completions", Json(body)); }
};

constexpr char kHi[] = R"({"model": "any", "unknown_field": 1, "messages": [{"role": "user", "content": "Hi"}]})";

/// The data of a stream, which must end in [DONE].
std::vector<Json> Chunks(const std::string& stream) {
  std::vector<Json> chunks;
  constexpr std::string_view done = "data: [DONE]\n\n";
  EXPECT_TRUE(stream.ends_with(done)) << stream;
  for (size_t at = 0; at + done.size() < stream.size();) {
    const size_t end = stream.find("\n\n", at);
    const auto json = ParseJson(std::string_view(stream).substr(at + 6, end - at - 6));
    EXPECT_TRUE(stream.compare(at, 6, "data: ") == 0 && json.ok());
    if (json.ok()) chunks.push_back(*json);
    at = end + 2;
  }
  return chunks;
}

TEST(ChatCompletions, AnswerWithReasoning) {
  ChatFixture f;
  f.turns.Push({{Thinks({"Well", "..."}), Answers({"Hello", " you"})}, TurnEnd::kAnswered, {}});
  const Json json = f.Chat(kHi)->json();
  EXPECT_EQ(json["object"], "chat.completion");
  EXPECT_EQ(json["model"], "any");
  EXPECT_EQ(json["reasoning_effort"], "medium");
  const Json& choice = json["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(choice["message"]["content"], "Hello you");
  EXPECT_EQ(choice["message"]["reasoning"], "Well...");
  EXPECT_EQ(choice["message"]["reasoning_content"], "Well...");
  EXPECT_EQ(json["usage"]["completion_tokens"].get<int>() + json["usage"]["prompt_tokens"].get<int>(),
            json["usage"]["total_tokens"].get<int>());
  EXPECT_GT(json["usage"]["completion_tokens_details"]["reasoning_tokens"], 0);
  const TurnRequest asked = f.turns.requests().at(0);
  EXPECT_EQ(asked.sampling.temperature, 1.0);
  EXPECT_EQ(asked.sampling.top_p, 1.0);
}

TEST(ChatCompletions, CallHasNoContentAndArguments) {
  ChatFixture f;
  f.turns.Push({{Thinks({"t"}), Says({"Looking"}), Calls("get", {})}, TurnEnd::kToolCall, {}});
  const Json choice = f.Chat(R"({"messages": [{"role": "user", "content": "Hi"}],
      "tools": [{"type": "function", "function": {"name": "get"}}], "parallel_tool_calls": true})")
                          ->json()["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_TRUE(choice["message"]["content"].is_null());
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["arguments"], "{}");
  EXPECT_EQ(choice["message"]["reasoning"], "t\n\nLooking");
}

TEST(ChatCompletions, StreamHasNameFirstThenArgumentsThenUsage) {
  ChatFixture f;
  f.turns.Push({{Thinks({"a", "b"}), Calls("get", {"{\"x\"", ":1}"})}, TurnEnd::kToolCall, {}});
  const auto responder = f.Chat(R"({"messages": [{"role": "user", "content": "Hi"}], "stream": true,
      "stream_options": {"include_usage": true}, "tools": [{"type": "function", "function": {"name": "get"}}]})");
  EXPECT_EQ(responder->content_type(), "text/event-stream");
  const auto chunks = Chunks(responder->body());
  ASSERT_EQ(chunks.size(), 8u) << responder->body();
  EXPECT_EQ(chunks[0]["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(chunks[1]["choices"][0]["delta"]["reasoning"], "a");
  const Json& call = chunks[3]["choices"][0]["delta"]["tool_calls"][0];
  EXPECT_EQ(call["function"]["name"], "get");
  EXPECT_EQ(call["index"], 0);
  EXPECT_TRUE(call["id"].get<std::string>().starts_with("call_"));
  EXPECT_EQ(chunks[4]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"], "{\"x\"");
  EXPECT_EQ(chunks[6]["choices"][0]["finish_reason"], "tool_calls");
  EXPECT_TRUE(chunks[6]["usage"].is_null());
  EXPECT_EQ(chunks[7]["choices"], Json::array());
  EXPECT_GT(chunks[7]["usage"]["prompt_tokens"], 0);
  EXPECT_FALSE(responder->misused());
}

TEST(ChatCompletions, SeveralChoices) {
  ChatFixture f;
  f.turns.CallInsideStart();
  f.turns.Push({{Answers({"one"})}, TurnEnd::kAnswered, {}});
  f.turns.Push({{Answers({"two"})}, TurnEnd::kMaxTokens, {}});
  const Json json = f.Chat(R"({"messages": [], "n": 2, "seed": 5})")->json();
  EXPECT_EQ(json["choices"][0]["message"]["content"], "one");
  EXPECT_EQ(json["choices"][1]["message"]["content"], "two");
  EXPECT_EQ(json["choices"][1]["finish_reason"], "length");
  EXPECT_EQ(f.turns.requests()[0].sampling.seed, 5u);
  EXPECT_NE(f.turns.requests()[1].sampling.seed, 5u);
}

TEST(ChatCompletions, Logprobs) {
  ChatFixture f;
  f.turns.Push({{Thinks({"hm"}), Answers({"Hello"})}, TurnEnd::kAnswered, {}});
  const Json json =
      f.Chat(R"({"messages": [{"role": "user", "content": "Hi"}], "logprobs": true, "top_logprobs": 2})")->json();
  const Json& content = json["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 1u) << "of the answer only";
  EXPECT_EQ(content[0]["token"], "Hello");
  EXPECT_EQ(content[0]["bytes"], Json::array({72, 101, 108, 108, 111}));
  EXPECT_EQ(content[0]["top_logprobs"][0]["logprob"], -0.5);
  EXPECT_EQ(f.turns.requests()[0].sampling.top_logprobs, 2);
}

TEST(ChatCompletions, AnEmptyAnswerSaysSo) {
  ChatFixture f;
  f.turns.Push({{Thinks({"hm"})}, TurnEnd::kAnswered, {}});
  EXPECT_TRUE(f.Chat(kHi)->json()["choices"][0]["message"]["refusal"].is_string());
  f.turns.Push({{Answers({"x"})}, TurnEnd::kRepetition, {}});
  EXPECT_EQ(f.Chat(kHi)->json()["choices"][0]["stop_reason"], "repetition");
}

TEST(ChatCompletions, ReasoningCanBeWithheld) {
  ChatFixture f;
  f.api.options.withhold_reasoning = true;
  f.turns.Push({{Thinks({"secret"}), Answers({"x"})}, TurnEnd::kAnswered, {}});
  EXPECT_EQ(f.Chat(kHi)->body().find("secret"), std::string::npos);
}

TEST(ChatCompletions, TheClientLeavingEndsTheTurns) {
  ChatFixture f;
  f.turns.Hold();
  f.turns.Push({{Answers({"x"}), Answers({"y"})}, TurnEnd::kAnswered, {}});
  const auto responder = f.Call("POST", "/v1/chat/completions", Json(kHi));
  responder->Close();
  EXPECT_EQ(f.turns.cancelled(), 1);
}

TEST(ChatCompletions, TheToolLoopGetsItsReasoningBack) {
  ChatFixture f;
  f.turns.Push({{Thinks({"because"}), Calls("get", {"{\"x\": 1}"})}, TurnEnd::kToolCall, {}});
  const std::string tools =
      R"("tools": [{"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}])";
  const Json first = f.Chat((R"({"messages": [{"role": "user", "content": "Hi"}], )" + tools + "}").c_str())->json();
  Json message = first["choices"][0]["message"];
  message.erase("reasoning");
  message.erase("reasoning_content");  // as most clients do
  const Json second = {
      {"messages",
       Json::array({{{"role", "user"}, {"content", "Hi"}},
                    message,
                    {{"role", "tool"}, {"tool_call_id", message["tool_calls"][0]["id"]}, {"content", "7"}}})},
      {"tools", (*ParseJson("{" + tools + "}"))["tools"]}};
  f.turns.Push({{Answers({"x"})}, TurnEnd::kAnswered, {}});
  EXPECT_EQ(f.Run("POST", "/v1/chat/completions", second)->status(), 200);
  const auto history = f.turns.requests().at(1).history;
  ASSERT_EQ(history.size(), 4u);
  EXPECT_EQ(history[1].message.channel, "analysis");
  EXPECT_FALSE(history[1].tokens.empty());
  EXPECT_EQ(history[3].message.author.name, "functions.get");
}

TEST(ChatCompletions, FieldsAndTheirSpellings) {
  const auto turn = [](const std::string& fields) {
    ChatFixture f;
    const auto responder =
        f.Chat(("{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"Hi\"}]}], " +
                fields + "}")
                   .c_str());
    EXPECT_EQ(responder->status(), 200) << fields << responder->body();
    return f.turns.requests().empty() ? TurnRequest() : f.turns.requests()[0];
  };
  for (const char* fields : {R"("reasoning_effort": "high")", R"("reasoning": {"effort": "high"})",
                             R"("chat_template_kwargs": {"reasoning_effort": "high"})", R"("think": "high")"}) {
    EXPECT_EQ(turn(fields).effort, ReasoningEffort::kHigh) << fields;
  }
  for (const char* fields : {R"("reasoning_effort": "none")", R"("think": false)", R"("reasoning": {"enabled": false})",
                             R"("chat_template_kwargs": {"enable_thinking": false})"}) {
    EXPECT_TRUE(turn(fields).no_reasoning) << fields;
  }
  EXPECT_EQ(turn(R"("max_completion_tokens": 7)").max_tokens, 7);
  EXPECT_EQ(turn(R"("max_tokens": 1e12)").max_tokens, INT32_MAX);
  EXPECT_EQ(turn(R"("reasoning_budget": 9)").reasoning_budget, 9);
  EXPECT_EQ(turn(R"("stop": "x")").stops, std::vector<std::string>{"x"});
  EXPECT_EQ(turn(R"("response_format": {"type": "json_object"})").format.kind, AnswerFormat::Kind::kJsonObject);
  EXPECT_EQ(turn(R"("temperature": null, "top_p": 0)").sampling.top_k, 1);
  const std::string tools =
      R"("tools": [{"type": "function", "function": {"name": "a"}}, {"type": "custom", "custom": {"name": "b"}}], )";
  EXPECT_EQ(turn(tools + R"("tool_choice": {"type": "custom", "custom": {"name": "b"}})").tool_choice.allowed,
            std::vector<std::string>{"b"});
  const auto allowed = turn(tools + R"("tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required",
      "tools": [{"type": "function", "function": {"name": "a"}}]}})");
  EXPECT_EQ(allowed.tool_choice.kind, ToolChoice::Kind::kRequired);
  EXPECT_EQ(allowed.tool_choice.allowed, std::vector<std::string>{"a"});
}

TEST(ChatCompletions, WrongRequestsNameTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {"{}", "messages"},
      {"[]", ""},
      {"{", ""},
      {R"({"messages": "x"})", "messages"},
      {R"({"messages": [{"content": "x"}]})", "messages[0].role"},
      {R"({"messages": [{"role": "wizard", "content": "x"}]})", "messages[0].role"},
      {R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]})",
       "messages[0].content[0].type"},
      {R"({"messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}]})", "messages[0].tool_call_id"},
      {R"({"messages": [], "temperature": 3})", "temperature"},
      {R"({"messages": [], "max_tokens": 0})", "max_tokens"},
      {R"({"messages": [], "n": 0})", "n"},
      {R"({"messages": [], "logit_bias": {"x": 1}})", "logit_bias"},
      {R"({"messages": [], "reasoning_effort": "extreme"})", "reasoning_effort"},
      {R"({"messages": [], "tool_choice": "required"})", "tool_choice"},
      {R"({"messages": [], "tools": [{"type": "web_search"}]})", "tools[0].type"},
      {R"({"messages": [], "tools": [{"type": "function", "function": {"name": "a b"}}]})", "tools[0].function.name"},
      {R"({"messages": [], "tools": [{"type": "function", "function": {"name": "a"}}], "tool_choice": {"type": "function", "function": {"name": "b"}}})",
       "tool_choice"},
      {R"({"messages": [], "response_format": {"type": "json_schema", "json_schema": {"name": "x"}}})",
       "response_format.json_schema.schema"},
  };
  ChatFixture f;
  for (const auto& [body, param] : cases) {
    const auto responder = f.Chat(body);
    EXPECT_EQ(responder->status(), 400) << body;
    const Json error = responder->json()["error"];
    EXPECT_EQ(error["type"], "invalid_request_error");
    EXPECT_EQ(error["param"], *param == '\0' ? Json(nullptr) : Json(param)) << error.dump();
  }
  f.turns.RefuseWith(ResourceExhausted("the queue is full"));
  EXPECT_EQ(f.Chat(kHi)->status(), 429);
  f.turns.RefuseWith(Cancelled("draining"));
  EXPECT_EQ(f.Chat(kHi)->status(), 503);
  f.turns.RefuseWith(InvalidArgument(std::string(kContextLengthExceeded) + ": x"));
  EXPECT_EQ(f.Chat(kHi)->json()["error"]["code"], "context_length_exceeded");
}

TEST(Completions, TextsTokensAndEcho) {
  ChatFixture f;
  f.turns.CallInsideStart();
  f.turns.Push({{Answers({" time"})}, TurnEnd::kAnswered, {}});
  f.turns.Push({{Answers({" day"})}, TurnEnd::kMaxTokens, {}});
  const Json json =
      f.Run("POST", "/v1/completions", R"({"prompt": ["Once", "One"], "echo": true, "logprobs": 0})")->json();
  EXPECT_EQ(json["object"], "text_completion");
  EXPECT_EQ(json["choices"][0]["text"], "Once time");
  EXPECT_EQ(json["choices"][1]["text"], "One day");
  EXPECT_EQ(json["choices"][1]["finish_reason"], "length");
  EXPECT_EQ(json["choices"][0]["logprobs"]["tokens"], Json::array({" time"}));
  EXPECT_EQ(f.turns.requests()[0].max_tokens, 16);
  EXPECT_EQ(f.Run("POST", "/v1/completions", R"({"prompt": [1, 2, 3], "stream": true})")->status(), 200);
  EXPECT_EQ(f.Run("POST", "/v1/completions", R"({"prompt": [-1]})")->status(), 400);
  EXPECT_EQ(f.Run("POST", "/v1/completions", R"({"prompt": {"a": 1}})")->status(), 400);
}

TEST(Models, AdaptersAreModels) {
  ChatFixture f;
  f.api.options.adapters = {"legal", "sql"};
  const Json list = f.Run("GET", "/v1/models")->json()["data"];
  ASSERT_EQ(list.size(), 3);
  EXPECT_EQ(list[0]["id"], "gpt-oss-test");
  EXPECT_EQ(list[1]["id"], "legal");
  EXPECT_EQ(list[2]["id"], "sql");
  for (const char* model : {"sql", "legal", "sql:latest", "gpt-oss-test", "SQL", ""}) {
    EXPECT_EQ(f.Run("POST", "/v1/chat/completions",
                    {{"model", model}, {"messages", Json::array({{{"role", "user"}, {"content", "q"}}})}})
                  ->status(),
              200);
    EXPECT_EQ(f.Run("POST", "/v1/completions", {{"model", model}, {"prompt", "Once"}})->status(), 200);
  }
  std::vector<int> chosen;
  for (const TurnRequest& request : f.turns.requests()) chosen.push_back(request.adapter);
  EXPECT_EQ(chosen, (std::vector<int>{2, 2, 1, 1, 2, 2, 0, 0, 0, 0, 0, 0}));
}

TEST(Models, ListTokenizeAndRefusals) {
  ChatFixture f;
  EXPECT_EQ(f.Run("GET", "/v1/models")->json()["data"][0]["id"], "gpt-oss-test");
  EXPECT_EQ(f.Run("GET", "/v1/models/openai/gpt-oss-20b")->json()["id"], "openai/gpt-oss-20b");
  const auto refused = f.Run("POST", "/v1/embeddings", "{}");
  EXPECT_EQ(refused->status(), 400);
  EXPECT_NE(refused->json()["error"]["message"].get<std::string>().find("embeddings"), std::string::npos);
  const Json ids = f.Run("POST", "/tokenize", R"({"prompt": "hello <|end|>"})")->json();
  EXPECT_EQ(ids["count"], ids["tokens"].size());
  EXPECT_EQ(f.Run("POST", "/detokenize", {{"tokens", ids["tokens"]}})->json()["prompt"], "hello <|end|>");
  EXPECT_GT(f.Run("POST", "/tokenize", R"({"messages": [{"role": "user", "content": "x"}]})")->json()["count"], 20);
  EXPECT_EQ(f.Run("POST", "/detokenize", R"({"tokens": [99999999]})")->status(), 400);
}

TEST(Operation, DescribesAllRoutes) {
  ChatFixture f;
  const Json document = f.Run("GET", "/openapi.json")->json();
  EXPECT_EQ(document["openapi"], "3.1.0");
  for (const Router::RouteName& route : f.router.routes()) {
    if (route.pattern.find("{}") == std::string::npos) {
      EXPECT_TRUE(document["paths"].contains(route.pattern)) << route.pattern;
    }
  }
  EXPECT_FALSE(document["paths"]["/v1/chat/completions"]["post"]["summary"].get<std::string>().empty());
  EXPECT_EQ(f.Run("GET", "/ready")->status(), 200);
  EXPECT_EQ(f.Run("GET", "/metrics")->body(), "metrics");
}

}  // namespace
}  // namespace gptoss::server
