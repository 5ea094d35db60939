#include "server/turn_grammars.h"

#include <algorithm>
#include <utility>

#include "grammar/json_schema.h"
#include "server/turn_prompt.h"

namespace gptoss::server {
namespace {

constexpr size_t kMostMachines = 128;
// A machine learns states while it is used. One that has learnt this many (about 20 MB) is left to the requests that
// have it, and compiled anew for later ones, so that what is shared never comes near a machine's own limit.
constexpr size_t kMostLearnt = 200'000;
// In fewer tokens than these there is no room for reasoning and an answer.
constexpr int kShortTurn = 16;

/// Past a limit of the compiler the text is at fault, not the server's load.
Status AsClientError(const Status& status) {
  return status.code() == StatusCode::kResourceExhausted ? Unsupported(status.message()) : status;
}

}  // namespace

Result<std::shared_ptr<Machine>> TurnGrammars::MachineOf(std::string key, const Maker& make) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = by_key_.find(key);
    if (found != by_key_.end()) {
      if (found->second->machine->counters().states < kMostLearnt) {
        entries_.splice(entries_.begin(), entries_, found->second);
        return found->second->machine;
      }
      entries_.erase(found->second);
      by_key_.erase(found);
    }
  }
  auto machine = make();
  if (!machine.ok()) return AsClientError(machine.status());
  const std::lock_guard lock(mutex_);
  if (by_key_.contains(key)) return machine;  // another request was faster
  entries_.push_front({key, *machine});
  by_key_.emplace(std::move(key), entries_.begin());
  if (entries_.size() > kMostMachines) {
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
  }
  return machine;
}

Result<TurnTool> TurnGrammars::ToolOf(const ToolSpec& tool) {
  TurnTool out;
  out.recipient = tool.Recipient();
  out.json = tool.input == ToolSpec::Input::kJson;
  if (tool.input == ToolSpec::Input::kText) return out;
  GPTOSS_ASSIGN_OR_RETURN(out.arguments, MachineOf("tool " + InputKey(tool), [&]() -> Result<std::shared_ptr<Machine>> {
                            GPTOSS_ASSIGN_OR_RETURN(TurnTool made, CompileTool(tool, tokens_));
                            return std::move(made.arguments);
                          }));
  return out;
}

Result<std::shared_ptr<Machine>> TurnGrammars::AnswerOf(const AnswerFormat& format) {
  if (format.kind == AnswerFormat::Kind::kText) return std::shared_ptr<Machine>();
  const auto compile = [&](Result<Automaton> automaton) -> Result<std::shared_ptr<Machine>> {
    if (!automaton.ok()) return automaton.status().WithContext("the schema of the answer's format");
    return Machine::Create(*std::move(automaton), tokens_);
  };
  if (format.kind == AnswerFormat::Kind::kJsonObject) {
    return MachineOf("object", [&] { return compile(AnyJsonObject()); });
  }
  return MachineOf("schema " + WriteJson(format.schema), [&] { return compile(CompileJsonSchema(format.schema)); });
}

Result<std::shared_ptr<const TurnGrammar>> TurnGrammars::Create(const TurnRequest& request, int max_tokens,
                                                                int answer_reserve) {
  TurnOptions options;
  for (const ToolSpec& tool : request.tools) {
    GPTOSS_ASSIGN_OR_RETURN(TurnTool made, ToolOf(tool));
    options.tools.push_back(std::move(made));
  }
  options.choice = request.tool_choice.kind == ToolChoice::Kind::kNone       ? gptoss::ToolChoice::kNone
                   : request.tool_choice.kind == ToolChoice::Kind::kRequired ? gptoss::ToolChoice::kRequired
                                                                             : gptoss::ToolChoice::kAuto;
  for (const std::string& name : request.tool_choice.allowed) options.allowed.push_back(Recipient(name));
  GPTOSS_ASSIGN_OR_RETURN(options.final_answer, AnswerOf(request.format));
  const bool calls = !options.tools.empty() && options.choice != gptoss::ToolChoice::kNone;
  const bool is_short = max_tokens <= kShortTurn;
  options.allow_analysis = !request.no_reasoning && !is_short;
  // A preamble tells what the calls are for; without any it would be a second answer.
  options.allow_preamble = calls && !is_short;
  if (request.reasoning_budget) options.reasoning_budget = static_cast<size_t>(std::max(0, *request.reasoning_budget));
  options.max_tokens = static_cast<size_t>(max_tokens);
  options.answer_reserve = static_cast<size_t>(std::min(answer_reserve, max_tokens / 2));
  return TurnGrammar::Create(tokens_, std::move(options));
}

}  // namespace gptoss::server
