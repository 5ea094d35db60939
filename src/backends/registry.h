// The CPU instruction sets this build has kernels for, the GPUs it can use, and the choice among them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "ops/ops.h"
#include "parallel/device.h"

namespace gptoss {

struct CpuTarget {
  std::string name;        // "portable", "sse4", "avx2", "avxvnni", "amx", …
  bool available = false;  // this machine and its operating system can run it
};

/// Best last. On failure: none.
std::vector<CpuTarget> ListCpuTargets();

enum class Precision {
  kFast,   // activations of matrix products rounded to 16-bit integers per block of 32 where the target gains by it
  kExact,  // float everywhere
};

/// The op table for `target` ("" = the best available, or what GPTOSS_CPU names). On failure: kInvalidArgument listing
/// the targets, kUnsupported when this machine cannot run it.
Result<const Ops*> CpuOps(const std::string& target, Precision precision);

struct GpuInfo {
  int index = 0;
  std::string name;
  int capability = 0;  // 90 for compute capability 9.0
  uint64_t memory_bytes = 0;
};

/// The version of CUDA that this build has, e.g. "13.0"; empty without the backend.
std::string CudaVersion();

/// The machine's GPUs. On failure: kUnsupported saying what is missing: the backend, a driver, or a newer one.
Result<std::vector<GpuInfo>> ListGpus();

struct Accelerator {
  std::unique_ptr<Device> device;
  const Ops* ops = nullptr;  // work in memory of the device
};

/// Ops::scratch_bytes of CUDA's tables, for planning where there is no GPU.
uint64_t CudaScratchBytes(const StepShape& step);

struct GpuPeak {
  double copy_gb_s = 0;       // within its memory, read and written bytes together
  double matrix_tflop_s = 0;  // BF16 products of tensor cores with float sums
};

/// What the GPU can do at most, measured: the best of several runs, about a second. On failure: kUnsupported without
/// the backend, kResourceExhausted without 64 MiB of free memory, or what went wrong on the device.
Result<GpuPeak> MeasureGpu(Device& gpu);

/// CUDA's GPU number `index`. On failure: kUnsupported when this build has no CUDA backend, there is no driver or no
/// such GPU, or it is too old; kResourceExhausted.
Result<Accelerator> OpenCuda(int index, Precision precision);

}  // namespace gptoss
