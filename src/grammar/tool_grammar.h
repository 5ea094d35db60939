// Tools as an API declares them, and what the arguments of their calls may be. Sources: OpenAI's API reference (Chat
// Completions and Responses, "tools").
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "grammar/turn_grammar.h"
#include "json/json.h"

namespace gptoss {

struct ToolSpec {
  enum class Input : uint8_t { kJson, kText, kRegex, kLark };
  std::string name;  // bare: "get_weather"
  std::string description;
  Input input = Input::kJson;      // kJson: a function; the others: a custom tool
  std::optional<Json> parameters;  // of a function, a JSON Schema; absent: it takes none
  bool strict = false;             // arguments follow the schema; else they are any JSON object
  std::string definition;          // of the regular expression or of the Lark grammar

  /// As the model addresses it: "functions.get_weather".
  std::string Recipient() const { return "functions." + name; }
};

/// {"type": "function", "function": {"name", "description", "parameters", "strict"}}, or with those fields beside
/// "type"; {"type": "custom", "custom": {"name", "description", "format"}} likewise, where format is {"type": "text"}
/// or {"type": "grammar", "syntax": "lark" | "regex", "definition"}, the last two also under "grammar". Parameters of
/// {} are none. On failure: kInvalidArgument naming the tool and the field.
Result<ToolSpec> ToolSpecFromJson(const Json& json);

/// Equal for tools whose input is the same language, whatever their names: a key to keep compiled grammars under. Empty
/// where the input is free text.
std::string InputKey(const ToolSpec& tool);

/// A function's arguments are always one JSON object, whatever its schema says; without parameters it is empty.
/// On failure: what is wrong with its schema, expression or grammar, naming the tool.
Result<TurnTool> CompileTool(const ToolSpec& tool, std::shared_ptr<const TokenIndex> tokens);

}  // namespace gptoss
