#include "harmony/message.h"

#include <utility>

namespace gptoss {
namespace {

constexpr std::pair<Role, std::string_view> kRoles[] = {{Role::kUser, "user"},
                                                        {Role::kAssistant, "assistant"},
                                                        {Role::kSystem, "system"},
                                                        {Role::kDeveloper, "developer"},
                                                        {Role::kTool, "tool"}};

constexpr std::pair<ReasoningEffort, std::string_view> kEfforts[] = {
    {ReasoningEffort::kLow, "low"}, {ReasoningEffort::kMedium, "medium"}, {ReasoningEffort::kHigh, "high"}};

}  // namespace

std::string_view RoleName(Role role) { return kRoles[static_cast<size_t>(role)].second; }

std::optional<Role> RoleFromName(std::string_view name) {
  for (const auto& [role, text] : kRoles) {
    if (text == name) return role;
  }
  return std::nullopt;
}

std::string_view ReasoningEffortName(ReasoningEffort effort) { return kEfforts[static_cast<size_t>(effort)].second; }

std::optional<ReasoningEffort> ReasoningEffortFromName(std::string_view name) {
  std::string lower(name);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  for (const auto& [effort, text] : kEfforts) {
    if (text == lower) return effort;
  }
  return std::nullopt;
}

Message TextMessage(Role role, std::string text) {
  Message message;
  message.author.role = role;
  message.contents.push_back(TextContent{std::move(text)});
  return message;
}

SystemContent DefaultSystemContent(std::string date, ReasoningEffort effort) {
  SystemContent content;
  content.model_identity = "You are ChatGPT, a large language model trained by OpenAI.";
  content.knowledge_cutoff = "2024-06";
  if (!date.empty()) content.conversation_start_date = std::move(date);
  content.reasoning_effort = effort;
  content.channel_config = ChannelConfig{{"analysis", "commentary", "final"}, true};
  return content;
}

}  // namespace gptoss
