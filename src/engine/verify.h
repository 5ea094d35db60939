// Proof on the user's own machine: the ops that will be used against the reference ops, on the loaded weights, at
// positions where mistakes of window, rotary angles and long attention show.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/logit_metrics.h"
#include "model/gpt_oss.h"

namespace gptoss {

struct VerifyOptions {
  std::vector<int> positions = {0, 127, 4095, 32767};  // first position of each probe
  int tokens = 3;                                      // per probe; 127 with 3 tokens crosses the window's border
  DType kv_dtype = DType::kBF16;
  uint64_t seed = 1;
};

struct VerifyProbe {
  int position = 0;
  LogitMetrics logits;
  int worst_layer = -1;     // where the residual streams differ most
  double worst_rel_l2 = 0;  // relative difference there
  int router_flips = 0;     // (token, layer) pairs whose expert sets differ
  int near_ties =
      0;  // of these, those that the router's logits explain: within 1e-2, the margin within what they differ by
};

struct VerifyReport {
  std::vector<VerifyProbe> probes;
  bool passed = false;
  std::string failure;  // why not
};

/// Runs each probe twice: earlier keys and values are the same random numbers in both (computing them would take hours
/// on the reference path), then `tokens` tokens go through all layers. Passes when every probe has mean KL <= 1e-3 and
/// no residual stream differs by more than 1e-2. Where experts differ because the router's logits, which must agree as
/// well, were that close, the probe is compared up to there, and repeated with other tokens if no row got through.
/// The reference reads `reference_weights`, on the host; null: `weights` are there.
/// On failure (of the run, not of the comparison): kResourceExhausted; kCancelled when `progress` returns false.
Result<VerifyReport> VerifyOps(const ModelWeights& weights, const Ops& ops, const Ops& reference, ThreadPool& pool,
                               const VerifyOptions& options, const std::function<bool(int done, int total)>& progress,
                               const ModelWeights* reference_weights = nullptr);

}  // namespace gptoss
