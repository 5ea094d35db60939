// The chat in a terminal: reads lines, obeys commands, shows answers.
#pragma once

#include <optional>
#include <string>

#include "chat_commands.h"
#include "chat_session.h"

namespace gptoss::cli {

struct ChatDisplay {
  bool show_reasoning = false;
  bool stats = false;
  bool quiet = false;
};

/// Asks one question and shows the answer; needs an InterruptFlag alive. On failure: as ChatSession::Ask.
Result<ChatTurn> AskAndShow(ChatSession& session, const std::string& question, const ChatDisplay& display);

class ChatRepl {
 public:
  ChatRepl(ChatSession& session, std::string title, ChatDisplay display)
      : session_(session), title_(std::move(title)), display_(display) {}

  /// Until the user leaves. Returns the exit code.
  int Run();

 private:
  void Send(const std::string& text);
  /// False: leave.
  bool Obey(const std::string& line);
  Status Execute(const ChatCommand& command);
  void ShowStats() const;

  ChatSession& session_;
  std::string title_;
  ChatDisplay display_;
  std::optional<ChatTurn> last_turn_;
};

}  // namespace gptoss::cli
