// What `gptoss bench` prints.
#pragma once

#include <string>
#include <vector>

#include "bench_runner.h"
#include "json/json.h"

namespace gptoss::cli {

/// The machine and the load, measured in the same run as what they are compared with.
struct BenchSetting {
  std::vector<double> load_s;  // one a load
  uint64_t peak_rss_bytes = 0;
  double peak_gb_s = 0, peak_tflop_s = 0;
};

/// One document: the first run's figures at the top, and all runs in "runs".
Json BenchJson(const ModelSession& session, const BenchPlan& plan, const BenchSetting& setting,
               const std::vector<BenchRun>& runs);

/// A table for people, of BenchJson's document; with stage tables when the setting says so.
std::string BenchTable(const Json& document, const BenchSetting& setting, const std::vector<BenchRun>& runs);

}  // namespace gptoss::cli
