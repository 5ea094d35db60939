// The quantised products of many rows with fewer multiplications, and the same kernels with their instruction computed
// by ordinary code.
#pragma once

#include <cstdint>
#include <string_view>

#include "backends/cpu/kernels.h"

namespace gptoss::cpu {

/// Groups of fewer rows than this take the dot products of bytes: what a panel costs before the first row would be more
/// than is saved.
inline constexpr int32_t kWinogradMinRows = 16;

/// `target` with these products computed by its ordinary instructions: for tests. Null where this machine cannot run it
/// or it has no vectors.
const Ops* EmulatedWinogradOps(std::string_view target);

}  // namespace gptoss::cpu

// As Kernels::matmul_fast, bit for bit.
#define GPTOSS_CPU_DECLARE_WINOGRAD(target)                                  \
  namespace gptoss::cpu::target {                                            \
  void MatmulWinogradEmulated(ExecContext& context, const MatmulArgs& args); \
  }

#if HWY_TARGETS & HWY_NEON
GPTOSS_CPU_DECLARE_WINOGRAD(N_NEON)
#endif
#if HWY_TARGETS & HWY_SSE4
GPTOSS_CPU_DECLARE_WINOGRAD(N_SSE4)
#endif
#if HWY_TARGETS & HWY_AVX2
GPTOSS_CPU_DECLARE_WINOGRAD(N_AVX2)
#endif
#if HWY_TARGETS & HWY_AVX3
GPTOSS_CPU_DECLARE_WINOGRAD(N_AVX3)
namespace gptoss::cpu::N_AVX3 {
/// Needs WhyNoAvx512Vnni() to be null.
void MatmulWinograd(ExecContext& context, const MatmulArgs& args);
}  // namespace gptoss::cpu::N_AVX3
#endif
