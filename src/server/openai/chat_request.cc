#include "server/openai/chat_request.h"

#include <map>
#include <utility>

#include "server/api/fields.h"
#include "server/api/history.h"
#include "server/api/limits.h"
#include "server/openai/chat_tools.h"
#include "server/openai/sampling_fields.h"

namespace gptoss::server {
namespace {

void Join(const std::string& text, std::string* out) {
  if (text.empty()) return;
  if (!out->empty()) *out += "\n\n";
  *out += text;
}

/// The text of a content that is a string, null, or an array of parts.
Result<std::string> ReadContent(const Json* content, const std::string& path) {
  if (content == nullptr || content->is_null()) return std::string();
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) return InvalidArgument(path + ": must be a string or an array of parts");
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    const Json& part = (*content)[i];
    if (part.is_string()) {
      text += part.get<std::string>();
      continue;
    }
    FieldReader fields(part, Indexed(path, i));
    const std::string type = fields.RequiredString("type");
    GPTOSS_RETURN_IF_ERROR(fields.status());
    if (type == "text" || type == "input_text" || type == "output_text") {
      text += fields.RequiredString("text");
    } else if (type == "refusal") {
      text += fields.RequiredString("refusal");
    } else {
      return Unsupported(fields.Path("type") + ": gpt-oss models read text only, not parts of type '" + type + "'");
    }
    GPTOSS_RETURN_IF_ERROR(fields.status());
  }
  return text;
}

/// Reads messages in order; knows the names of the calls that tool messages answer.
class MessageReader {
 public:
  explicit MessageReader(ChatRequest* out) : out_(out) {}

  Status Read(const Json& json, const std::string& path) {
    FieldReader message(json, path);
    const std::string role = message.RequiredString("role");
    GPTOSS_RETURN_IF_ERROR(message.status());
    GPTOSS_ASSIGN_OR_RETURN(std::string text, ReadContent(message.Find("content"), message.Path("content")));
    if (role == "system" || role == "developer") {
      if (out_->entries.empty()) {
        Join(text, &out_->turn.instructions);
      } else {
        Add(LateInstructions(std::move(text)));
      }
      return {};
    }
    if (role == "user") {
      Add(UserText(std::move(text)));
      return {};
    }
    if (role == "assistant") return ReadAssistant(message, std::move(text));
    if (role == "tool" || role == "function") return ReadToolResult(message, role, std::move(text));
    return InvalidArgument(message.Path("role") +
                           ": must be 'system', 'developer', 'user', 'assistant' or 'tool', not '" + role + "'");
  }

 private:
  void Add(Message message, std::string id = {}) { out_->entries.push_back({std::move(message), std::move(id)}); }

  Status ReadAssistant(FieldReader& message, std::string text) {
    for (const char* key : {"reasoning", "reasoning_content", "thinking"}) {
      const Json* reasoning = message.Find(key);
      if (reasoning == nullptr || !reasoning->is_string() || *reasoning == "") continue;
      Add(server::Reasoning(reasoning->get<std::string>()));
      break;  // the two names carry the same text
    }
    const Json* calls = message.Array("tool_calls");
    const Json* old_call = message.Object("function_call");
    GPTOSS_RETURN_IF_ERROR(message.status());
    const bool has_calls = (calls != nullptr && !calls->empty()) || old_call != nullptr;
    if (!text.empty()) Add(has_calls ? Preamble(std::move(text)) : Answer(std::move(text)));
    if (old_call != nullptr) {
      FieldReader call(*old_call, message.Path("function_call"));
      Add(FunctionCall(call.RequiredString("name"), call.String("arguments").value_or("{}")));
      GPTOSS_RETURN_IF_ERROR(call.status());
    }
    for (size_t i = 0; calls != nullptr && i < calls->size(); ++i) {
      GPTOSS_RETURN_IF_ERROR(ReadCall((*calls)[i], Indexed(message.Path("tool_calls"), i)));
    }
    return {};
  }

  Status ReadCall(const Json& json, const std::string& path) {
    FieldReader call(json, path);
    const std::string id = call.String("id").value_or("");
    const std::string type = call.String("type").value_or("function");
    const bool custom = type == "custom";
    const Json* inner = call.Object(custom ? "custom" : "function");
    if (inner == nullptr) call.Fail(custom ? "custom" : "function", "is missing");
    GPTOSS_RETURN_IF_ERROR(call.status());
    FieldReader function(*inner, call.Path(custom ? "custom" : "function"));
    const std::string name = function.RequiredString("name");
    std::string input;
    const Json* arguments = function.Find(custom ? "input" : "arguments");
    // Some clients send the arguments as an object.
    if (arguments != nullptr) input = arguments->is_string() ? arguments->get<std::string>() : WriteJson(*arguments);
    GPTOSS_RETURN_IF_ERROR(function.status());
    GPTOSS_RETURN_IF_ERROR(CheckToolName(name, function.Path("name")));
    if (input.empty() && !custom) input = "{}";
    Add(custom ? CustomCall(name, std::move(input)) : FunctionCall(name, std::move(input)), id);
    names_[id] = name;
    return {};
  }

  Status ReadToolResult(FieldReader& message, const std::string& role, std::string text) {
    const std::string id = message.String("tool_call_id").value_or("");
    const auto called = names_.find(id);
    std::string name = called != names_.end() ? called->second : message.String("name").value_or("");
    GPTOSS_RETURN_IF_ERROR(message.status());
    if (name.empty() && role == "tool") {
      return InvalidArgument(message.Path("tool_call_id") + ": no tool call before it has the id '" + id + "'");
    }
    GPTOSS_RETURN_IF_ERROR(CheckToolName(name, message.Path("name")));
    Add(ToolResult(name, std::move(text)));
    return {};
  }

  ChatRequest* out_;
  std::map<std::string, std::string> names_;
};

Status ReadMessages(FieldReader& body, ChatRequest* out) {
  if (body.Find("messages") == nullptr) return InvalidArgument("messages: is missing");
  const Json* messages = body.Array("messages");
  GPTOSS_RETURN_IF_ERROR(body.status());
  MessageReader reader(out);
  for (size_t i = 0; i < messages->size(); ++i) {
    GPTOSS_RETURN_IF_ERROR(reader.Read((*messages)[i], Indexed("messages", i)));
  }
  return {};
}

}  // namespace

Result<ChatRequest> ParseChatRequest(const Json& json, const ApiOptions& options) {
  FieldReader body(json);
  ChatRequest out;
  GPTOSS_RETURN_IF_ERROR(ReadMessages(body, &out));
  GPTOSS_RETURN_IF_ERROR(ReadChatTools(body, &out.turn.tools));
  GPTOSS_RETURN_IF_ERROR(ReadChatToolChoice(body, &out.turn));
  GPTOSS_RETURN_IF_ERROR(ReadResponseFormat(body, &out.turn.format));
  GPTOSS_RETURN_IF_ERROR(ReadSamplingFields(body, &out.turn));
  GPTOSS_RETURN_IF_ERROR(ReadReasoningFields(body, options.effort, &out.turn));
  const Json* model = body.Find("model");
  out.model = model != nullptr && model->is_string() && *model != "" ? model->get<std::string>() : options.model;
  out.turn.adapter = AdapterOf(options, out.model);
  out.stream = body.Bool("stream").value_or(false);
  if (const Json* stream = body.Object("stream_options")) {
    FieldReader fields(*stream, "stream_options");
    out.include_usage = fields.Bool("include_usage").value_or(false);
    GPTOSS_RETURN_IF_ERROR(fields.status());
  }
  out.choices = static_cast<int>(body.Int("n", 1, kMaxChoices).value_or(1));
  out.logprobs = body.Bool("logprobs").value_or(false);
  const auto top = body.Int("top_logprobs", 0, kMaxTopLogprobs);
  if (top && *top > 0) out.logprobs = true;
  if (out.logprobs) out.turn.sampling.top_logprobs = static_cast<int>(top.value_or(0));
  body.Bool("parallel_tool_calls");  // the model makes one call a turn, which either value allows
  GPTOSS_RETURN_IF_ERROR(body.status());
  return out;
}

}  // namespace gptoss::server
