#include "tool_flags.h"

#include <algorithm>
#include <utility>

#include "base/mmap_file.h"
#include "json/json.h"

namespace gptoss::cli {
namespace {

Status ReadToolFile(const std::string& path, std::vector<ToolSpec>* tools) {
  GPTOSS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  const auto json = ParseJson(text);
  if (!json.ok()) return json.status().WithContext(path);
  const Json list = json->is_array() ? *json : Json::array({*json});
  for (const Json& item : list) {
    auto tool = ToolSpecFromJson(item);
    if (!tool.ok()) return tool.status().WithContext(path);
    if (std::ranges::any_of(*tools, [&](const ToolSpec& t) { return t.name == tool->name; })) {
      return InvalidArgument(path + ": tool '" + tool->name + "' is declared twice");
    }
    tools->push_back(*std::move(tool));
  }
  return {};
}

std::vector<std::string> SplitAtCommas(const std::string& text) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == ',') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

Status ChooseTools(const std::string& choice, const std::vector<ToolSpec>& tools, TurnOptions* options) {
  if (choice == "none" || choice == "auto") {
    options->choice = choice == "none" ? ToolChoice::kNone : ToolChoice::kAuto;
    return {};
  }
  options->choice = ToolChoice::kRequired;
  if (tools.empty()) return InvalidArgument("--tool-choice " + choice + ": no --tool declares a tool to call");
  if (choice == "required") return {};
  for (const std::string& name : SplitAtCommas(choice)) {
    const auto tool = std::ranges::find(tools, name, &ToolSpec::name);
    if (tool == tools.end()) return InvalidArgument("--tool-choice " + choice + ": no --tool declares '" + name + "'");
    options->allowed.push_back(tool->Recipient());
  }
  return {};
}

}  // namespace

void AddToolFlags(CLI::App& command, ToolFlags* flags) {
  const std::string group = "Tools";
  command.add_option("--tool", flags->files, "A tool, or a list of them, as JSON in OpenAI's form; may be repeated")
      ->type_name("FILE")
      ->allow_extra_args(false)
      ->group(group);
  command
      .add_option("--tool-choice", flags->choice,
                  "auto, none, required, or the tool that must be called (several: one of them)")
      ->type_name("auto|none|required|NAME[,NAME]")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--reasoning-budget", flags->reasoning_budget, "Most tokens of reasoning; then the answer must come")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 24))
      ->group(group);
}

Result<std::vector<ToolSpec>> ReadTools(const ToolFlags& flags) {
  std::vector<ToolSpec> tools;
  for (const std::string& path : flags.files) {
    const Status status = ReadToolFile(path, &tools);
    if (!status.ok()) return status.WithContext("--tool");
  }
  return tools;
}

ToolNamespaces DescribeTools(const std::vector<ToolSpec>& tools) {
  if (tools.empty()) return {};
  ToolNamespace functions{.name = "functions", .description = std::nullopt, .tools = {}};
  for (const ToolSpec& tool : tools) {
    ToolDescription& description = functions.tools.emplace_back();
    description.name = tool.name;
    description.description = tool.description;
    description.parameters = tool.parameters;
    if (tool.input == ToolSpec::Input::kJson) continue;
    description.parameters = Json{{"type", "string"}};  // the input itself
    if (tool.input == ToolSpec::Input::kText) continue;
    if (!description.description.empty()) description.description += "\n";
    description.description += tool.input == ToolSpec::Input::kRegex
                                   ? "The input matches this regular expression as a whole:\n"
                                   : "The input follows this Lark grammar:\n";
    description.description += tool.definition;
  }
  return {{"functions", std::move(functions)}};
}

Result<TurnOptions> TurnOptionsOf(const ToolFlags& flags, const std::vector<ToolSpec>& tools,
                                  std::shared_ptr<Machine> answer, const std::shared_ptr<const TokenIndex>& tokens) {
  TurnOptions options;
  for (const ToolSpec& tool : tools) {
    auto compiled = CompileTool(tool, tokens);
    if (!compiled.ok()) return compiled.status().WithContext("--tool");
    options.tools.push_back(*std::move(compiled));
  }
  GPTOSS_RETURN_IF_ERROR(ChooseTools(flags.choice, tools, &options));
  options.final_answer = std::move(answer);
  // A preamble tells what the calls are for.
  options.allow_preamble = !tools.empty() && options.choice != ToolChoice::kNone;
  if (flags.reasoning_budget) options.reasoning_budget = static_cast<size_t>(*flags.reasoning_budget);
  return options;
}

TurnOptions WithLimit(TurnOptions options, size_t max_tokens) {
  constexpr size_t kMostReserve = 1024;  // of a long turn; of a short one, half is kept for the answer
  options.max_tokens = max_tokens;
  options.answer_reserve = std::min(max_tokens / 2, kMostReserve);
  return options;
}

}  // namespace gptoss::cli
