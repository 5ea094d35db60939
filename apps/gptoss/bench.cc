#include <cstdio>

#include "backends/cpu/machine_peak.h"
#include "bench_report.h"
#include "bench_runner.h"
#include "commands.h"
#include "model_session.h"
#include "progress.h"

namespace gptoss::cli {
namespace {

struct BenchFlags {
  ModelFlags model;
  BenchPlan plan;
  int loads = 1;
  bool json = false;
};

Result<BenchSetting> MeasureMachine(const ModelSession& session, BenchSetting setting) {
  setting.peak_rss_bytes = PeakResidentBytes();  // before the peaks are measured, which takes a large buffer
  if (session.device != nullptr) {
    GPTOSS_ASSIGN_OR_RETURN(const GpuPeak peak, MeasureGpu(*session.device));
    setting.peak_gb_s = peak.copy_gb_s;
    setting.peak_tflop_s = peak.matrix_tflop_s;
    return setting;
  }
  GPTOSS_ASSIGN_OR_RETURN(setting.peak_gb_s, MeasureReadBandwidth(*session.pool));
  setting.peak_tflop_s = MeasureCompute(*session.pool, session.ops);
  return setting;
}

int RunBench(BenchFlags flags) {
  flags.model.context = flags.plan.longest();
  flags.model.sequences = flags.plan.most_sequences();
  BenchSetting setting;
  std::unique_ptr<ModelSession> session;
  for (int i = 0; i < flags.loads; ++i) {
    session.reset();
    auto opened = ModelSession::Open(flags.model);
    if (!opened.ok()) return Fail(opened.status());
    session = *std::move(opened);
    setting.load_s.push_back(session->load_s);
  }
  auto runner = BenchRunner::Create(*session, flags.plan);
  if (!runner.ok()) return Fail(runner.status());
  const size_t combinations = flags.plan.prompts.size() * flags.plan.contexts.size() * flags.plan.batches.size();
  const uint64_t total = combinations * static_cast<uint64_t>(flags.plan.repeat);
  ProgressBar bar("measuring", total, ProgressUnit::kCount, flags.model.quiet);
  uint64_t done = 0;
  const auto runs = (*runner)->MeasureAll([&] { bar.Update(++done); });
  if (!runs.ok()) return Fail(runs.status());
  bar.Finish();
  const auto measured = MeasureMachine(*session, setting);
  if (!measured.ok()) return Fail(measured.status());
  const Json document = BenchJson(*session, flags.plan, *measured, *runs);
  if (flags.json) {
    std::printf("%s\n", WriteJson(document).c_str());
  } else {
    std::fputs(BenchTable(document, *measured, *runs).c_str(), stdout);
  }
  return 0;
}

}  // namespace

void RegisterBench(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command = app.add_subcommand("bench", "Measure load, prefill and decode against this machine's peaks");
  AddModelFlags(*command, &flags->model);
  command->remove_option(command->get_option("--context"));
  const auto list = [&](const char* name, std::vector<int>* values, int least, int most, const char* help) {
    command->add_option(name, *values, help)
        ->delimiter(',')
        ->allow_extra_args(false)
        ->check(CLI::Range(least, most))
        ->capture_default_str();
  };
  list("--prompt", &flags->plan.prompts, 1, 1 << 24, "Prompt tokens of each sequence; several: 32,512,2048");
  list("--context", &flags->plan.contexts, 0, 1 << 24,
       "Tokens already in the cache before the prompt; several: 0,8192");
  command->add_flag(
      "--noise-context", flags->plan.noise_context,
      "Fill the context with random keys and values: the same work for a step, and no wait for long ones");
  list("--batch", &flags->plan.batches, 1, 1023, "Sequences decoded together; several: 1,8");
  command->add_option("--gen", flags->plan.gen, "Decode steps")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  command->add_option("--repeat", flags->plan.repeat, "Repetitions; medians are reported")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--loads", flags->loads, "Loads of the model; the median time is reported")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  command->add_flag("--profile", flags->plan.profile, "Time, share and GB/s by stage");
  command->add_flag("--json", flags->json, "One JSON document");
  command->footer(
      "Every combination of prompt, context and batch is measured.\n"
      "Examples:\n  gptoss bench --model gpt-oss-20b --prompt 512 --gen 64\n"
      "  gptoss bench --model gpt-oss-20b --prompt 32,512 --context 0,8192 --batch 1,8 --profile\n"
      "  gptoss bench --model gpt-oss-20b --prompt 32 --context 0,32768,131072 --noise-context");
  command->callback([flags, exit_code] { *exit_code = RunBench(*flags); });
}

}  // namespace gptoss::cli
