#include "server/turn_prompt.h"

#include <utility>

namespace gptoss::server {
namespace {

constexpr std::string_view kFunctions = "functions";

/// A tool of free text is declared as a function of one string; what its text must be stands in the description.
ToolDescription Describe(const ToolSpec& tool) {
  if (tool.input == ToolSpec::Input::kJson) return {tool.name, tool.description, tool.parameters};
  std::string description = tool.description;
  const auto add = [&](const std::string& text) { description += (description.empty() ? "" : "\n") + text; };
  add("The input is plain text, not JSON.");
  if (tool.input == ToolSpec::Input::kRegex) {
    add("The input matches this regular expression as a whole:\n" + tool.definition);
  } else if (tool.input == ToolSpec::Input::kLark) {
    add("The input follows this Lark grammar:\n" + tool.definition);
  }
  return {tool.name, std::move(description), Json{{"type", "string"}}};
}

Message SystemMessage(const TurnRequest& request, const std::string& date) {
  Message message;
  message.author.role = Role::kSystem;
  message.contents.emplace_back(
      DefaultSystemContent(date, request.no_reasoning ? ReasoningEffort::kLow : request.effort));
  return message;
}

/// Empty contents when there is nothing to say.
Message DeveloperMessage(const TurnRequest& request) {
  DeveloperContent content;
  if (!request.instructions.empty()) content.instructions = request.instructions;
  if (!request.tools.empty()) {
    ToolNamespace& functions = content.tools[std::string(kFunctions)];
    functions.name = kFunctions;
    for (const ToolSpec& tool : request.tools) functions.tools.push_back(Describe(tool));
  }
  const AnswerFormat& format = request.format;
  if (format.kind == AnswerFormat::Kind::kJsonSchema) {
    ResponseFormat& named = content.response_formats.emplace_back();
    named.name = format.name.empty() ? "answer" : format.name;
    if (!format.description.empty()) named.description = format.description;
    named.schema = format.schema;
  } else if (format.kind == AnswerFormat::Kind::kJsonObject) {
    content.response_formats.push_back({"json_object", "Any JSON object.", Json{{"type", "object"}}});
  }
  Message message;
  message.author.role = Role::kDeveloper;
  if (content != DeveloperContent()) message.contents.emplace_back(std::move(content));
  return message;
}

void AppendReplay(const FormatTokenIds& format, const Tokenizer& tokenizer, const std::vector<TokenId>& said,
                  std::vector<TokenId>* ids) {
  ids->push_back(format.start);
  tokenizer.Encode(RoleName(Role::kAssistant), ids);
  ids->insert(ids->end(), said.begin(), said.end());
  if (ids->back() == format.return_) ids->back() = format.end;
  if (ids->back() != format.end && ids->back() != format.call) ids->push_back(format.end);
}

bool EndsTurn(const Message& message) {
  return message.author.role == Role::kUser || (message.author.role == Role::kAssistant && message.channel == "final");
}

}  // namespace

std::string Recipient(const std::string& bare_name) { return std::string(kFunctions) + "." + bare_name; }

std::string BareName(const std::string& recipient) {
  const std::string prefix = std::string(kFunctions) + ".";
  return recipient.starts_with(prefix) ? recipient.substr(prefix.size()) : recipient;
}

Result<TurnPrompt> BuildPrompt(const Renderer& renderer, const TurnRequest& request, const std::string& date) {
  TurnPrompt prompt;
  std::vector<TokenId>& ids = prompt.tokens;
  const auto checkpoint = [&] { prompt.checkpoints.push_back(static_cast<int>(ids.size())); };
  const bool has_tools = !request.tools.empty();
  GPTOSS_RETURN_IF_ERROR(renderer.RenderMessage(SystemMessage(request, date), false, has_tools, &ids));
  const Message developer = DeveloperMessage(request);
  if (!developer.contents.empty()) GPTOSS_RETURN_IF_ERROR(renderer.RenderMessage(developer, false, has_tools, &ids));
  checkpoint();  // other conversations begin alike

  std::vector<Message> messages;
  for (const HistoryMessage& said : request.history) messages.push_back(said.message);
  for (const size_t i : KeptMessages(messages, RenderOptions())) {
    const std::vector<TokenId>& said = request.history[i].tokens;
    if (!said.empty()) {
      AppendReplay(renderer.format(), renderer.tokenizer(), said, &ids);
    } else {
      const Status status = renderer.RenderMessage(messages[i], false, has_tools, &ids);
      if (!status.ok()) return status.WithContext("messages[" + std::to_string(i) + "]");
    }
    if (EndsTurn(messages[i])) checkpoint();
  }
  ids.push_back(renderer.format().start);
  renderer.tokenizer().Encode(RoleName(Role::kAssistant), &ids);
  return prompt;
}

}  // namespace gptoss::server
