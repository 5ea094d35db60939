// The product for fast tables. On every target so far it is the float product.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/matmul_fast.cc"
#include "backends/cpu/kernels.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {

void MatmulFast(ExecContext& context, const MatmulArgs& args) { MatmulExact(context, args); }

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();
