// Stands for the CUDA backend in builds without it.
#include "backends/registry.h"

namespace gptoss {

Result<Accelerator> OpenCuda(int, Precision) {
  return Unsupported(
      "this build has no CUDA backend: build it where CUDA 12.8 or newer is installed, with "
      "-DGPTOSS_CUDA=ON, or compute on the CPU");
}

}  // namespace gptoss
