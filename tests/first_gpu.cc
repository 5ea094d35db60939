#include "backends/cuda/cuda_device.h"
#include "test_gpu.h"

namespace gptoss::testing_util {
namespace {

const Result<std::unique_ptr<Device>>& Opened() {
  static const auto opened = cuda::OpenGpu(0);
  return opened;
}

}  // namespace

Device* TestGpu() { return Opened().ok() ? Opened()->get() : nullptr; }

std::string WhyNoGpu() { return Opened().status().message(); }

}  // namespace gptoss::testing_util
