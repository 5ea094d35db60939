#include "training/openai_chat.h"

#include <algorithm>
#include <string>
#include <utility>

namespace gptoss {
namespace {

bool Has(const Json& object, std::string_view key) {
  const Json* field = FindField(object, key);
  return field != nullptr && !field->is_null();
}

Result<std::string> Text(const Json& object, std::string_view key, const std::string& path) {
  const Json* field = FindField(object, key);
  if (field == nullptr || !field->is_string()) {
    return InvalidArgument(path + "." + std::string(key) + ": must be a string");
  }
  return field->get<std::string>();
}

/// A string, or a list of {"type": "text", "text"}; null and absent give no text.
Result<std::string> ContentText(const Json& message, const std::string& path) {
  const Json* content = FindField(message, "content");
  if (content == nullptr || content->is_null()) return std::string();
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) return InvalidArgument(path + ".content: must be a string or a list of parts");
  std::string all;
  for (size_t i = 0; i < content->size(); ++i) {
    const std::string where = path + ".content[" + std::to_string(i) + "]";
    const Json* type = FindField((*content)[i], "type");
    if (type == nullptr || *type != "text")
      return InvalidArgument(where + ": only parts of type text can be trained on");
    GPTOSS_ASSIGN_OR_RETURN(const std::string part, Text((*content)[i], "text", where));
    all += part;
  }
  return all;
}

Result<ToolNamespace> Functions(const Json& tools) {
  ToolNamespace functions{.name = "functions", .description = std::nullopt, .tools = {}};
  if (!tools.is_array()) return InvalidArgument("tools: must be a list");
  for (size_t i = 0; i < tools.size(); ++i) {
    const std::string path = "tools[" + std::to_string(i) + "].function";
    const Json* function = FindField(tools[i], "function");
    if (function == nullptr) return InvalidArgument(path + ": is missing; only function tools can be trained on");
    ToolDescription tool;
    GPTOSS_ASSIGN_OR_RETURN(tool.name, Text(*function, "name", path));
    if (Has(*function, "description")) {
      GPTOSS_ASSIGN_OR_RETURN(tool.description, Text(*function, "description", path));
    }
    if (Has(*function, "parameters")) tool.parameters = *FindField(*function, "parameters");
    functions.tools.push_back(std::move(tool));
  }
  return functions;
}

Message Said(std::string text, std::string_view channel) {
  Message message = TextMessage(Role::kAssistant, std::move(text));
  message.channel = channel;
  return message;
}

class Reader {
 public:
  explicit Reader(const Json& messages) : messages_(messages) {}

  Status Read() {
    while (at_ < messages_.size()) {
      const std::string path = Path(at_);
      GPTOSS_ASSIGN_OR_RETURN(const std::string role, Text(messages_[at_], "role", path));
      if (role == "system" || role == "developer") {
        GPTOSS_RETURN_IF_ERROR(Instruction(path));
      } else if (role == "user") {
        GPTOSS_ASSIGN_OR_RETURN(std::string text, ContentText(messages_[at_], path));
        Add(TextMessage(Role::kUser, std::move(text)), 1.0f);
        ++at_;
      } else if (role == "assistant") {
        GPTOSS_RETURN_IF_ERROR(Assistant(path));
      } else if (role == "tool") {
        return InvalidArgument(path + ": a tool's result without a call before it");
      } else {
        return InvalidArgument(path + ".role: \"" + role + "\" is none of system, developer, user, assistant, tool");
      }
    }
    return Status();
  }

  std::string instructions() const { return instructions_; }
  OpenAiConversation Take() && { return std::move(out_); }

 private:
  static std::string Path(size_t index) { return "messages[" + std::to_string(index) + "]"; }

  void Add(Message message, float weight) {
    out_.conversation.messages.push_back(std::move(message));
    out_.weights.push_back(weight);
  }

  Status Instruction(const std::string& path) {
    if (!out_.conversation.messages.empty()) {
      return InvalidArgument(path + ": system and developer messages must come before all others");
    }
    GPTOSS_ASSIGN_OR_RETURN(const std::string text, ContentText(messages_[at_], path));
    instructions_ += (instructions_.empty() ? "" : "\n\n") + text;
    ++at_;
    return Status();
  }

  Status Assistant(const std::string& path) {
    const Json& message = messages_[at_++];
    float weight = 1.0f;
    if (const Json* field = FindField(message, "weight"); field != nullptr && !field->is_null()) {
      if (!field->is_number() || !(field->get<double>() >= 0)) {
        return InvalidArgument(path + ".weight: must be a number that is not negative");
      }
      weight = static_cast<float>(field->get<double>());
    }
    for (const char* key : {"reasoning_content", "thinking", "reasoning"}) {
      if (!Has(message, key)) continue;
      GPTOSS_ASSIGN_OR_RETURN(std::string reasoning, Text(message, key, path));
      Add(Said(std::move(reasoning), "analysis"), weight);
      break;
    }
    GPTOSS_ASSIGN_OR_RETURN(std::string text, ContentText(message, path));
    const Json* calls = FindField(message, "tool_calls");
    const bool has_calls = calls != nullptr && !calls->is_null() && !(calls->is_array() && calls->empty());
    if (!has_calls) {
      Add(Said(std::move(text), "final"), weight);
      return Status();
    }
    if (!calls->is_array()) return InvalidArgument(path + ".tool_calls: must be a list");
    if (!text.empty()) Add(Said(std::move(text), "commentary"), weight);
    return Calls(*calls, path + ".tool_calls", weight);
  }

  /// The results that follow belong to these calls; harmony has each right after its call.
  Status Calls(const Json& calls, const std::string& path, float weight) {
    const size_t first = at_;
    while (at_ < messages_.size() && FindField(messages_[at_], "role") != nullptr &&
           *FindField(messages_[at_], "role") == "tool") {
      ++at_;
    }
    size_t used = 0;
    for (size_t i = 0; i < calls.size(); ++i) {
      const std::string where = path + "[" + std::to_string(i) + "]";
      const Json* function = FindField(calls[i], "function");
      if (function == nullptr) return InvalidArgument(where + ".function: is missing");
      GPTOSS_ASSIGN_OR_RETURN(const std::string name, Text(*function, "name", where + ".function"));
      GPTOSS_ASSIGN_OR_RETURN(std::string arguments, Text(*function, "arguments", where + ".function"));
      if (!ParseJson(arguments).ok()) return InvalidArgument(where + ".function.arguments: is no valid JSON");
      Message call = Said(std::move(arguments), "commentary");
      call.recipient = "functions." + name;
      call.content_type = "<|constrain|>json";
      Add(std::move(call), weight);
      GPTOSS_ASSIGN_OR_RETURN(const std::string id, Text(calls[i], "id", where));
      const size_t result = FindResult(first, id);
      if (result == at_) {
        const bool ends = at_ == messages_.size() && first == at_ && i + 1 == calls.size();
        if (ends) return Status();  // the call is what is learnt
        return InvalidArgument(where + ": no message of role tool with tool_call_id \"" + id + "\" follows");
      }
      ++used;
      GPTOSS_ASSIGN_OR_RETURN(std::string text, ContentText(messages_[result], Path(result)));
      Message answer = TextMessage(Role::kTool, std::move(text));
      answer.author.name = "functions." + name;
      answer.recipient = "assistant";
      answer.channel = "commentary";
      Add(std::move(answer), 1.0f);
    }
    if (used != at_ - first) return InvalidArgument(Path(first) + ": results that belong to no call");
    return Status();
  }

  /// at_ when there is none.
  size_t FindResult(size_t first, const std::string& id) const {
    for (size_t i = first; i < at_; ++i) {
      const Json* own = FindField(messages_[i], "tool_call_id");
      if (own != nullptr && *own == id) return i;
    }
    return at_;
  }

  const Json& messages_;
  size_t at_ = 0;
  std::string instructions_;
  OpenAiConversation out_;
};

}  // namespace

bool IsOpenAiChat(const Json& json) {
  const Json* messages = FindField(json, "messages");
  if (messages == nullptr || !messages->is_array()) return false;
  if (Has(json, "tools")) return true;
  bool assistant = false, harmony = false;
  for (const Json& message : *messages) {
    for (const char* key : {"tool_calls", "tool_call_id", "weight", "reasoning_content", "thinking"}) {
      if (Has(message, key)) return true;
    }
    for (const char* key : {"channel", "recipient", "content_type", "author"}) harmony = harmony || Has(message, key);
    const Json* role = FindField(message, "role");
    assistant = assistant || (role != nullptr && *role == "assistant");
  }
  return assistant && !harmony;
}

Result<OpenAiConversation> ConversationFromOpenAiChat(const Json& json) {
  const Json* messages = FindField(json, "messages");
  if (messages == nullptr || !messages->is_array()) return InvalidArgument("messages: must be a list");
  ReasoningEffort effort = ReasoningEffort::kMedium;
  if (Has(json, "reasoning_effort")) {
    const Json& field = *FindField(json, "reasoning_effort");
    const auto named = field.is_string() ? ReasoningEffortFromName(field.get<std::string>()) : std::nullopt;
    if (!named) return InvalidArgument("reasoning_effort: must be low, medium or high");
    effort = *named;
  }
  DeveloperContent developer;
  if (Has(json, "tools")) {
    GPTOSS_ASSIGN_OR_RETURN(ToolNamespace functions, Functions(*FindField(json, "tools")));
    if (!functions.tools.empty()) developer.tools["functions"] = std::move(functions);
  }
  Reader reader(*messages);
  GPTOSS_RETURN_IF_ERROR(reader.Read());
  if (!reader.instructions().empty()) developer.instructions = reader.instructions();
  OpenAiConversation body = std::move(reader).Take();
  OpenAiConversation all;
  const auto add = [&all](Role role, Content content) {
    Message message;
    message.author.role = role;
    message.contents.push_back(std::move(content));
    all.conversation.messages.push_back(std::move(message));
  };
  add(Role::kSystem, DefaultSystemContent("", effort));
  if (developer.instructions || !developer.tools.empty()) add(Role::kDeveloper, developer);
  all.weights.assign(all.conversation.messages.size(), 1.0f);
  for (Message& message : body.conversation.messages) all.conversation.messages.push_back(std::move(message));
  all.weights.insert(all.weights.end(), body.weights.begin(), body.weights.end());
  return all;
}

}  // namespace gptoss
