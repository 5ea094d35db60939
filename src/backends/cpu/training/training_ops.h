// The choice among the CPU kernels of training.
#pragma once

#include <string>

#include "base/status.h"
#include "ops/backward_ops.h"

namespace gptoss {

/// The table of training ops for `target` ("" = the best available, or what GPTOSS_CPU names): float arithmetic on all
/// threads of the context's pool, the same bits with any number of them. On failure: as CpuOps of
/// backends/registry.h.
Result<const TrainingOps<float>*> CpuTrainingOps(const std::string& target = "");

}  // namespace gptoss
