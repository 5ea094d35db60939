// The kernels that exist once per instruction set, in namespace gptoss::cpu::N_<target>. Everything above them
// (cpu_ops.h) is common to all targets.
#pragma once

#include <cstdint>
#include <span>

#include "backends/cpu/target_set.h"
#include "ops/ops.h"
#include "parallel/exec_context.h"

namespace gptoss::cpu {

/// What happens to a sum once its bias is added.
enum class Epilogue : uint8_t {
  kStore,   // y = v
  kAdd,     // y += v
  kSwiglu,  // y[i] = swiglu(v[2i], v[2i + 1])
};

/// Products of groups of rows with one matrix each: group m is output rows offsets[m] … offsets[m + 1] - 1 and the m-th
/// matrix of `weight`. A row's result does not depend on which other rows are present, nor on the number of threads.
struct MatmulArgs {
  const float* x = nullptr;  // [x_rows, weight.cols]; weight.cols is a multiple of 32
  int64_t x_rows = 0;
  const int32_t* gather = nullptr;  // [offsets.back()] row of x for each output row; null: the same row
  std::span<const int32_t> offsets;
  int32_t min_group_rows = 1, max_group_rows = INT32_MAX;  // shorter and longer groups are left out
  WeightMatrix weight;
  const float* bias = nullptr;  // [matrices, weight.rows] or null
  Epilogue epilogue = Epilogue::kStore;
  float limit = 0.0f;  // kSwiglu
  float* y = nullptr;  // [offsets.back(), weight.rows], or half as wide for kSwiglu
};

/// One target's kernels. Contracts as in ops.h unless said otherwise.
struct Kernels {
  void (*embed_lookup)(ExecContext&, const EmbedLookupArgs&);
  void (*rms_norm)(ExecContext&, const RmsNormArgs&);
  /// Float activations and weights widened to float.
  void (*matmul_exact)(ExecContext&, const MatmulArgs&);
  /// MXFP4 and Q8_0 weights with activations rounded to 16-bit integers per 32 values; other weights as matmul_exact.
  void (*matmul_fast)(ExecContext&, const MatmulArgs&);
  /// Rotates q and k of `qkv` [n, (heads + 2 kv_heads) * head_dim], writes q and appends k and v to the cache.
  void (*rope_append)(ExecContext&, const QkvRopeArgs&, const float* qkv);
  void (*attention)(ExecContext&, const AttentionArgs&);
  /// x[t] += sum over j of weight[t, j] * y[row(t, j)], for `y` [n * k, weight.rows] with biases included.
  void (*combine_experts)(ExecContext&, const MoeDownArgs&, const float* y);
  /// `iterations` rounds of independent multiply-adds in registers, with the instructions of matmul_fast; returns the
  /// operations done, two for each product of a weight and an activation: an activation of two bytes or two BF16 takes
  /// two instructions. `sink` receives a value that depends on all of them.
  double (*multiply_add_loop)(int64_t iterations, float* sink);
};

}  // namespace gptoss::cpu

#define GPTOSS_CPU_DECLARE_KERNELS(target)                                         \
  namespace gptoss::cpu::target {                                                  \
  void EmbedLookup(ExecContext& context, const EmbedLookupArgs& args);             \
  void RmsNorm(ExecContext& context, const RmsNormArgs& args);                     \
  void MatmulExact(ExecContext& context, const MatmulArgs& args);                  \
  void MatmulFast(ExecContext& context, const MatmulArgs& args);                   \
  void RopeAppend(ExecContext& context, const QkvRopeArgs& a, const float* qkv);   \
  void Attention(ExecContext& context, const AttentionArgs& args);                 \
  void CombineExperts(ExecContext& context, const MoeDownArgs& a, const float* y); \
  double MultiplyAddLoop(int64_t iterations, float* sink);                         \
  }

#if HWY_TARGETS & HWY_SCALAR
GPTOSS_CPU_DECLARE_KERNELS(N_SCALAR)
#endif
#if HWY_TARGETS & HWY_EMU128
GPTOSS_CPU_DECLARE_KERNELS(N_EMU128)
#endif
#if HWY_TARGETS & HWY_SSE4
GPTOSS_CPU_DECLARE_KERNELS(N_SSE4)
#endif
#if HWY_TARGETS & HWY_AVX2
GPTOSS_CPU_DECLARE_KERNELS(N_AVX2)
#endif
#if HWY_TARGETS & HWY_AVX3
GPTOSS_CPU_DECLARE_KERNELS(N_AVX3)
#endif
#if HWY_TARGETS & HWY_NEON
GPTOSS_CPU_DECLARE_KERNELS(N_NEON)
#endif
