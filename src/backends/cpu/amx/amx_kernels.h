// Products on AMX tiles, and the same kernels with the tile instructions computed by ordinary code.
#pragma once

#include <cstdint>

#include "backends/cpu/kernels.h"

namespace gptoss::cpu {

/// No group of fewer rows takes tiles.
inline constexpr int32_t kAmxMinRows = 8;

/// Groups of fewer rows than this take matmul_fast: unpacking a panel would cost more than its use. Q8_0, which takes
/// two BF16 a weight, costs 2.1 ms to unpack for q, k, v on two Zen 4 cores, where dot products of bytes take 1.4 ms
/// for 16 rows.
constexpr int32_t AmxMinRows(DType dtype) { return dtype == DType::kQ8_0 ? 32 : kAmxMinRows; }

/// Same semantics as the tile instructions, on any machine: for tests. Null where this machine can run none of the
/// targets that have it.
const Ops* EmulatedAmxOps();

}  // namespace gptoss::cpu

// As Kernels::matmul_fast, except that in groups of AmxMinRows rows and more MXFP4, Q8_0 and BF16 weights are
// multiplied as BF16 (Q8_0: as the sum of two) with activations as the sum of two BF16: sums in float, subnormal
// numbers taken as zero. Rows of such groups do not depend on each other, but they do differ from the same rows in a
// smaller group.
#define GPTOSS_CPU_DECLARE_AMX(target)                                  \
  namespace gptoss::cpu::target {                                       \
  void MatmulAmxEmulated(ExecContext& context, const MatmulArgs& args); \
  }

#if HWY_TARGETS & HWY_NEON
GPTOSS_CPU_DECLARE_AMX(N_NEON)
#endif
#if HWY_TARGETS & HWY_SSE4
GPTOSS_CPU_DECLARE_AMX(N_SSE4)
#endif
#if HWY_TARGETS & HWY_AVX2
GPTOSS_CPU_DECLARE_AMX(N_AVX2)
#endif
#if HWY_TARGETS & HWY_AVX3
GPTOSS_CPU_DECLARE_AMX(N_AVX3)
namespace gptoss::cpu::N_AVX3 {
/// Needs WhyNoAmx() to be null.
void MatmulAmx(ExecContext& context, const MatmulArgs& args);
/// As Kernels::multiply_add_loop. `sink` must be finite.
double AmxLoop(int64_t iterations, float* sink);
}  // namespace gptoss::cpu::N_AVX3
#endif
