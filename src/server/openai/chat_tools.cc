#include "server/openai/chat_tools.h"

#include <algorithm>
#include <utility>

#include "server/api/history.h"
#include "server/api/limits.h"

namespace gptoss::server {
namespace {

Status AddTool(ToolSpec tool, const std::string& path, std::vector<ToolSpec>* tools) {
  GPTOSS_RETURN_IF_ERROR(CheckToolName(tool.name, path));
  const bool twice =
      std::any_of(tools->begin(), tools->end(), [&](const ToolSpec& other) { return other.name == tool.name; });
  if (twice) return InvalidArgument(path + ": '" + tool.name + "' is declared twice");
  tools->push_back(std::move(tool));
  return {};
}

Status ReadFunction(const Json& json, const std::string& path, std::vector<ToolSpec>* tools) {
  FieldReader fields(json, path);
  ToolSpec tool;
  tool.name = fields.RequiredString("name");
  tool.description = fields.String("description").value_or("");
  tool.strict = fields.Bool("strict").value_or(false);
  const Json* parameters = fields.Object("parameters");
  // A schema that says nothing is how many clients write "no arguments".
  if (parameters != nullptr && !parameters->empty()) tool.parameters = *parameters;
  GPTOSS_RETURN_IF_ERROR(fields.status());
  return AddTool(std::move(tool), path + ".name", tools);
}

Status ReadCustom(const Json& json, const std::string& path, std::vector<ToolSpec>* tools) {
  FieldReader fields(json, path);
  ToolSpec tool;
  tool.input = ToolSpec::Input::kText;
  tool.name = fields.RequiredString("name");
  tool.description = fields.String("description").value_or("");
  const Json* format = fields.Object("format");
  GPTOSS_RETURN_IF_ERROR(fields.status());
  if (format != nullptr) {
    FieldReader reader(*format, path + ".format");
    const std::string type = reader.RequiredString("type");
    if (type == "grammar") {
      // The chat form has the grammar in an object of its own, the responses form beside the type.
      const Json* nested = reader.Object("grammar");
      FieldReader grammar(nested != nullptr ? *nested : *format, nested != nullptr ? reader.Path("grammar") : path);
      const std::string syntax = grammar.RequiredString("syntax");
      tool.definition = grammar.RequiredString("definition");
      if (syntax != "lark" && syntax != "regex") grammar.Fail("syntax", "must be 'lark' or 'regex'");
      tool.input = syntax == "lark" ? ToolSpec::Input::kLark : ToolSpec::Input::kRegex;
      GPTOSS_RETURN_IF_ERROR(grammar.status());
    } else if (type != "text") {
      reader.Fail("type", "must be 'text' or 'grammar'");
    }
    GPTOSS_RETURN_IF_ERROR(reader.status());
  }
  return AddTool(std::move(tool), path + ".name", tools);
}

Status ReadTool(const Json& json, const std::string& path, std::vector<ToolSpec>* tools) {
  FieldReader fields(json, path);
  const std::string type = fields.RequiredString("type");
  GPTOSS_RETURN_IF_ERROR(fields.status());
  if (type != "function" && type != "custom") {
    return Unsupported(path + ".type: tools of type '" + type + "' are not available here; use 'function' or 'custom'");
  }
  const Json* inner = fields.Object(type);
  GPTOSS_RETURN_IF_ERROR(fields.status());
  // Some clients leave the inner object out.
  const std::string inner_path = inner != nullptr ? path + "." + type : path;
  const Json& described = inner != nullptr ? *inner : json;
  return type == "function" ? ReadFunction(described, inner_path, tools) : ReadCustom(described, inner_path, tools);
}

/// {"type": "function", "function": {"name"}}, {"type": "custom", …}, or {"name"} as in function_call.
Result<std::string> NamedTool(const Json& json, const std::string& path, const std::vector<ToolSpec>& tools) {
  FieldReader fields(json, path);
  GPTOSS_RETURN_IF_ERROR(fields.status());
  const std::string type = fields.String("type").value_or("function");
  const Json* inner = fields.Object(type);
  FieldReader named(inner != nullptr ? *inner : json, inner != nullptr ? path + "." + type : path);
  const std::string name = named.RequiredString("name");
  GPTOSS_RETURN_IF_ERROR(named.status());
  const bool declared =
      std::any_of(tools.begin(), tools.end(), [&](const ToolSpec& tool) { return tool.name == name; });
  if (!declared) return InvalidArgument(path + ": '" + name + "' is not among the tools");
  return name;
}

Status SetChoice(const std::string& word, const std::string& path, ToolChoice* choice) {
  if (word == "auto") {
    choice->kind = ToolChoice::Kind::kAuto;
  } else if (word == "none") {
    choice->kind = ToolChoice::Kind::kNone;
  } else if (word == "required" || word == "any") {
    choice->kind = ToolChoice::Kind::kRequired;
  } else {
    return InvalidArgument(path + ": must be 'auto', 'none', 'required', or an object that names tools");
  }
  return {};
}

Status ReadChoice(const Json& json, const std::string& path, TurnRequest* turn) {
  ToolChoice& choice = turn->tool_choice;
  if (json.is_string()) return SetChoice(json.get<std::string>(), path, &choice);
  FieldReader fields(json, path);
  GPTOSS_RETURN_IF_ERROR(fields.status());
  if (fields.String("type") != "allowed_tools") {
    GPTOSS_ASSIGN_OR_RETURN(std::string name, NamedTool(json, path, turn->tools));
    choice.kind = ToolChoice::Kind::kRequired;
    choice.allowed = {std::move(name)};
    return {};
  }
  const Json* nested = fields.Object("allowed_tools");
  FieldReader allowed(nested != nullptr ? *nested : json, nested != nullptr ? fields.Path("allowed_tools") : path);
  const std::string mode = allowed.String("mode").value_or("auto");
  const Json* tools = allowed.Array("tools");
  GPTOSS_RETURN_IF_ERROR(allowed.status());
  GPTOSS_RETURN_IF_ERROR(SetChoice(mode, allowed.Path("mode"), &choice));
  if (tools == nullptr || tools->empty()) {
    return InvalidArgument(allowed.Path("tools") + ": must name at least one tool");
  }
  for (size_t i = 0; i < tools->size(); ++i) {
    GPTOSS_ASSIGN_OR_RETURN(std::string name, NamedTool((*tools)[i], Indexed(allowed.Path("tools"), i), turn->tools));
    choice.allowed.push_back(std::move(name));
  }
  return {};
}

}  // namespace

Status ReadChatTools(FieldReader& body, std::vector<ToolSpec>* tools) {
  for (const char* key : {"tools", "functions"}) {  // the latter is the older spelling
    const Json* list = body.Array(key);
    GPTOSS_RETURN_IF_ERROR(body.status());
    if (list == nullptr) continue;
    if (list->size() > kMaxTools) return InvalidArgument(std::string(key) + ": has too many tools");
    const bool is_old = std::string_view(key) == "functions";
    for (size_t i = 0; i < list->size(); ++i) {
      const std::string path = Indexed(key, i);
      GPTOSS_RETURN_IF_ERROR(is_old ? ReadFunction((*list)[i], path, tools) : ReadTool((*list)[i], path, tools));
    }
  }
  return {};
}

Status ReadChatToolChoice(FieldReader& body, TurnRequest* turn) {
  for (const char* key : {"tool_choice", "function_call"}) {
    const Json* choice = body.Find(key);
    if (choice == nullptr) continue;
    GPTOSS_RETURN_IF_ERROR(ReadChoice(*choice, key, turn));
    if (turn->tool_choice.kind == ToolChoice::Kind::kRequired && turn->tools.empty()) {
      return InvalidArgument(std::string(key) + ": a call is required, but no tools are declared");
    }
    break;
  }
  return {};
}

Status ReadResponseFormat(FieldReader& body, AnswerFormat* format) {
  const Json* given = body.Object("response_format");
  if (given == nullptr) return body.status();
  FieldReader fields(*given, "response_format");
  const std::string type = fields.RequiredString("type");
  const auto take_schema = [&](FieldReader& holder) {
    const Json* schema = holder.Object("schema");
    if (schema == nullptr) return;
    format->kind = AnswerFormat::Kind::kJsonSchema;
    format->schema = *schema;
  };
  if (type == "json_schema") {
    const Json* nested = fields.Object("json_schema");
    FieldReader inner(nested != nullptr ? *nested : *given,
                      nested != nullptr ? fields.Path("json_schema") : "response_format");
    format->name = inner.String("name").value_or("answer");
    format->description = inner.String("description").value_or("");
    take_schema(inner);
    if (format->kind != AnswerFormat::Kind::kJsonSchema) inner.Fail("schema", "is missing");
    GPTOSS_RETURN_IF_ERROR(inner.status());
  } else if (type == "json_object") {
    format->kind = AnswerFormat::Kind::kJsonObject;
    take_schema(fields);  // llama.cpp's form has one beside the type
  } else if (type != "text") {
    fields.Fail("type", "must be 'text', 'json_object' or 'json_schema'");
  }
  return fields.status();
}

}  // namespace gptoss::server
