// The Responses API from request to answer and stream, on scripted turns.
#include "server/openai/responses.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/api/history.h"
#include "server/api/testing.h"

namespace gptoss::server {
namespace {

using testing::HasSubstr;

struct ResponsesTest : testing::Test {
  std::unique_ptr<ResponseStore> store = *ResponseStore::Open("");
  ReplayStore replay{1 << 20, store.get()};
  ApiFixture http;

  ResponsesTest() { AddResponsesRoutes(http.router, http.api, *store, replay); }

  Json Create(const Json& body) {
    const auto answer = http.Run("POST", "/v1/responses", body);
    EXPECT_EQ(answer->status(), 200) << answer->body();
    EXPECT_FALSE(answer->misused());
    return answer->json();
  }
};

const Json kTool = {{"type", "function"}, {"name", "get"}, {"parameters", {{"type", "object"}}}};

TEST_F(ResponsesTest, AnAnswerHasAllItsParts) {
  http.turns.Push({{Thinks({"let", " me"}), Answers({"It is ", "42."})}});
  const Json r =
      Create({{"model", "m"}, {"input", "q"}, {"metadata", {{"k", "v"}}}, {"reasoning", {{"effort", "low"}}}});
  EXPECT_EQ(r["object"], "response");
  EXPECT_EQ(r["status"], "completed");
  EXPECT_EQ(r["model"], "m");
  EXPECT_EQ(r["metadata"]["k"], "v");
  EXPECT_EQ(r["reasoning"]["effort"], "low");
  EXPECT_TRUE(r["error"].is_null() && r["incomplete_details"].is_null());
  ASSERT_EQ(r["output"].size(), 2u);
  EXPECT_EQ(r["output"][0]["type"], "reasoning");
  EXPECT_EQ(r["output"][0]["summary"], Json::array());
  EXPECT_EQ(r["output"][0]["content"], Json::array({{{"type", "reasoning_text"}, {"text", "let me"}}}));
  EXPECT_EQ(r["output"][1]["content"][0]["text"], "It is 42.");
  EXPECT_EQ(r["output"][1]["content"][0]["annotations"], Json::array());
  EXPECT_EQ(r["output"][1]["phase"], "final_answer");
  const Json& usage = r["usage"];
  EXPECT_GT(usage["input_tokens"], 0);
  EXPECT_EQ(usage["input_tokens_details"]["cached_tokens"].get<int>(), usage["input_tokens"].get<int>() / 2);
  EXPECT_EQ(usage["output_tokens_details"]["reasoning_tokens"], 2);
  EXPECT_EQ(usage["total_tokens"].get<int>(), usage["input_tokens"].get<int>() + usage["output_tokens"].get<int>());
  // It is stored as it was answered.
  EXPECT_EQ(http.Run("GET", "/v1/responses/" + r["id"].get<std::string>())->json(), r);
}

TEST_F(ResponsesTest, AStreamIsInOrderWhereverTheTurnRuns) {
  for (const bool inside : {false, true}) {
    if (inside) http.turns.CallInsideStart();
    http.turns.Push({{Thinks({"a", "b"}), Says({"I look."}), Calls("get", {"{\"x\"", ":1}"})}, TurnEnd::kToolCall});
    const auto answer = http.Run("POST", "/v1/responses", {{"input", "q"}, {"stream", true}, {"tools", {kTool}}});
    EXPECT_EQ(answer->content_type(), "text/event-stream");
    const auto events = answer->events();
    EXPECT_EQ(CheckResponseEvents(events), "");
    ASSERT_FALSE(events.empty());
    const Json& end = events.back()["response"];
    EXPECT_EQ(end["status"], "completed");
    EXPECT_EQ(end["output"][1]["phase"], "commentary");
    EXPECT_EQ(end["output"][2]["arguments"], "{\"x\":1}");
    EXPECT_EQ(end["output"][2]["name"], "get");
    EXPECT_FALSE(answer->misused());
  }
}

TEST_F(ResponsesTest, CustomToolsNamespacesAndCallsWithoutArguments) {
  const Json tools = Json::array({{{"type", "custom"}, {"name", "patch"}},
                                  {{"type", "namespace"}, {"name", "agents"}, {"tools", Json::array({kTool})}}});
  http.turns.Push({{Calls("patch", {"*** Begin"}, true)}, TurnEnd::kToolCall});
  auto events = http.Run("POST", "/v1/responses", {{"input", "q"}, {"stream", true}, {"tools", tools}})->events();
  EXPECT_EQ(CheckResponseEvents(events), "");
  EXPECT_EQ(events.back()["response"]["output"][0]["type"], "custom_tool_call");
  EXPECT_EQ(events.back()["response"]["output"][0]["input"], "*** Begin");
  http.turns.Push({{Calls("get", {})}, TurnEnd::kToolCall});
  events = http.Run("POST", "/v1/responses", {{"input", "q"}, {"stream", true}, {"tools", tools}})->events();
  EXPECT_EQ(CheckResponseEvents(events), "");
  const Json& call = events.back()["response"]["output"][0];
  EXPECT_EQ(call["arguments"], "{}");
  EXPECT_EQ(call["namespace"], "agents");
}

TEST_F(ResponsesTest, EndsThatAreNotWhole) {
  const auto end = [&](TurnEnd how) {
    http.turns.Push({{Thinks({"a"})}, how, InvalidArgument("broken weights")});
    return http.Run("POST", "/v1/responses", {{"input", "q"}});
  };
  for (const auto& [how, reason] :
       std::vector<std::pair<TurnEnd, std::string>>{{TurnEnd::kMaxTokens, "max_output_tokens"},
                                                    {TurnEnd::kRepetition, "repetition"},
                                                    {TurnEnd::kContextFull, "context_length"},
                                                    {TurnEnd::kDeadline, "deadline"}}) {
    const Json r = end(how)->json();
    EXPECT_EQ(r["status"], "incomplete");
    EXPECT_EQ(r["incomplete_details"]["reason"], reason);
    EXPECT_EQ(r["output"][0]["status"], "incomplete");
  }
  const auto failed = end(TurnEnd::kFailed);
  EXPECT_EQ(failed->status(), 500);
  EXPECT_EQ(failed->json()["error"]["message"], "broken weights");
  http.turns.Push({{Thinks({"a"})}, TurnEnd::kFailed, InvalidArgument("broken weights")});
  const auto events = http.Run("POST", "/v1/responses", {{"input", "q"}, {"stream", true}})->events();
  EXPECT_EQ(CheckResponseEvents(events), "");
  EXPECT_EQ(events.back()["type"], "response.failed");
}

TEST_F(ResponsesTest, ACallThatWasCutOffIsNeverCalledComplete) {
  http.turns.Push({{Thinks({"a"}), Calls("get", {"{\"x\""})}, TurnEnd::kMaxTokens});
  const auto events =
      http.Run("POST", "/v1/responses", {{"input", "q"}, {"stream", true}, {"tools", {kTool}}})->events();
  const Json& output = events.back()["response"]["output"];
  ASSERT_EQ(output.size(), 2u);
  EXPECT_EQ(output[0]["status"], "completed");
  EXPECT_EQ(output[1]["status"], "incomplete");
  for (const Json& event : events) {
    if (event["type"] == "response.output_item.done") {
      EXPECT_EQ(event["item"], output[event["output_index"].get<size_t>()]);
    }
  }
}

TEST_F(ResponsesTest, ATurnThatSaysNothingIsStillALegalStream) {
  http.turns.Push({{}, TurnEnd::kMaxTokens});
  const auto events = http.Run("POST", "/v1/responses", {{"input", "q"}, {"stream", true}})->events();
  EXPECT_EQ(CheckResponseEvents(events), "");
  EXPECT_EQ(events.back()["type"], "response.incomplete");
}

TEST_F(ResponsesTest, BadRequestsHaveTheErrorsShape) {
  for (const std::string body : {"", "[]", "{}", "not json", "{\"input\": 1}", "{\"input\": \"a\", \"tools\": {}}"}) {
    const auto answer = http.Run("POST", "/v1/responses", Json(body));
    EXPECT_EQ(answer->status(), 400) << body;
    EXPECT_EQ(answer->json()["error"]["type"], "invalid_request_error") << body;
  }
  http.turns.RefuseWith(Unsupported("tools[0].parameters: keyword x"));
  const auto refused = http.Run("POST", "/v1/responses", {{"input", "a"}, {"stream", true}});
  EXPECT_EQ(refused->status(), 400);
  EXPECT_EQ(refused->json()["error"]["param"], "tools[0].parameters");
  http.turns.RefuseWith(ResourceExhausted("the queue is full"));
  EXPECT_EQ(http.Run("POST", "/v1/responses", {{"input", "a"}})->status(), 429);
}

TEST_F(ResponsesTest, ThePreviousResponseBringsItsTokensAndReasoningBack) {
  http.turns.Push({{Thinks({"secret plan"}), Calls("get", {"{\"a\": 1}"})}, TurnEnd::kToolCall});
  const Json first = Create({{"input", "q"}, {"tools", {kTool}}, {"instructions", "be brief"}});
  const std::string call = first["output"][1]["call_id"];
  http.turns.Push({{Answers({"42"})}});
  const Json second =
      Create({{"previous_response_id", first["id"]},
              {"tools", {kTool}},
              {"input", Json::array({{{"type", "function_call_output"}, {"call_id", call}, {"output", "7"}}})}});
  EXPECT_EQ(second["previous_response_id"], first["id"]);
  const TurnRequest turn = http.turns.requests().back();
  ASSERT_EQ(turn.history.size(), 4u);
  EXPECT_EQ(turn.instructions, "");  // those of the response before do not carry over
  EXPECT_EQ(TextOf(turn.history[1].message), "secret plan");
  EXPECT_FALSE(turn.history[1].tokens.empty());
  EXPECT_EQ(turn.history[2].tokens, http.turns.tokenizer().Encode("{\"a\": 1}"));
  EXPECT_EQ(turn.history[3].message.author.name, "functions.get");
  // The whole conversation, newest first.
  const Json items = http.Run("GET", "/v1/responses/" + second["id"].get<std::string>() + "/input_items")->json();
  ASSERT_EQ(items["data"].size(), 4u);
  EXPECT_EQ(items["data"][0]["type"], "function_call_output");
  EXPECT_EQ(items["data"][3]["role"], "user");
  EXPECT_EQ(items["has_more"], false);
  const Json page =
      http.Run("GET", "/v1/responses/" + second["id"].get<std::string>() +
                          "/input_items?limit=1&order=asc&after=" + items["data"][3]["id"].get<std::string>())
          ->json();
  ASSERT_EQ(page["data"].size(), 1u);
  EXPECT_EQ(page["data"][0]["type"], "reasoning");
  EXPECT_EQ(page["has_more"], true);
}

TEST_F(ResponsesTest, AClientThatDropsTheReasoningGetsItBack) {
  http.turns.Push({{Thinks({"secret plan"}), Calls("get", {"{\"a\": 1}"})}, TurnEnd::kToolCall});
  const Json first = Create({{"input", "q"}, {"tools", {kTool}}, {"store", false}});
  // Another spelling of the same arguments, and no reasoning item.
  const Json input =
      Json::array({{{"role", "user"}, {"content", "q"}},
                   {{"type", "function_call"},
                    {"call_id", first["output"][1]["call_id"]},
                    {"name", "get"},
                    {"arguments", "{\"a\":1}"}},
                   {{"type", "function_call_output"}, {"call_id", first["output"][1]["call_id"]}, {"output", "7"}}});
  http.turns.Push({{Answers({"42"})}});
  Create({{"input", input}, {"tools", {kTool}}});
  const TurnRequest turn = http.turns.requests().back();
  ASSERT_EQ(turn.history.size(), 4u);
  EXPECT_EQ(TextOf(turn.history[1].message), "secret plan");
  // Another owner's key does not replay it.
  http.turns.Push({{Answers({"42"})}});
  http.Run("POST", "/v1/responses", {{"input", input}, {"tools", {kTool}}}, "other");
  EXPECT_EQ(http.turns.requests().back().history.size(), 3u);
}

TEST_F(ResponsesTest, ReferencesAndUnknownIds) {
  http.turns.Push({{Answers({"a"})}});
  const Json first = Create({{"input", Json::array({{{"role", "user"}, {"content", "q"}, {"id", "msg_mine"}}})}});
  http.turns.Push({{Answers({"b"})}});
  Create({{"input", Json::array({{{"type", "item_reference"}, {"id", "msg_mine"}},
                                 {{"type", "item_reference"}, {"id", first["output"][0]["id"]}},
                                 {{"role", "user"}, {"content", "more"}}})}});
  const TurnRequest turn = http.turns.requests().back();
  ASSERT_EQ(turn.history.size(), 3u);
  EXPECT_EQ(TextOf(turn.history[0].message), "q");
  EXPECT_EQ(TextOf(turn.history[1].message), "a");
  EXPECT_FALSE(turn.history[1].tokens.empty());
  auto unknown = http.Run("POST", "/v1/responses", {{"input", "x"}, {"previous_response_id", "resp_no"}});
  EXPECT_EQ(unknown->status(), 400);
  EXPECT_EQ(unknown->json()["error"]["code"], "previous_response_not_found");
  EXPECT_EQ(unknown->json()["error"]["param"], "previous_response_id");
  EXPECT_EQ(http.Run("GET", "/v1/responses/resp_no")->status(), 404);
  EXPECT_EQ(http.Run("DELETE", "/v1/responses/resp_no")->status(), 404);
  EXPECT_EQ(http.Run("POST", "/v1/responses/resp_no/cancel")->status(), 404);
  EXPECT_EQ(http.Run("GET", "/v1/responses/resp_no/input_items")->status(), 404);
  EXPECT_EQ(http.Run("GET", "/v1/responses/" + first["id"].get<std::string>(), nullptr, "other")->status(), 404);
}

TEST_F(ResponsesTest, StoreFalseIsNotStoredAndDeleteDeletes) {
  http.turns.Push({{Answers({"a"})}});
  const Json unstored = Create({{"input", "q"}, {"store", false}});
  EXPECT_EQ(http.Run("GET", "/v1/responses/" + unstored["id"].get<std::string>())->status(), 404);
  http.turns.Push({{Answers({"a"})}});
  const std::string path = "/v1/responses/" + Create({{"input", "q"}})["id"].get<std::string>();
  EXPECT_EQ(http.Run("DELETE", path)->json()["deleted"], true);
  EXPECT_EQ(http.Run("GET", path)->status(), 404);
}

TEST_F(ResponsesTest, AStoredResponseCanBeStreamedAgain) {
  http.turns.Push({{Thinks({"a"}), Calls("get", {"{}"})}, TurnEnd::kToolCall});
  const Json r = Create({{"input", "q"}, {"tools", {kTool}}});
  const std::string path = "/v1/responses/" + r["id"].get<std::string>() + "?stream=true";
  const auto events = http.Run("GET", path)->events();
  EXPECT_EQ(CheckResponseEvents(events), "");
  EXPECT_EQ(events.back()["response"], r);
  const auto rest = http.Run("GET", path + "&starting_after=3")->events();
  ASSERT_EQ(rest.size() + 4, events.size());
  EXPECT_EQ(rest[0]["sequence_number"], 4);
}

TEST_F(ResponsesTest, BackgroundIsPolledAndCancelled) {
  http.turns.Hold();
  http.turns.Push({{Thinks({"a"}), Answers({"b"})}});
  const Json begun = Create({{"input", "q"}, {"background", true}});
  EXPECT_TRUE(begun["status"] == "in_progress" || begun["status"] == "queued") << begun["status"];
  const std::string path = "/v1/responses/" + begun["id"].get<std::string>();
  EXPECT_EQ(http.Run("GET", path)->json()["status"], "in_progress");
  EXPECT_EQ(http.Run("POST", "/v1/responses", {{"input", "x"}, {"previous_response_id", begun["id"]}})->status(), 400);
  const auto cancelled = http.Run("POST", path + "/cancel");
  EXPECT_EQ(cancelled->json()["status"], "cancelled");
  EXPECT_EQ(http.Run("GET", path)->json()["status"], "cancelled");
  // Again: it is over, as it was.
  EXPECT_EQ(http.Run("POST", path + "/cancel")->json()["status"], "cancelled");
  http.turns.Release();
  http.turns.Push({{Answers({"b"})}});
  const Json plain = Create({{"input", "q"}});
  EXPECT_EQ(http.Run("POST", "/v1/responses/" + plain["id"].get<std::string>() + "/cancel")->status(), 400);
}

TEST_F(ResponsesTest, BackgroundIsAnsweredAsItBeganHoweverFastItEnds) {
  for (int i = 0; i < 20; ++i) {
    http.turns.Push({{Thinks({"a"}), Answers({"b"})}});
    const Json begun = Create({{"input", "q"}, {"background", true}});
    EXPECT_EQ(begun["status"], "in_progress");
    EXPECT_EQ(begun["output"], Json::array());
  }
}

TEST_F(ResponsesTest, ABackgroundStreamCanBeJoinedAgain) {
  http.turns.Hold();
  http.turns.Push({{Thinks({"a"}), Answers({"b", "c"})}});
  const auto first = http.Call("POST", "/v1/responses", {{"input", "q"}, {"background", true}, {"stream", true}});
  ASSERT_TRUE(first->WaitFor("response.output_item.done"));
  const std::string id = first->events().front()["response"]["id"];
  first->Close();  // does not end a background response
  const auto second = http.Call("GET", "/v1/responses/" + id + "?stream=true&starting_after=1");
  http.turns.Release();
  ASSERT_TRUE(second->Wait());
  const auto tail = second->events();
  ASSERT_FALSE(tail.empty());
  EXPECT_EQ(tail.front()["sequence_number"], 2);
  EXPECT_EQ(tail.back()["type"], "response.completed");
  // The same events from the store.
  const auto whole = http.Run("GET", "/v1/responses/" + id + "?stream=true")->events();
  EXPECT_EQ(CheckResponseEvents(whole), "");
  EXPECT_EQ(std::vector<Json>(whole.begin() + 2, whole.end()), tail);
  EXPECT_EQ(whole[1]["type"], "response.queued");
}

TEST_F(ResponsesTest, AClientThatLeavesEndsItsTurn) {
  http.turns.Hold();
  for (const bool stream : {true, false}) {
    http.turns.Push({{Thinks({"a"}), Answers({"b"})}});
    const int before = http.turns.cancelled();
    const auto answer = http.Call("POST", "/v1/responses", {{"input", "q"}, {"stream", stream}});
    if (stream) {
      ASSERT_TRUE(answer->WaitFor("response.created"));
    }
    answer->Close();
    EXPECT_EQ(http.turns.cancelled(), before + 1);
  }
}

TEST_F(ResponsesTest, DeletingALiveResponseLeavesNothing) {
  http.turns.Hold();
  http.turns.Push({{Thinks({"a"}), Answers({"b"})}});
  const Json begun = Create({{"input", "q"}, {"background", true}});
  const std::string path = "/v1/responses/" + begun["id"].get<std::string>();
  EXPECT_EQ(http.Run("DELETE", path)->json()["deleted"], true);
  http.turns.Release();
  store->Flush();
  for (int i = 0; i < 1000 && http.Run("GET", path)->status() != 404; ++i) store->Flush();
  EXPECT_EQ(http.Run("GET", path)->status(), 404);
}

TEST_F(ResponsesTest, ReasoningCanBeWithheldAndSealed) {
  http.api.options.withhold_reasoning = true;
  http.turns.Push({{Thinks({"secret", " plan"}), Calls("get", {"{}"})}, TurnEnd::kToolCall});
  const auto answer = http.Run("POST", "/v1/responses",
                               {{"input", "q"},
                                {"stream", true},
                                {"store", false},
                                {"tools", {kTool}},
                                {"include", {"reasoning.encrypted_content"}}});
  EXPECT_EQ(CheckResponseEvents(answer->events()), "");
  EXPECT_THAT(answer->body(), testing::Not(HasSubstr("secret")));
  const Json output = answer->events().back()["response"]["output"];
  EXPECT_EQ(output[0]["content"], Json::array());
  // What was sealed comes back as reasoning, here in a history that no kept turn matches.
  http.turns.Push({{Answers({"42"})}});
  Create(
      {{"tools", {kTool}},
       {"input", Json::array({{{"role", "user"}, {"content", "another"}},
                              output[0],
                              {{"type", "function_call"}, {"call_id", "call_x"}, {"name", "get"}, {"arguments", "{}"}},
                              {{"type", "function_call_output"}, {"call_id", "call_x"}, {"output", "7"}}})}});
  EXPECT_EQ(TextOf(http.turns.requests().back().history[1].message), "secret plan");
}

TEST_F(ResponsesTest, LogprobsWhereTheyAreAskedFor) {
  http.turns.Push({{Thinks({"a"}), Answers({"It is", " so"})}});
  const auto events =
      http.Run("POST", "/v1/responses",
               {{"input", "q"}, {"stream", true}, {"top_logprobs", 1}, {"include", {"message.output_text.logprobs"}}})
          ->events();
  EXPECT_EQ(CheckResponseEvents(events), "");
  const Json list = events.back()["response"]["output"][1]["content"][0]["logprobs"];
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0]["token"], "It");
  EXPECT_EQ(list[0]["bytes"], Json::array({73, 116}));
  EXPECT_EQ(list[0]["top_logprobs"][0]["token"], "It");
}

TEST_F(ResponsesTest, TruncationDropsTheOldestOnlyWhereAllowed) {
  Json input = Json::array();
  for (int i = 0; i < 40; ++i) {
    input.push_back({{"role", "user"}, {"content", "question " + std::to_string(i) + std::string(400, 'x')}});
    input.push_back({{"role", "assistant"}, {"content", "answer"}});
  }
  input.push_back({{"role", "user"}, {"content", "the last"}});
  http.turns.set_max_context(1500);
  http.turns.Push({{Answers({"a"})}});
  Create({{"input", input}, {"truncation", "auto"}, {"max_output_tokens", 100}});
  const auto cut = http.turns.requests().back();
  EXPECT_LT(cut.history.size(), 81u);
  EXPECT_GT(cut.history.size(), 3u);
  EXPECT_EQ(cut.history.front().message.author.role, Role::kUser);
  EXPECT_EQ(TextOf(cut.history.back().message), "the last");
  EXPECT_LE(http.turns.Render(cut)->size() + 100, 1500u);
  http.turns.Push({{Answers({"a"})}});
  Create({{"input", input}});
  EXPECT_EQ(http.turns.requests().back().history.size(), 81u);
}

TEST_F(ResponsesTest, ACompactedConversationGoesOnFromItsSummary) {
  http.turns.Push({{Thinks({"long thoughts"}), Answers({"first answer"})}});
  const Json first = Create({{"input", "first question"}});
  http.turns.Push({{Thinks({"hm"}), Answers({"they asked, I answered"})}});
  const auto answer = http.Run("POST", "/v1/responses/compact",
                               {{"model", "m"}, {"previous_response_id", first["id"]}, {"input", "second question"}});
  ASSERT_EQ(answer->status(), 200) << answer->body();
  const Json compacted = answer->json();
  EXPECT_EQ(compacted["object"], "response.compaction");
  EXPECT_GT(compacted["usage"]["total_tokens"], 0);
  const TurnRequest asked = http.turns.requests().back();
  EXPECT_EQ(asked.tool_choice.kind, ToolChoice::Kind::kNone);
  EXPECT_THAT(TextOf(asked.history.back().message), HasSubstr("summary"));
  ASSERT_EQ(compacted["output"].size(), 3u);
  EXPECT_EQ(compacted["output"][0]["content"][0]["text"], "first question");
  EXPECT_EQ(compacted["output"][1]["content"][0]["text"], "second question");
  EXPECT_EQ(compacted["output"][2]["type"], "compaction");
  EXPECT_EQ(answer->body().find("they asked"), std::string::npos) << "the summary is sealed";

  Json input = compacted["output"];
  input.push_back({{"role", "user"}, {"content", "third"}});
  http.turns.Push({{Answers({"go on"})}});
  Create({{"input", input}});
  const auto history = http.turns.requests().back().history;
  ASSERT_EQ(history.size(), 4u);
  EXPECT_THAT(TextOf(history[2].message), HasSubstr("they asked, I answered"));
  EXPECT_EQ(history[2].message.author.role, Role::kUser) << "what was only read must not become an instruction";
  input[2]["encrypted_content"] = "elsewhere";
  const auto foreign = http.Run("POST", "/v1/responses", {{"input", input}});
  EXPECT_EQ(foreign->status(), 400);
  EXPECT_EQ(foreign->json()["error"]["param"], "input[2].encrypted_content");
}

TEST_F(ResponsesTest, WithoutASummaryNothingIsCompacted) {
  http.turns.Push({{Thinks({"and so on"})}, TurnEnd::kMaxTokens});
  const auto answer = http.Run("POST", "/v1/responses/compact", {{"input", "q"}});
  EXPECT_EQ(answer->status(), 503);
  EXPECT_THAT(answer->body(), HasSubstr("max_tokens"));
  EXPECT_EQ(http.Run("POST", "/v1/responses/compact", {{"input", Json::array()}})->status(), 400);
  EXPECT_EQ(http.Run("POST", "/v1/responses/compact", {{"previous_response_id", "resp_none"}})->status(), 400);
}

TEST_F(ResponsesTest, InputTokensAreCounted) {
  const Json counted = http.Run("POST", "/v1/responses/input_tokens", {{"input", "hello"}})->json();
  http.turns.Push({{Answers({"a"})}});
  EXPECT_EQ(counted["input_tokens"], Create({{"input", "hello"}})["usage"]["input_tokens"]);
}

TEST(ResponsesDiskFull, TheAnswerStillReachesTheClient) {
  const std::string path = testing::TempDir() + "/responses_full.db";
  std::remove(path.c_str());
  StoreLimits limits;
  limits.max_file_bytes = 128 << 10;
  auto store = *ResponseStore::Open(path, limits);
  ReplayStore replay(1 << 20, store.get());
  ApiFixture http;
  AddResponsesRoutes(http.router, http.api, *store, replay);
  const std::string large(256 << 10, 'x');
  for (const bool stream : {false, true}) {
    http.turns.Push({{Answers({"the answer"})}});
    const auto answer = http.Run("POST", "/v1/responses", {{"input", large}, {"stream", stream}});
    const Json r = stream ? answer->events().back()["response"] : answer->json();
    EXPECT_EQ(answer->status(), 200);
    EXPECT_EQ(r["output"][0]["content"][0]["text"], "the answer");
    EXPECT_EQ(r["store"], false);
    EXPECT_EQ(r["storage_error"]["code"], "storage_full");
  }
  // A background response cannot be polled if it is not stored: it is refused, and its turn ends.
  http.turns.Push({{Answers({"a"})}});
  EXPECT_EQ(http.Run("POST", "/v1/responses", {{"input", large}, {"background", true}})->status(), 507);
  // What fits is stored.
  http.turns.Push({{Answers({"small"})}});
  const Json small = http.Run("POST", "/v1/responses", {{"input", "q"}})->json();
  EXPECT_EQ(small["store"], true);
  EXPECT_EQ(http.Run("GET", "/v1/responses/" + small["id"].get<std::string>())->status(), 200);
}

}  // namespace
}  // namespace gptoss::server
