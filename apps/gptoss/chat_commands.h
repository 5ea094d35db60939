// What a line typed into the chat means: text for the model, or a command. Knows no terminal.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace gptoss::cli {

enum class ChatCommandKind : uint8_t { kEffort, kReasoning, kNew, kSave, kLoad, kStats, kHelp, kQuit };

struct ChatCommand {
  ChatCommandKind kind;
  std::string argument;  // trimmed; checked against the command's choices; may be empty where the help says so
};

/// A line that begins with "/" is a command; "//" stands for a text that begins with "/".
bool IsChatCommand(std::string_view line);
/// On failure: kInvalidArgument naming the command and what it takes.
Result<ChatCommand> ParseChatCommand(std::string_view line);
/// One line a command.
std::string_view ChatHelp();

/// Puts typed lines together into messages: a backslash at the end of a line continues it, and """ at the start of a
/// line begins a block that lasts to a line ending in """.
class MessageAssembler {
 public:
  /// Adds a line without its line end; returns the message when it is complete. A line with line ends within (pasted,
  /// or from the history) is one line.
  std::optional<std::string> Add(std::string_view line);
  /// A message has been begun and is not complete.
  bool open() const { return open_ != Open::kNone; }
  /// The last message was typed in several lines, or in a block: it is text, whatever it begins with.
  bool multi_line() const { return multi_line_; }
  /// `message` so that Add gives it back at once.
  static std::string AsOneEntry(const std::string& message);
  void Discard();
  /// The input has ended: what there is of an open message.
  std::optional<std::string> Finish();

 private:
  enum class Open : uint8_t { kNone, kContinued, kBlock };
  Open open_ = Open::kNone;
  bool multi_line_ = false;
  std::string text_;
};

}  // namespace gptoss::cli
