#include <algorithm>
#include <chrono>
#include <cstdio>

#include "backends/cpu/machine_peak.h"
#include "base/rng.h"
#include "commands.h"
#include "engine/traffic.h"
#include "json/json.h"
#include "model_session.h"
#include "progress.h"

namespace gptoss::cli {
namespace {

struct BenchFlags {
  ModelFlags model;
  int prompt = 512, gen = 64, context = 0, repeat = 3;
  bool json = false, profile = false;
};

struct Spread {
  double median = 0, min = 0, max = 0;
};
Spread SpreadOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

struct Measured {
  std::vector<double> prefill_s, ttft_s, decode_s;                   // one a repetition; decode is per step
  std::map<std::string_view, double> prefill_stages, decode_stages;  // of the last repetition
};

class Bench {
 public:
  Bench(ModelSession& session, const BenchFlags& flags) : session_(session), flags_(flags) {}

  /// One repetition: a prompt per sequence, then decoding of all sequences together.
  Status Repeat(uint64_t round, Measured* measured) {
    std::vector<std::unique_ptr<Sequence>> sequences;
    double prefill = 0, ttft = 0;
    if (flags_.profile) session_.runner->set_profiler(&profiler_);
    for (int s = 0; s < flags_.model.sequences; ++s) {
      sequences.push_back(session_.runner->NewSequence());
      AppendRandom(*sequences.back(), flags_.context, round * 1000 + static_cast<uint64_t>(s));
      GPTOSS_RETURN_IF_ERROR(session_.runner->Compute(*sequences.back(), flags_.context, nullptr));
      AppendRandom(*sequences.back(), flags_.prompt, round * 1000 + 500 + static_cast<uint64_t>(s));
      profiler_.Reset();
      const double seconds = Time([&] { return Prefill(*sequences.back()); });
      GPTOSS_RETURN_IF_ERROR(last_status_);
      prefill += seconds;
      if (s == 0) ttft = seconds;
    }
    measured->prefill_stages = profiler_.seconds();
    measured->prefill_s.push_back(prefill);
    measured->ttft_s.push_back(ttft);
    return Decode(sequences, measured);
  }

 private:
  template <typename Function>
  double Time(const Function& function) {
    const auto start = std::chrono::steady_clock::now();
    last_status_ = function();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  void AppendRandom(Sequence& sequence, int count, uint64_t stream) {
    const RandomStream random(flags_.repeat, stream);
    const auto vocab = static_cast<uint64_t>(session_.model->config().vocab_size);
    for (int i = 0; i < count; ++i)
      sequence.Append(static_cast<int32_t>(random.Word(static_cast<uint64_t>(i)) % vocab));
  }

  Status Prefill(Sequence& sequence) {
    const auto end = static_cast<int>(sequence.tokens().size());
    return session_.runner->Compute(sequence, end - 1, [](int, std::span<float>) { return Status(); });
  }

  Status Decode(std::vector<std::unique_ptr<Sequence>>& sequences, Measured* measured) {
    std::vector<Sequence*> pointers;
    for (auto& sequence : sequences) pointers.push_back(sequence.get());
    std::vector<float> logits(sequences.size() * static_cast<size_t>(session_.model->config().vocab_size));
    profiler_.Reset();
    double seconds = 0;
    // Two steps first, so that caches and threads are warm.
    for (int step = -2; step < flags_.gen; ++step) {
      for (size_t s = 0; s < sequences.size(); ++s) {
        AppendRandom(*sequences[s], 1, static_cast<uint64_t>(step + 2) * 64 + s);
      }
      if (step == 0) profiler_.Reset();
      const double t = Time([&] { return session_.runner->Step(pointers, logits); });
      GPTOSS_RETURN_IF_ERROR(last_status_);
      if (step >= 0) seconds += t;
    }
    measured->decode_s.push_back(seconds / std::max(1, flags_.gen));
    measured->decode_stages = profiler_.seconds();
    session_.runner->set_profiler(nullptr);
    return Status();
  }

  ModelSession& session_;
  const BenchFlags& flags_;
  Profiler profiler_;
  Status last_status_;
};

Json StagesJson(const std::map<std::string_view, double>& stages) {
  Json json = Json::object();
  for (const auto& [stage, seconds] : stages) json[std::string(stage)] = seconds;
  return json;
}

Result<Json> Report(const ModelSession& session, const BenchFlags& flags, const Measured& m) {
  const ModelConfig& c = session.model->config();
  const int batch = flags.model.sequences;
  const int depth = flags.context + flags.prompt + flags.gen / 2;
  const Traffic traffic = DecodeTraffic(session.weights, batch, depth, session.runner->options().kv_dtype);
  const uint64_t peak_rss = PeakResidentBytes();  // before the peaks are measured, which takes a large buffer
  GPTOSS_ASSIGN_OR_RETURN(const double peak_gb_s, MeasureReadBandwidth(*session.pool));
  GPTOSS_ASSIGN_OR_RETURN(const double peak_tflop_s, MeasureCompute(*session.pool));
  const Spread prefill = SpreadOf(m.prefill_s), decode = SpreadOf(m.decode_s), ttft = SpreadOf(m.ttft_s);
  const double prompt_tokens = static_cast<double>(flags.prompt) * batch;
  const double prefill_flop = batch * (PrefillFlop(c, flags.context + flags.prompt) -
                                       (flags.context > 0 ? PrefillFlop(c, flags.context) : 0.0));
  const double prefill_tflop_s = prefill_flop / prefill.median * 1e-12,
               decode_gb_s = traffic.bytes() / decode.median * 1e-9;
  Json json = {{"model", session.checkpoint->Describe()},
               {"target", session.ops->name},
               {"threads", session.pool->num_threads()},
               {"batch", batch},
               {"context", flags.context},
               {"repeat", flags.repeat},
               {"load_s", session.load_s},
               {"ttft_s", ttft.median},
               {"prefill",
                {{"tokens", prompt_tokens},
                 {"tok_s", prompt_tokens / prefill.median},
                 {"tok_s_min", prompt_tokens / prefill.max},
                 {"tok_s_max", prompt_tokens / prefill.min},
                 {"tflop_s", prefill_tflop_s},
                 {"percent_of_peak", 100 * prefill_tflop_s / peak_tflop_s}}},
               {"decode",
                {{"tokens", flags.gen * batch},
                 {"tok_s", batch / decode.median},
                 {"tok_s_min", batch / decode.max},
                 {"tok_s_max", batch / decode.min},
                 {"bytes_per_step", traffic.bytes()},
                 {"percent_of_peak", 100 * decode_gb_s / peak_gb_s}}},
               {"bandwidth", {{"measured_gb_s", peak_gb_s}, {"decode_gb_s", decode_gb_s}}},
               {"compute", {{"measured_tflop_s", peak_tflop_s}, {"prefill_tflop_s", prefill_tflop_s}}},
               {"peak_rss_bytes", peak_rss}};
  if (flags.profile) {
    json["profile"] = {{"prefill_s", StagesJson(m.prefill_stages)}, {"decode_s", StagesJson(m.decode_stages)}};
  }
  return json;
}

void PrintReport(const Json& j) {
  std::printf("%s on %s, %d threads\n", j["model"].get<std::string>().c_str(), j["target"].get<std::string>().c_str(),
              j["threads"].get<int>());
  std::printf("  load %.1f s, time to first token %.2f s, peak resident memory %s\n", j["load_s"].get<double>(),
              j["ttft_s"].get<double>(), FormatBytes(j["peak_rss_bytes"].get<double>()).c_str());
  for (const char* phase : {"prefill", "decode"}) {
    const Json& p = j[phase];
    std::printf("  %-8s %9.1f tok/s  (%.1f to %.1f), %.0f %% of the measured peak\n", phase, p["tok_s"].get<double>(),
                p["tok_s_min"].get<double>(), p["tok_s_max"].get<double>(), p["percent_of_peak"].get<double>());
  }
  std::printf("  machine: %.1f GB/s read bandwidth (decode uses %.1f), %.2f TFLOP/s (prefill uses %.2f)\n",
              j["bandwidth"]["measured_gb_s"].get<double>(), j["bandwidth"]["decode_gb_s"].get<double>(),
              j["compute"]["measured_tflop_s"].get<double>(), j["compute"]["prefill_tflop_s"].get<double>());
  if (!j.contains("profile")) return;
  for (const auto& [phase, stages] : j["profile"].items()) {
    std::printf("  %s:", phase.c_str());
    for (const auto& [stage, seconds] : stages.items()) std::printf(" %s %.3f", stage.c_str(), seconds.get<double>());
    std::printf("\n");
  }
}

int RunBench(BenchFlags flags) {
  flags.model.context = flags.context + flags.prompt + flags.gen + 2;
  auto session = ModelSession::Open(flags.model);
  if (!session.ok()) return Fail(session.status());
  Bench bench(**session, flags);
  Measured measured;
  ProgressBar bar("measuring", static_cast<uint64_t>(flags.repeat), ProgressUnit::kCount, flags.model.quiet);
  for (int i = 0; i < flags.repeat; ++i) {
    const Status status = bench.Repeat(static_cast<uint64_t>(i), &measured);
    if (!status.ok()) return Fail(status);
    bar.Update(static_cast<uint64_t>(i + 1));
  }
  bar.Finish();
  const auto report = Report(**session, flags, measured);
  if (!report.ok()) return Fail(report.status());
  if (flags.json) {
    std::printf("%s\n", WriteJson(*report).c_str());
  } else {
    PrintReport(*report);
  }
  return 0;
}

}  // namespace

void RegisterBench(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command = app.add_subcommand("bench", "Measure load, prefill and decode against this machine's peaks");
  AddModelFlags(*command, &flags->model);
  command->remove_option(command->get_option("--context"));
  command->add_option("--prompt", flags->prompt, "Prompt tokens of each sequence")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  command->add_option("--gen", flags->gen, "Decode steps")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  command->add_option("--batch", flags->model.sequences, "Sequences decoded together")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--context", flags->context, "Tokens already in the cache before the prompt")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  command->add_option("--repeat", flags->repeat, "Repetitions; medians are reported")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_flag("--profile", flags->profile, "Seconds by stage");
  command->add_flag("--json", flags->json, "One JSON document");
  command->footer("Example:\n  gptoss bench --model gpt-oss-20b --prompt 512 --gen 64");
  command->callback([flags, exit_code] { *exit_code = RunBench(*flags); });
}

}  // namespace gptoss::cli
