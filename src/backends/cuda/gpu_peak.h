// How fast a GPU copies and multiplies, measured through the device's own calls.
#pragma once

#include "backends/registry.h"

namespace gptoss::cuda {

struct PeakEffort {
  size_t copy_bytes = size_t{1} << 30;  // of a copy; less where less is free
  int copies = 8, blocks = 2048, rounds = 4096, runs = 3;
};

/// As MeasureGpu.
Result<GpuPeak> MeasurePeak(Device& gpu, const PeakEffort& effort = {});

}  // namespace gptoss::cuda
