// A CUDA GPU as a device: memory, copies through pinned staging memory, one stream.
#pragma once

#include <memory>

#include "base/status.h"
#include "parallel/device.h"

namespace gptoss::cuda {

/// Compute capability that kernels need: mma.sync on BF16.
inline constexpr int kOldestCapability = 80;

/// On failure: kUnsupported when there is no such GPU or it is too old, kResourceExhausted.
Result<std::unique_ptr<Device>> OpenGpu(int index);

}  // namespace gptoss::cuda
