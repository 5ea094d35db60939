// gptoss eval: the share of a suite's questions that a model answers rightly, by family and effort.
#include <cstdio>
#include <map>
#include <memory>

#include "base/mmap_file.h"
#include "commands.h"
#include "eval_runner.h"
#include "progress.h"
#include "sampling_flags.h"

namespace gptoss::cli {
namespace {

struct EvalFlags {
  ModelFlags model;
  std::string suite;
  std::string effort = "all";
  EvalOptions options;
  int limit = 0;  // of each family; 0: all
  bool failures = false;
  bool json = false;
};

/// Families in alphabetical order.
using EvalScores = std::map<std::string, EvalScore>;

struct EvalRun {
  ReasoningEffort effort = ReasoningEffort::kMedium;
  EvalScores families;
  Json failures = Json::array();
};

EvalScore Total(const EvalScores& families) {
  EvalScore total;
  for (const auto& [name, score] : families) {
    total.items += score.items;
    total.right += score.right;
    total.calls += score.calls;
    total.valid_calls += score.valid_calls;
    total.tokens += score.tokens;
  }
  return total;
}

double Share(int part, int whole) { return whole == 0 ? 0.0 : static_cast<double>(part) / whole; }

Json ScoreJson(const EvalScore& score) {
  Json json = {{"items", score.items}, {"right", score.right}, {"accuracy", Share(score.right, score.items)}};
  if (score.hard) json["hard"] = true;
  if (score.calls > 0) {
    json["calls"] = score.calls;
    json["valid_calls"] = Share(score.valid_calls, score.calls);
  }
  json["tokens_per_item"] = score.items == 0 ? 0.0 : static_cast<double>(score.tokens) / score.items;
  return json;
}

std::vector<EvalItem> Limited(std::vector<EvalItem> items, int limit) {
  if (limit == 0) return items;
  std::map<std::string, int> seen;
  std::erase_if(items, [&](const EvalItem& item) { return ++seen[item.family] > limit; });
  return items;
}

Result<EvalRun> RunSuite(EvalRunner& runner, const std::vector<EvalItem>& items, ReasoningEffort effort, bool quiet) {
  EvalRun run;
  run.effort = effort;
  ProgressBar bar("effort " + std::string(ReasoningEffortName(effort)), items.size(), ProgressUnit::kCount, quiet);
  for (size_t i = 0; i < items.size(); ++i) {
    GPTOSS_ASSIGN_OR_RETURN(const EvalVerdict verdict, runner.Ask(items[i], effort, i));
    run.families[items[i].family].Add(items[i], verdict);
    if (!verdict.right) {
      run.failures.push_back({{"id", items[i].id}, {"expected", items[i].answer}, {"said", verdict.said}});
    }
    bar.Update(i + 1);
  }
  bar.Finish();
  return run;
}

void PrintTable(const EvalRun& run) {
  std::printf("effort %s\n", std::string(ReasoningEffortName(run.effort)).c_str());
  const auto row = [](const std::string& name, const EvalScore& score) {
    std::printf("  %-18s %5d / %-5d %6.1f %%", name.c_str(), score.right, score.items,
                100 * Share(score.right, score.items));
    if (score.calls > 0) std::printf("   valid calls %.1f %%", 100 * Share(score.valid_calls, score.calls));
    std::printf("\n");
  };
  for (const auto& [name, score] : run.families) row(name + (score.hard ? " *" : ""), score);
  row("all", Total(run.families));
}

Json DocumentOf(const EvalFlags& flags, const std::vector<EvalRun>& runs) {
  Json results = Json::array();
  for (const EvalRun& run : runs) {
    Json families = Json::object();
    for (const auto& [name, score] : run.families) families[name] = ScoreJson(score);
    Json result = {{"effort", ReasoningEffortName(run.effort)},
                   {"families", std::move(families)},
                   {"all", ScoreJson(Total(run.families))}};
    if (flags.failures) result["failures"] = run.failures;
    results.push_back(std::move(result));
  }
  return {{"suite", flags.suite},
          {"model", flags.model.model},
          {"temperature", flags.options.sampling.temperature},
          {"seed", flags.options.sampling.seed},
          {"results", std::move(results)}};
}

Result<std::vector<EvalRun>> RunEfforts(const EvalFlags& flags) {
  std::string text(EmbeddedNanoSuite());
  if (flags.suite != "nano") {
    GPTOSS_ASSIGN_OR_RETURN(text, ReadTextFile(flags.suite, 1u << 30));
  }
  GPTOSS_ASSIGN_OR_RETURN(std::vector<EvalItem> items, ReadSuite(text, flags.suite));
  items = Limited(std::move(items), flags.limit);
  GPTOSS_ASSIGN_OR_RETURN(auto tokenizer, OpenTokenizer(flags.model));
  GPTOSS_ASSIGN_OR_RETURN(const auto model, ModelSession::Open(flags.model));
  GPTOSS_ASSIGN_OR_RETURN(const auto runner, EvalRunner::Create(*model, std::move(tokenizer), flags.options));
  std::vector<ReasoningEffort> efforts = {ReasoningEffort::kLow, ReasoningEffort::kMedium, ReasoningEffort::kHigh};
  if (flags.effort != "all") efforts = {*ReasoningEffortFromName(flags.effort)};
  std::vector<EvalRun> runs;
  for (const ReasoningEffort effort : efforts) {
    GPTOSS_ASSIGN_OR_RETURN(runs.emplace_back(), RunSuite(*runner, items, effort, flags.model.quiet));
  }
  return runs;
}

int RunEval(const EvalFlags& flags) {
  const auto runs = RunEfforts(flags);
  if (!runs.ok()) return Fail(runs.status());
  if (flags.json) {
    std::printf("%s\n", WriteJson(DocumentOf(flags, *runs)).c_str());
    return 0;
  }
  for (const EvalRun& run : *runs) {
    PrintTable(run);
    if (!flags.failures) continue;
    for (const Json& failure : run.failures) std::fprintf(stderr, "%s\n", WriteJson(failure).c_str());
  }
  return 0;
}

}  // namespace

void RegisterEval(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<EvalFlags>();
  CLI::App* command = app.add_subcommand("eval", "Share of a suite's questions that a model answers rightly");
  AddModelFlags(*command, &flags->model);
  command->add_option("--tokenizer", flags->model.tokenizer, "tokenizer.json or .tiktoken file (default: the model's)");
  command->add_option("--suite", flags->suite, "nano (built in), or a JSONL file of questions")->required();
  command->add_option("--effort", flags->effort, "Reasoning effort: low, medium, high, or all of them")
      ->check(CLI::IsMember({"low", "medium", "high", "all"}))
      ->capture_default_str();
  command->add_option("--limit", flags->limit, "Only the first N questions of each family; 0: all")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  command->add_option("--max-tokens", flags->options.max_tokens, "Most tokens of one message of the model")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  command->add_option("--date", flags->options.date, "Date that the model is told")->capture_default_str();
  AddSamplingFlags(*command, &flags->options.sampling);
  command->add_option("--seed", flags->options.sampling.seed, "Same seed, same answers")
      ->group("Sampling")
      ->capture_default_str();
  command->add_flag("--failures", flags->failures, "List what was not right, with what the model said");
  command->add_flag("--json", flags->json, "One JSON document instead of tables");
  command->footer(
      "An answer is right when it is the expected text, or with \"match\": \"json\" the same value. Nothing constrains "
      "what the model writes. A valid call names a declared function with arguments of its types. Families marked * "
      "are made for telling efforts apart.\nExample:\n  gptoss eval --model DIR --suite nano --temperature "
      "0");
  command->callback([flags, exit_code] { *exit_code = RunEval(*flags); });
}

}  // namespace gptoss::cli
