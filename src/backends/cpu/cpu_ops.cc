#include "backends/cpu/cpu_ops.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "backends/cpu/amx/amx_kernels.h"
#include "backends/cpu/amx/amx_support.h"
#include "backends/cpu/dots/dot_kernels.h"
#include "backends/cpu/dots/dot_support.h"
#include "backends/cpu/winograd/winograd_kernels.h"
#include "hwy/targets.h"

namespace gptoss::cpu {
namespace {

using MatmulFunction = void (*)(ExecContext&, const MatmulArgs&);

/// The function of `kKernels` that products of precision `kPrecise` use.
template <const Kernels& kKernels, bool kExact>
constexpr MatmulFunction kMatmul = kExact ? kKernels.matmul_exact : kKernels.matmul_fast;

/// y[r] += b (a x[gather[r]]), in float always. Row r is token tokens[r].
template <const Kernels& kKernels>
void AddUpdate(ExecContext& context, const LowRankUpdate& update, const float* x, int64_t x_rows, const int32_t* gather,
               std::span<const int32_t> offsets, const int32_t* tokens, float* y) {
  if (!TakesPart(update)) return;
  const ScratchFrame frame(context.scratch);
  float* inner = context.scratch.Allocate<float>(offsets.back() * update.a.rows);
  kKernels.matmul_exact(
      context, {.x = x, .x_rows = x_rows, .gather = gather, .offsets = offsets, .weight = update.a, .y = inner});
  DropInactive(update, tokens, offsets.back(), inner);
  kKernels.matmul_exact(context, {.x = inner,
                                  .x_rows = offsets.back(),
                                  .offsets = offsets,
                                  .weight = update.b,
                                  .epilogue = Epilogue::kAdd,
                                  .y = y});
}

template <const Kernels& kKernels, MatmulFunction kFunction>
void Linear(ExecContext& context, const LinearArgs& args) {
  const std::array<int32_t, 2> offsets = {0, static_cast<int32_t>(args.n)};
  kFunction(context, {.x = args.x,
                      .x_rows = args.n,
                      .offsets = offsets,
                      .weight = args.weight,
                      .bias = args.bias,
                      .epilogue = args.accumulate ? Epilogue::kAdd : Epilogue::kStore,
                      .y = args.y});
  AddUpdate<kKernels>(context, args.adapter, args.x, args.n, nullptr, offsets, nullptr, args.y);
}

template <const Kernels& kKernels, MatmulFunction kFunction>
void QkvRope(ExecContext& context, const QkvRopeArgs& args) {
  const ScratchFrame frame(context.scratch);
  float* qkv = context.scratch.Allocate<float>(args.n * args.weight.rows);
  Linear<kKernels, kFunction>(context, {args.x, args.n, args.weight, args.bias, false, qkv, args.adapter});
  kKernels.rope_append(context, args, qkv);
}

/// Always in float: a choice of experts must not hang on the rounding of activations.
template <const Kernels& kKernels>
void Router(ExecContext& context, const RouterArgs& args) {
  Routing& routing = *args.routing;
  const int64_t k = routing.experts_per_token;
  Linear<kKernels, kKernels.matmul_exact>(
      context, {args.x, routing.n, args.weight, args.bias, false, args.logits, args.adapter});
  for (int64_t t = 0; t < routing.n; ++t) {
    ChooseExperts(args.logits + t * routing.num_experts, routing.num_experts, static_cast<int>(k),
                  routing.expert.data() + t * k, routing.weight.data() + t * k);
  }
  GroupByExpert(&routing);
}

/// Gate and up rows with an adapter: it must be added before the clamps.
template <const Kernels& kKernels, MatmulFunction kFunction>
void MoeGateUpAdapted(ExecContext& context, const MoeGateUpArgs& args) {
  const Routing& routing = *args.routing;
  const int64_t rows = routing.n * routing.experts_per_token, width = args.weight.rows;
  const ScratchFrame frame(context.scratch);
  float* pre = context.scratch.Allocate<float>(rows * width);
  kFunction(context, {.x = args.x,
                      .x_rows = routing.n,
                      .gather = routing.grouped_token.data(),
                      .offsets = routing.expert_offsets,
                      .weight = args.weight,
                      .bias = args.bias,
                      .y = pre});
  const int32_t* const tokens = routing.grouped_token.data();
  AddUpdate<kKernels>(context, args.adapter, args.x, routing.n, tokens, routing.expert_offsets, tokens, pre);
  context.pool.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin * width / 2; i < end * width / 2; ++i) {
      const float gate = std::min(pre[2 * i], args.limit);
      const float up = std::clamp(pre[2 * i + 1], -args.limit, args.limit);
      args.h[i] = gate / (1.0f + std::exp(-1.702f * gate)) * (up + 1.0f);
    }
  });
}

template <const Kernels& kKernels, MatmulFunction kFunction>
void MoeGateUp(ExecContext& context, const MoeGateUpArgs& args) {
  if (args.adapter.any()) return MoeGateUpAdapted<kKernels, kFunction>(context, args);
  kFunction(context, {.x = args.x,
                      .x_rows = args.routing->n,
                      .gather = args.routing->grouped_token.data(),
                      .offsets = args.routing->expert_offsets,
                      .weight = args.weight,
                      .bias = args.bias,
                      .epilogue = Epilogue::kSwiglu,
                      .limit = args.limit,
                      .y = args.h});
}

template <const Kernels& kKernels, MatmulFunction kFunction>
void MoeDown(ExecContext& context, const MoeDownArgs& args) {
  const int64_t rows = args.routing->n * args.routing->experts_per_token;
  const ScratchFrame frame(context.scratch);
  float* y = context.scratch.Allocate<float>(rows * args.weight.rows);
  kFunction(context, {.x = args.h,
                      .x_rows = rows,
                      .offsets = args.routing->expert_offsets,
                      .weight = args.weight,
                      .bias = args.bias,
                      .y = y});
  AddUpdate<kKernels>(context, args.adapter, args.h, rows, nullptr, args.routing->expert_offsets,
                      args.routing->grouped_token.data(), y);
  kKernels.combine_experts(context, args, y);
}

template <const Kernels& kKernels, bool kExact>
constexpr Ops MakeOps(std::string_view name) {
  constexpr MatmulFunction kFunction = kMatmul<kKernels, kExact>;
  return {.name = name,
          // The portable target's fast products are the exact ones.
          .weight_layout = kExact || name == "portable" ? WeightLayout::kRowMajor : WeightLayout::kRows8,
          .embed_lookup = kKernels.embed_lookup,
          .rms_norm = kKernels.rms_norm,
          .linear = Linear<kKernels, kFunction>,
          .qkv_rope = QkvRope<kKernels, kFunction>,
          .attention = kKernels.attention,
          .router = Router<kKernels>,
          .moe_gate_up = MoeGateUp<kKernels, kFunction>,
          .moe_down = MoeDown<kKernels, kFunction>};
}

#define GPTOSS_CPU_TARGET(target, label)                                                                      \
  constexpr Kernels kKernels_##target = {target::EmbedLookup,    target::RmsNorm,        target::MatmulExact, \
                                         target::MatmulFast,     target::RopeAppend,     target::Attention,   \
                                         target::CombineExperts, target::MultiplyAddLoop};                    \
  constexpr Ops kFast_##target = MakeOps<kKernels_##target, false>(label);                                    \
  constexpr Ops kExact_##target = MakeOps<kKernels_##target, true>(label "-exact");

#if HWY_TARGETS & HWY_SCALAR
GPTOSS_CPU_TARGET(N_SCALAR, "portable")
#endif
#if HWY_TARGETS & HWY_EMU128
GPTOSS_CPU_TARGET(N_EMU128, "portable")
#endif
#if HWY_TARGETS & HWY_NEON
GPTOSS_CPU_TARGET(N_NEON, "neon")
#endif
#if HWY_TARGETS & HWY_SSE4
GPTOSS_CPU_TARGET(N_SSE4, "sse4")
#endif
#if HWY_TARGETS & HWY_AVX2
GPTOSS_CPU_TARGET(N_AVX2, "avx2")
#endif
#if HWY_TARGETS & HWY_AVX3
GPTOSS_CPU_TARGET(N_AVX3, "avx512")
#endif

/// Rows in larger groups take the tiles, which round otherwise.
constexpr Ops WithTiles(Ops ops) {
  ops.invariant_rows = kAmxMinRows - 1;
  return ops;
}

constexpr Kernels WithMatmulFast(Kernels kernels, MatmulFunction matmul_fast) {
  kernels.matmul_fast = matmul_fast;
  return kernels;
}

constexpr Kernels WithMatmulFast(Kernels kernels, MatmulFunction matmul_fast, double (*loop)(int64_t, float*)) {
  kernels.multiply_add_loop = loop;
  return WithMatmulFast(kernels, matmul_fast);
}

/// A target with dot products of bytes. Its exact table is the target's own.
#define GPTOSS_CPU_DOTS(target, extension)                                                                         \
  constexpr Kernels kKernels_##extension = WithMatmulFast(kKernels_##target, target::MatmulDots, target::DotLoop); \
  constexpr Ops kFast_##extension = MakeOps<kKernels_##extension, false>(#extension);

#if HWY_TARGETS & HWY_NEON
GPTOSS_CPU_DOTS(N_NEON, dotprod)
#endif
#if HWY_TARGETS & HWY_AVX2
GPTOSS_CPU_DOTS(N_AVX2, avxvnni)
constexpr Kernels kKernels_emulated_dots = WithMatmulFast(kKernels_N_AVX2, N_AVX2::MatmulDotsEmulated);
constexpr Ops kFast_emulated_dots = MakeOps<kKernels_emulated_dots, false>("emulated-dots");
#endif
#if HWY_TARGETS & HWY_AVX3
GPTOSS_CPU_DOTS(N_AVX3, avx512vnni)
#endif

#if (HWY_TARGETS & HWY_AVX3) && HWY_ARCH_X86_64
/// AVX-512 with AMX for products of many rows; its exact table is AVX-512's.
constexpr Kernels kKernels_amx = WithMatmulFast(kKernels_N_AVX3, N_AVX3::MatmulAmx, N_AVX3::AmxLoop);
constexpr Ops kFast_amx = WithTiles(MakeOps<kKernels_amx, false>("amx"));
/// AVX-512 with VNNI, and with BF16 products in training.
constexpr Ops kFast_avx512bf16 = MakeOps<kKernels_avx512vnni, false>("avx512bf16");
/// The same on processors that add on more pipes than they multiply.
constexpr Kernels kKernels_zen4 = WithMatmulFast(kKernels_avx512vnni, N_AVX3::MatmulWinograd);
constexpr Ops kFast_zen4 = MakeOps<kKernels_zen4, false>("zen4");
#endif

#define GPTOSS_CPU_ENTRY(target, bit) {kFast_##target.name, bit, &kKernels_##target, &kFast_##target, &kExact_##target},
#define GPTOSS_CPU_DOTS_ENTRY(target, extension, bit, why_not)                 \
  {kFast_##extension.name, bit,     &kKernels_##extension, &kFast_##extension, \
   &kExact_##target,       why_not, kFast_##target.name},

constexpr Target kTargets[] = {
#if HWY_TARGETS & HWY_SCALAR
    GPTOSS_CPU_ENTRY(N_SCALAR, HWY_SCALAR)
#endif
#if HWY_TARGETS & HWY_EMU128
        GPTOSS_CPU_ENTRY(N_EMU128, HWY_EMU128)
#endif
#if HWY_TARGETS & HWY_NEON
            GPTOSS_CPU_ENTRY(N_NEON, HWY_NEON) GPTOSS_CPU_DOTS_ENTRY(N_NEON, dotprod, HWY_NEON, WhyNoDotProduct)
#endif
#if HWY_TARGETS & HWY_SSE4
                GPTOSS_CPU_ENTRY(N_SSE4, HWY_SSE4)
#endif
#if HWY_TARGETS & HWY_AVX2
                    GPTOSS_CPU_ENTRY(N_AVX2, HWY_AVX2) GPTOSS_CPU_DOTS_ENTRY(N_AVX2, avxvnni, HWY_AVX2, WhyNoAvxVnni)
#endif
#if HWY_TARGETS & HWY_AVX3
                        GPTOSS_CPU_ENTRY(N_AVX3, HWY_AVX3)
                            GPTOSS_CPU_DOTS_ENTRY(N_AVX3, avx512vnni, HWY_AVX3, WhyNoAvx512Vnni)
#if HWY_ARCH_X86_64
                                {kFast_avx512bf16.name, HWY_AVX3, &kKernels_avx512vnni, &kFast_avx512bf16,
                                 &kExact_N_AVX3, WhyNoAvx512Bf16, kFast_N_AVX3.name},
    {kFast_zen4.name, HWY_AVX3, &kKernels_zen4, &kFast_zen4, &kExact_N_AVX3, WhyNoZen4, kFast_avx512bf16.name},
    {kFast_amx.name, HWY_AVX3, &kKernels_amx, &kFast_amx, &kExact_N_AVX3, WhyNoAmx},
#endif
#endif
};

/// The emulated instructions of one target; see amx_kernels.h and winograd_kernels.h.
struct Emulated {
  std::string_view target;
  int64_t highway_target;
  const Ops *amx, *winograd;
};

#define GPTOSS_CPU_EMULATED(target)                                                                                 \
  constexpr Kernels kKernels_amx_##target = WithMatmulFast(kKernels_##target, target::MatmulAmxEmulated);           \
  constexpr Ops kOps_amx_##target = WithTiles(MakeOps<kKernels_amx_##target, false>("emulated-amx"));               \
  constexpr Kernels kKernels_winograd_##target = WithMatmulFast(kKernels_##target, target::MatmulWinogradEmulated); \
  constexpr Ops kOps_winograd_##target = MakeOps<kKernels_winograd_##target, false>("emulated-winograd");

#if HWY_TARGETS & HWY_NEON
GPTOSS_CPU_EMULATED(N_NEON)
#endif
#if HWY_TARGETS & HWY_SSE4
GPTOSS_CPU_EMULATED(N_SSE4)
#endif
#if HWY_TARGETS & HWY_AVX2
GPTOSS_CPU_EMULATED(N_AVX2)
#endif
#if HWY_TARGETS & HWY_AVX3
GPTOSS_CPU_EMULATED(N_AVX3)
#endif

constexpr Emulated kEmulated[] = {
#if HWY_TARGETS & HWY_NEON
    {kFast_N_NEON.name, HWY_NEON, &kOps_amx_N_NEON, &kOps_winograd_N_NEON},
#endif
#if HWY_TARGETS & HWY_SSE4
    {kFast_N_SSE4.name, HWY_SSE4, &kOps_amx_N_SSE4, &kOps_winograd_N_SSE4},
#endif
#if HWY_TARGETS & HWY_AVX2
    {kFast_N_AVX2.name, HWY_AVX2, &kOps_amx_N_AVX2, &kOps_winograd_N_AVX2},
#endif
#if HWY_TARGETS & HWY_AVX3
    {kFast_N_AVX3.name, HWY_AVX3, &kOps_amx_N_AVX3, &kOps_winograd_N_AVX3},
#endif
};

bool HasTarget(int64_t highway_target) {
  return highway_target == HWY_STATIC_TARGET || (hwy::SupportedTargets() & highway_target) != 0;
}

}  // namespace

std::span<const Target> Targets() { return kTargets; }

const char* WhyUnavailable(const Target& target) {
  if (!HasTarget(target.highway_target)) return "this machine does not have its instructions";
  return target.why_not == nullptr ? nullptr : target.why_not();
}

const Ops* EmulatedDotOps() {
#if HWY_TARGETS & HWY_AVX2
  if (HasTarget(HWY_AVX2)) return &kFast_emulated_dots;
#endif
  return nullptr;
}

const Ops* EmulatedAmxOps() {
  const Ops* best = nullptr;
  for (const Emulated& candidate : kEmulated) {
    if (HasTarget(candidate.highway_target)) best = candidate.amx;
  }
  return best;
}

const Ops* EmulatedWinogradOps(std::string_view target) {
  for (const Emulated& candidate : kEmulated) {
    if (candidate.target == target && HasTarget(candidate.highway_target)) return candidate.winograd;
  }
  return nullptr;
}

}  // namespace gptoss::cpu
