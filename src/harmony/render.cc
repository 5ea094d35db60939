#include "harmony/render.h"

#include <algorithm>

#include "harmony/tool_schema.h"

namespace gptoss {
namespace {

SchemaStyle StyleOf(bool official) { return official ? SchemaStyle::kOfficial : SchemaStyle::kFaithful; }

void Join(std::string_view separator, std::string_view text, std::string* out) {
  if (!out->empty()) *out += separator;
  *out += text;
}

bool IsChannel(const Message& message, std::string_view channel) { return message.channel == channel; }

std::string ResponseFormatsText(const std::vector<ResponseFormat>& formats) {
  std::string out = "# Response Formats";
  for (const ResponseFormat& format : formats) {
    out += "\n\n## " + format.name + "\n";
    ForEachLine(format.description.value_or(""), [&](std::string_view line) { out += "\n// " + std::string(line); });
    out += "\n" + CompactJson(format.schema);
  }
  return out;
}

}  // namespace

std::vector<size_t> KeptMessages(std::span<const Message> messages, const RenderOptions& options) {
  size_t bound = 0;  // analysis before it is dropped
  if (options.auto_drop_analysis && options.official) {
    const auto last = std::find_if(messages.rbegin(), messages.rend(),
                                   [](const Message& m) { return m.author.role == Role::kAssistant; });
    if (last != messages.rend() && IsChannel(*last, "final")) {
      bound = static_cast<size_t>(
          std::find_if(messages.begin(), messages.end(), [](const Message& m) { return IsChannel(m, "final"); }) -
          messages.begin());
    }
  } else if (options.auto_drop_analysis) {
    for (size_t i = 0; i < messages.size(); ++i) {
      if (messages[i].author.role == Role::kAssistant && IsChannel(messages[i], "final")) bound = i;
    }
  }
  std::vector<size_t> kept;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (i >= bound || !IsChannel(messages[i], "analysis")) kept.push_back(i);
  }
  return kept;
}

bool HasFunctionTools(std::span<const Message> messages) {
  for (const Message& message : messages) {
    for (const Content& content : message.contents) {
      const auto* developer = std::get_if<DeveloperContent>(&content);
      if (developer == nullptr) continue;
      const auto functions = developer->tools.find("functions");
      if (functions != developer->tools.end() && !functions->second.tools.empty()) return true;
    }
  }
  return false;
}

Result<std::string> SystemText(const SystemContent& content, bool official, bool has_function_tools) {
  std::string out;
  if (content.model_identity) out = *content.model_identity;
  // An empty identity still has its line, as in the official text.
  bool any = content.model_identity.has_value();
  const auto line = [&](const char* label, const std::optional<std::string>& value) {
    if (!value) return;
    if (any) out += "\n";
    out += label + *value;
    any = true;
  };
  line("Knowledge cutoff: ", content.knowledge_cutoff);
  line("Current date: ", content.conversation_start_date);
  const auto section = [&](std::string_view text) {
    if (any) out += "\n\n";
    out += text;
    any = true;
  };
  if (content.reasoning_effort) {
    section("Reasoning: " + std::string(ReasoningEffortName(*content.reasoning_effort)));
  }
  if (!content.tools.empty()) {
    GPTOSS_ASSIGN_OR_RETURN(const std::string tools, RenderToolsSection(content.tools, StyleOf(official)));
    section(tools);
  }
  if (content.channel_config && !content.channel_config->valid_channels.empty()) {
    std::string channels;
    for (const std::string& channel : content.channel_config->valid_channels) Join(", ", channel, &channels);
    std::string text = "# Valid channels: " + channels + ".";
    if (content.channel_config->channel_required) text += " Channel must be included for every message.";
    if (has_function_tools) {
      text += "\nCalls to these tools must go to the commentary channel: 'functions'.";
    }
    section(text);
  }
  return out;
}

Result<std::string> DeveloperText(const DeveloperContent& content, bool official) {
  std::string out;
  if (content.instructions) out = "# Instructions\n\n" + *content.instructions;
  if (!content.tools.empty()) {
    GPTOSS_ASSIGN_OR_RETURN(const std::string tools, RenderToolsSection(content.tools, StyleOf(official)));
    Join("\n\n", tools, &out);
  }
  if (!official && !content.response_formats.empty()) {
    Join("\n\n", ResponseFormatsText(content.response_formats), &out);
  }
  return out;
}

Result<Renderer> Renderer::Create(std::shared_ptr<const Tokenizer> tokenizer) {
  GPTOSS_ASSIGN_OR_RETURN(const FormatTokenIds format, FormatTokenIds::Of(*tokenizer));
  return Renderer(std::move(tokenizer), format);
}

Status Renderer::RenderHeader(const Message& message, std::vector<TokenId>* ids) const {
  ids->push_back(format_.start);
  if (message.author.role == Role::kTool) {
    if (!message.author.name) return InvalidArgument("a message of role tool needs a name, the tool's full name");
    tokenizer_->Encode(*message.author.name, ids);
  } else {
    tokenizer_->Encode(RoleName(message.author.role), ids);
    if (message.author.name) tokenizer_->Encode(":" + *message.author.name, ids);
  }
  if (message.recipient && *message.recipient != "all") tokenizer_->Encode(" to=" + *message.recipient, ids);
  if (message.channel) {
    ids->push_back(format_.channel);
    tokenizer_->Encode(*message.channel, ids);
  }
  if (message.content_type) {
    std::string_view type = *message.content_type;
    const std::string_view marker = Spelling(FormatToken::kConstrain);
    if (type.starts_with(marker)) {
      tokenizer_->Encode(" ", ids);
      ids->push_back(format_.constrain);
      type.remove_prefix(marker.size());
      tokenizer_->Encode(type, ids);
    } else {
      tokenizer_->Encode(" " + *message.content_type, ids);
    }
  }
  ids->push_back(format_.message);
  return {};
}

Status Renderer::RenderMessage(const Message& message, bool official, bool has_function_tools,
                               std::vector<TokenId>* ids) const {
  GPTOSS_RETURN_IF_ERROR(RenderHeader(message, ids));
  for (const Content& content : message.contents) {
    if (const auto* text = std::get_if<TextContent>(&content)) {
      tokenizer_->Encode(text->text, ids);
    } else if (const auto* system = std::get_if<SystemContent>(&content)) {
      if (message.author.role != Role::kSystem) {
        return InvalidArgument("system_content may only stand in a system message, not in one of role " +
                               std::string(RoleName(message.author.role)));
      }
      GPTOSS_ASSIGN_OR_RETURN(const std::string written, SystemText(*system, official, has_function_tools));
      tokenizer_->Encode(written, ids);
    } else {
      if (message.author.role != Role::kDeveloper) {
        return InvalidArgument("developer_content may only stand in a developer message, not in one of role " +
                               std::string(RoleName(message.author.role)));
      }
      GPTOSS_ASSIGN_OR_RETURN(const std::string written, DeveloperText(std::get<DeveloperContent>(content), official));
      tokenizer_->Encode(written, ids);
    }
  }
  const bool is_call = message.author.role == Role::kAssistant && message.recipient;
  ids->push_back(is_call ? format_.call : format_.end);
  return {};
}

Result<std::vector<TokenId>> Renderer::RenderConversation(const Conversation& conversation,
                                                          const RenderOptions& options) const {
  const std::vector<Message>& messages = conversation.messages;
  const bool has_function_tools = HasFunctionTools(messages);
  std::vector<TokenId> ids;
  for (size_t i : KeptMessages(messages, options)) {
    const Status status = RenderMessage(messages[i], options.official, has_function_tools, &ids);
    if (!status.ok()) return status.WithContext("messages[" + std::to_string(i) + "]");
  }
  if (options.training && !messages.empty() && messages.back().author.role == Role::kAssistant &&
      IsChannel(messages.back(), "final")) {
    ids.back() = format_.return_;
  }
  if (options.next_role) {
    ids.push_back(format_.start);
    tokenizer_->Encode(RoleName(*options.next_role), &ids);
  }
  return ids;
}

}  // namespace gptoss
