#include "server/anthropic/messages_request.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "server/api/fields.h"
#include "server/api/history.h"
#include "server/api/limits.h"

namespace gptoss::server {
namespace {

constexpr char kNoImage[] = "[an image stood here; this model reads text only]";

// Dated names: "web_search_20250305".
constexpr std::array kServerTools = {"web_search_", "web_fetch_", "code_execution_", "tool_search_tool_"};
// What such tools leave in a history.
constexpr std::array kSilentBlocks = {"server_tool_use",
                                      "web_search_tool_result",
                                      "web_fetch_tool_result",
                                      "code_execution_tool_result",
                                      "bash_code_execution_tool_result",
                                      "text_editor_code_execution_tool_result",
                                      "tool_search_tool_result",
                                      "container_upload"};

void Join(std::string_view text, std::string* out) {
  if (!out->empty() && !text.empty()) *out += "\n";
  *out += text;
}

/// Text of a string or of text blocks; images only where `images_as_note`.
Result<std::string> BlocksText(const Json& content, const std::string& path, bool images_as_note) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) return InvalidArgument(path + ": must be a string or an array of blocks");
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    FieldReader block(content[i], Indexed(path, i));
    const std::string type = block.RequiredString("type");
    if (type == "text") {
      Join(block.RequiredString("text"), &text);
    } else if (images_as_note && (type == "image" || type == "document")) {
      Join(kNoImage, &text);
    } else if (block.ok() && type != "tool_reference") {
      return Unsupported(block.Path("type") + ": blocks of type " + Quoted(type) + " are not supported here");
    }
    GPTOSS_RETURN_IF_ERROR(block.status());
  }
  return text;
}

class MessageReader {
 public:
  explicit MessageReader(std::vector<HistoryEntry>* entries) : entries_(entries) {}

  Status Read(const Json& json, const std::string& path) {
    FieldReader message(json, path);
    const std::string role = message.RequiredString("role");
    GPTOSS_RETURN_IF_ERROR(message.status());
    const Json* content = message.Find("content");
    if (content == nullptr) return InvalidArgument(message.Path("content") + ": is missing");
    if (role == "system") {
      GPTOSS_ASSIGN_OR_RETURN(std::string text, BlocksText(*content, message.Path("content"), false));
      Add(LateInstructions(std::move(text)), "");
      return {};
    }
    if (role != "user" && role != "assistant") {
      return InvalidArgument(message.Path("role") + ": must be 'user' or 'assistant'");
    }
    Json blocks = *content;
    if (content->is_string()) blocks = Json::array({{{"type", "text"}, {"text", *content}}});
    if (!blocks.is_array()) {
      return InvalidArgument(message.Path("content") + ": must be a string or an array of blocks");
    }
    return role == "user" ? ReadUser(blocks, message.Path("content")) : ReadAssistant(blocks, message.Path("content"));
  }

 private:
  Status ReadUser(const Json& blocks, const std::string& path) {
    std::string text;
    const auto flush = [&] {
      if (!text.empty()) Add(UserText(std::exchange(text, {})), "");
    };
    for (size_t i = 0; i < blocks.size(); ++i) {
      FieldReader block(blocks[i], Indexed(path, i));
      const std::string type = block.RequiredString("type");
      if (type == "text") {
        Join(block.RequiredString("text"), &text);
      } else if (type == "tool_result") {
        flush();
        GPTOSS_RETURN_IF_ERROR(ReadToolResult(block));
      } else if (type == "document") {
        GPTOSS_RETURN_IF_ERROR(ReadDocument(block, &text));
      } else if (block.ok()) {
        return Unsupported(block.Path("type") + ": " + Quoted(type) + " is not supported; this model reads text only");
      }
      GPTOSS_RETURN_IF_ERROR(block.status());
    }
    flush();
    return {};
  }

  /// Documents of plain text are text; others are not readable here.
  Status ReadDocument(FieldReader& block, std::string* text) {
    const Json* source = block.Object("source");
    if (source == nullptr) return InvalidArgument(block.Path("source") + ": is missing");
    FieldReader reader(*source, block.Path("source"));
    if (reader.String("type") != "text") {
      return Unsupported(reader.Path("type") + ": only documents of type 'text' are supported; this model reads text");
    }
    Join(block.String("title").value_or(""), text);
    Join(reader.RequiredString("data"), text);
    return reader.status();
  }

  Status ReadToolResult(FieldReader& block) {
    const std::string id = block.RequiredString("tool_use_id");
    const bool is_error = block.Bool("is_error").value_or(false);
    GPTOSS_RETURN_IF_ERROR(block.status());
    const auto call = calls_.find(id);
    if (call == calls_.end()) {
      return InvalidArgument(block.Path("tool_use_id") + ": no tool_use block before it has the id " + Quoted(id));
    }
    std::string text;
    if (const Json* content = block.Find("content")) {
      GPTOSS_ASSIGN_OR_RETURN(text, BlocksText(*content, block.Path("content"), true));
    }
    Add(ToolResult(call->second, (is_error ? "Error: " : "") + text), "");
    return {};
  }

  Status ReadAssistant(const Json& blocks, const std::string& path) {
    // Text before a call is a preamble to it.
    size_t last_call = 0;
    for (size_t i = 0; i < blocks.size(); ++i) {
      const std::string* type = FindString(blocks[i], "type");
      if (type != nullptr && *type == "tool_use") last_call = i;
    }
    for (size_t i = 0; i < blocks.size(); ++i) {
      FieldReader block(blocks[i], Indexed(path, i));
      const std::string type = block.RequiredString("type");
      if (type == "text") {
        std::string text = block.RequiredString("text");
        if (!text.empty()) Add(i < last_call ? Preamble(std::move(text)) : Answer(std::move(text)), "");
      } else if (type == "thinking") {
        std::string text = block.RequiredString("thinking");
        if (!text.empty()) Add(Reasoning(std::move(text)), block.String("signature").value_or(""));
      } else if (type == "tool_use") {
        GPTOSS_RETURN_IF_ERROR(ReadToolUse(block));
      } else if (block.ok() && type != "redacted_thinking" &&
                 std::find(kSilentBlocks.begin(), kSilentBlocks.end(), type) == kSilentBlocks.end()) {
        return Unsupported(block.Path("type") + ": blocks of type " + Quoted(type) + " are not supported here");
      }
      GPTOSS_RETURN_IF_ERROR(block.status());
    }
    return {};
  }

  Status ReadToolUse(FieldReader& block) {
    const std::string id = block.RequiredString("id");
    const std::string name = block.RequiredString("name");
    const Json* input = block.Object("input");
    GPTOSS_RETURN_IF_ERROR(block.status());
    GPTOSS_RETURN_IF_ERROR(CheckToolName(name, block.Path("name")));
    calls_[id] = name;
    Add(FunctionCall(name, input == nullptr ? "{}" : WriteJson(*input)), id);
    return {};
  }

  void Add(Message message, std::string id) { entries_->push_back({std::move(message), std::move(id)}); }

  std::vector<HistoryEntry>* entries_;
  std::map<std::string, std::string> calls_;  // id to the tool's name
};

Status ReadTools(FieldReader& body, std::vector<ToolSpec>* out) {
  const Json* tools = body.Array("tools");
  if (tools == nullptr) return body.status();
  if (tools->size() > kMaxTools) return InvalidArgument("tools: more than " + std::to_string(kMaxTools) + " tools");
  for (size_t i = 0; i < tools->size(); ++i) {
    FieldReader tool((*tools)[i], Indexed("tools", i));
    const std::string type = tool.String("type").value_or("custom");
    if (std::any_of(kServerTools.begin(), kServerTools.end(), [&](auto name) { return type.starts_with(name); })) {
      continue;
    }
    if (tool.ok() && type != "custom") {
      return Unsupported(tool.Path("type") + ": tools of type " + Quoted(type) +
                         " are not available here; declare name, description and input_schema");
    }
    ToolSpec function;
    function.name = tool.RequiredString("name");
    function.description = tool.String("description").value_or("");
    function.strict = tool.Bool("strict").value_or(false);
    if (const Json* schema = tool.Object("input_schema")) function.parameters = *schema;
    GPTOSS_RETURN_IF_ERROR(tool.status());
    GPTOSS_RETURN_IF_ERROR(CheckToolName(function.name, tool.Path("name")));
    out->emplace_back(std::move(function));
  }
  return {};
}

Status ReadToolChoice(FieldReader& body, const std::vector<ToolSpec>& tools, ToolChoice* out) {
  const Json* json = body.Object("tool_choice");
  if (json == nullptr) return body.status();
  FieldReader choice(*json, "tool_choice");
  const std::string type = choice.RequiredString("type");
  if (type == "none") {
    out->kind = ToolChoice::Kind::kNone;
  } else if (type == "any" || type == "tool") {
    out->kind = ToolChoice::Kind::kRequired;
    if (type == "tool") {
      const std::string name = choice.RequiredString("name");
      const bool known = std::any_of(tools.begin(), tools.end(), [&](const ToolSpec& t) { return t.name == name; });
      if (!known) choice.Fail("name", "is not among the tools");
      out->allowed = {name};
    }
    if (tools.empty()) choice.Fail("type", "a call is required, but no tools are declared");
  } else if (type != "auto") {
    choice.Fail("type", "must be 'auto', 'any', 'tool' or 'none'");
  }
  return choice.status();
}

Status ReadThinking(FieldReader& body, MessagesRequest* out) {
  const Json* json = body.Object("thinking");
  if (json == nullptr) return body.status();
  FieldReader thinking(*json, "thinking");
  const std::string type = thinking.RequiredString("type");
  out->omit_thinking = thinking.String("display") == "omitted";
  if (type == "disabled") {
    out->turn.no_reasoning = true;
  } else if (type == "enabled" || type == "adaptive" || type == "between_tools") {
    out->show_thinking = true;
    if (const auto budget = thinking.Int("budget_tokens", 0, INT64_MAX)) {
      out->turn.reasoning_budget = static_cast<int>(std::min(*budget, kMaxCount));
    }
  } else {
    thinking.Fail("type", "must be 'enabled', 'adaptive' or 'disabled'");
  }
  return thinking.status();
}

Status ReadOutputConfig(FieldReader& body, TurnRequest* turn) {
  const Json* format = body.Object("output_format");  // where earlier versions of the API had it
  const Json* config = body.Object("output_config");
  std::string path = "output_format";
  if (config != nullptr) {
    FieldReader reader(*config, "output_config");
    if (const auto effort = reader.String("effort")) {
      const auto known = ReasoningEffortFromName(*effort);
      if (!known && *effort != "xhigh" && *effort != "max") reader.Fail("effort", "must be 'low', 'medium' or 'high'");
      turn->effort = known.value_or(ReasoningEffort::kHigh);
    }
    if (const Json* inner = reader.Object("format")) format = inner, path = "output_config.format";
    GPTOSS_RETURN_IF_ERROR(reader.status());
  }
  if (format == nullptr) return body.status();
  FieldReader reader(*format, path);
  if (reader.RequiredString("type") != "json_schema") reader.Fail("type", "must be 'json_schema'");
  const Json* schema = reader.Object("schema");
  if (schema == nullptr) reader.Fail("schema", "is missing");
  if (!reader.ok()) return reader.status();
  turn->format = {AnswerFormat::Kind::kJsonSchema, "answer", "", *schema};
  return {};
}

void ReadLimits(FieldReader& body, bool counting, TurnRequest* turn) {
  if (const auto max = body.Int("max_tokens", 1, INT64_MAX)) {
    turn->max_tokens = static_cast<int>(std::min(*max, kMaxCount));
  } else if (!counting) {
    body.Fail("max_tokens", "is missing");
  }
  SamplingParams& sampling = turn->sampling;
  sampling.temperature = body.Number("temperature", 0, 2).value_or(1.0);
  sampling.top_p = body.Number("top_p", 0, 1).value_or(1.0);
  if (sampling.top_p == 0) sampling.top_k = 1, sampling.top_p = 1;  // nothing but the likeliest
  if (const auto k = body.Int("top_k", 0, kMaxCount)) sampling.top_k = static_cast<int>(*k);
  const auto seed = body.Int("seed", INT64_MIN, INT64_MAX);
  sampling.seed = seed ? static_cast<uint64_t>(*seed) : NewSeed();
  const Json* stops = body.Array("stop_sequences");
  if (stops == nullptr) return;
  if (stops->size() > kMaxStops) body.Fail("stop_sequences", "at most 64 are allowed");
  for (const Json& stop : *stops) {
    const auto* text = stop.get_ptr<const std::string*>();
    if (text == nullptr || text->empty()) return body.Fail("stop_sequences", "must be strings that are not empty");
    turn->stops.push_back(*text);
  }
}

}  // namespace

Result<MessagesRequest> ParseMessagesRequest(const Json& json, const ApiOptions& options, bool counting) {
  FieldReader body(json);
  GPTOSS_RETURN_IF_ERROR(body.status());
  MessagesRequest out;
  out.turn.effort = options.effort;
  out.model = body.String("model").value_or("");
  if (out.model.empty()) out.model = options.model;
  out.turn.adapter = AdapterOf(options, out.model);
  out.stream = body.Bool("stream").value_or(false);
  if (const Json* system = body.Find("system")) {
    GPTOSS_ASSIGN_OR_RETURN(out.turn.instructions, BlocksText(*system, "system", false));
  }
  GPTOSS_RETURN_IF_ERROR(ReadTools(body, &out.turn.tools));
  GPTOSS_RETURN_IF_ERROR(ReadToolChoice(body, out.turn.tools, &out.turn.tool_choice));
  GPTOSS_RETURN_IF_ERROR(ReadThinking(body, &out));
  GPTOSS_RETURN_IF_ERROR(ReadOutputConfig(body, &out.turn));
  ReadLimits(body, counting, &out.turn);
  const Json* messages = body.Array("messages");
  if (messages == nullptr) body.Fail("messages", "is missing");
  GPTOSS_RETURN_IF_ERROR(body.status());
  if (messages->empty()) return InvalidArgument("messages: at least one message is needed");
  MessageReader reader(&out.entries);
  for (size_t i = 0; i < messages->size(); ++i) {
    GPTOSS_RETURN_IF_ERROR(reader.Read((*messages)[i], Indexed("messages", i)));
  }
  if (options.withhold_reasoning) out.show_thinking = false;
  return out;
}

}  // namespace gptoss::server
