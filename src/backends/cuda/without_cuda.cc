// Stands for the CUDA backend in builds without it.
#include "backends/registry.h"

namespace gptoss {

namespace {

Status Missing() {
  return Unsupported(
      "this build has no CUDA backend: build it where CUDA 12.8 or newer is installed, or compute on the CPU");
}

}  // namespace

std::string CudaVersion() { return ""; }

Result<std::vector<GpuInfo>> ListGpus() { return Missing(); }

Result<GpuPeak> MeasureGpu(Device&) { return Missing(); }

Result<Accelerator> OpenCuda(int, Precision) { return Missing(); }

}  // namespace gptoss
