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

double DotLoop(int64_t iterations, float* sink) {
  const D8<kMostGroups> d8;
  constexpr int kChains = 12;  // more than latency times throughput of any current core
  V32<kMostGroups> sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = hn::Zero(D32<kMostGroups>());
  const auto weights = hn::Set(d8, int8_t{1});
  const auto x = static_cast<int32_t>(*sink);
  for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = ProcessorByteDots::Add(sums[c], weights, &x);
  }
#pragma GCC unroll 12
  for (int c = 1; c < kChains; ++c) sums[0] = hn::Add(sums[0], sums[c]);
  *sink = static_cast<float>(hn::GetLane(sums[0]));
  constexpr int kBytesOfActivation = 2;
  return 2.0 / kBytesOfActivation * kChains * static_cast<double>(hn::Lanes(d8)) * static_cast<double>(iterations);
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
