// Where a layer whose experts stay on the host is computed beside a GPU: by the host, which reads only the experts that
// the router chose, or by the GPU, to which all of the layer's experts must come first. The former grows with the rows
// of a pass, the latter does not.
#pragma once

#include <cstdint>

#include "checkpoint/model_config.h"
#include "ops/ops.h"
#include "parallel/device.h"
#include "parallel/exec_context.h"

namespace gptoss {

struct OffloadRates {
  double upload_bytes_s = 0;  // from the host's memory to the device's
  double host_macs_s = 0;     // multiply-adds of the host's kernels with many rows
};

/// Bytes a second that `device` takes from the host: the best of a few copies of 64 MiB. On failure:
/// kResourceExhausted, or what went wrong on the device.
Result<double> MeasureUpload(Device& device);

/// Multiply-adds a second of a product of `ops` with so many rows that reading weights does not count: the best of a
/// few. On failure: kResourceExhausted.
Result<double> MeasureHostMacs(const Ops& ops, ThreadPool& pool);

/// The rows of a pass from which bringing a layer's `layer_bytes` takes less time than computing it on the host.
int64_t RowsToBring(const ModelConfig& config, uint64_t layer_bytes, const OffloadRates& rates);

}  // namespace gptoss
