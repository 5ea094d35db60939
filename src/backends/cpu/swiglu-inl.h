// The experts' activation on vectors. Included once per target.

#if defined(GPTOSS_BACKENDS_CPU_SWIGLU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GPTOSS_BACKENDS_CPU_SWIGLU_INL_H_
#undef GPTOSS_BACKENDS_CPU_SWIGLU_INL_H_
#else
#define GPTOSS_BACKENDS_CPU_SWIGLU_INL_H_
#endif

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

inline constexpr float kSwigluAlpha = 1.702f;

/// sigmoid(1.702 gate).
template <class D, class V>
HWY_INLINE V SwigluSigmoid(D d, V gate) {
  const auto one = hn::Set(d, 1.0f);
  // Past 104 the exponential is infinite anyway and Highway's Exp is not defined.
  const auto z = hn::Min(hn::Mul(gate, hn::Set(d, -kSwigluAlpha)), hn::Set(d, 104.0f));
  return hn::Div(one, hn::Add(one, hn::Exp(d, z)));
}

/// gate * sigmoid(1.702 gate) * (up + 1) of clamped values.
template <class D, class V>
HWY_INLINE V Swiglu(D d, V gate, V up, float limit) {
  const auto high = hn::Set(d, limit), low = hn::Set(d, -limit);
  const auto g = hn::Min(gate, high);
  const auto u = hn::Max(hn::Min(up, high), low);
  return hn::Mul(hn::Mul(g, SwigluSigmoid(d, g)), hn::Add(u, hn::Set(d, 1.0f)));
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif
