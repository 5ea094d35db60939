#include "server/api/history.h"

#include <algorithm>

namespace gptoss::server {
namespace {

constexpr size_t kMaxToolName = 128;
constexpr char kJsonType[] = "<|constrain|>json";

Message OnChannel(const char* channel, std::string text) {
  Message message = TextMessage(Role::kAssistant, std::move(text));
  message.channel = channel;
  return message;
}

std::string FullName(std::string_view tool) { return "functions." + std::string(tool); }

}  // namespace

Message UserText(std::string text) { return TextMessage(Role::kUser, std::move(text)); }

Message LateInstructions(std::string text) {
  Message message;
  message.author.role = Role::kDeveloper;
  DeveloperContent content;
  content.instructions = std::move(text);
  message.contents.emplace_back(std::move(content));
  return message;
}

Message Reasoning(std::string text) { return OnChannel("analysis", std::move(text)); }
Message Preamble(std::string text) { return OnChannel("commentary", std::move(text)); }
Message Answer(std::string text) { return OnChannel("final", std::move(text)); }

Message FunctionCall(std::string_view tool, std::string arguments) {
  Message message = OnChannel("commentary", std::move(arguments));
  message.recipient = FullName(tool);
  message.content_type = kJsonType;
  return message;
}

Message CustomCall(std::string_view tool, std::string input) {
  Message message = OnChannel("commentary", std::move(input));
  message.recipient = FullName(tool);
  return message;
}

Message ToolResult(std::string_view tool, std::string output) {
  Message message = OnChannel("commentary", std::move(output));
  message.author = {Role::kTool, FullName(tool)};
  message.recipient = "assistant";
  return message;
}

std::string TextOf(const Message& message) {
  std::string text;
  for (const Content& content : message.contents) {
    if (const auto* part = std::get_if<TextContent>(&content)) text += part->text;
    if (const auto* part = std::get_if<DeveloperContent>(&content)) text += part->instructions.value_or("");
  }
  return text;
}

Status CheckToolName(std::string_view name, std::string_view path) {
  const bool legal = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
  });
  if (legal && !name.empty() && name.size() <= kMaxToolName) return {};
  return InvalidArgument(std::string(path) + ": must be 1 to " + std::to_string(kMaxToolName) +
                         " characters of a-z, A-Z, 0-9, '_', '-' and '.'");
}

}  // namespace gptoss::server
