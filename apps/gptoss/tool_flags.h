// Flags that declare tools and say how a turn of the assistant goes.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "grammar/tool_grammar.h"
#include "grammar/turn_grammar.h"
#include "grammar_flags.h"
#include "harmony/message.h"

namespace gptoss::cli {

struct ToolFlags {
  std::vector<std::string> files;
  std::string choice = "auto";  // auto, none, required, or names between commas
  std::optional<int> reasoning_budget;

  bool given() const { return !files.empty() || choice != "auto" || reasoning_budget.has_value(); }
};

/// Adds --tool, --tool-choice and --reasoning-budget.
void AddToolFlags(CLI::App& command, ToolFlags* flags);

/// What --tool names: each file holds a tool or a list of them. On failure: naming the file and what is wrong in it.
Result<std::vector<ToolSpec>> ReadTools(const ToolFlags& flags);

/// The tools as the model reads them in the developer message.
ToolNamespaces DescribeTools(const std::vector<ToolSpec>& tools);

/// A turn as the flags ask for it, without limits on tokens. `answer` may be null. On failure: what CompileTool says,
/// or a --tool-choice that cannot be.
Result<TurnOptions> TurnOptionsOf(const ToolFlags& flags, const std::vector<ToolSpec>& tools,
                                  std::shared_ptr<Machine> answer, const std::shared_ptr<const TokenIndex>& tokens);

/// The same with a limit of `max_tokens`, of which half, but at most 1024, are kept for the answer or the call.
TurnOptions WithLimit(TurnOptions options, size_t max_tokens);

}  // namespace gptoss::cli
