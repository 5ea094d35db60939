// The choice among the CPU kernels of training.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "ops/backward_ops.h"

namespace gptoss {

/// The table of training ops for `target` ("" = the best available, or what GPTOSS_CPU names): float arithmetic on all
/// threads of the context's pool, the same bits with any number of them. "amx" rounds the operands of products to BF16
/// and sums in float. On failure: as CpuOps of backends/registry.h.
Result<const TrainingOps<float>*> CpuTrainingOps(const std::string& target = "");

namespace cpu {
/// The products of "amx" with the tile instructions computed by `target`'s, the rest as `target`: for tests. Null when
/// this build has none.
const TrainingOps<float>* EmulatedAmxTrainingOps(std::string_view target);
}  // namespace cpu

}  // namespace gptoss
