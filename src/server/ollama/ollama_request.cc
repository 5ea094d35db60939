#include "server/ollama/ollama_request.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "server/api/fields.h"
#include "server/api/history.h"
#include "server/api/ids.h"
#include "server/api/limits.h"

namespace gptoss::server {
namespace {

Status ReadThink(FieldReader& body, const ApiOptions& options, OllamaRequest* out) {
  out->turn.effort = options.effort;
  out->show_thinking = !options.withhold_reasoning;
  const Json* think = body.Find("think");
  if (think == nullptr) return {};
  if (think->is_boolean()) {
    out->turn.no_reasoning = !think->get<bool>();
    return {};
  }
  const auto* word = think->get_ptr<const std::string*>();
  const auto effort = word == nullptr ? std::nullopt : ReasoningEffortFromName(*word);
  if (effort) {
    out->turn.effort = *effort;
  } else {
    body.Fail("think", "must be true, false, 'low', 'medium' or 'high'");
  }
  return body.status();
}

Status ReadFormat(FieldReader& body, AnswerFormat* out) {
  const Json* format = body.Find("format");
  if (format == nullptr || *format == "") return {};
  if (*format == "json") {
    out->kind = AnswerFormat::Kind::kJsonObject;
  } else if (format->is_object()) {
    out->kind = AnswerFormat::Kind::kJsonSchema;
    out->name = "answer";
    out->schema = *format;
  } else {
    body.Fail("format", "must be 'json' or a JSON schema");
  }
  return body.status();
}

Status ReadOptions(FieldReader& body, OllamaRequest* out) {
  SamplingParams& sampling = out->turn.sampling;
  sampling.seed = NewSeed();
  const auto top = body.Int("top_logprobs", 0, kMaxTopLogprobs);
  out->logprobs = body.Bool("logprobs").value_or(false);
  if (out->logprobs) sampling.top_logprobs = static_cast<int>(top.value_or(0));
  const Json* json = body.Object("options");
  if (json == nullptr) return body.status();
  FieldReader options(*json, "options");
  sampling.temperature = options.Number("temperature", 0, 2).value_or(1.0);
  sampling.top_p = options.Number("top_p", 0, 1).value_or(1.0);
  if (const auto k = options.Int("top_k", -1, kMaxCount)) sampling.top_k = static_cast<int>(std::max<int64_t>(0, *k));
  if (sampling.top_p == 0) sampling.top_k = 1, sampling.top_p = 1;  // nothing but the likeliest
  sampling.min_p = options.Number("min_p", 0, 1).value_or(0.0);
  sampling.repetition_penalty = options.Number("repeat_penalty", 0.01, 10).value_or(1.0);
  sampling.presence_penalty = options.Number("presence_penalty", -2, 2).value_or(0.0);
  sampling.frequency_penalty = options.Number("frequency_penalty", -2, 2).value_or(0.0);
  if (const auto seed = options.Int("seed", INT64_MIN, INT64_MAX)) sampling.seed = static_cast<uint64_t>(*seed);
  // -1 and -2: as many as there is room for.
  if (const auto max = options.Int("num_predict", -2, INT64_MAX); max && *max > 0) {
    out->turn.max_tokens = static_cast<int>(std::min(*max, kMaxCount));
  }
  if (const Json* stop = options.Find("stop"); stop != nullptr) {
    const Json list = stop->is_string() ? Json::array({*stop}) : *stop;
    if (!list.is_array() || list.size() > kMaxStops) options.Fail("stop", "must be at most 64 strings");
    for (const Json& one : list) {
      const auto* text = one.get_ptr<const std::string*>();
      if (text == nullptr) options.Fail("stop", "must be strings");
      if (text != nullptr && !text->empty()) out->turn.stops.push_back(*text);
    }
  }
  GPTOSS_RETURN_IF_ERROR(options.status());
  return body.status();
}

Status ReadTools(FieldReader& body, std::vector<ToolSpec>* out) {
  const Json* tools = body.Array("tools");
  if (tools == nullptr) return body.status();
  if (tools->size() > kMaxTools) return InvalidArgument("tools: more than " + std::to_string(kMaxTools) + " tools");
  for (size_t i = 0; i < tools->size(); ++i) {
    FieldReader tool((*tools)[i], Indexed("tools", i));
    const std::string type = tool.String("type").value_or("function");
    if (tool.ok() && type != "function") return Unsupported(tool.Path("type") + ": must be 'function'");
    const Json* declared = tool.Object("function");
    if (declared == nullptr) tool.Fail("function", "is missing");
    GPTOSS_RETURN_IF_ERROR(tool.status());
    FieldReader reader(*declared, tool.Path("function"));
    ToolSpec function;
    function.name = reader.RequiredString("name");
    function.description = reader.String("description").value_or("");
    if (const Json* parameters = reader.Object("parameters")) function.parameters = *parameters;
    GPTOSS_RETURN_IF_ERROR(reader.status());
    GPTOSS_RETURN_IF_ERROR(CheckToolName(function.name, reader.Path("name")));
    out->emplace_back(std::move(function));
  }
  return {};
}

/// Results follow calls in order, or name the tool or the call that they answer.
class MessageReader {
 public:
  MessageReader(std::string* instructions, std::vector<HistoryEntry>* entries)
      : instructions_(instructions), entries_(entries) {}

  Status Read(const Json& json, const std::string& path) {
    FieldReader message(json, path);
    const std::string role = message.RequiredString("role");
    std::string content = message.String("content").value_or("");
    const Json* images = message.Array("images");
    GPTOSS_RETURN_IF_ERROR(message.status());
    if (images != nullptr && !images->empty()) {
      return Unsupported(message.Path("images") + ": images are not supported; this model reads text only");
    }
    if (role == "user") {
      Add(UserText(std::move(content)), "");
    } else if (role == "system" && entries_->empty()) {
      if (!instructions_->empty() && !content.empty()) *instructions_ += "\n\n";
      *instructions_ += content;
    } else if (role == "system") {
      Add(LateInstructions(std::move(content)), "");
    } else if (role == "tool") {
      return ReadResult(message, std::move(content));
    } else if (role == "assistant") {
      return ReadAssistant(message, std::move(content));
    } else {
      message.Fail("role", "must be 'system', 'user', 'assistant' or 'tool'");
    }
    return message.status();
  }

 private:
  Status ReadAssistant(FieldReader& message, std::string content) {
    std::string thinking = message.String("thinking").value_or("");
    const Json* calls = message.Array("tool_calls");
    GPTOSS_RETURN_IF_ERROR(message.status());
    const bool has_calls = calls != nullptr && !calls->empty();
    if (!thinking.empty()) Add(Reasoning(std::move(thinking)), "");
    if (!content.empty()) Add(has_calls ? Preamble(std::move(content)) : Answer(std::move(content)), "");
    if (!has_calls) return {};
    pending_.clear();
    for (size_t i = 0; i < calls->size(); ++i) {
      FieldReader call((*calls)[i], Indexed(message.Path("tool_calls"), i));
      const std::string id = call.String("id").value_or("");
      const Json* function = call.Object("function");
      if (function == nullptr) call.Fail("function", "is missing");
      GPTOSS_RETURN_IF_ERROR(call.status());
      FieldReader reader(*function, call.Path("function"));
      const std::string name = reader.RequiredString("name");
      GPTOSS_RETURN_IF_ERROR(reader.status());
      GPTOSS_RETURN_IF_ERROR(CheckToolName(name, reader.Path("name")));
      const Json* arguments = reader.Find("arguments");
      std::string text = arguments == nullptr ? "{}" : WriteJson(*arguments);
      if (arguments != nullptr && arguments->is_string()) text = arguments->get<std::string>();
      pending_.emplace_back(id, name);
      Add(FunctionCall(name, std::move(text)), id);
    }
    return {};
  }

  Status ReadResult(FieldReader& message, std::string content) {
    std::string name = message.String("tool_name").value_or(message.String("name").value_or(""));
    const std::string id = message.String("tool_call_id").value_or("");
    GPTOSS_RETURN_IF_ERROR(message.status());
    const auto call = std::find_if(pending_.begin(), pending_.end(), [&](const auto& p) {
      return !id.empty() ? p.first == id : name.empty() || p.second == name;
    });
    if (call != pending_.end()) {
      name = call->second;
      pending_.erase(call);
    }
    if (name.empty())
      return InvalidArgument(message.Path("tool_name") + ": is missing, and no call is without a result");
    GPTOSS_RETURN_IF_ERROR(CheckToolName(name, message.Path("tool_name")));
    Add(ToolResult(name, std::move(content)), "");
    return {};
  }

  void Add(Message message, std::string id) { entries_->push_back({std::move(message), std::move(id)}); }

  std::string* instructions_;
  std::vector<HistoryEntry>* entries_;
  std::deque<std::pair<std::string, std::string>> pending_;  // calls without a result: id, tool
};

Status ReadCommon(FieldReader& body, const ApiOptions& options, OllamaRequest* out) {
  out->model = body.String("model").value_or("");
  if (out->model.empty()) out->model = options.model;
  out->turn.adapter = AdapterOf(options, out->model);
  out->stream = body.Bool("stream").value_or(true);
  if (const Json* keep = body.Find("keep_alive")) out->unload = *keep == 0 || *keep == "0" || *keep == "0s";
  GPTOSS_RETURN_IF_ERROR(ReadThink(body, options, out));
  GPTOSS_RETURN_IF_ERROR(ReadFormat(body, &out->turn.format));
  return ReadOptions(body, out);
}

}  // namespace

Result<OllamaRequest> ParseOllamaChat(const Json& json, const ApiOptions& options) {
  FieldReader body(json);
  GPTOSS_RETURN_IF_ERROR(body.status());
  OllamaRequest out;
  GPTOSS_RETURN_IF_ERROR(ReadCommon(body, options, &out));
  GPTOSS_RETURN_IF_ERROR(ReadTools(body, &out.turn.tools));
  const Json* messages = body.Array("messages");
  GPTOSS_RETURN_IF_ERROR(body.status());
  out.load_only = messages == nullptr || messages->empty();
  if (out.load_only) return out;
  MessageReader reader(&out.turn.instructions, &out.entries);
  for (size_t i = 0; i < messages->size(); ++i) {
    GPTOSS_RETURN_IF_ERROR(reader.Read((*messages)[i], Indexed("messages", i)));
  }
  return out;
}

Result<OllamaRequest> ParseOllamaGenerate(const Json& json, const ApiOptions& options) {
  FieldReader body(json);
  GPTOSS_RETURN_IF_ERROR(body.status());
  OllamaRequest out;
  GPTOSS_RETURN_IF_ERROR(ReadCommon(body, options, &out));
  out.prompt = body.String("prompt").value_or("");
  out.turn.instructions = body.String("system").value_or("");
  out.raw = body.Bool("raw").value_or(false);
  const std::string suffix = body.String("suffix").value_or("");
  const Json* images = body.Array("images");
  GPTOSS_RETURN_IF_ERROR(body.status());
  if (!suffix.empty()) return Unsupported("suffix: this model does not insert text");
  if (images != nullptr && !images->empty()) {
    return Unsupported("images: images are not supported; this model reads text only");
  }
  out.load_only = out.prompt.empty();
  if (!out.raw) out.entries.push_back({UserText(out.prompt), ""});
  return out;
}

}  // namespace gptoss::server
