// The quantised products with the instructions that every machine of a target has.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/matmul_fast.cc"
#include "backends/cpu/kernels.h"
#include "hwy/foreach_target.h"
// After foreach_target: included once per target.
#include "hwy/highway.h"
#if !(HWY_TARGET & GPTOSS_CPU_EMULATED_TARGETS)
#include "backends/cpu/pair_formats-inl.h"
#include "backends/cpu/quantized_product-inl.h"
#endif

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {

void MatmulFast(ExecContext& context, const MatmulArgs& args) {
#if HWY_TARGET & GPTOSS_CPU_EMULATED_TARGETS
  MatmulExact(context, args);
#else
  MultiplyQuantized<Mxfp4Pairs, Q8Pairs>(context, args);
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();
