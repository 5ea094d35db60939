#include "engine/verify.h"

#include <cstdio>

#include "commands.h"
#include "json/json.h"
#include "model_session.h"
#include "progress.h"

namespace gptoss::cli {
namespace {

struct VerifyFlags {
  ModelFlags model;
  VerifyOptions options;
  bool json = false;
};

Json ReportJson(const VerifyReport& report, std::string_view target) {
  Json probes = Json::array();
  for (const VerifyProbe& p : report.probes) {
    probes.push_back({{"position", p.position},
                      {"rows_compared", p.logits.rows()},
                      {"kl_mean", p.logits.kl_mean()},
                      {"kl_max", p.logits.kl_max()},
                      {"rel_l2", p.logits.rel_l2()},
                      {"top1_agreement", p.logits.top1()},
                      {"worst_layer", p.worst_layer},
                      {"worst_layer_rel_l2", p.worst_rel_l2},
                      {"router_flips", p.router_flips},
                      {"near_ties", p.near_ties}});
  }
  Json document = {{"passed", report.passed}, {"target", target}, {"probes", probes}};
  if (!report.passed) document["failure"] = report.failure;
  return document;
}

void PrintReport(const VerifyReport& report, std::string_view target) {
  std::printf("%s against the reference path\n", std::string(target).c_str());
  std::printf("%10s %6s %10s %10s %8s %12s %12s\n", "position", "rows", "mean KL", "rel L2", "top-1", "worst layer",
              "its rel L2");
  for (const VerifyProbe& p : report.probes) {
    std::printf("%10d %6lld %10.2e %10.2e %8.4f %12d %12.2e\n", p.position, static_cast<long long>(p.logits.rows()),
                p.logits.kl_mean(), p.logits.rel_l2(), p.logits.top1(), p.worst_layer, p.worst_rel_l2);
    if (p.near_ties > 0) std::printf("           (stopped at a near tie of the router)\n");
  }
  std::printf("%s\n", report.passed ? "passed" : ("FAILED " + report.failure).c_str());
}

int RunVerify(const VerifyFlags& flags) {
  const auto session = ModelSession::Open(flags.model);
  if (!session.ok()) return Fail(session.status());
  VerifyOptions options = flags.options;
  options.kv_dtype = flags.model.exact ? DType::kF32 : DType::kBF16;
  ModelWeights on_host;
  if ((*session)->device != nullptr) {
    auto loaded = LoadWeights((*session)->checkpoint, DenseOf(flags.model), *(*session)->pool);
    if (!loaded.ok()) return Fail(loaded.status());
    on_host = *std::move(loaded);
  }
  ProgressBar bar("verifying", options.positions.size(), ProgressUnit::kCount, flags.model.quiet);
  const auto report = VerifyOps((*session)->weights, (*session)->ops, ReferenceOps(), *(*session)->pool, options,
                                [&](int done, int) {
                                  bar.Update(static_cast<uint64_t>(done));
                                  return true;
                                },
                                (*session)->device == nullptr ? nullptr : &on_host);
  bar.Finish();
  if (!report.ok()) return Fail(report.status());
  if (flags.json) {
    std::printf("%s\n", WriteJson(ReportJson(*report, (*session)->ops.name)).c_str());
  } else {
    PrintReport(*report, (*session)->ops.name);
  }
  return report->passed ? 0 : 1;
}

}  // namespace

void RegisterVerify(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<VerifyFlags>();
  CLI::App* command = app.add_subcommand("verify", "Check this machine's kernels against the reference path");
  AddModelFlags(*command, &flags->model);
  command->add_option("--tokens", flags->options.tokens, "Tokens per probe; of many, such as 40, tiles (amx) take part")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->add_option("--seed", flags->options.seed)->capture_default_str();
  command->add_flag("--json", flags->json, "One JSON document");
  command->footer(
      "Probes stand at positions 0, 127, 4095 and 32767. The reference path is slow on purpose: a minute or two\n"
      "for gpt-oss-20b.\nExample:\n  gptoss verify --model gpt-oss-20b");
  command->callback([flags, exit_code] { *exit_code = RunVerify(*flags); });
}

}  // namespace gptoss::cli
