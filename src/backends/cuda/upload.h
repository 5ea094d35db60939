// What the ops of this folder share to bring arguments to the device.
#pragma once

#include <span>

#include "backends/cuda/kernels.h"
#include "parallel/exec_context.h"

namespace gptoss::cuda {

inline Stream StreamOf(ExecContext& context) { return context.device().queue(); }

/// A copy of the host's values in scratch memory of the device.
template <typename T>
const T* ToDevice(ExecContext& context, std::span<const T> values) {
  T* copy = context.scratch.Allocate<T>(values.size());
  context.device().Upload(copy, values.data(), values.size_bytes());
  return copy;
}

}  // namespace gptoss::cuda
