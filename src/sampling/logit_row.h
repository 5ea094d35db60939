// One row of logits [V] and what sampling asks of it, wherever it lies: a GPU answers in a few bytes where its whole
// row would have to come over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "sampling/logit_passes.h"

namespace gptoss {

struct LogitSummary {
  double log_sum = kMinusInfinity;    // log(sum of exp(logit)) over the finite logits
  std::vector<TokenLogit> likeliest;  // finite, by falling logit, then rising id
};

/// What follows penalties, bias and mask: SamplingParams, whose controls act in the order that is said there.
struct DrawParams {
  double temperature = 1.0;  // > 0
  int top_k = 0;
  double top_p = 1.0;
  double min_p = 0.0;
  double uniform = 0.0;  // in [0, 1): where the token is taken from the cumulative distribution, ids rising
};

/// Of the temperature; past 1e30, where nothing but the likeliest is left, that, so that 0 is never multiplied with
/// infinity.
float InverseTemperature(const DrawParams& params);

/// Logits that are NaN or infinite are never picked and count for nothing. All fail only as the device does.
class LogitRow {
 public:
  virtual ~LogitRow() = default;

  virtual size_t size() const = 0;
  /// values[i] = logit of ids[i], each in [0, size()).
  virtual Status Read(std::span<const int32_t> ids, std::span<float> values) = 0;
  /// The logit of ids[i] becomes values[i]; no id occurs twice.
  virtual Status Write(std::span<const int32_t> ids, std::span<const float> values) = 0;
  /// Makes the logits whose bit (id % 64 of word id / 64) is 0 minus infinity.
  virtual Status Forbid(std::span<const uint64_t> mask) = 0;
  /// {-1, -inf} when none is finite.
  virtual Result<TokenLogit> Largest() = 0;
  /// With the `count` likeliest, or all finite ones when they are fewer.
  virtual Result<LogitSummary> Summarize(size_t count) = 0;
  /// {-1, -inf} when no logit is finite.
  virtual Result<TokenLogit> Draw(const DrawParams& params) = 0;
  /// All of it in the host's memory, to read or change, where it lives from then on; valid as long as the row.
  virtual Result<std::span<float>> OnHost() = 0;
};

/// In the host's memory already. `weights` is memory for Draw, worth keeping from row to row.
class HostLogits : public LogitRow {
 public:
  HostLogits(std::span<float> logits, std::vector<float>* weights) : logits_(logits), weights_(weights) {}

  size_t size() const override { return logits_.size(); }
  Status Read(std::span<const int32_t> ids, std::span<float> values) override;
  Status Write(std::span<const int32_t> ids, std::span<const float> values) override;
  Status Forbid(std::span<const uint64_t> mask) override;
  Result<TokenLogit> Largest() override { return FindLargest(logits_); }
  Result<LogitSummary> Summarize(size_t count) override;
  Result<TokenLogit> Draw(const DrawParams& params) override;
  Result<std::span<float>> OnHost() override { return logits_; }

 private:
  std::span<float> logits_;
  std::vector<float>* weights_;
};

/// Draw, from the likeliest tokens alone, in the order of LogitSummary, and the sum of all weights
/// exp((logit - largest) / temperature). Nothing when a token that is not among them could be kept; `all` says that
/// there are no others. params keep at most some tokens: top_k, top_p or min_p is on.
std::optional<TokenLogit> DrawFromLikeliest(std::span<const TokenLogit> likeliest, bool all, double total,
                                            const DrawParams& params);

}  // namespace gptoss
