// Questions with known answers: what is asked, what tools give back, and what is right.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "harmony/message.h"

namespace gptoss::cli {

/// A tool call that is right, and what the tool answers to it.
struct ExpectedCall {
  std::string recipient;
  std::optional<Json> arguments;  // of a function; compared as values
  std::string code;               // otherwise; compared as text
  std::string result;
};

struct EvalItem {
  std::string id;
  std::string family;
  bool hard = false;     // made for telling efforts apart
  std::string identity;  // first line of the system message; empty: the usual one
  bool python = false;   // the python tool is declared
  std::vector<Message> messages;
  std::vector<ExpectedCall> calls;
  std::string answer;
  bool as_json = false;  // the answer is compared as a value, else as text
};

/// One item a line: {"id", "family", "messages": [...], "answer", and optionally "hard", "identity", "tools":
/// ["python"], "match": "json", "calls": [{"recipient", "arguments" or "code", "result"}]}. `name` stands in errors.
/// On failure: kCorruptData naming line and field; also for a text without items.
Result<std::vector<EvalItem>> ReadSuite(std::string_view text, const std::string& name);

/// evals/nano.jsonl, as built into this binary.
std::string_view EmbeddedNanoSuite();

/// The system message that `gptoss run` begins with, then the item's messages.
Conversation PromptOf(const EvalItem& item, ReasoningEffort effort, const std::string& date);

/// The text of a message's contents.
std::string TextOf(const Message& message);

bool IsRight(const EvalItem& item, std::string_view answer);
bool IsRight(const ExpectedCall& expected, const Message& call);

/// Whether a call could be carried out: to a declared function with arguments that are a JSON object of the declared
/// types, all required ones and no others; or to python with some code when it is declared.
bool IsValidCall(const EvalItem& item, const Message& call);

}  // namespace gptoss::cli
