#include "grammar/tool_grammar.h"

#include <algorithm>
#include <utility>

#include "grammar/ebnf.h"
#include "grammar/json_schema.h"
#include "grammar/regex.h"

namespace gptoss {
namespace {

/// The field of one of two objects that have it, the first before the second; null where neither does, or it is null.
const Json* FieldOfEither(const Json& inner, const Json& outer, const char* key) {
  for (const Json* object : {&inner, &outer}) {
    const Json* field = object->is_object() ? FindField(*object, key) : nullptr;
    if (field != nullptr && !field->is_null()) return field;
  }
  return nullptr;
}

Status WrongType(const std::string& tool, const std::string& field, const char* expected) {
  return InvalidArgument("tool '" + tool + "': " + field + " must be " + expected);
}

Result<std::string> StringField(const Json& inner, const Json& outer, const char* key, const std::string& tool) {
  const Json* field = FieldOfEither(inner, outer, key);
  if (field == nullptr) return std::string();
  if (!field->is_string()) return WrongType(tool, key, "a string");
  return field->get<std::string>();
}

Status ReadFunction(const Json& inner, const Json& json, ToolSpec* tool) {
  if (const Json* parameters = FieldOfEither(inner, json, "parameters")) {
    if (!parameters->is_object()) return WrongType(tool->name, "parameters", "a JSON Schema, which is an object");
    if (!parameters->empty()) tool->parameters = *parameters;
  }
  if (const Json* strict = FieldOfEither(inner, json, "strict")) {
    if (!strict->is_boolean()) return WrongType(tool->name, "strict", "true or false");
    tool->strict = strict->get<bool>();
  }
  return {};
}

Status ReadFormat(const Json& format, ToolSpec* tool) {
  if (!format.is_object()) return WrongType(tool->name, "format", "an object");
  GPTOSS_ASSIGN_OR_RETURN(const std::string type, StringField(format, format, "type", tool->name));
  if (type == "text") return {};
  if (type != "grammar") return WrongType(tool->name, "format.type", "'text' or 'grammar'");
  const Json* grammar = FindField(format, "grammar");
  const Json& inner = grammar != nullptr ? *grammar : format;
  GPTOSS_ASSIGN_OR_RETURN(const std::string syntax, StringField(inner, format, "syntax", tool->name));
  if (syntax != "lark" && syntax != "regex") return WrongType(tool->name, "format.syntax", "'lark' or 'regex'");
  tool->input = syntax == "lark" ? ToolSpec::Input::kLark : ToolSpec::Input::kRegex;
  GPTOSS_ASSIGN_OR_RETURN(tool->definition, StringField(inner, format, "definition", tool->name));
  if (tool->definition.empty()) return WrongType(tool->name, "format.definition", "the grammar's text");
  return {};
}

Result<Automaton> InputOf(const ToolSpec& tool) {
  switch (tool.input) {
    case ToolSpec::Input::kRegex:
      return CompileRegex(tool.definition);
    case ToolSpec::Input::kLark:
      return CompileLark(tool.definition);
    default:
      break;
  }
  JsonSchemaOptions options;
  options.only_objects = true;
  if (!tool.parameters) return CompileJsonSchema(Json{{"additionalProperties", false}}, options);
  return tool.strict ? CompileJsonSchema(*tool.parameters, options) : AnyJsonObject();
}

}  // namespace

Result<ToolSpec> ToolSpecFromJson(const Json& json) {
  if (!json.is_object()) return InvalidArgument("a tool must be an object");
  const std::string* type = FindString(json, "type");
  if (type == nullptr || (*type != "function" && *type != "custom")) {
    return InvalidArgument("a tool's type must be 'function' or 'custom'");
  }
  ToolSpec tool;
  const Json* nested = FindField(json, *type);
  const Json& inner = nested != nullptr ? *nested : json;
  GPTOSS_ASSIGN_OR_RETURN(tool.name, StringField(inner, json, "name", ""));
  if (tool.name.empty()) return InvalidArgument("a tool of type " + *type + " has no name");
  constexpr size_t kLongestName = 64;
  const bool plain = std::ranges::all_of(tool.name, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == '-';
  });
  if (!plain || tool.name.size() > kLongestName) {
    return WrongType(tool.name, "name", "at most 64 letters, digits, '_' and '-'");
  }
  GPTOSS_ASSIGN_OR_RETURN(tool.description, StringField(inner, json, "description", tool.name));
  if (*type == "function") {
    GPTOSS_RETURN_IF_ERROR(ReadFunction(inner, json, &tool));
    return tool;
  }
  tool.input = ToolSpec::Input::kText;
  if (const Json* format = FieldOfEither(inner, json, "format")) GPTOSS_RETURN_IF_ERROR(ReadFormat(*format, &tool));
  return tool;
}

std::string InputKey(const ToolSpec& tool) {
  switch (tool.input) {
    case ToolSpec::Input::kText:
      return "";
    case ToolSpec::Input::kRegex:
      return "regex " + tool.definition;
    case ToolSpec::Input::kLark:
      return "lark " + tool.definition;
    case ToolSpec::Input::kJson:
      break;
  }
  if (!tool.parameters) return "nothing";
  return tool.strict ? "schema " + WriteJson(*tool.parameters) : "object";
}

Result<TurnTool> CompileTool(const ToolSpec& tool, std::shared_ptr<const TokenIndex> tokens) {
  TurnTool out;
  out.recipient = tool.Recipient();
  out.json = tool.input == ToolSpec::Input::kJson;
  if (tool.input == ToolSpec::Input::kText) return out;
  Result<Automaton> automaton = InputOf(tool);
  if (!automaton.ok()) return automaton.status().WithContext("tool '" + tool.name + "'");
  out.arguments = Machine::Create(*std::move(automaton), std::move(tokens));
  return out;
}

}  // namespace gptoss
