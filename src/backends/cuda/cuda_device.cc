#include "backends/cuda/cuda_device.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "backends/registry.h"

namespace gptoss::cuda {
namespace {

/// Pinned memory for uploads, in two halves: one is filled while the other one's copies are under way.
constexpr size_t kStagingHalf = size_t{8} << 20;

std::string Describe(cudaError_t error) { return cudaGetErrorString(error); }

class CudaDevice : public Device {
 public:
  static Result<std::unique_ptr<Device>> Open(const GpuInfo& gpu) {
    auto device = std::unique_ptr<CudaDevice>(new CudaDevice(gpu));
    const auto make = [&]() -> cudaError_t {
      if (const auto error = cudaSetDevice(gpu.index); error != cudaSuccess) return error;
      if (const auto error = cudaStreamCreateWithFlags(&device->stream_, cudaStreamNonBlocking); error != cudaSuccess) {
        return error;
      }
      for (cudaEvent_t& event : device->copied_) {
        if (const auto error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming); error != cudaSuccess) {
          return error;
        }
      }
      return cudaMallocHost(reinterpret_cast<void**>(&device->staging_), 2 * kStagingHalf);
    };
    if (const auto error = make(); error != cudaSuccess) {
      return ResourceExhausted(gpu.name + ": cannot be set up: " + Describe(error));
    }
    return std::unique_ptr<Device>(std::move(device));
  }

  ~CudaDevice() override {
    if (stream_ != nullptr) cudaStreamSynchronize(stream_);
    if (staging_ != nullptr) cudaFreeHost(staging_);
    for (cudaEvent_t event : copied_) {
      if (event != nullptr) cudaEventDestroy(event);
    }
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  std::string name() const override { return gpu_.name; }
  bool is_host() const override { return false; }

  uint64_t free_bytes() const override {
    size_t free_bytes = 0, total = 0;
    return cudaMemGetInfo(&free_bytes, &total) == cudaSuccess ? free_bytes : 0;
  }
  Result<std::byte*> Allocate(size_t bytes) override {
    void* memory = nullptr;
    if (const auto error = cudaMalloc(&memory, bytes); error != cudaSuccess) {
      cudaGetLastError();  // a refusal is no broken state
      return ResourceExhausted(gpu_.name + ": cannot allocate " + std::to_string(bytes) + " bytes: " + Describe(error) +
                               "; use a shorter context, fewer sequences or a smaller model");
    }
    return static_cast<std::byte*>(memory);
  }
  void Free(std::byte* memory) override {
    Note(cudaStreamSynchronize(stream_));
    Note(cudaFree(memory));
  }

  void Upload(void* to, const void* from, size_t bytes) override {
    auto* target = static_cast<std::byte*>(to);
    const auto* source = static_cast<const std::byte*>(from);
    while (bytes > 0) {
      const size_t part = std::min(bytes, kStagingHalf);
      std::byte* staged = Stage(part);
      std::memcpy(staged, source, part);
      Note(cudaMemcpyAsync(target, staged, part, cudaMemcpyHostToDevice, stream_));
      target += part;
      source += part;
      bytes -= part;
    }
  }
  void Download(void* to, const void* from, size_t bytes) override {
    if (bytes > 0) Note(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_));
    Note(cudaStreamSynchronize(stream_));
  }
  void Copy(void* to, const void* from, size_t bytes) override {
    if (bytes > 0) Note(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_));
  }

  Status Wait() override {
    Note(cudaStreamSynchronize(stream_));
    Note(cudaGetLastError());
    if (first_error_ == cudaSuccess) return Status();
    return IoError(gpu_.name + ": " + Describe(first_error_) + "; the GPU's state is lost, start the program again");
  }

  void* queue() override { return stream_; }

 private:
  explicit CudaDevice(const GpuInfo& gpu) : gpu_(gpu) {}

  void Note(cudaError_t error) {
    if (first_error_ == cudaSuccess) first_error_ = error;
  }

  /// Room for `bytes` (at most a half) that no copy reads any more.
  std::byte* Stage(size_t bytes) {
    if (used_ + bytes > kStagingHalf) {
      Note(cudaEventRecord(copied_[half_], stream_));
      half_ = 1 - half_;
      used_ = 0;
      Note(cudaEventSynchronize(copied_[half_]));
    }
    std::byte* place = staging_ + half_ * kStagingHalf + used_;
    used_ += (bytes + 255) / 256 * 256;
    return place;
  }

  GpuInfo gpu_;
  cudaStream_t stream_ = nullptr;
  std::byte* staging_ = nullptr;
  std::array<cudaEvent_t, 2> copied_ = {};  // the last copies out of each half
  size_t half_ = 0, used_ = 0;
  cudaError_t first_error_ = cudaSuccess;
};

}  // namespace

Result<std::unique_ptr<Device>> OpenGpu(int index) {
  GPTOSS_ASSIGN_OR_RETURN(const std::vector<GpuInfo> gpus, ListGpus());
  if (index < 0 || index >= static_cast<int>(gpus.size())) {
    return Unsupported("there is no GPU " + std::to_string(index) + ": " + std::to_string(gpus.size()) + " found");
  }
  const GpuInfo& gpu = gpus[static_cast<size_t>(index)];
  if (gpu.capability < kOldestCapability) {
    return Unsupported(gpu.name + ": compute capability " + std::to_string(gpu.capability / 10) + "." +
                       std::to_string(gpu.capability % 10) + ", 8.0 or newer is needed");
  }
  return CudaDevice::Open(gpu);
}

}  // namespace gptoss::cuda

namespace gptoss {

std::string CudaVersion() {
  return std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
}

Result<std::vector<GpuInfo>> ListGpus() {
  int driver = 0, count = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) {
    return Unsupported("no GPU can be used: NVIDIA's driver is not installed (libcuda.so.1)");
  }
  if (const auto error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    return Unsupported(std::string("no GPU can be used: ") + cudaGetErrorString(error));
  }
  std::vector<GpuInfo> gpus;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    if (const auto error = cudaGetDeviceProperties(&properties, i); error != cudaSuccess) {
      return Unsupported("GPU " + std::to_string(i) + ": " + cudaGetErrorString(error));
    }
    gpus.push_back({.index = i,
                    .name = properties.name,
                    .capability = 10 * properties.major + properties.minor,
                    .memory_bytes = properties.totalGlobalMem});
  }
  return gpus;
}

}  // namespace gptoss
