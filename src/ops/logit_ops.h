// What sampling asks of a row of logits that lies on a device. Rows are [vocab], on the device; results come as small
// structs there, for the caller to bring over. Logits that are NaN or infinite count for nothing. Spans are the host's.
#pragma once

#include <cstdint>
#include <span>

#include "parallel/exec_context.h"

namespace gptoss {

/// A finite logit as a number that sorts as (logit, falling id) does; 0 is below all of them and stands for none.
using LogitKey = unsigned long long;  // as CUDA names the 64 bits of its shuffles and atomics

struct LogitSums {
  LogitKey largest = 0;
  double total = 0;  // sum of exp((logit - largest) * inverse_temperature)
};

/// Bytes of scratch that any of them takes.
constexpr uint64_t LogitScratchBytes(int64_t vocab) { return 8 * static_cast<uint64_t>(vocab) + 4096; }

struct LogitOps {
  /// values [ids.size()], on the device, = logits of ids.
  void (*read)(ExecContext&, const float* row, std::span<const int32_t> ids, float* values) = nullptr;
  /// The logit of ids[i] becomes values[i]; no id occurs twice.
  void (*write)(ExecContext&, float* row, std::span<const int32_t> ids, std::span<const float> values) = nullptr;
  /// Logits whose bit (id % 64 of word id / 64) is 0 become minus infinity.
  void (*forbid)(ExecContext&, float* row, int64_t vocab, std::span<const uint64_t> mask) = nullptr;
  void (*largest)(ExecContext&, const float* row, int64_t vocab, LogitKey* key) = nullptr;
  void (*sum)(ExecContext&, const float* row, int64_t vocab, float inverse_temperature, LogitSums* sums) = nullptr;
  /// The `count` largest keys in any order, 0s where there are fewer; count in [1, vocab].
  void (*likeliest)(ExecContext&, const float* row, int64_t vocab, int64_t count, LogitKey* keys) = nullptr;
  /// The token at which the running sum of exp((logit - largest) * inverse_temperature), ids rising, first exceeds
  /// uniform times the total; uniform in [0, 1). 0 when no logit is finite.
  void (*draw)(ExecContext&, const float* row, int64_t vocab, float inverse_temperature, double uniform,
               LogitKey* drawn) = nullptr;
};

// Of a key that is not 0.
float LogitOfKey(LogitKey key);
int32_t IdOfKey(LogitKey key);

}  // namespace gptoss
