#include "backends/cuda/emulator/emulator.h"
#include "test_gpu.h"

namespace gptoss::testing_util {

Device* TestGpu() {
  static const std::unique_ptr<Device> gpu = cuda::EmulatedDevice();
  return gpu.get();
}

std::string WhyNoGpu() { return ""; }

}  // namespace gptoss::testing_util
