#include "profile_output.h"

#include <fmt/format.h>

#include <algorithm>

namespace gptoss::cli {
namespace {

double Percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0.0; }
double GbPerSecond(const StageCost& stage) { return stage.seconds > 0 ? stage.bytes / stage.seconds * 1e-9 : 0.0; }

}  // namespace

Json ProfileJson(const StageReport& report) {
  Json stages = Json::object();
  for (const StageCost& stage : report.stages) {
    stages[std::string(stage.stage)] = {
        {"s", stage.seconds}, {"percent", Percent(stage.seconds, report.wall_s)}, {"gb_s", GbPerSecond(stage)}};
  }
  return {{"wall_s", report.wall_s},
          {"waiting_s", report.waiting_s},
          {"passes", report.counts.passes},
          {"rows", report.counts.rows},
          {"experts_per_layer", report.experts_per_layer},
          {"bytes", report.bytes()},
          {"stages", stages}};
}

std::string ProfileTable(std::string_view phase, const StageReport& report) {
  const double per_pass = 1e3 / static_cast<double>(std::max<int64_t>(1, report.counts.passes));
  std::string table = fmt::format(
      "{}: {} forward passes, {} rows, {:.1f} experts a layer and pass\n"
      "  {:<10} {:>11} {:>6} {:>7}\n",
      phase, report.counts.passes, report.counts.rows, report.experts_per_layer, "stage", "ms a pass", "%", "GB/s");
  for (const StageCost& stage : report.stages) {
    table += fmt::format("  {:<10} {:>11.3f} {:>6.1f} {:>7}\n", stage.stage, stage.seconds * per_pass,
                         Percent(stage.seconds, report.wall_s),
                         stage.bytes > 0 ? fmt::format("{:.1f}", GbPerSecond(stage)) : "");
  }
  const double total_gb_s = report.wall_s > 0 ? report.bytes() / report.wall_s * 1e-9 : 0.0;
  table += fmt::format("  {:<10} {:>11.3f} {:>6.1f} {:>7.1f}\n", "total", report.wall_s * per_pass, 100.0, total_gb_s);
  table += fmt::format("  {:<10} {:>11.3f} {:>6.1f}  (in the stages above: waiting for other threads)\n", "waiting",
                       report.waiting_s * per_pass, Percent(report.waiting_s, report.wall_s));
  return table;
}

}  // namespace gptoss::cli
