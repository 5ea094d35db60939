#include "server/replay/replay_store.h"

#include <gtest/gtest.h>

#include <map>

#include "server/api/history.h"

namespace gptoss::server {
namespace {

class MapStorage : public TurnStorage {
 public:
  void PutTurn(std::vector<std::string> keys, std::string blob) override {
    for (const std::string& key : keys) turns[key] = blob;
  }
  std::string FindTurn(std::string_view key) override {
    const auto it = turns.find(std::string(key));
    return it == turns.end() ? "" : it->second;
  }
  std::map<std::string, std::string> turns;
};

const Turn kCall = {{Reasoning("I need the weather."), {1, 2, 3}},
                    {Preamble("One moment."), {4, 5}},
                    {FunctionCall("get_weather", "{\"city\": \"Paris\"}"), {6, 7}}};

std::vector<HistoryEntry> History(std::string arguments, std::string id, std::vector<Message> before_call = {}) {
  std::vector<HistoryEntry> entries = {{UserText("Weather in Paris?"), ""}};
  for (Message& m : before_call) entries.push_back({std::move(m), ""});
  entries.push_back({FunctionCall("get_weather", std::move(arguments)), std::move(id)});
  entries.push_back({ToolResult("get_weather", "sunny"), ""});
  return entries;
}

std::vector<HistoryMessage> Question() { return {{UserText("Weather in Paris?"), {}}}; }

bool IsReplayed(const std::vector<HistoryMessage>& history) {
  return history.size() == 5 && history[1].tokens == kCall[0].tokens && history[3].tokens == kCall[2].tokens &&
         TextOf(history[1].message) == "I need the weather.";
}

TEST(ReplayStore, ACallBringsItsReasoningBack) {
  ReplayStore store;
  store.Remember("alice", Question(), kCall, {"call_1"}, false);
  // The client dropped the reasoning and wrote the arguments its own way.
  EXPECT_TRUE(IsReplayed(store.Apply("alice", History("{\"city\":\"Paris\"}", "call_1", {Preamble("One moment.")}))));
  // It kept the reasoning, in other spacing.
  EXPECT_TRUE(IsReplayed(store.Apply("alice", History("{\"city\":\"Paris\"}", "call_1",
                                                      {Reasoning("I need\nthe weather."), Preamble("One moment.")}))));
  EXPECT_EQ(store.counters().replayed, 2u);
}

TEST(ReplayStore, WhatWasChangedIsRendered) {
  ReplayStore store;
  store.Remember("alice", Question(), kCall, {"call_1"}, false);
  const auto apply = [&](std::string owner, std::vector<HistoryEntry> entries) {
    const size_t n = entries.size();
    const auto history = store.Apply(owner, std::move(entries));
    for (const HistoryMessage& m : history) EXPECT_TRUE(m.tokens.empty());
    EXPECT_EQ(history.size(), n);
  };
  const std::vector<Message> preamble = {Preamble("One moment.")};
  apply("alice", History("{\"city\":\"Rome\"}", "call_1", preamble));
  apply("alice", History("{\"city\":\"Paris\"}", "call_1"));  // the preamble is gone
  apply("alice", History("{\"city\":\"Paris\"}", "call_1", {Reasoning("Else."), Preamble("One moment.")}));
  apply("bob", History("{\"city\":\"Paris\"}", "call_1", preamble));
  EXPECT_EQ(store.counters().replayed, 0u);
  EXPECT_EQ(store.counters().rendered, 4u);
}

TEST(ReplayStore, WithoutIdsTheConversationItselfIsTheKey) {
  ReplayStore store;
  store.Remember("", Question(), kCall, {"call_1"}, false);
  const std::vector<Message> preamble = {Preamble("One moment.")};
  EXPECT_TRUE(IsReplayed(store.Apply("", History("{\"city\":\"Paris\"}", "", preamble))));
  // The same call in another conversation is another one: its reasoning must not come from here.
  auto other = History("{\"city\":\"Paris\"}", "", preamble);
  other[0].message = UserText("And in Paris?");
  EXPECT_EQ(store.Apply("", other).size(), other.size());
}

TEST(ReplayStore, AnswersKeepTheirTokensThroughManyTurns) {
  ReplayStore store;
  std::vector<HistoryEntry> entries;
  for (int i = 0; i < 20; ++i) {
    entries.push_back({UserText("question"), ""});
    const auto history = store.Apply("", entries);
    ASSERT_EQ(history.size(), static_cast<size_t>(3 * i + 1));
    const Turn turn = {{Reasoning("thought " + std::to_string(i)), {i}}, {Answer("answer"), {100 + i}}};
    store.Remember("", history, turn, {}, false);
    entries.push_back({Answer("answer"), ""});
  }
  const auto history = store.Apply("", entries);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(history[3 * static_cast<size_t>(i) + 2].tokens[0], 100 + i);
}

TEST(ReplayStore, BoundedInMemoryAndFoundInTheStorage) {
  MapStorage storage;
  ReplayStore store(4000, &storage);
  for (int i = 0; i < 50; ++i) {
    store.Remember("", {{UserText("q" + std::to_string(i)), {}}}, kCall, {"call_" + std::to_string(i)}, i == 0);
  }
  EXPECT_EQ(storage.turns.size(), 2u);  // of the durable one: its id and its digest
  const auto found = [&](const std::string& id) {
    auto entries = History("{\"city\":\"Paris\"}", id, {Preamble("One moment.")});
    return IsReplayed(store.Apply("", entries));
  };
  EXPECT_TRUE(found("call_0"));
  EXPECT_FALSE(found("call_1"));
  EXPECT_TRUE(found("call_49"));
}

TEST(ReplayStore, DamagedBlobsAreNoTurns) {
  const std::string blob = WriteTurn(kCall);
  const auto turn = ReadTurn(blob);
  ASSERT_NE(turn, nullptr);
  ASSERT_EQ(turn->size(), kCall.size());
  for (size_t i = 0; i < kCall.size(); ++i) {
    EXPECT_EQ((*turn)[i].message, kCall[i].message);
    EXPECT_EQ((*turn)[i].tokens, kCall[i].tokens);
  }
  for (const std::string damaged : {"", "{}", "[1]", "[{\"text\":\"a\"}]", "[{\"text\":\"a\",\"tokens\":[\"b\"]}]"}) {
    EXPECT_EQ(ReadTurn(damaged), nullptr) << damaged;
  }
  for (size_t i = 0; i < blob.size(); ++i) (void)ReadTurn(blob.substr(0, i));
}

}  // namespace
}  // namespace gptoss::server
