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

namespace gptoss::cli {
namespace {

struct GenerateFlags {
  ModelFlags model;
  std::string tokens_file;
  GenerateRequest request;
  GrammarFlags grammar;
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

int RunGenerate(GenerateFlags flags) {
  auto sequences = ReadTokensFile(flags.tokens_file);
  if (!sequences.ok()) return Fail(sequences.status());
  if (sequences->size() != 1) return Fail(InvalidArgument(flags.tokens_file + ": generate takes one sequence"));
  const std::vector<int32_t>& prompt = sequences->front();
  // What is wrong with a grammar is said before a model is loaded for it.
  const auto grammar = OpenGrammar(flags.grammar, flags.model);
  if (!grammar.ok()) return Fail(grammar.status());
  const auto& machine = grammar->machine;
  std::optional<GrammarConstraint> constraint;
  if (machine != nullptr) flags.request.constraint = &constraint.emplace(machine, flags.request.stop_tokens);
  flags.model.context = std::max(flags.model.context, static_cast<int>(prompt.size()) + flags.request.max_tokens);
  auto session = ModelSession::Open(flags.model);
  if (!session.ok()) return Fail(session.status());
  auto sequence = (*session)->runner->NewSequence();
  sequence->Append(prompt);
  GenerateProfile profile;
  if (flags.profile) flags.request.profile = &profile;
  const auto result = Generate(*(*session)->runner, *sequence, flags.request, nullptr);
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
    if (machine != nullptr) document["text"] = ReplaceInvalidUtf8(machine->tokens().tokenizer().Decode(ids));
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
  AddGrammarFlags(*command, &flags->grammar);
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
