#include "server/openai/responses_request.h"

#include <algorithm>
#include <array>

#include "server/api/fields.h"
#include "server/api/history.h"
#include "server/api/limits.h"

namespace gptoss::server {
namespace {

constexpr size_t kMaxMetadata = 16, kMaxMetadataKey = 64, kMaxMetadataValue = 512;

// What only OpenAI's own servers run and clients send whether or not they need it.
constexpr std::array kIgnoredTools = {"web_search",  "web_search_preview", "image_generation",
                                      "tool_search", "local_shell",        "programmatic_tool_calling"};

bool IsIgnored(const std::string& type) {
  return std::any_of(kIgnoredTools.begin(), kIgnoredTools.end(), [&](std::string_view name) {
    // Dated versions: "web_search_2025_08_26", "web_search_preview_2025_03_11".
    return type == name || type.starts_with(std::string(name) + "_20");
  });
}

/// Reads the tools of a request into declarations for the model.
class ToolReader {
 public:
  ToolReader(std::vector<ToolSpec>* tools, std::map<std::string, ToolRef>* refs) : tools_(tools), refs_(refs) {}

  Status Read(const Json& list, const std::string& path, const std::string& name_space) {
    for (size_t i = 0; i < list.size(); ++i) {
      FieldReader tool(list[i], Indexed(path, i));
      const std::string type = tool.RequiredString("type");
      if (tool.ok() && type == "function") {
        GPTOSS_RETURN_IF_ERROR(ReadFunction(tool, name_space));
      } else if (tool.ok() && type == "custom") {
        GPTOSS_RETURN_IF_ERROR(ReadCustom(tool, name_space));
      } else if (tool.ok() && type == "namespace" && name_space.empty()) {
        GPTOSS_RETURN_IF_ERROR(ReadNamespace(tool));
      } else if (tool.ok() && !IsIgnored(type)) {
        return Unsupported(tool.Path("type") + ": tools of type " + Quoted(type) +
                           " are not available here; declare a tool of type 'function' or 'custom'");
      }
      GPTOSS_RETURN_IF_ERROR(tool.status());
    }
    return {};
  }

 private:
  Status ReadNamespace(FieldReader& tool) {
    const std::string name = tool.RequiredString("name");
    const Json* tools = tool.Array("tools");
    GPTOSS_RETURN_IF_ERROR(tool.status());
    GPTOSS_RETURN_IF_ERROR(CheckToolName(name, tool.Path("name")));
    return tools == nullptr ? Status() : Read(*tools, tool.Path("tools"), name);
  }

  Status ReadFunction(FieldReader& tool, const std::string& name_space) {
    ToolSpec function;
    function.name = tool.RequiredString("name");
    function.description = tool.String("description").value_or("");
    if (const Json* parameters = tool.Object("parameters")) function.parameters = *parameters;
    // OpenAI makes a function strict where its schema allows it; here strictness is never assumed, since it narrows
    // what a schema says (additionalProperties).
    function.strict = tool.Bool("strict").value_or(false);
    GPTOSS_RETURN_IF_ERROR(tool.status());
    GPTOSS_ASSIGN_OR_RETURN(function.name, Declare(function.name, name_space, false, tool.Path("name")));
    tools_->emplace_back(std::move(function));
    return {};
  }

  Status ReadCustom(FieldReader& tool, const std::string& name_space) {
    ToolSpec custom;
    custom.input = ToolSpec::Input::kText;
    custom.name = tool.RequiredString("name");
    custom.description = tool.String("description").value_or("");
    if (const Json* format = tool.Object("format")) {
      FieldReader reader(*format, tool.Path("format"));
      const std::string type = reader.RequiredString("type");
      if (type == "grammar") {
        const std::string syntax = reader.RequiredString("syntax");
        custom.definition = reader.RequiredString("definition");
        if (syntax != "lark" && syntax != "regex") reader.Fail("syntax", "must be 'lark' or 'regex'");
        custom.input = syntax == "lark" ? ToolSpec::Input::kLark : ToolSpec::Input::kRegex;
      } else if (type != "text") {
        reader.Fail("type", "must be 'text' or 'grammar'");
      }
      GPTOSS_RETURN_IF_ERROR(reader.status());
    }
    GPTOSS_RETURN_IF_ERROR(tool.status());
    GPTOSS_ASSIGN_OR_RETURN(custom.name, Declare(custom.name, name_space, true, tool.Path("name")));
    tools_->emplace_back(std::move(custom));
    return {};
  }

  /// The name for the model: bare, or with the namespace before it where the bare one is taken.
  Result<std::string> Declare(const std::string& name, const std::string& name_space, bool custom,
                              const std::string& path) {
    GPTOSS_RETURN_IF_ERROR(CheckToolName(name, path));
    if (refs_->size() == kMaxTools) return InvalidArgument("tools: more than " + std::to_string(kMaxTools) + " tools");
    std::string model_name = name;
    if (!name_space.empty() && refs_->contains(name)) model_name = name_space + "." + name;
    GPTOSS_RETURN_IF_ERROR(CheckToolName(model_name, path));
    if (!refs_->emplace(model_name, ToolRef{name, name_space, custom}).second) {
      return InvalidArgument(path + ": " + Quoted(name) + " is declared twice");
    }
    return model_name;
  }

  std::vector<ToolSpec>* tools_;
  std::map<std::string, ToolRef>* refs_;
};

/// The name for the model of a tool that tool_choice names.
Result<std::string> ChosenTool(FieldReader& choice, const std::map<std::string, ToolRef>& refs) {
  const std::string type = choice.RequiredString("type");
  if (type != "function" && type != "custom") {
    return Unsupported(choice.Path("type") + ": tools of type " + Quoted(type) + " are not available here");
  }
  const std::string name = choice.RequiredString("name");
  const std::string name_space = choice.String("namespace").value_or("");
  GPTOSS_RETURN_IF_ERROR(choice.status());
  for (const auto& [model_name, ref] : refs) {
    if (ref.name == name && (name_space.empty() || ref.name_space == name_space)) return model_name;
  }
  return InvalidArgument(choice.Path("name") + ": " + Quoted(name) + " is not among the tools");
}

Result<ToolChoice::Kind> ChoiceKind(const std::string& word, const std::string& path) {
  if (word == "auto") return ToolChoice::Kind::kAuto;
  if (word == "none") return ToolChoice::Kind::kNone;
  if (word == "required") return ToolChoice::Kind::kRequired;
  return InvalidArgument(path + ": must be 'auto', 'none', 'required', or an object that names tools");
}

Status ReadToolChoice(const Json& json, const std::map<std::string, ToolRef>& refs, ToolChoice* out) {
  if (json.is_string()) {
    GPTOSS_ASSIGN_OR_RETURN(out->kind, ChoiceKind(json.get<std::string>(), "tool_choice"));
  } else {
    FieldReader choice(json, "tool_choice");
    GPTOSS_RETURN_IF_ERROR(choice.status());
    if (choice.String("type") == "allowed_tools") {
      const std::string mode = choice.String("mode").value_or("auto");
      const Json* tools = choice.Array("tools");
      GPTOSS_RETURN_IF_ERROR(choice.status());
      GPTOSS_ASSIGN_OR_RETURN(out->kind, ChoiceKind(mode, "tool_choice.mode"));
      if (tools == nullptr || tools->empty()) return InvalidArgument("tool_choice.tools: must name at least one tool");
      for (size_t i = 0; i < tools->size(); ++i) {
        FieldReader named((*tools)[i], Indexed("tool_choice.tools", i));
        GPTOSS_RETURN_IF_ERROR(named.status());
        if (IsIgnored(named.String("type").value_or(""))) continue;
        GPTOSS_ASSIGN_OR_RETURN(std::string name, ChosenTool(named, refs));
        out->allowed.push_back(std::move(name));
      }
      // Nothing that is left may be called.
      if (out->allowed.empty()) out->kind = ToolChoice::Kind::kNone;
    } else {
      GPTOSS_ASSIGN_OR_RETURN(std::string name, ChosenTool(choice, refs));
      out->kind = ToolChoice::Kind::kRequired;
      out->allowed = {std::move(name)};
    }
  }
  if (out->kind == ToolChoice::Kind::kRequired && refs.empty()) {
    return InvalidArgument("tool_choice: a call is required, but no tools are declared");
  }
  return {};
}

Status ReadText(FieldReader& body, AnswerFormat* out, Json* echo) {
  *echo = {{"format", {{"type", "text"}}}, {"verbosity", "medium"}};
  const Json* text = body.Object("text");
  if (text == nullptr) return body.status();
  FieldReader reader(*text, "text");
  if (const auto verbosity = reader.String("verbosity")) (*echo)["verbosity"] = *verbosity;
  if (const Json* format = reader.Object("format")) {
    FieldReader fields(*format, "text.format");
    const std::string type = fields.RequiredString("type");
    if (type == "json_schema") {
      out->kind = AnswerFormat::Kind::kJsonSchema;
      out->name = fields.String("name").value_or("answer");
      out->description = fields.String("description").value_or("");
      const Json* schema = fields.Object("schema");
      if (schema == nullptr) fields.Fail("schema", "is missing");
      if (schema != nullptr) out->schema = *schema;
    } else if (type == "json_object") {
      out->kind = AnswerFormat::Kind::kJsonObject;
    } else if (type != "text") {
      fields.Fail("type", "must be 'text', 'json_object' or 'json_schema'");
    }
    GPTOSS_RETURN_IF_ERROR(fields.status());
    (*echo)["format"] = *format;
  }
  return reader.status();
}

Status ReadReasoning(FieldReader& body, const ApiOptions& options, TurnRequest* turn, Json* echo) {
  turn->effort = options.effort;
  Json summary = nullptr;
  if (const Json* reasoning = body.Object("reasoning")) {
    FieldReader reader(*reasoning, "reasoning");
    if (const auto effort = reader.String("effort")) {
      if (*effort == "none") {
        turn->no_reasoning = true;
      } else if (*effort == "minimal") {
        turn->effort = ReasoningEffort::kLow;
      } else if (*effort == "xhigh" || *effort == "max") {
        turn->effort = ReasoningEffort::kHigh;
      } else if (const auto known = ReasoningEffortFromName(*effort)) {
        turn->effort = *known;
      } else {
        reader.Fail("effort", "must be 'none', 'minimal', 'low', 'medium', 'high' or 'xhigh'");
      }
    }
    if (const auto wanted = reader.String("summary")) summary = *wanted;
    if (const auto budget = reader.Int("budget_tokens", 0, kMaxCount))
      turn->reasoning_budget = static_cast<int>(*budget);
    GPTOSS_RETURN_IF_ERROR(reader.status());
  }
  if (const auto budget = body.Int("reasoning_budget", 0, kMaxCount))
    turn->reasoning_budget = static_cast<int>(*budget);
  *echo = {{"effort", turn->no_reasoning ? "none" : std::string(ReasoningEffortName(turn->effort))},
           {"summary", summary}};
  return body.status();
}

Status ReadSampling(FieldReader& body, ResponsesRequest* out, bool logprobs) {
  SamplingParams& sampling = out->turn.sampling;
  sampling.temperature = body.Number("temperature", 0, 2).value_or(1.0);
  sampling.top_p = body.Number("top_p", 0, 1).value_or(1.0);
  if (sampling.top_p == 0) sampling.top_k = 1, sampling.top_p = 1;  // nothing but the likeliest
  if (const auto k = body.Int("top_k", 0, kMaxCount)) sampling.top_k = static_cast<int>(*k);
  sampling.min_p = body.Number("min_p", 0, 1).value_or(0.0);
  sampling.presence_penalty = body.Number("presence_penalty", -2, 2).value_or(0.0);
  sampling.frequency_penalty = body.Number("frequency_penalty", -2, 2).value_or(0.0);
  const auto seed = body.Int("seed", INT64_MIN, INT64_MAX);
  sampling.seed = seed ? static_cast<uint64_t>(*seed) : NewSeed();
  const auto top = body.Int("top_logprobs", 0, kMaxTopLogprobs);
  if (logprobs || top.value_or(0) > 0) sampling.top_logprobs = static_cast<int>(top.value_or(0));
  // Clients ask for more than any context holds; the turn service clamps it.
  if (const auto max = body.Int("max_output_tokens", 1, INT64_MAX)) {
    out->turn.max_tokens = static_cast<int>(std::min(*max, kMaxCount));
  }
  return body.status();
}

Status CheckMetadata(const Json* metadata) {
  if (metadata == nullptr) return {};
  if (metadata->size() > kMaxMetadata) {
    return InvalidArgument("metadata: at most " + std::to_string(kMaxMetadata) + " pairs are allowed");
  }
  for (const auto& [key, value] : metadata->items()) {
    if (key.size() > kMaxMetadataKey || !value.is_string() ||
        value.get_ref<const std::string&>().size() > kMaxMetadataValue) {
      return InvalidArgument("metadata: keys are at most " + std::to_string(kMaxMetadataKey) +
                             " bytes, values strings of at most " + std::to_string(kMaxMetadataValue));
    }
  }
  return {};
}

/// The input as items with type and id, as input_items and later turns show them.
Result<Json> NormalItems(const Json* input) {
  Json items = Json::array();
  if (input == nullptr) return items;
  if (input->is_string()) {
    Json content = Json::array({{{"type", "input_text"}, {"text", *input}}});
    items.push_back({{"id", NewId("msg_")}, {"type", "message"}, {"role", "user"}, {"content", std::move(content)}});
    return items;
  }
  if (!input->is_array()) return InvalidArgument("input: must be a string or an array of items");
  for (size_t i = 0; i < input->size(); ++i) {
    const Json& given = (*input)[i];
    if (!given.is_object()) return InvalidArgument(Indexed("input", i) + ": must be an object");
    Json item = Json::object();
    const std::string* type = FindString(given, "type");
    const std::string kind = type != nullptr ? *type : "message";
    const std::string* id = FindString(given, "id");
    item["id"] = id != nullptr && !id->empty() ? *id : NewId(kind == "message" ? "msg_" : "item_");
    item["type"] = kind;
    item.update(given);
    if (item["id"].is_null() || item["id"] == "") item["id"] = NewId("item_");
    if (item["type"].is_null()) item["type"] = kind;
    items.push_back(std::move(item));
  }
  return items;
}

void ReadInclude(FieldReader& body, bool* encrypted, bool* logprobs) {
  const Json* include = body.Array("include");
  if (include == nullptr) return;
  for (size_t i = 0; i < include->size(); ++i) {
    const auto* name = (*include)[i].get_ptr<const std::string*>();
    if (name == nullptr) return body.Fail(Indexed("include", i), "must be a string");
    if (*name == "reasoning.encrypted_content") *encrypted = true;
    if (*name == "message.output_text.logprobs") *logprobs = true;
  }
}

}  // namespace

Result<ResponsesRequest> ParseResponsesRequest(const Json& json, const ApiOptions& options) {
  FieldReader body(json);
  GPTOSS_RETURN_IF_ERROR(body.status());
  if (json.empty()) return InvalidArgument("the body has no fields: 'input' is needed");
  ResponsesRequest out;
  const Json* tools = body.Array("tools");
  GPTOSS_RETURN_IF_ERROR(body.status());
  if (tools != nullptr) {
    GPTOSS_RETURN_IF_ERROR(ToolReader(&out.turn.tools, &out.tools).Read(*tools, "tools", ""));
  }
  const Json* choice = body.Find("tool_choice");
  if (choice != nullptr) GPTOSS_RETURN_IF_ERROR(ReadToolChoice(*choice, out.tools, &out.turn.tool_choice));
  Json text, reasoning;
  GPTOSS_RETURN_IF_ERROR(ReadText(body, &out.turn.format, &text));
  GPTOSS_RETURN_IF_ERROR(ReadReasoning(body, options, &out.turn, &reasoning));
  bool logprobs = false;
  ReadInclude(body, &out.include_encrypted_reasoning, &logprobs);
  GPTOSS_RETURN_IF_ERROR(ReadSampling(body, &out, logprobs));
  GPTOSS_ASSIGN_OR_RETURN(out.items, NormalItems(body.Find("input")));
  out.instructions = body.String("instructions").value_or("");
  out.previous_response_id = body.String("previous_response_id").value_or("");
  out.stream = body.Bool("stream").value_or(false);
  out.background = body.Bool("background").value_or(false);
  out.store = body.Bool("store").value_or(true);
  const std::string truncation = body.String("truncation").value_or("disabled");
  if (truncation != "auto" && truncation != "disabled") body.Fail("truncation", "must be 'auto' or 'disabled'");
  out.truncate = truncation == "auto";
  if (out.background && !out.store) body.Fail("background", "needs 'store' to be true");
  const Json* metadata = body.Object("metadata");
  const auto parallel = body.Bool("parallel_tool_calls");
  const auto model = body.String("model");
  GPTOSS_RETURN_IF_ERROR(body.status());
  GPTOSS_RETURN_IF_ERROR(CheckMetadata(metadata));
  out.turn.adapter = AdapterOf(options, model.value_or(""));

  const auto as_sent = [&](const char* key) { return body.Find(key) == nullptr ? Json(nullptr) : *body.Find(key); };
  out.echo = {{"background", out.background},
              {"instructions", as_sent("instructions")},
              {"max_output_tokens", as_sent("max_output_tokens")},
              {"max_tool_calls", as_sent("max_tool_calls")},
              {"metadata", metadata == nullptr ? Json::object() : *metadata},
              {"model", model.value_or("").empty() ? options.model : *model},
              {"parallel_tool_calls", parallel.value_or(true)},
              {"previous_response_id", as_sent("previous_response_id")},
              {"prompt_cache_key", as_sent("prompt_cache_key")},
              {"reasoning", std::move(reasoning)},
              {"safety_identifier", as_sent("safety_identifier")},
              {"service_tier", "default"},
              {"store", out.store},
              {"temperature", out.turn.sampling.temperature},
              {"text", std::move(text)},
              {"tool_choice", choice == nullptr ? Json("auto") : *choice},
              {"tools", tools == nullptr ? Json::array() : *tools},
              {"top_logprobs", std::max(0, out.turn.sampling.top_logprobs)},
              {"top_p", body.Number("top_p", 0, 1).value_or(1.0)},
              {"truncation", truncation},
              {"user", as_sent("user")}};
  return out;
}

}  // namespace gptoss::server
