// The quantised products with instructions that only some machines of a target have.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/dots/matmul_dots.cc"
#include "backends/cpu/dots/dot_kernels.h"
#include "backends/cpu/kernels.h"
#include "hwy/foreach_target.h"
// After foreach_target: included once per target.
#include "hwy/highway.h"
#if !(HWY_TARGET & GPTOSS_CPU_EMULATED_TARGETS)
#include "backends/cpu/dots/byte_formats-inl.h"
#include "backends/cpu/quantized_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {

#if HWY_TARGET & (HWY_AVX2 | HWY_AVX3 | HWY_NEON)
void MatmulDots(ExecContext& context, const MatmulArgs& args) {
  MultiplyQuantized<Mxfp4Bytes<ProcessorByteDots>, Q8Bytes<ProcessorByteDots>>(context, args);
}
#endif

#if HWY_TARGET == HWY_AVX2
void MatmulDotsEmulated(ExecContext& context, const MatmulArgs& args) {
  MultiplyQuantized<Mxfp4Bytes<EmulatedByteDots>, Q8Bytes<EmulatedByteDots>>(context, args);
}
#endif

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();
#endif
