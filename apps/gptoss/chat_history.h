// The conversation of a chat: how it begins, what was said, and its file.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "harmony/message.h"

namespace gptoss::cli {

struct ChatSetup {
  std::string identity{};   // first line of the system message; empty: the usual one
  std::string developer{};  // instructions; may be empty
  std::string date{};       // "2025-06-28"
  ReasoningEffort effort = ReasoningEffort::kMedium;
  // In the developer message, as the instructions are; without any of the three there is none.
  ToolNamespaces tools{};
  std::vector<ResponseFormat> formats{};
};

class ChatHistory {
 public:
  explicit ChatHistory(ChatSetup setup) : setup_(std::move(setup)) { Clear(); }

  /// Back to the system and developer messages.
  void Clear();
  const Conversation& conversation() const { return conversation_; }
  ReasoningEffort effort() const { return setup_.effort; }
  /// For the rest of this conversation, and for later ones.
  void SetEffort(ReasoningEffort effort);
  void Add(Message message) { conversation_.messages.push_back(std::move(message)); }
  /// Forgets the messages from `size` on.
  void Truncate(size_t size) { conversation_.messages.resize(size); }
  /// Questions asked in this conversation.
  int user_messages() const;

  /// Writes the conversation in the official JSON form. Replaces a file only if that holds a conversation. On failure:
  /// kIo, or kInvalidArgument for some other file.
  Status Save(const std::string& path) const;
  /// Takes over a saved conversation and its effort; one without system message gets this chat's. On failure (the
  /// conversation stays as it was): what reading or ConversationFromJson says, naming the file.
  Status Load(const std::string& path);

 private:
  ChatSetup setup_;
  Conversation conversation_;
};

/// Today in the local time zone, as "2025-06-28".
std::string Today();
/// `path` with a leading "~/" replaced by the home directory.
std::string ExpandHome(const std::string& path);

}  // namespace gptoss::cli
