// gptoss run: a chat in the terminal, or one answer to a prompt from the command line or a pipe.
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "chat_repl.h"
#include "commands.h"
#include "grammar_flags.h"
#include "line_editor.h"
#include "sampling_flags.h"
#include "tool_flags.h"

namespace gptoss::cli {
namespace {

constexpr int kRandomModelAnswerTokens = 256;  // noise never ends by itself
constexpr size_t kMaxPipedBytes = 64u << 20;

struct RunFlags {
  ModelFlags model;
  std::vector<std::string> prompt;
  ChatSetup setup;
  GrammarFlags grammar;
  ToolFlags tools;
  ChatOptions options;
  ChatDisplay display;
  std::string effort = "medium";
  std::string reasoning = "hide";
  std::optional<int> max_tokens;
  std::optional<uint64_t> seed;
};

/// All of stdin. An inherited pipe that nobody closes would look like a program that hangs, so a wait is announced. A
/// shell's pipe is worth any wait, for it may come from a slow command; a socket is how programs start other programs,
/// often without a thought about stdin, so next to a prompt (`optional`) a silent one is passed over.
Result<std::string> ReadPipedInput(bool optional) {
  pollfd input{STDIN_FILENO, POLLIN, 0};
  if (::poll(&input, 1, 2000) == 0) {
    struct stat kind {};
    if (optional && ::fstat(STDIN_FILENO, &kind) == 0 && S_ISSOCK(kind.st_mode)) {
      std::fputs("gptoss: nothing comes from the socket on stdin; answering without it\n", stderr);
      return std::string();
    }
    std::fputs("gptoss: waiting for the end of piped input; without any, use < /dev/null\n", stderr);
  }
  std::string text;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (n == 0) break;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      // A closed stdin holds nothing.
      if (errno == EBADF) break;
      return IoError("stdin: cannot be read (errno " + std::to_string(errno) + ")");
    }
    text.append(buffer, static_cast<size_t>(n));
    if (text.size() > kMaxPipedBytes) return ResourceExhausted("stdin: more than 64 MiB of text is no prompt");
  }
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
  return text;
}

/// The words of the command line, then what is piped in. nullopt: a person sits at the terminal.
Result<std::optional<std::string>> ReadPrompt(const RunFlags& flags) {
  std::string prompt;
  for (const std::string& word : flags.prompt) prompt += (prompt.empty() ? "" : " ") + word;
  const bool terminal = ::isatty(STDIN_FILENO) == 1;
  if (!terminal) {
    GPTOSS_ASSIGN_OR_RETURN(const std::string piped, ReadPipedInput(/*optional=*/!prompt.empty()));
    if (!prompt.empty() && !piped.empty()) prompt += "\n\n";
    prompt += piped;
  } else if (flags.prompt.empty()) {
    return std::optional<std::string>();
  }
  if (prompt.find_first_not_of(" \t\r\n") == std::string::npos) {
    return InvalidArgument("the prompt is empty: give it as an argument or through a pipe");
  }
  return std::optional<std::string>(ReplaceInvalidUtf8(prompt));
}

Status CompleteOptions(RunFlags* flags) {
  flags->setup.effort = ReasoningEffortFromName(flags->effort).value_or(ReasoningEffort::kLow);
  if (flags->setup.date.empty()) flags->setup.date = Today();
  flags->display.show_reasoning = flags->reasoning == "show";
  flags->display.quiet = flags->model.quiet;
  if (flags->max_tokens.has_value()) {
    flags->options.max_tokens = *flags->max_tokens;
  } else if (IsRandomModel(flags->model.model)) {
    flags->options.max_tokens = kRandomModelAnswerTokens;
  }
  if (flags->seed.has_value()) {
    flags->options.sampling.seed = *flags->seed;
  } else {
    std::random_device device;
    flags->options.sampling.seed = static_cast<uint64_t>(device()) << 32 | device();
  }
  const auto stops = StopSequences::Make(flags->options.stops);
  if (!stops.ok()) return stops.status();
  return ValidateSampling(flags->options.sampling, std::numeric_limits<int>::max());
}

/// The section "# Response Formats" shows the model the schema that its answer will be held to.
Status AddResponseFormat(const std::string& source, ChatSetup* setup) {
  GPTOSS_ASSIGN_OR_RETURN(Json schema, ReadSchema(source));
  const std::string* description = schema.is_object() ? FindString(schema, "description") : nullptr;
  ResponseFormat format{.name = "answer", .description = std::nullopt, .schema = {}};
  if (description != nullptr) format.description = *description;
  format.schema = std::move(schema);
  setup->formats.push_back(std::move(format));
  return {};
}

/// What is wrong with a grammar or a tool is said before a model is loaded.
Status PrepareTurns(RunFlags* flags) {
  GPTOSS_ASSIGN_OR_RETURN(const std::vector<ToolSpec> tools, ReadTools(flags->tools));
  GPTOSS_ASSIGN_OR_RETURN(OpenedGrammar answer, OpenGrammar(flags->grammar, flags->model));
  if (answer.tokens == nullptr) {
    GPTOSS_ASSIGN_OR_RETURN(answer.tokens, OpenTokens(flags->model));
  }
  flags->options.tokens = answer.tokens;
  GPTOSS_ASSIGN_OR_RETURN(flags->options.turn,
                          TurnOptionsOf(flags->tools, tools, std::move(answer.machine), answer.tokens));
  flags->options.turn.allow_analysis = flags->effort != "none";
  if (flags->options.turn.choice != ToolChoice::kNone) flags->setup.tools = DescribeTools(tools);
  if (!flags->grammar.json_schema.empty()) return AddResponseFormat(flags->grammar.json_schema, &flags->setup);
  return {};
}

int RunOnce(ChatSession& session, const std::string& prompt, const ChatDisplay& display) {
  InterruptFlag interrupts;
  const auto turn = AskAndShow(session, prompt, display);
  if (!turn.ok()) return Fail(turn.status());
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    return Fail(IoError("stdout: the answer cannot be written"));
  return turn->interrupted ? 1 : 0;
}

int RunChat(RunFlags& flags) {
  if (const Status status = CompleteOptions(&flags); !status.ok()) return UsageError(status.message());
  const auto prompt = ReadPrompt(flags);
  if (!prompt.ok()) {
    return prompt.status().code() == StatusCode::kInvalidArgument ? UsageError(prompt.status().message())
                                                                  : Fail(prompt.status());
  }
  WarnIfRandom(flags.model);
  const auto tokenizer = OpenTokenizer(flags.model);
  if (!tokenizer.ok()) return Fail(tokenizer.status());
  if (const Status status = PrepareTurns(&flags); !status.ok()) return Fail(status);
  const auto model = ModelSession::Open(flags.model);
  if (!model.ok()) return Fail(model.status());
  const auto session = ChatSession::Create(**model, *tokenizer, flags.setup, flags.options);
  if (!session.ok()) return Fail(session.status());
  if (prompt->has_value()) return RunOnce(**session, **prompt, flags.display);
  InterruptFlag interrupts;
  const std::string title =
      flags.model.model + ", context of " + std::to_string((*model)->runner->options().max_context) + " tokens";
  return ChatRepl(**session, title, flags.display).Run();
}

void AddOutputFlags(CLI::App& command, RunFlags* flags) {
  const std::string group = "Sampling";
  AddSamplingFlags(command, &flags->options.sampling);
  AddSpeculateFlag(command, &flags->options.speculation);
  command.add_option("--seed", flags->seed, "Same seed and prompt, same answer (default: another one each time)")
      ->group(group);
  command.add_option("--stop", flags->options.stops, "Text before which an answer ends; may be repeated")
      ->allow_extra_args(false)
      ->group(group);
  command.add_option("--max-tokens", flags->max_tokens, "Most tokens of one answer, reasoning included")
      ->check(CLI::Range(1, 1 << 24))
      ->group(group);
}

}  // namespace

void RegisterRun(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<RunFlags>();
  CLI::App* command = app.add_subcommand("run", "Chat with a model, or answer one prompt");
  AddModelFlags(*command, &flags->model);
  command->add_option("--tokenizer", flags->model.tokenizer, "tokenizer.json or .tiktoken file (default: the model's)");
  command->add_option("prompt", flags->prompt, "Answer this and leave; piped text follows it");
  command->add_option("--effort", flags->effort, "How much to think before answering: none, low, medium, high")
      ->check(CLI::IsMember({"none", "low", "medium", "high"}))
      ->capture_default_str();
  command->add_option("--reasoning", flags->reasoning, "The chain of thought: show, hide")
      ->check(CLI::IsMember({"show", "hide"}))
      ->capture_default_str();
  command->add_option("--system", flags->setup.identity, "Who the model is: first line of the system message");
  command->add_option("--developer", flags->setup.developer, "Instructions for the model");
  command->add_option("--date", flags->setup.date, "Date that the model is told (default: today)");
  command->add_flag("--stats", flags->display.stats, "Tokens per second after each answer");
  command->add_flag("--profile", flags->options.profile, "Time, share and GB/s by stage after each answer");
  AddOutputFlags(*command, flags.get());
  AddGrammarFlags(*command, &flags->grammar);
  AddToolFlags(*command, &flags->tools);
  command->add_flag("!--no-repetition-check", flags->options.detect_repetition,
                    "Let an answer go on that has fallen into a loop");
  command->footer(
      "Examples:\n  gptoss run --model gpt-oss-20b\n  gptoss run --model gpt-oss-20b \"Why is the sky blue?\"\n"
      "  git diff | gptoss run --model gpt-oss-20b \"Write a commit message for this change.\"");
  command->callback([flags, exit_code] { *exit_code = RunChat(*flags); });
}

}  // namespace gptoss::cli
