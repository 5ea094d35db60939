// Starting a kernel, on the GPU or in the emulator.
#pragma once

#include <cstddef>

#include "backends/cuda/device_code.cuh"
#include "backends/cuda/kernels.h"

namespace gptoss::cuda {

/// More shared memory than this has to be asked for.
inline constexpr size_t kPlainSharedBytes = size_t{48} << 10;

/// Errors of a launch stay with CUDA until CudaDevice::Check asks for them.
template <typename... Parameters, typename... Arguments>
void Launch(Stream stream, dim3 grid, unsigned threads, size_t shared_bytes, void (*kernel)(Parameters...),
            Arguments... arguments) {
#if defined(__CUDACC__)
  if (shared_bytes > kPlainSharedBytes) {
    cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared_bytes));
  }
  kernel<<<grid, dim3(threads), shared_bytes, static_cast<cudaStream_t>(stream)>>>(
      static_cast<Parameters>(arguments)...);
#else
  static_cast<void>(stream);
  RunGrid(grid, dim3{threads, 1, 1}, shared_bytes, [&] { kernel(static_cast<Parameters>(arguments)...); });
#endif
}

inline unsigned BlocksFor(int64_t items, int64_t items_a_block) {
  return static_cast<unsigned>((items + items_a_block - 1) / items_a_block);
}

inline const uint8_t* Bytes(const std::byte* data) { return reinterpret_cast<const uint8_t*>(data); }

}  // namespace gptoss::cuda
