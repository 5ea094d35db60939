#include "chat_repl.h"

#include <unistd.h>

#include <cstdio>

#include "base/utf8.h"
#include "chat_output.h"
#include "chat_view.h"
#include "commands.h"
#include "line_editor.h"
#include "profile_output.h"

namespace gptoss::cli {
namespace {

void Note(const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); }

/// Why an answer is not what one might expect; empty when it is.
std::string Remark(const ChatTurn& turn) {
  if (turn.interrupted) return "[stopped]";
  const std::string call =
      turn.call.empty() ? "" : "the model calls " + EscapeControls(turn.call) + "; this chat does not run tools";
  if (turn.cut_short) return "[shortened to fit --max-tokens" + (call.empty() ? "" : "; " + call) + "]";
  if (turn.reason == StopReason::kMaxTokens) {
    return "[ended by --max-tokens " + std::to_string(turn.timings.output_tokens) + "]";
  }
  if (turn.reason == StopReason::kContextFull)
    return "[the context is full: begin a new conversation, or use --context]";
  if (turn.reason == StopReason::kRepetition) {
    return "[ended: the model repeats itself; --no-repetition-check lets it go on]";
  }
  if (!call.empty()) return "[" + call + "]";
  if (!turn.answered) return "[the model ended its turn without an answer]";
  return "";
}

}  // namespace

Result<ChatTurn> AskAndShow(ChatSession& session, const std::string& question, const ChatDisplay& display) {
  const AnswerStyle style{.terminal = ::isatty(STDOUT_FILENO) == 1,
                          .colour = WantsColour(STDOUT_FILENO),
                          .show_reasoning = display.show_reasoning};
  AnswerView view(style, !display.quiet && style.colour && WantsColour(STDERR_FILENO));
  InterruptFlag::Clear();
  auto turn = session.Ask(question, &view, [&](int tokens) {
    view.OnToken(tokens);
    return !InterruptFlag::IsSet();
  });
  view.Finish();
  if (!turn.ok()) return turn;
  if (const std::string remark = Remark(*turn); !remark.empty()) Note(remark);
  if (display.stats) Note(DescribeTurn(*turn));
  if (turn->profile.has_value()) {
    std::fputs(ProfileTable("prefill", turn->profile->prefill).c_str(), stderr);
    std::fputs(ProfileTable("decode", turn->profile->decode).c_str(), stderr);
  }
  return turn;
}

int ChatRepl::Run() {
  if (!display_.quiet) Note(title_ + "; /help lists the commands");
  LineEditor editor(DefaultHistoryFile());
  MessageAssembler assembler;
  bool warned = false;
  for (;;) {
    std::string line;
    const auto outcome = editor.Read(assembler.open() ? "... " : ">>> ", &line);
    if (outcome == LineEditor::Outcome::kInterrupted || outcome == LineEditor::Outcome::kInterruptedEmpty) {
      const bool idle = outcome == LineEditor::Outcome::kInterruptedEmpty && !assembler.open();
      assembler.Discard();
      if (idle && warned) return 0;
      if (idle) Note("Ctrl-C once more, Ctrl-D or /quit leaves");
      warned = idle;
      continue;
    }
    warned = false;
    std::optional<std::string> message;
    if (outcome == LineEditor::Outcome::kEnd) {
      message = assembler.Finish();
      if (!message.has_value()) {
        Note("");
        return 0;
      }
    } else {
      message = assembler.Add(line);
    }
    if (!message.has_value()) continue;
    if (message->find_first_not_of(" \t\n") == std::string::npos) continue;
    editor.Remember(assembler.multi_line() ? MessageAssembler::AsOneEntry(*message) : *message);
    if (!assembler.multi_line() && IsChatCommand(*message)) {
      if (!Obey(*message)) return 0;
    } else {
      Send(!assembler.multi_line() && message->starts_with("//") ? message->substr(1) : *message);
    }
  }
}

void ChatRepl::Send(const std::string& text) {
  auto turn = AskAndShow(session_, ReplaceInvalidUtf8(text), display_);
  if (!turn.ok()) {
    Fail(turn.status());
    return;
  }
  last_turn_ = *turn;
}

bool ChatRepl::Obey(const std::string& line) {
  const auto command = ParseChatCommand(line);
  if (!command.ok()) {
    Note(EscapeControls(command.status().message()));
    return true;
  }
  if (command->kind == ChatCommandKind::kQuit) return false;
  if (const Status status = Execute(*command); !status.ok()) Note(EscapeControls(status.message()));
  return true;
}

Status ChatRepl::Execute(const ChatCommand& command) {
  const std::string& argument = command.argument;
  switch (command.kind) {
    case ChatCommandKind::kEffort:
      if (!argument.empty()) session_.SetEffort(argument);
      Note("effort: " + session_.EffortName());
      return Status();
    case ChatCommandKind::kReasoning:
      if (!argument.empty()) display_.show_reasoning = argument == "show";
      Note(display_.show_reasoning ? "reasoning: shown" : "reasoning: hidden");
      return Status();
    case ChatCommandKind::kNew:
      session_.history().Clear();
      last_turn_.reset();
      Note("new conversation");
      return Status();
    case ChatCommandKind::kSave:
      GPTOSS_RETURN_IF_ERROR(session_.history().Save(ExpandHome(argument)));
      Note("saved " + EscapeControls(argument));
      return Status();
    case ChatCommandKind::kLoad: {
      GPTOSS_RETURN_IF_ERROR(session_.history().Load(ExpandHome(argument)));
      const int questions = session_.history().user_messages();
      Note("loaded " + EscapeControls(argument) + ": " + std::to_string(questions) +
           (questions == 1 ? " question" : " questions") + ", effort " + session_.EffortName());
      return Status();
    }
    case ChatCommandKind::kStats:
      if (!argument.empty()) display_.stats = argument == "on";
      ShowStats();
      return Status();
    case ChatCommandKind::kHelp:
      std::fputs(std::string(ChatHelp()).c_str(), stderr);
      return Status();
    case ChatCommandKind::kQuit:
      break;
  }
  return Status();
}

void ChatRepl::ShowStats() const {
  Note(last_turn_.has_value() ? DescribeTurn(*last_turn_) : "no answer yet in this conversation");
  Note(std::string("stats after every answer: ") + (display_.stats ? "on" : "off"));
}

}  // namespace gptoss::cli
