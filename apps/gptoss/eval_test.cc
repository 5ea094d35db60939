// Judging answers and calls, and suites that cannot be read.
#include <gtest/gtest.h>

#include <set>

#include "eval_suite.h"

namespace gptoss::cli {
namespace {

constexpr std::string_view kItem =
    R"({"id":"f-1","family":"functions","messages":[{"role":"developer","content":[{"type":"developer_content",)"
    R"("tools":{"functions":{"name":"functions","tools":[{"name":"add","parameters":{"type":"object","properties":)"
    R"({"a":{"type":"integer"},"note":{"type":"string"}},"required":["a"]}},{"name":"roll"}]}}}]},)"
    R"({"role":"user","content":"q"}],"answer":"{\"x\":1,\"y\":[2]}","match":"json","calls":[{"recipient":)"
    R"("functions.add","arguments":{"a":1,"note":"n"},"result":"3"}]})";

EvalItem Item(std::string_view line = kItem) {
  Result<std::vector<EvalItem>> items = ReadSuite(line, "suite");
  EXPECT_TRUE(items.ok()) << items.status().message();
  return items.ok() ? items->front() : EvalItem();
}

Message Call(std::string recipient, std::string text) {
  Message message = TextMessage(Role::kAssistant, std::move(text));
  message.recipient = std::move(recipient);
  return message;
}

TEST(EvalSuite, AnswersAreTextOrJson) {
  EvalItem item = Item();
  EXPECT_TRUE(IsRight(item, R"({"y": [2], "x": 1})"));
  EXPECT_FALSE(IsRight(item, R"({"y": [2], "x": 2})"));
  EXPECT_FALSE(IsRight(item, R"({"y": [2], "x": 1)"));
  item.as_json = false;
  EXPECT_FALSE(IsRight(item, R"({"y": [2], "x": 1})"));
  EXPECT_TRUE(IsRight(item, R"({"x":1,"y":[2]})"));
}

TEST(EvalSuite, RightCallsHaveTheExpectedArguments) {
  const ExpectedCall expected = Item().calls.at(0);
  EXPECT_TRUE(IsRight(expected, Call("functions.add", R"({"note":"n","a":1})")));
  EXPECT_FALSE(IsRight(expected, Call("functions.add", R"({"a":1})")));
  EXPECT_FALSE(IsRight(expected, Call("functions.roll", R"({"note":"n","a":1})")));
  const ExpectedCall python{"python", std::nullopt, "print(1)", "1"};
  EXPECT_TRUE(IsRight(python, Call("python", "print(1)")));
  EXPECT_FALSE(IsRight(python, Call("python", "print(2)")));
}

TEST(EvalSuite, ValidCallsFitTheDeclaration) {
  EvalItem item = Item();
  EXPECT_TRUE(IsValidCall(item, Call("functions.add", R"({"a":7})")));
  EXPECT_TRUE(IsValidCall(item, Call("functions.roll", "{}")));
  for (const auto& [recipient, text] : std::vector<std::pair<std::string, std::string>>{
           {"functions.add", R"({"a":"7"})"},      // wrong type
           {"functions.add", R"({"note":"x"})"},   // a required one is missing
           {"functions.add", R"({"a":7,"b":1})"},  // an unknown one
           {"functions.add", R"({"a":7)"},         // no JSON
           {"functions.add", "7"},                 // no object
           {"functions.roll", R"({"a":7})"},       // takes none
           {"functions.sub", R"({"a":7})"},        // not declared
           {"add", R"({"a":7})"},
           {"python", "1"}}) {  // neither is python
    EXPECT_FALSE(IsValidCall(item, Call(recipient, text))) << recipient << text;
  }
  item.python = true;
  EXPECT_TRUE(IsValidCall(item, Call("python", "print(1)")));
  EXPECT_FALSE(IsValidCall(item, Call("python", "")));
}

TEST(EvalSuite, PromptsBeginLikeThoseOfRun) {
  EvalItem item = Item();
  const auto system = [&] {
    const Conversation conversation = PromptOf(item, ReasoningEffort::kHigh, "2026-01-01");
    EXPECT_EQ(conversation.messages.size(), item.messages.size() + 1);
    return std::get<SystemContent>(conversation.messages.at(0).contents.at(0));
  };
  EXPECT_EQ(system(), DefaultSystemContent("2026-01-01", ReasoningEffort::kHigh));
  item.identity = "You are Otto.";
  item.python = true;
  EXPECT_EQ(system().model_identity, "You are Otto.");
  EXPECT_EQ(system().tools.count("python"), 1u);
}

TEST(EvalSuite, ErrorsNameLineAndField) {
  const auto error = [](std::string_view text) {
    const auto items = ReadSuite(text, "suite");
    return items.ok() ? std::string() : items.status().message();
  };
  EXPECT_EQ(error("\n"), "suite: holds no questions");
  EXPECT_EQ(error("\n{\"id\":\"a\"}"), "suite:2: family: is missing or no string");
  EXPECT_NE(error("{").find("suite:1"), std::string::npos);
  EXPECT_EQ(error(R"({"id":"a","family":"f","answer":"x","tools":["browser"]})"),
            R"(suite:1: tools: must be ["python"])");
  EXPECT_EQ(error(R"({"id":"a","family":"f","answer":"x","match":"near"})"), R"(suite:1: match: "near" is not json)");
  EXPECT_EQ(error(R"({"id":"a","family":"f","answer":"x","messages":[],"calls":[{"recipient":"f","result":"r"}]})"),
            "suite:1: code: is missing or no string");
}

TEST(EvalSuite, TheBuiltInSuiteHasEveryFamily) {
  const auto items = ReadSuite(EmbeddedNanoSuite(), "nano");
  ASSERT_TRUE(items.ok()) << items.status().message();
  std::set<std::string> families, ids;
  int calls = 0;
  for (const EvalItem& item : *items) {
    families.insert(item.family);
    ids.insert(item.id);
    for (const ExpectedCall& call : item.calls) {
      const std::string text = call.arguments ? WriteJson(*call.arguments) : call.code;
      EXPECT_TRUE(IsValidCall(item, Call(call.recipient, text))) << item.id;
      ++calls;
    }
    EXPECT_TRUE(IsRight(item, item.answer)) << item.id;
  }
  EXPECT_EQ(families.size(), 16u);
  EXPECT_EQ(ids.size(), items->size());
  EXPECT_GE(calls, 60);
}

}  // namespace
}  // namespace gptoss::cli
