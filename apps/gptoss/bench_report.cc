#include "bench_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "profile_output.h"
#include "progress.h"

namespace gptoss::cli {
namespace {

struct Spread {
  double median = 0, min = 0, max = 0;
};

Spread SpreadOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return {(values[(n - 1) / 2] + values[n / 2]) / 2, values.front(), values.back()};
}

Json SpreadJson(const std::vector<double>& values) {
  const Spread spread = SpreadOf(values);
  return {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}};
}

/// {"tok_s", "tok_s_min", "tok_s_max"} for `tokens` in each of `seconds`.
Json RatesJson(double tokens, const std::vector<double>& seconds) {
  const Spread spread = SpreadOf(seconds);
  return {{"tok_s", tokens / spread.median}, {"tok_s_min", tokens / spread.max}, {"tok_s_max", tokens / spread.min}};
}

double PrefillTflopPerSecond(const ModelConfig& config, const BenchRun& run) {
  return run.batch * PrefillFlop(config, run.context, run.context + run.prompt) / SpreadOf(run.prefill_s).median *
         1e-12;
}

double BytesPerStep(const BenchRun& run) { return run.decode.bytes() / static_cast<double>(run.decode.counts.passes); }

Json PrefillJson(const ModelConfig& config, const BenchSetting& setting, const BenchRun& run) {
  const double tokens = static_cast<double>(run.prompt) * run.batch;
  const double tflop_s = PrefillTflopPerSecond(config, run);
  Json json = {{"tokens", tokens}};
  json.update(RatesJson(tokens, run.prefill_s));
  json["tflop_s"] = tflop_s;
  json["percent_of_peak"] = 100 * tflop_s / setting.peak_tflop_s;
  return json;
}

Json DecodeJson(const ModelConfig& config, const BenchPlan& plan, const BenchSetting& setting, const BenchRun& run) {
  const double step = SpreadOf(run.decode_s).median, gb_s = BytesPerStep(run) / step * 1e-9;
  const double tflop_s = DecodeFlop(config, run.batch, run.context + run.prompt + plan.gen / 2) / step * 1e-12;
  Json json = {{"tokens", plan.gen * run.batch}};
  json.update(RatesJson(run.batch, run.decode_s));
  json["step_s"] = SpreadJson(run.step_s);
  json["bytes_per_step"] = BytesPerStep(run);
  json["kv_bytes_per_step"] = run.decode.kv_bytes / static_cast<double>(run.decode.counts.passes);
  json["experts_per_layer"] = run.decode.experts_per_layer;
  json["gb_s"] = gb_s;
  json["tflop_s"] = tflop_s;
  json["percent_of_peak"] = 100 * gb_s / setting.peak_gb_s;
  return json;
}

Json RunJson(const ModelConfig& config, const BenchPlan& plan, const BenchSetting& setting, const BenchRun& run) {
  Json json = {{"prompt", run.prompt},
               {"context", run.context},
               {"batch", run.batch},
               {"ttft_s", SpreadJson(run.ttft_s)},
               {"prefill", PrefillJson(config, setting, run)},
               {"decode", DecodeJson(config, plan, setting, run)}};
  if (plan.profile) json["profile"] = {{"prefill", ProfileJson(run.prefill)}, {"decode", ProfileJson(run.decode)}};
  return json;
}

}  // namespace

Json BenchJson(const ModelSession& session, const BenchPlan& plan, const BenchSetting& setting,
               const std::vector<BenchRun>& runs) {
  const ModelConfig& config = session.model->config();
  Json all = Json::array();
  for (const BenchRun& run : runs) all.push_back(RunJson(config, plan, setting, run));
  const Json& first = all[0];
  Json json = {
      {"model", session.checkpoint->Describe()},
      {"target", session.ops.name},
      {"device", session.device == nullptr ? "cpu" : session.device->name()},
      {"threads", session.pool->num_threads()},
      {"prompt", first["prompt"]},
      {"batch", first["batch"]},
      {"context", first["context"]},
      {"noise_context", plan.noise_context},
      {"repeat", plan.repeat},
      {"load_s", SpreadOf(setting.load_s).median},
      {"load", SpreadJson(setting.load_s)},
      {"ttft_s", first["ttft_s"]["median"]},
      {"prefill", first["prefill"]},
      {"decode", first["decode"]},
      {"bandwidth", {{"measured_gb_s", setting.peak_gb_s}, {"decode_gb_s", first["decode"]["gb_s"]}}},
      {"compute", {{"measured_tflop_s", setting.peak_tflop_s}, {"prefill_tflop_s", first["prefill"]["tflop_s"]}}},
      {"peak_rss_bytes", setting.peak_rss_bytes}};
  if (plan.profile) json["profile"] = first["profile"];
  json["runs"] = std::move(all);
  return json;
}

std::string BenchTable(const Json& document, const BenchSetting& setting, const std::vector<BenchRun>& runs) {
  const Json& load = document["load"];
  const auto device = document["device"].get<std::string>();
  const bool on_cpu = device == "cpu";
  std::string table = fmt::format(
      "{} on {}, {} threads\n"
      "load {:.2f} s ({:.2f} to {:.2f}), peak resident memory {}\n"
      "{}, measured: {} {:.1f} GB/s, multiplies and adds{} at {:.2f} TFLOP/s\n\n",
      document["model"].get<std::string>(), document["target"].get<std::string>(), document["threads"].get<int>(),
      load["median"].get<double>(), load["min"].get<double>(), load["max"].get<double>(),
      FormatBytes(static_cast<double>(setting.peak_rss_bytes)), on_cpu ? "this machine" : device,
      on_cpu ? "reads" : "copies", setting.peak_gb_s, on_cpu ? "" : " BF16", setting.peak_tflop_s);
  table += fmt::format("{:>7} {:>7} {:>5} | {:>8} {:>9} {:>17} {:>5} | {:>9} {:>17} {:>6} {:>5} {:>7}\n", "prompt",
                       "context", "batch", "ttft s", "prefill", "min to max", "peak", "decode", "min to max", "GB/s",
                       "peak", "experts");
  for (const Json& run : document["runs"]) {
    const Json &p = run["prefill"], &d = run["decode"];
    const auto range = [](const Json& rates) {
      return fmt::format("{:.1f} to {:.1f}", rates["tok_s_min"].get<double>(), rates["tok_s_max"].get<double>());
    };
    table += fmt::format(
        "{:>7} {:>7} {:>5} | {:>8.3f} {:>9.1f} {:>17} {:>4.0f}% | {:>9.1f} {:>17} {:>6.1f} {:>4.0f}% {:>7.1f}\n",
        run["prompt"].get<int>(), run["context"].get<int>(), run["batch"].get<int>(),
        run["ttft_s"]["median"].get<double>(), p["tok_s"].get<double>(), range(p), p["percent_of_peak"].get<double>(),
        d["tok_s"].get<double>(), range(d), d["gb_s"].get<double>(), d["percent_of_peak"].get<double>(),
        d["experts_per_layer"].get<double>());
  }
  table +=
      "\nprefill and decode in tokens/s, all sequences together; peak: percent of TFLOP/s in prefill, of GB/s in "
      "decode;"
      "\nexperts: distinct ones that a decode step reads in a layer\n";
  if (!document.contains("profile")) return table;
  for (const BenchRun& run : runs) {
    const std::string where = fmt::format("prompt {}, context {}, batch {}", run.prompt, run.context, run.batch);
    table += "\n" + ProfileTable(where + ", prefill", run.prefill);
    table += "\n" + ProfileTable(where + ", decode", run.decode);
  }
  return table;
}

}  // namespace gptoss::cli
