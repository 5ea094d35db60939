#include "backends/cuda/cuda_device.h"
#include "backends/cuda/cuda_ops.h"
#include "backends/cuda/gpu_peak.h"
#include "backends/registry.h"

namespace gptoss {

Result<Accelerator> OpenCuda(int index, Precision precision) {
  Accelerator gpu;
  GPTOSS_ASSIGN_OR_RETURN(gpu.device, cuda::OpenGpu(index));
  gpu.ops = precision == Precision::kExact ? &cuda::ExactOps() : &cuda::FastOps();
  return gpu;
}

Result<GpuPeak> MeasureGpu(Device& gpu) { return cuda::MeasurePeak(gpu); }

}  // namespace gptoss
