#include "harmony/message_json.h"

#include <utility>

namespace gptoss {
namespace {

Status WrongType(const std::string& path, std::string_view wanted) {
  return InvalidArgument(path + ": must be " + std::string(wanted));
}

/// A field that is there and not null.
const Json* Present(const Json& object, std::string_view key) {
  const Json* field = FindField(object, key);
  return field == nullptr || field->is_null() ? nullptr : field;
}

Status ReadOptional(const Json& object, std::string_view key, const std::string& path,
                    std::optional<std::string>* out) {
  const Json* field = Present(object, key);
  if (field == nullptr) return {};
  if (!field->is_string()) return WrongType(path + "." + std::string(key), "a string or null");
  *out = field->get_ref<const std::string&>();
  return {};
}

Status ReadRequired(const Json& object, std::string_view key, const std::string& path, std::string* out) {
  std::optional<std::string> value;
  GPTOSS_RETURN_IF_ERROR(ReadOptional(object, key, path, &value));
  if (!value) return InvalidArgument(path + "." + std::string(key) + ": is missing; give a string");
  *out = *std::move(value);
  return {};
}

Result<const Json*> ReadArray(const Json& object, std::string_view key, const std::string& path) {
  const Json* field = Present(object, key);
  if (field == nullptr) return InvalidArgument(path + "." + std::string(key) + ": is missing; give a list");
  if (!field->is_array()) return WrongType(path + "." + std::string(key), "a list");
  return field;
}

Status ReadNamespaces(const Json& object, const std::string& path, ToolNamespaces* out) {
  const Json* field = Present(object, "tools");
  if (field == nullptr) return {};
  if (!field->is_object()) return WrongType(path + ".tools", "an object of namespaces");
  for (const auto& [key, value] : field->items()) {
    GPTOSS_ASSIGN_OR_RETURN((*out)[key], ToolNamespaceFromJson(value, path + ".tools." + key));
  }
  return {};
}

Result<Content> SystemContentFromJson(const Json& json, const std::string& path) {
  SystemContent content;
  GPTOSS_RETURN_IF_ERROR(ReadOptional(json, "model_identity", path, &content.model_identity));
  GPTOSS_RETURN_IF_ERROR(ReadOptional(json, "knowledge_cutoff", path, &content.knowledge_cutoff));
  GPTOSS_RETURN_IF_ERROR(ReadOptional(json, "conversation_start_date", path, &content.conversation_start_date));
  std::optional<std::string> effort;
  GPTOSS_RETURN_IF_ERROR(ReadOptional(json, "reasoning_effort", path, &effort));
  if (effort) {
    content.reasoning_effort = ReasoningEffortFromName(*effort);
    if (!content.reasoning_effort) {
      return InvalidArgument(path + ".reasoning_effort: \"" + *effort + "\" is not one of Low, Medium, High");
    }
  }
  GPTOSS_RETURN_IF_ERROR(ReadNamespaces(json, path, &content.tools));
  const Json* config = Present(json, "channel_config");
  if (config == nullptr) return Content(std::move(content));
  const std::string config_path = path + ".channel_config";
  if (!config->is_object()) return WrongType(config_path, "an object");
  content.channel_config.emplace();
  GPTOSS_ASSIGN_OR_RETURN(const Json* channels, ReadArray(*config, "valid_channels", config_path));
  for (size_t i = 0; i < channels->size(); ++i) {
    const std::string* channel = (*channels)[i].get_ptr<const std::string*>();
    if (channel == nullptr) return WrongType(config_path + ".valid_channels[" + std::to_string(i) + "]", "a string");
    content.channel_config->valid_channels.push_back(*channel);
  }
  const Json* required = Present(*config, "channel_required");
  if (required == nullptr || !required->is_boolean()) {
    return WrongType(config_path + ".channel_required", "true or false");
  }
  content.channel_config->channel_required = required->get<bool>();
  return Content(std::move(content));
}

Result<Content> DeveloperContentFromJson(const Json& json, const std::string& path) {
  DeveloperContent content;
  GPTOSS_RETURN_IF_ERROR(ReadOptional(json, "instructions", path, &content.instructions));
  GPTOSS_RETURN_IF_ERROR(ReadNamespaces(json, path, &content.tools));
  if (Present(json, "response_formats") == nullptr) return Content(std::move(content));
  GPTOSS_ASSIGN_OR_RETURN(const Json* formats, ReadArray(json, "response_formats", path));
  for (size_t i = 0; i < formats->size(); ++i) {
    const std::string item_path = path + ".response_formats[" + std::to_string(i) + "]";
    ResponseFormat format;
    GPTOSS_RETURN_IF_ERROR(ReadRequired((*formats)[i], "name", item_path, &format.name));
    GPTOSS_RETURN_IF_ERROR(ReadOptional((*formats)[i], "description", item_path, &format.description));
    const Json* schema = Present((*formats)[i], "schema");
    if (schema == nullptr || !schema->is_object()) return WrongType(item_path + ".schema", "an object");
    format.schema = *schema;
    content.response_formats.push_back(std::move(format));
  }
  return Content(std::move(content));
}

Result<Content> ContentFromJson(const Json& json, const std::string& path) {
  if (!json.is_object()) return WrongType(path, "an object with \"type\"");
  std::string type;
  GPTOSS_RETURN_IF_ERROR(ReadRequired(json, "type", path, &type));
  if (type == "system_content") return SystemContentFromJson(json, path);
  if (type == "developer_content") return DeveloperContentFromJson(json, path);
  if (type != "text") {
    return InvalidArgument(path + ".type: \"" + type + "\" is not one of text, system_content, developer_content");
  }
  TextContent text;
  GPTOSS_RETURN_IF_ERROR(ReadRequired(json, "text", path, &text.text));
  return Content(std::move(text));
}

void Set(Json* object, const char* key, const std::optional<std::string>& value) {
  if (value) (*object)[key] = *value;
}

Json NamespacesToJson(const ToolNamespaces& tools) {
  Json out = Json::object();
  for (const auto& [key, value] : tools) out[key] = ToJson(value);
  return out;
}

struct ContentWriter {
  Json operator()(const TextContent& text) const { return Json{{"type", "text"}, {"text", text.text}}; }

  Json operator()(const SystemContent& system) const {
    Json out = Json::object();
    Set(&out, "model_identity", system.model_identity);
    if (system.reasoning_effort) {
      std::string name(ReasoningEffortName(*system.reasoning_effort));
      name[0] = static_cast<char>(name[0] - 'a' + 'A');
      out["reasoning_effort"] = name;
    }
    Set(&out, "conversation_start_date", system.conversation_start_date);
    Set(&out, "knowledge_cutoff", system.knowledge_cutoff);
    if (system.channel_config) {
      out["channel_config"] = {{"valid_channels", system.channel_config->valid_channels},
                               {"channel_required", system.channel_config->channel_required}};
    }
    if (!system.tools.empty()) out["tools"] = NamespacesToJson(system.tools);
    out["type"] = "system_content";
    return out;
  }

  Json operator()(const DeveloperContent& developer) const {
    Json out = Json::object();
    Set(&out, "instructions", developer.instructions);
    if (!developer.tools.empty()) out["tools"] = NamespacesToJson(developer.tools);
    for (const ResponseFormat& format : developer.response_formats) {
      Json item = {{"name", format.name}};
      Set(&item, "description", format.description);
      item["schema"] = format.schema;
      out["response_formats"].push_back(std::move(item));
    }
    out["type"] = "developer_content";
    return out;
  }
};

}  // namespace

Result<ToolNamespace> ToolNamespaceFromJson(const Json& json, const std::string& path) {
  if (!json.is_object()) return WrongType(path, "an object");
  ToolNamespace out;
  GPTOSS_RETURN_IF_ERROR(ReadRequired(json, "name", path, &out.name));
  GPTOSS_RETURN_IF_ERROR(ReadOptional(json, "description", path, &out.description));
  GPTOSS_ASSIGN_OR_RETURN(const Json* tools, ReadArray(json, "tools", path));
  for (size_t i = 0; i < tools->size(); ++i) {
    const std::string tool_path = path + ".tools[" + std::to_string(i) + "]";
    const Json& item = (*tools)[i];
    if (!item.is_object()) return WrongType(tool_path, "an object");
    ToolDescription tool;
    std::optional<std::string> description;
    GPTOSS_RETURN_IF_ERROR(ReadRequired(item, "name", tool_path, &tool.name));
    GPTOSS_RETURN_IF_ERROR(ReadOptional(item, "description", tool_path, &description));
    tool.description = std::move(description).value_or("");
    if (const Json* parameters = Present(item, "parameters")) tool.parameters = *parameters;
    out.tools.push_back(std::move(tool));
  }
  return out;
}

Result<Message> MessageFromJson(const Json& json, const std::string& path) {
  if (!json.is_object()) return WrongType(path, "an object");
  Message message;
  std::string role;
  GPTOSS_RETURN_IF_ERROR(ReadRequired(json, "role", path, &role));
  const std::optional<Role> known = RoleFromName(role);
  if (!known) {
    return InvalidArgument(path + ".role: \"" + role + "\" is not one of user, assistant, system, developer, tool");
  }
  message.author.role = *known;
  GPTOSS_RETURN_IF_ERROR(ReadOptional(json, "name", path, &message.author.name));
  GPTOSS_RETURN_IF_ERROR(ReadOptional(json, "recipient", path, &message.recipient));
  GPTOSS_RETURN_IF_ERROR(ReadOptional(json, "channel", path, &message.channel));
  GPTOSS_RETURN_IF_ERROR(ReadOptional(json, "content_type", path, &message.content_type));
  const Json* content = Present(json, "content");
  if (content == nullptr) return InvalidArgument(path + ".content: is missing; give a string or a list");
  if (const auto* text = content->get_ptr<const std::string*>()) {
    message.contents.push_back(TextContent{*text});
    return message;
  }
  if (!content->is_array()) return WrongType(path + ".content", "a string or a list");
  for (size_t i = 0; i < content->size(); ++i) {
    GPTOSS_ASSIGN_OR_RETURN(Content item, ContentFromJson((*content)[i], path + ".content[" + std::to_string(i) + "]"));
    message.contents.push_back(std::move(item));
  }
  return message;
}

Result<Conversation> ConversationFromJson(const Json& json) {
  if (!json.is_object()) return WrongType("conversation", "an object with \"messages\"");
  const Json* messages = Present(json, "messages");
  if (messages == nullptr || !messages->is_array()) return WrongType("messages", "a list");
  Conversation out;
  out.messages.reserve(messages->size());
  for (size_t i = 0; i < messages->size(); ++i) {
    GPTOSS_ASSIGN_OR_RETURN(Message message, MessageFromJson((*messages)[i], "messages[" + std::to_string(i) + "]"));
    out.messages.push_back(std::move(message));
  }
  return out;
}

Json ToJson(const ToolNamespace& tools) {
  Json out = {{"name", tools.name}};
  Set(&out, "description", tools.description);
  out["tools"] = Json::array();
  for (const ToolDescription& tool : tools.tools) {
    Json item = {{"name", tool.name}, {"description", tool.description}};
    if (tool.parameters) item["parameters"] = *tool.parameters;
    out["tools"].push_back(std::move(item));
  }
  return out;
}

Json ToJson(const Message& message) {
  Json out = {{"role", RoleName(message.author.role)}};
  out["name"] = message.author.name ? Json(*message.author.name) : Json();
  out["content"] = Json::array();
  for (const Content& content : message.contents) out["content"].push_back(std::visit(ContentWriter(), content));
  Set(&out, "channel", message.channel);
  Set(&out, "recipient", message.recipient);
  Set(&out, "content_type", message.content_type);
  return out;
}

Json ToJson(const Conversation& conversation) {
  Json out = {{"messages", Json::array()}};
  for (const Message& message : conversation.messages) out["messages"].push_back(ToJson(message));
  return out;
}

}  // namespace gptoss
