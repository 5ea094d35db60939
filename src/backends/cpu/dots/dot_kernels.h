// The quantised products with instructions that sum four products of bytes, which only a part of a target's machines
// has, and the same kernels with the instruction computed by ordinary code.
#pragma once

#include "backends/cpu/kernels.h"

namespace gptoss::cpu {

/// Same semantics as the instruction of x86, on any machine with AVX2: for tests. Null elsewhere.
const Ops* EmulatedDotOps();

}  // namespace gptoss::cpu

// As Kernels::matmul_fast, bit for bit, and Kernels::multiply_add_loop.

#if HWY_TARGETS & HWY_AVX2
namespace gptoss::cpu::N_AVX2 {
/// Needs WhyNoAvxVnni() to be null.
void MatmulDots(ExecContext& context, const MatmulArgs& args);
double DotLoop(int64_t iterations, float* sink);
void MatmulDotsEmulated(ExecContext& context, const MatmulArgs& args);
}  // namespace gptoss::cpu::N_AVX2
#endif
#if HWY_TARGETS & HWY_AVX3
namespace gptoss::cpu::N_AVX3 {
/// Needs WhyNoAvx512Vnni() to be null.
void MatmulDots(ExecContext& context, const MatmulArgs& args);
double DotLoop(int64_t iterations, float* sink);
}  // namespace gptoss::cpu::N_AVX3
#endif
#if HWY_TARGETS & HWY_NEON
namespace gptoss::cpu::N_NEON {
/// Needs WhyNoDotProduct() to be null.
void MatmulDots(ExecContext& context, const MatmulArgs& args);
double DotLoop(int64_t iterations, float* sink);
}  // namespace gptoss::cpu::N_NEON
#endif
