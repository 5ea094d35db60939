#include "chat_history.h"

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <filesystem>

#include "base/mmap_file.h"
#include "harmony/message_json.h"
#include "json/json.h"

namespace gptoss::cli {
namespace {

Message SystemMessage(const ChatSetup& setup) {
  SystemContent content = DefaultSystemContent(setup.date, setup.effort);
  if (!setup.identity.empty()) content.model_identity = setup.identity;
  Message message;
  message.author.role = Role::kSystem;
  message.contents.emplace_back(std::move(content));
  return message;
}

SystemContent* SystemOf(Conversation& conversation) {
  if (conversation.messages.empty() || conversation.messages[0].author.role != Role::kSystem) return nullptr;
  for (Content& content : conversation.messages[0].contents) {
    if (auto* system = std::get_if<SystemContent>(&content)) return system;
  }
  return nullptr;
}

Result<Conversation> ReadConversation(const std::string& path) {
  GPTOSS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  const auto json = ParseJson(text);
  if (!json.ok()) return json.status().WithContext(path);
  auto conversation = ConversationFromJson(*json);
  if (!conversation.ok()) return conversation.status().WithContext(path);
  return conversation;
}

}  // namespace

void ChatHistory::Clear() {
  conversation_.messages.clear();
  Add(SystemMessage(setup_));
  if (setup_.developer.empty() && setup_.tools.empty() && setup_.formats.empty()) return;
  Message developer;
  developer.author.role = Role::kDeveloper;
  DeveloperContent content;
  if (!setup_.developer.empty()) content.instructions = setup_.developer;
  content.tools = setup_.tools;
  content.response_formats = setup_.formats;
  developer.contents.emplace_back(std::move(content));
  Add(std::move(developer));
}

void ChatHistory::SetEffort(ReasoningEffort effort) {
  setup_.effort = effort;
  if (SystemContent* system = SystemOf(conversation_)) system->reasoning_effort = effort;
}

int ChatHistory::user_messages() const {
  return static_cast<int>(
      std::ranges::count_if(conversation_.messages, [](const Message& m) { return m.author.role == Role::kUser; }));
}

Status ChatHistory::Save(const std::string& path) const {
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored) && !ReadConversation(path).ok()) {
    return InvalidArgument(path + ": exists and is not a saved conversation; choose another name");
  }
  return WriteFileAtomically(path, WriteJson(ToJson(conversation_), 1) + "\n");
}

Status ChatHistory::Load(const std::string& path) {
  GPTOSS_ASSIGN_OR_RETURN(Conversation loaded, ReadConversation(path));
  if (SystemContent* system = SystemOf(loaded)) {
    if (system->reasoning_effort.has_value()) setup_.effort = *system->reasoning_effort;
    system->reasoning_effort = setup_.effort;
  } else {
    loaded.messages.insert(loaded.messages.begin(), SystemMessage(setup_));
  }
  conversation_ = std::move(loaded);
  return Status();
}

std::string Today() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  char text[16] = "";
  if (::localtime_r(&now, &local) != nullptr) std::strftime(text, sizeof text, "%Y-%m-%d", &local);
  return text;
}

std::string ExpandHome(const std::string& path) {
  const char* home = std::getenv("HOME");
  return path.starts_with("~/") && home != nullptr ? home + path.substr(1) : path;
}

}  // namespace gptoss::cli
