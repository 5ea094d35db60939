// The kernels of training that exist once per instruction set, in namespace gptoss::cpu::N_<target>. training_ops.cc
// makes the tables of ops/backward_ops.h from them.
//
// Every value is summed in one order that depends on shapes alone: results are the same bits with any number of
// threads.
#pragma once

#include <cstdint>
#include <span>

#include "backends/cpu/kernels.h"
#include "ops/backward_ops.h"

namespace gptoss::cpu {

/// For each group g of rows offsets[g] … offsets[g + 1] - 1, with the g-th matrix W of `weight`:
/// y[r] = x[gather[r]] W^T + bias[g], or y[r] += that.
struct TrainForwardArgs {
  const float* x;         // [., weight.cols]
  const int32_t* gather;  // [offsets.back()] or null: row r itself
  std::span<const int32_t> offsets;
  WeightMatrix weight;
  const float* bias;  // [groups, weight.rows] or null
  bool accumulate;
  float* y;  // [offsets.back(), weight.rows]
};

/// dx[r] = dy[gather[r]] W, or dx[r] += that.
struct InputGradientArgs {
  const float* dy;        // [., weight.rows]
  const int32_t* gather;  // or null
  std::span<const int32_t> offsets;
  WeightMatrix weight;
  bool accumulate;
  float* dx;  // [offsets.back(), weight.cols]
};

/// dW[g] += sum over rows r of factor[r] * dy[dy_gather[r]]^T x[x_gather[r]].
struct WeightGradientArgs {
  const float* dy;           // [., rows]
  const int32_t* dy_gather;  // or null
  const float* factor;       // [offsets.back()] or null: 1
  const float* x;            // [., cols]
  const int32_t* x_gather;   // or null
  std::span<const int32_t> offsets;
  int64_t rows, cols;
  float* dweight;  // [groups, rows, cols]
};

/// dbias[g] += sum over rows r of factor[r] * dy[gather[r]].
struct BiasGradientArgs {
  const float* dy;  // [., width]
  const int32_t* gather;
  const float* factor;
  std::span<const int32_t> offsets;
  int64_t width;
  float* dbias;  // [groups, width]
};

/// One target's kernels of training.
struct TrainingKernels {
  bool rounds_products = false;                                // TrainingOps::rounds_products
  void (*embed_lookup)(ExecContext&, const EmbedLookupArgs&);  // those of inference
  void (*rms_norm)(ExecContext&, const RmsNormArgs&);
  void (*forward)(ExecContext&, const TrainForwardArgs&);
  void (*router_forward)(ExecContext&, const TrainForwardArgs&);  // in float always, as in inference
  void (*input_gradient)(ExecContext&, const InputGradientArgs&);
  void (*weight_gradient)(ExecContext&, const WeightGradientArgs&);
  void (*bias_gradient)(ExecContext&, const BiasGradientArgs&);
  void (*attention)(ExecContext&, const AttentionTrainArgs<float>&);
  void (*attention_backward)(ExecContext&, const AttentionBackwardArgs<float>&);
  void (*rms_norm_backward)(ExecContext&, const RmsNormBackwardArgs<float>&);
  /// Rotates q and k of rows [n, heads.qkv_size()] in place, forwards or (direction -1) back.
  void (*rotate)(ExecContext&, const HeadShape& heads, int64_t n, const float* cos, const float* sin, float direction,
                 float* qkv);
  /// h [rows, width] of pre [rows, 2 width].
  void (*swiglu)(ExecContext&, const float* pre, int64_t rows, int64_t width, float limit, float* h);
  /// Puts the gradient of pre into its place.
  void (*swiglu_backward)(ExecContext&, const float* dh, int64_t rows, int64_t width, float limit, float* pre);
  /// x[t] += sum over choices j of weight[t, j] * y[grouped_row[t, j]]; weight null: 1.
  void (*combine)(ExecContext&, const Routing& routing, const float* weight, const float* y, int64_t width, float* x);
  /// drouting_weight and dh of MoeDownBackwardArgs, where dh holds the gradient without the routing weight.
  void (*weigh_down_gradient)(ExecContext&, const MoeDownBackwardArgs<float>&);
  /// row_loss of each row of logits, which become factor * (softmax - one-hot) when `gradient`.
  void (*softmax_loss)(ExecContext&, float* logits, int64_t rows, int64_t vocab, const int32_t* target,
                       const float* factor, bool gradient, float* row_loss);
  /// y[rows[t]] += x[t], in the order of t.
  void (*add_rows)(ExecContext&, std::span<const int32_t> rows, int64_t width, const float* x, float* y);
};

}  // namespace gptoss::cpu

#define GPTOSS_CPU_DECLARE_TRAINING_KERNELS(target)                                                               \
  namespace gptoss::cpu::target {                                                                                 \
  void TrainForward(ExecContext&, const TrainForwardArgs&);                                                       \
  void InputGradient(ExecContext&, const InputGradientArgs&);                                                     \
  void WeightGradient(ExecContext&, const WeightGradientArgs&);                                                   \
  void BiasGradient(ExecContext&, const BiasGradientArgs&);                                                       \
  void TrainAttention(ExecContext&, const AttentionTrainArgs<float>&);                                            \
  void TrainAttentionBackward(ExecContext&, const AttentionBackwardArgs<float>&);                                 \
  void RmsNormBackward(ExecContext&, const RmsNormBackwardArgs<float>&);                                          \
  void RotateRows(ExecContext&, const HeadShape&, int64_t n, const float* cos, const float* sin, float direction, \
                  float* qkv);                                                                                    \
  void SwigluRows(ExecContext&, const float* pre, int64_t rows, int64_t width, float limit, float* h);            \
  void SwigluBackwardRows(ExecContext&, const float* dh, int64_t rows, int64_t width, float limit, float* pre);   \
  void CombineRows(ExecContext&, const Routing&, const float* weight, const float* y, int64_t width, float* x);   \
  void WeighDownGradient(ExecContext&, const MoeDownBackwardArgs<float>&);                                        \
  void SoftmaxLossRows(ExecContext&, float* logits, int64_t rows, int64_t vocab, const int32_t* target,           \
                       const float* factor, bool gradient, float* row_loss);                                      \
  void AddRows(ExecContext&, std::span<const int32_t> rows, int64_t width, const float* x, float* y);             \
  }

#if HWY_TARGETS & HWY_SCALAR
GPTOSS_CPU_DECLARE_TRAINING_KERNELS(N_SCALAR)
#endif
#if HWY_TARGETS & HWY_EMU128
GPTOSS_CPU_DECLARE_TRAINING_KERNELS(N_EMU128)
#endif
#if HWY_TARGETS & HWY_SSE4
GPTOSS_CPU_DECLARE_TRAINING_KERNELS(N_SSE4)
#endif
#if HWY_TARGETS & HWY_AVX2
GPTOSS_CPU_DECLARE_TRAINING_KERNELS(N_AVX2)
#endif
#if HWY_TARGETS & HWY_AVX3
GPTOSS_CPU_DECLARE_TRAINING_KERNELS(N_AVX3)
#endif
#if HWY_TARGETS & HWY_NEON
GPTOSS_CPU_DECLARE_TRAINING_KERNELS(N_NEON)
#endif

// The three products with operands rounded to BF16 and sums in float, on AMX tiles, on emulated ones, or by AVX-512's
// dot products of pairs; small matrices as in the functions above.
#define GPTOSS_CPU_DECLARE_AMX_TRAINING(target)                            \
  namespace gptoss::cpu::target {                                          \
  void TrainForwardAmxEmulated(ExecContext&, const TrainForwardArgs&);     \
  void InputGradientAmxEmulated(ExecContext&, const InputGradientArgs&);   \
  void WeightGradientAmxEmulated(ExecContext&, const WeightGradientArgs&); \
  }

#if HWY_TARGETS & HWY_NEON
GPTOSS_CPU_DECLARE_AMX_TRAINING(N_NEON)
#endif
#if HWY_TARGETS & HWY_SSE4
GPTOSS_CPU_DECLARE_AMX_TRAINING(N_SSE4)
#endif
#if HWY_TARGETS & HWY_AVX2
GPTOSS_CPU_DECLARE_AMX_TRAINING(N_AVX2)
#endif
#if HWY_TARGETS & HWY_AVX3
GPTOSS_CPU_DECLARE_AMX_TRAINING(N_AVX3)
namespace gptoss::cpu::N_AVX3 {
/// Need WhyNoAmx() to be null.
void TrainForwardAmx(ExecContext&, const TrainForwardArgs&);
void InputGradientAmx(ExecContext&, const InputGradientArgs&);
void WeightGradientAmx(ExecContext&, const WeightGradientArgs&);
/// Need WhyNoAvx512Bf16() to be null.
void TrainForwardPairs(ExecContext&, const TrainForwardArgs&);
void InputGradientPairs(ExecContext&, const InputGradientArgs&);
void WeightGradientPairs(ExecContext&, const WeightGradientArgs&);
}  // namespace gptoss::cpu::N_AVX3
#endif
