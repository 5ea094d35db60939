// A row of logits on a device, which answers in a few bytes what sampling asks; the row itself stays there.
#pragma once

#include <span>
#include <vector>

#include "ops/logit_ops.h"
#include "parallel/exec_context.h"
#include "sampling/logit_row.h"

namespace gptoss {

/// Brings the whole row over where that cannot be helped: more than kMostLikeliest likeliest tokens are asked for, or
/// the tokens that top_k, top_p or min_p keep are not among so many.
class DeviceLogits : public LogitRow {
 public:
  static constexpr size_t kMostLikeliest = 1024;
  /// Memory of the host for rows that come over, worth keeping from row to row.
  struct HostMemory {
    std::vector<float> logits, weights;
  };

  /// `row` [vocab] is on the context's device; `context`, `ops` and `host` must outlive this.
  DeviceLogits(ExecContext& context, const LogitOps& ops, float* row, size_t vocab, HostMemory* host)
      : context_(context), ops_(ops), row_(row), vocab_(vocab), host_(host), on_host_({}, &host->weights) {}

  /// Scratch memory that a row needs.
  static uint64_t ScratchBytes(int64_t vocab);

  size_t size() const override { return vocab_; }
  Status Read(std::span<const int32_t> ids, std::span<float> values) override;
  Status Write(std::span<const int32_t> ids, std::span<const float> values) override;
  Status Forbid(std::span<const uint64_t> mask) override;
  Result<TokenLogit> Largest() override;
  Result<LogitSummary> Summarize(size_t count) override;
  Result<TokenLogit> Draw(const DrawParams& params) override;
  Result<std::span<float>> OnHost() override;

 private:
  bool brought() const { return on_host_.size() > 0; }
  int64_t vocab() const { return static_cast<int64_t>(vocab_); }
  /// Sums of exp((logit - largest) * inverse_temperature), and the `count` likeliest.
  struct Likely {
    LogitSums sums;
    std::vector<TokenLogit> likeliest;
  };
  Result<Likely> FindLikeliest(float inverse_temperature, size_t count);
  /// The token of the key that op(key on the device) writes.
  template <class Op>
  Result<TokenLogit> Fetch(const Op& op);

  ExecContext& context_;
  const LogitOps& ops_;
  float* row_;
  size_t vocab_;
  HostMemory* host_;
  HostLogits on_host_;  // empty until the row was brought over
};

}  // namespace gptoss
