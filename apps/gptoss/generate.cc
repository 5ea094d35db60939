#include <cstdio>
#include <optional>

#include "base/utf8.h"
#include "commands.h"
#include "engine/generator.h"
#include "grammar_flags.h"
#include "json/json.h"
#include "model_session.h"
#include "profile_output.h"
#include "sampling_flags.h"
#include "tool_flags.h"

namespace gptoss::cli {
namespace {

struct GenerateFlags {
  ModelFlags model;
  std::string tokens_file;
  GenerateRequest request;
  GrammarFlags grammar;
  ToolFlags tools;
  bool json = false, profile = false;
};

Json TimingsJson(const GenerateTimings& t, double load_s) {
  const auto rate = [](int n, double s) { return s > 0 ? n / s : 0.0; };
  return {{"load_s", load_s},
          {"prompt_tokens", t.prompt_tokens},
          {"prefill_s", t.prefill_s},
          {"prefill_tok_s", rate(t.prompt_tokens, t.prefill_s)},
          {"output_tokens", t.output_tokens},
          {"decode_s", t.decode_s},
          {"decode_tok_s", rate(t.output_tokens - 1, t.decode_s)},
          {"decode_passes", t.passes},
          {"proposed_tokens", t.proposed_tokens},
          {"accepted_tokens", t.accepted_tokens}};
}

struct OpenedConstraint {
  std::shared_ptr<const TokenIndex> tokens;
  std::unique_ptr<TokenConstraint> constraint;  // null: anything
};

/// With tools, or a choice or budget, the output is a turn of the assistant, else one text of the grammar if there is
/// one. What is wrong with them is said before a model is loaded.
Result<OpenedConstraint> OpenConstraint(GenerateFlags& flags) {
  OpenedConstraint out;
  GPTOSS_ASSIGN_OR_RETURN(OpenedGrammar grammar, OpenGrammar(flags.grammar, flags.model));
  out.tokens = grammar.tokens;
  if (!flags.tools.given()) {
    if (grammar.machine != nullptr) {
      out.constraint = std::make_unique<GrammarConstraint>(grammar.machine, flags.request.stop_tokens);
    }
    return out;
  }
  GPTOSS_ASSIGN_OR_RETURN(const std::vector<ToolSpec> tools, ReadTools(flags.tools));
  if (out.tokens == nullptr) {
    GPTOSS_ASSIGN_OR_RETURN(out.tokens, OpenTokens(flags.model));
  }
  GPTOSS_ASSIGN_OR_RETURN(TurnOptions turn, TurnOptionsOf(flags.tools, tools, std::move(grammar.machine), out.tokens));
  const auto max_tokens = static_cast<size_t>(flags.request.max_tokens);
  GPTOSS_ASSIGN_OR_RETURN(auto turns, TurnGrammar::Create(out.tokens, WithLimit(std::move(turn), max_tokens)));
  out.constraint = std::make_unique<TurnConstraint>(out.tokens, std::move(turns));
  return out;
}

Json LogprobsJson(const std::vector<SampledToken>& tokens) {
  Json list = Json::array();
  for (const SampledToken& token : tokens) {
    Json top = Json::array();
    for (const TokenLogprob& other : token.top) top.push_back({{"id", other.id}, {"logprob", other.logprob}});
    list.push_back({{"id", token.id}, {"logprob", token.logprob}, {"top", std::move(top)}});
  }
  return list;
}

int RunGenerate(GenerateFlags flags) {
  auto sequences = ReadTokensFile(flags.tokens_file);
  if (!sequences.ok()) return Fail(sequences.status());
  if (sequences->size() != 1) return Fail(InvalidArgument(flags.tokens_file + ": generate takes one sequence"));
  const std::vector<int32_t>& prompt = sequences->front();
  const auto opened = OpenConstraint(flags);
  if (!opened.ok()) return Fail(opened.status());
  flags.request.constraint = opened->constraint.get();
  flags.model.context = std::max(flags.model.context, static_cast<int>(prompt.size()) + flags.request.max_tokens);
  auto session = ModelSession::Open(flags.model);
  if (!session.ok()) return Fail(session.status());
  auto sequence = (*session)->runner->NewSequence();
  sequence->Append(prompt);
  GenerateProfile profile;
  if (flags.profile) flags.request.profile = &profile;
  std::vector<SampledToken> sampled;
  const auto keep = [&](const SampledToken* token) {
    if (token != nullptr) sampled.push_back(*token);
    return true;
  };
  const bool logprobs = flags.request.sampling.top_logprobs >= 0;
  const auto result =
      Generate(*(*session)->runner, *sequence, flags.request, logprobs ? TokenCallback(keep) : TokenCallback());
  if (!result.ok()) return Fail(result.status());
  const auto report = [&](const Profiler& profiler, double seconds) {
    return ReportStages(profiler, (*session)->weights, (*session)->runner->options().kv_dtype, seconds);
  };
  const StageReport prefill = report(profile.prefill, result->timings.prefill_s);
  const StageReport decode = report(profile.decode, result->timings.decode_s);
  if (flags.json) {
    std::vector<int32_t> ids = result->tokens;
    Json document = {{"ids", ids},
                     {"stop_reason", StopReasonName(result->reason)},
                     {"timings", TimingsJson(result->timings, (*session)->load_s)}};
    if (result->reason == StopReason::kStopToken) ids.pop_back();
    if (opened->tokens != nullptr) document["text"] = ReplaceInvalidUtf8(opened->tokens->tokenizer().Decode(ids));
    if (logprobs) document["logprobs"] = LogprobsJson(sampled);
    if (flags.profile) document["profile"] = {{"prefill", ProfileJson(prefill)}, {"decode", ProfileJson(decode)}};
    std::printf("%s\n", WriteJson(document).c_str());
  } else {
    for (int32_t id : result->tokens) std::printf("%d\n", id);
    if (flags.profile) {
      std::fputs((ProfileTable("prefill", prefill) + ProfileTable("decode", decode)).c_str(), stderr);
    }
  }
  return 0;
}

}  // namespace

void RegisterGenerate(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<GenerateFlags>();
  flags->request.max_tokens = 16;
  CLI::App* command = app.add_subcommand("generate", "Continue given tokens, without any chat format");
  AddModelFlags(*command, &flags->model);
  command->add_option("--tokens-file", flags->tokens_file, "JSON array of token ids")->required();
  command->add_option("--max-tokens", flags->request.max_tokens, "Most tokens to make")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  AddSamplingFlags(*command, &flags->request.sampling);
  command->add_option("--seed", flags->request.sampling.seed, "Same seed and tokens, same output")
      ->group("Sampling")
      ->capture_default_str();
  command->add_option("--stop-token", flags->request.stop_tokens, "Token id that ends the output; may be repeated");
  command
      ->add_option("--logprobs", flags->request.sampling.top_logprobs,
                   "With --json: the log-probability of each token and of so many of the likeliest")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 24))
      ->group("Sampling");
  command
      ->add_flag("--masked-logprobs", flags->request.sampling.masked_logprobs,
                 "Among the tokens that the grammar allows, not among all")
      ->group("Sampling");
  command->add_flag("--repetition-check", flags->request.detect_repetition,
                    "End the output where it has fallen into a loop");
  AddGrammarFlags(*command, &flags->grammar);
  AddToolFlags(*command, &flags->tools);
  command->add_option("--tokenizer", flags->model.tokenizer, "tokenizer.json or .tiktoken file (default: the model's)")
      ->group("Grammar");
  AddSpeculateFlag(*command, &flags->request.speculation);
  command->add_flag("--profile", flags->profile, "Time, share and GB/s by stage");
  command->add_flag("--json", flags->json, "One JSON document instead of one id a line");
  command->footer(
      "Example:\n  gptoss generate --model DIR --tokens-file ids.json --max-tokens 32 --temperature 0 --json");
  command->callback([flags, exit_code] { *exit_code = RunGenerate(*flags); });
}

}  // namespace gptoss::cli
