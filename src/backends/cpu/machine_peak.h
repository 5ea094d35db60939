// What this machine can do at most, measured: the yardstick for percentages in reports.
#pragma once

#include "base/status.h"
#include "ops/ops.h"
#include "parallel/thread_pool.h"

namespace gptoss {

/// Rate in GB/s (1e9 bytes) at which all threads of `pool` together read memory: the best of several passes over 512
/// MiB in which every byte is read once. Takes about a second. On failure: kResourceExhausted.
Result<double> MeasureReadBandwidth(ThreadPool& pool);

/// TFLOP/s of independent multiply-adds in registers (two operations each), all threads of `pool` together, with the
/// instructions that `ops`, a table of CpuOps, has for products with quantised weights, else in float. Products that
/// share multiplications (target zen4) may exceed it. Best of several runs; about half a second.
double MeasureCompute(ThreadPool& pool, const Ops& ops);

}  // namespace gptoss
