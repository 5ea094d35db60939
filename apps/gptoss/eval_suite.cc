#include "eval_suite.h"

#include <algorithm>
#include <array>
#include <utility>

#include "harmony/builtin_tools.h"
#include "harmony/message_json.h"
#include "json/json.h"

namespace gptoss::cli {
namespace {

constexpr std::string_view kFunctions = "functions.";

Result<std::string> RequiredString(const Json& object, std::string_view key) {
  const std::string* value = FindString(object, key);
  if (value == nullptr) return CorruptData(std::string(key) + ": is missing or no string");
  return *value;
}

Result<ExpectedCall> ReadCall(const Json& json) {
  ExpectedCall call;
  GPTOSS_ASSIGN_OR_RETURN(call.recipient, RequiredString(json, "recipient"));
  GPTOSS_ASSIGN_OR_RETURN(call.result, RequiredString(json, "result"));
  if (const Json* arguments = FindField(json, "arguments")) {
    call.arguments = *arguments;
  } else {
    GPTOSS_ASSIGN_OR_RETURN(call.code, RequiredString(json, "code"));
  }
  return call;
}

Result<EvalItem> ReadItem(const Json& json) {
  EvalItem item;
  GPTOSS_ASSIGN_OR_RETURN(item.id, RequiredString(json, "id"));
  GPTOSS_ASSIGN_OR_RETURN(item.family, RequiredString(json, "family"));
  GPTOSS_ASSIGN_OR_RETURN(item.answer, RequiredString(json, "answer"));
  const Json* hard = FindField(json, "hard");
  item.hard = hard != nullptr && hard->is_boolean() && hard->get<bool>();
  if (const std::string* identity = FindString(json, "identity")) item.identity = *identity;
  if (const std::string* match = FindString(json, "match")) {
    if (*match != "json") return CorruptData("match: \"" + *match + "\" is not json");
    item.as_json = true;
  }
  if (const Json* tools = FindField(json, "tools")) {
    if (*tools != Json::array({"python"})) return CorruptData("tools: must be [\"python\"]");
    item.python = true;
  }
  GPTOSS_ASSIGN_OR_RETURN(Conversation conversation, ConversationFromJson(json));
  item.messages = std::move(conversation.messages);
  const Json* calls = FindField(json, "calls");
  if (calls == nullptr) return item;
  if (!calls->is_array()) return CorruptData("calls: must be a list");
  for (const Json& call : *calls) {
    GPTOSS_ASSIGN_OR_RETURN(item.calls.emplace_back(), ReadCall(call));
  }
  return item;
}

const ToolDescription* FindFunction(const EvalItem& item, std::string_view name) {
  for (const Message& message : item.messages) {
    for (const Content& content : message.contents) {
      const auto* developer = std::get_if<DeveloperContent>(&content);
      if (developer == nullptr) continue;
      const auto functions = developer->tools.find("functions");
      if (functions == developer->tools.end()) continue;
      for (const ToolDescription& tool : functions->second.tools) {
        if (tool.name == name) return &tool;
      }
    }
  }
  return nullptr;
}

bool HasType(const Json& value, std::string_view type) {
  if (type == "string") return value.is_string();
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  if (type == "boolean") return value.is_boolean();
  return false;  // the suite's functions have no others
}

bool FitsParameters(const Json& arguments, const std::optional<Json>& parameters) {
  if (!arguments.is_object()) return false;
  if (!parameters) return arguments.empty();
  const Json* properties = FindField(*parameters, "properties");
  const Json* required = FindField(*parameters, "required");
  for (const auto& [key, value] : arguments.items()) {
    const Json* property = properties == nullptr ? nullptr : FindField(*properties, key);
    const std::string* type = property == nullptr ? nullptr : FindString(*property, "type");
    if (type == nullptr || !HasType(value, *type)) return false;
  }
  return required == nullptr || !required->is_array() || std::ranges::all_of(*required, [&](const Json& key) {
           return key.is_string() && arguments.contains(key.get_ref<const std::string&>());
         });
}

}  // namespace

Result<std::vector<EvalItem>> ReadSuite(std::string_view text, const std::string& name) {
  std::vector<EvalItem> items;
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = name + ":" + std::to_string(number);
    const Result<Json> json = ParseJson(line);
    if (!json.ok()) return json.status().WithContext(where);
    Result<EvalItem> item = ReadItem(*json);
    if (!item.ok()) return CorruptData(where + ": " + item.status().message());
    items.push_back(*std::move(item));
  }
  if (items.empty()) return CorruptData(name + ": holds no questions");
  return items;
}

Conversation PromptOf(const EvalItem& item, ReasoningEffort effort, const std::string& date) {
  SystemContent content = DefaultSystemContent(date, effort);
  if (!item.identity.empty()) content.model_identity = item.identity;
  if (item.python) content.tools["python"] = PythonTool();
  Message system;
  system.author.role = Role::kSystem;
  system.contents.emplace_back(std::move(content));
  Conversation conversation;
  conversation.messages.push_back(std::move(system));
  conversation.messages.insert(conversation.messages.end(), item.messages.begin(), item.messages.end());
  return conversation;
}

std::string TextOf(const Message& message) {
  std::string text;
  for (const Content& content : message.contents) {
    if (const auto* part = std::get_if<TextContent>(&content)) text += part->text;
  }
  return text;
}

bool IsRight(const EvalItem& item, std::string_view answer) {
  if (!item.as_json) return answer == item.answer;
  const Result<Json> given = ParseJson(answer), right = ParseJson(item.answer);
  // The library's ordered objects compare by order; in JSON it has no meaning.
  return given.ok() && right.ok() && nlohmann::json(*given) == nlohmann::json(*right);
}

bool IsRight(const ExpectedCall& expected, const Message& call) {
  if (call.recipient != expected.recipient) return false;
  if (!expected.arguments) return TextOf(call) == expected.code;
  const Result<Json> arguments = ParseJson(TextOf(call));
  return arguments.ok() && nlohmann::json(*arguments) == nlohmann::json(*expected.arguments);
}

bool IsValidCall(const EvalItem& item, const Message& call) {
  const std::string recipient = call.recipient.value_or("");
  if (recipient == "python") return item.python && !TextOf(call).empty();
  if (!recipient.starts_with(kFunctions)) return false;
  const ToolDescription* function = FindFunction(item, std::string_view(recipient).substr(kFunctions.size()));
  const Result<Json> arguments = ParseJson(TextOf(call));
  return function != nullptr && arguments.ok() && FitsParameters(*arguments, function->parameters);
}

}  // namespace gptoss::cli
