#include "backends/cuda/gpu_peak.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include "backends/cuda/kernels.h"

namespace gptoss::cuda {
namespace {

constexpr size_t kLeastCopy = size_t{32} << 20;

/// The shortest of several runs of `work`, in seconds, after one that is not counted.
Result<double> Shortest(Device& gpu, int runs, const std::function<void()>& work) {
  double best = 0;
  for (int run = 0; run <= runs; ++run) {
    GPTOSS_RETURN_IF_ERROR(gpu.Wait());
    const auto start = std::chrono::steady_clock::now();
    work();
    GPTOSS_RETURN_IF_ERROR(gpu.Wait());
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (run == 1 || (run > 1 && seconds < best)) best = seconds;
  }
  return best;
}

Result<double> CopyRate(Device& gpu, const PeakEffort& effort) {
  const uint64_t free_bytes = gpu.free_bytes();
  const size_t bytes =
      free_bytes == 0 ? effort.copy_bytes : std::clamp<size_t>(free_bytes / 4, kLeastCopy, effort.copy_bytes);
  GPTOSS_ASSIGN_OR_RETURN(DeviceBuffer from, DeviceBuffer::Allocate(gpu, bytes));
  GPTOSS_ASSIGN_OR_RETURN(DeviceBuffer to, DeviceBuffer::Allocate(gpu, bytes));
  GPTOSS_ASSIGN_OR_RETURN(const double seconds, Shortest(gpu, effort.runs, [&] {
                            for (int i = 0; i < effort.copies; ++i) gpu.Copy(to.data(), from.data(), bytes);
                          }));
  return 2.0 * effort.copies * static_cast<double>(bytes) / seconds / 1e9;
}

Result<double> MatrixRate(Device& gpu, const PeakEffort& effort) {
  constexpr double kFlopsOfMma = 2.0 * 16 * 8 * 16;
  const size_t threads = static_cast<size_t>(effort.blocks) * kRateThreads;
  GPTOSS_ASSIGN_OR_RETURN(DeviceBuffer sums, DeviceBuffer::Allocate(gpu, threads * sizeof(float)));
  GPTOSS_ASSIGN_OR_RETURN(const double seconds, Shortest(gpu, effort.runs, [&] {
                            MultiplyRegisters(gpu.queue(), effort.blocks, effort.rounds,
                                              reinterpret_cast<float*>(sums.data()));
                          }));
  return static_cast<double>(threads / 32) * effort.rounds * kRateChains * kFlopsOfMma / seconds / 1e12;
}

}  // namespace

Result<GpuPeak> MeasurePeak(Device& gpu, const PeakEffort& effort) {
  GpuPeak peak;
  GPTOSS_ASSIGN_OR_RETURN(peak.copy_gb_s, CopyRate(gpu, effort));
  GPTOSS_ASSIGN_OR_RETURN(peak.matrix_tflop_s, MatrixRate(gpu, effort));
  return peak;
}

}  // namespace gptoss::cuda
