#include "chat_commands.h"

#include <array>
#include <utility>

namespace gptoss::cli {
namespace {

struct CommandSpec {
  std::string_view name;
  ChatCommandKind kind;
  enum class Argument : uint8_t { kNone, kChoice, kRequired } argument;
  std::string_view choices;  // of kChoice, each between spaces
  std::string_view usage;
};

using Argument = CommandSpec::Argument;
constexpr std::array<CommandSpec, 9> kCommands = {{
    {"/effort", ChatCommandKind::kEffort, Argument::kChoice, " none low medium high ",
     "/effort [none|low|medium|high]"},
    {"/reasoning", ChatCommandKind::kReasoning, Argument::kChoice, " show hide ", "/reasoning [show|hide]"},
    {"/new", ChatCommandKind::kNew, Argument::kNone, "", "/new"},
    {"/save", ChatCommandKind::kSave, Argument::kRequired, "", "/save FILE"},
    {"/load", ChatCommandKind::kLoad, Argument::kRequired, "", "/load FILE"},
    {"/stats", ChatCommandKind::kStats, Argument::kChoice, " on off ", "/stats [on|off]"},
    {"/help", ChatCommandKind::kHelp, Argument::kNone, "", "/help"},
    {"/quit", ChatCommandKind::kQuit, Argument::kNone, "", "/quit"},
    {"/exit", ChatCommandKind::kQuit, Argument::kNone, "", "/quit"},
}};

constexpr std::string_view kBlank = " \t\r";
constexpr std::string_view kQuotes = "\"\"\"";

std::string_view Trim(std::string_view s) {
  const size_t begin = s.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return s.substr(begin, s.find_last_not_of(kBlank) + 1 - begin);
}

}  // namespace

bool IsChatCommand(std::string_view line) { return line.starts_with('/') && !line.starts_with("//"); }

Result<ChatCommand> ParseChatCommand(std::string_view line) {
  line = Trim(line);
  const size_t end = line.find_first_of(kBlank);
  const std::string_view name = line.substr(0, end);
  const std::string_view argument = end == std::string_view::npos ? std::string_view() : Trim(line.substr(end));
  for (const CommandSpec& spec : kCommands) {
    if (spec.name != name) continue;
    const std::string choice = " " + std::string(argument) + " ";
    const bool fits = spec.argument == Argument::kRequired ? !argument.empty()
                      : argument.empty()                   ? true
                      : spec.argument == Argument::kChoice ? argument.find(' ') == std::string_view::npos &&
                                                                 spec.choices.find(choice) != spec.choices.npos
                                                           : false;
    if (!fits) return InvalidArgument("usage: " + std::string(spec.usage));
    return ChatCommand{spec.kind, std::string(argument)};
  }
  return InvalidArgument("there is no command " + std::string(name) +
                         "; /help lists them, and // begins a message with a slash");
}

std::string_view ChatHelp() {
  return "/effort [low|medium|high]  how much to think before answering; alone: tells the setting\n"
         "/reasoning [show|hide]     the chain of thought; alone: tells the setting\n"
         "/new                       begin a new conversation\n"
         "/save FILE                 write the conversation as JSON (harmony messages)\n"
         "/load FILE                 go on with a saved conversation\n"
         "/stats [on|off]            speed of the last answer; on: after every answer\n"
         "/help                      this list\n"
         "/quit                      leave, as do Ctrl-D and Ctrl-C twice\n"
         "A \\ at the end of a line continues it. \"\"\" begins and ends a text of several lines.\n"
         "Ctrl-C stops an answer. A message that begins with a slash is typed with two.\n";
}

std::optional<std::string> MessageAssembler::Add(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (open_ == Open::kNone) {
    text_.clear();
    multi_line_ = false;
    if (line.starts_with(kQuotes)) {
      open_ = Open::kBlock;
      multi_line_ = true;
      line.remove_prefix(kQuotes.size());
      if (line.empty()) return std::nullopt;  // the text begins on the next line
    }
  } else if (open_ == Open::kBlock && text_.empty() && line == kQuotes) {
    open_ = Open::kNone;
    return std::string();
  }
  if (line.find('\n') != std::string_view::npos) multi_line_ = true;
  if (open_ == Open::kBlock) {
    const bool last = line.ends_with(kQuotes);
    if (last) line.remove_suffix(kQuotes.size());
    text_ += line;
    if (!last) {
      text_ += '\n';
      return std::nullopt;
    }
    if (line.empty() && text_.ends_with('\n')) text_.pop_back();  // """ stood on a line of its own
  } else if (line.ends_with('\\')) {
    line.remove_suffix(1);
    text_ += line;
    text_ += '\n';
    open_ = Open::kContinued;
    multi_line_ = true;
    return std::nullopt;
  } else {
    text_ += line;
  }
  open_ = Open::kNone;
  return std::exchange(text_, {});
}

std::string MessageAssembler::AsOneEntry(const std::string& message) {
  return std::string(kQuotes) + message + std::string(kQuotes);
}

void MessageAssembler::Discard() {
  open_ = Open::kNone;
  text_.clear();
}

std::optional<std::string> MessageAssembler::Finish() {
  if (!open()) return std::nullopt;
  open_ = Open::kNone;
  return std::exchange(text_, {});
}

}  // namespace gptoss::cli
