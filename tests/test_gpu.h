// The GPU that tests of CUDA's kernels run on: emulated_gpu.cc or first_gpu.cc, whichever is linked.
#pragma once

#include <string>

#include "parallel/device.h"

namespace gptoss::testing_util {

/// Null where there is none.
Device* TestGpu();
std::string WhyNoGpu();

}  // namespace gptoss::testing_util
