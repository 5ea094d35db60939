// The contract of training: the forward ops once more, keeping what the backward pass needs, and the backward ops. A
// function table like ops.h, for float (which training uses) and for double (with which finite differences are exact
// enough to check every gradient). ops/reference/ is the plain implementation.
//
// Common rules: those of ops.h, and
// - d… is the gradient of the loss with respect to …, of the same shape;
// - gradients are added to what is there, unless the field says "out";
// - a null gradient is not wanted and not computed;
// - keys and values are dense: rows of one sequence lie one after the other, and no cache takes part;
// - where a function has a kink (a clamp), the gradient at it is that of the inside, as in PyTorch; the choice of
//   experts is taken as constant.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include "ops/ops.h"

namespace gptoss {

/// Weights [rows, cols] in double, row by row; of experts, one matrix after the other.
struct DoubleMatrix {
  int64_t rows = 0;  // per expert
  int64_t cols = 0;
  const double* data = nullptr;
};

/// In float any WeightMatrix: also a frozen one of MXFP4, BF16 or Q8_0, in row-major or packed layout.
template <typename T>
using MatrixOf = std::conditional_t<std::is_same_v<T, double>, DoubleMatrix, WeightMatrix>;

/// An adapter of low rank beside a frozen matrix W (Hu et al., arXiv 2106.09685): y = W x + bias + scale * b (a x). Of
/// experts, one pair for each.
template <typename T>
struct LowRank {
  int64_t rank = 0;      // 0: none
  T scale = 0;           // alpha / rank
  const T* a = nullptr;  // [rank, cols of W], per expert
  const T* b = nullptr;  // [rows of W, rank], per expert
};

/// Where the gradients of an adapter are added; null: not wanted.
template <typename T>
struct LowRankGradient {
  T* da = nullptr;
  T* db = nullptr;
};

template <typename T>
struct EmbedTrainArgs {
  MatrixOf<T> table;                // [V, H]
  std::span<const int32_t> tokens;  // [n]
  T* x;                             // out [n, H]
};

template <typename T>
struct RmsNormTrainArgs {
  const T* x;      // [n, width]
  const T* scale;  // [width]
  T eps;
  int64_t n, width;
  T* y;  // out [n, width]; not x
};

template <typename T>
struct LinearTrainArgs {
  const T* x;  // [n, weight.cols]
  int64_t n;
  MatrixOf<T> weight;
  const T* bias;    // [weight.rows] or null
  bool accumulate;  // add to y instead of overwriting it
  T* y;             // in/out [n, weight.rows]
  LowRank<T> adapter = {};
};

/// Widths of attention. A row of q, k and v together has (heads + 2 kv_heads) * head_dim values.
struct HeadShape {
  int num_heads, num_kv_heads, head_dim;
  int64_t q_size() const { return static_cast<int64_t>(num_heads) * head_dim; }
  int64_t kv_size() const { return static_cast<int64_t>(num_kv_heads) * head_dim; }
  int64_t qkv_size() const { return q_size() + 2 * kv_size(); }
};

template <typename T>
struct QkvRopeTrainArgs {
  const T* x;  // [n, H], normed
  int64_t n;
  MatrixOf<T> weight;  // [qkv_size, H]
  const T* bias;       // [qkv_size]
  HeadShape heads;
  const T* cos;  // [n, head_dim / 2], concentration included
  const T* sin;
  T* qkv;  // out [n, qkv_size], q and k rotated
  LowRank<T> adapter = {};
};

template <typename T>
struct AttentionTrainArgs {
  const T* qkv;  // [n, qkv_size]
  HeadShape heads;
  std::span<const SequenceSpan> sequences;  // first_position is 0: a sequence is there as a whole
  int window;                               // as AttentionArgs
  const T* sinks;                           // [heads]
  T* out;                                   // out [n, q_size]
  T* log_sum_exp;                           // out [n, heads]: of the scores and the sink
};

/// Chooses experts; `routing` receives the choice and the grouping, `weight` what Routing::weight holds elsewhere.
template <typename T>
struct RouterTrainArgs {
  const T* x;  // [n, H], normed
  MatrixOf<T> weight_matrix;
  const T* bias;     // [E]
  T* logits;         // out [n, E]
  T* weight;         // out [n, k]
  Routing* routing;  // out, but for its `weight`
  LowRank<T> adapter = {};
};

template <typename T>
struct MoeGateUpTrainArgs {
  const T* x;  // [n, H], normed
  MatrixOf<T> weight;
  const T* bias;  // [E, 2I]
  T limit;
  const Routing* routing;
  T* pre;  // out [n * k, 2I], grouped rows: gate and up before the clamps
  T* h;    // out [n * k, I]
  LowRank<T> adapter = {};
};

template <typename T>
struct MoeDownTrainArgs {
  const T* h;  // [n * k, I], grouped rows
  MatrixOf<T> weight;
  const T* bias;  // [E, H]
  const Routing* routing;
  const T* routing_weight;  // [n, k]
  T* x;                     // in/out [n, H]
  LowRank<T> adapter = {};
};

template <typename T>
struct EmbedBackwardArgs {
  std::span<const int32_t> tokens;  // [n]
  int64_t width;
  const T* dx;  // [n, width]
  T* dtable;    // [V, width]
};

template <typename T>
struct RmsNormBackwardArgs {
  const T* x;  // [n, width], the op's input
  const T* scale;
  T eps;
  int64_t n, width;
  const T* dy;  // [n, width]
  T* dx;        // [n, width]
  T* dscale;    // [width] or null
};

template <typename T>
struct LinearBackwardArgs {
  const T* x;  // [n, weight.cols]
  int64_t n;
  MatrixOf<T> weight;
  const T* dy;  // [n, weight.rows]
  T* dx;        // [n, weight.cols] or null
  T* dweight;   // [weight.rows, weight.cols] or null
  T* dbias;     // [weight.rows] or null
  LowRank<T> adapter = {};
  LowRankGradient<T> adapter_gradient = {};
};

template <typename T>
struct QkvRopeBackwardArgs {
  const T* x;  // [n, H], normed
  int64_t n;
  MatrixOf<T> weight;
  HeadShape heads;
  const T* cos;
  const T* sin;
  T* dqkv;     // in [n, qkv_size]; is rotated back in place
  T* dx;       // [n, H]
  T* dweight;  // or null
  T* dbias;    // or null
  LowRank<T> adapter = {};
  LowRankGradient<T> adapter_gradient = {};
};

/// Probabilities are computed anew from log_sum_exp, a row at a time: memory is linear in the length.
template <typename T>
struct AttentionBackwardArgs {
  const T* qkv;  // [n, qkv_size]
  HeadShape heads;
  std::span<const SequenceSpan> sequences;
  int window;
  const T* sinks;
  const T* out;          // [n, q_size]
  const T* log_sum_exp;  // [n, heads]
  const T* dout;         // [n, q_size]
  T* dqkv;               // out [n, qkv_size], of the rotated q and k
  T* dsinks;             // [heads] or null
};

/// Through the softmax over the chosen experts; other logits have no influence on the weights, only on the balance
/// loss.
template <typename T>
struct RouterBackwardArgs {
  const T* x;  // [n, H], normed
  MatrixOf<T> weight_matrix;
  const Routing* routing;
  const T* weight;   // [n, k]
  const T* dweight;  // [n, k]
  T* dx;             // [n, H]
  T* dmatrix;        // [E, H] or null
  T* dbias;          // [E] or null
  LowRank<T> adapter = {};
  LowRankGradient<T> adapter_gradient = {};
  const T* logits = nullptr;  // [n, E], read where `balance` is not 0
  double balance = 0;         // factor of ops/balance_loss.h, whose gradient is added
};

template <typename T>
struct MoeGateUpBackwardArgs {
  const T* x;  // [n, H], normed
  MatrixOf<T> weight;
  T limit;
  const Routing* routing;
  T* pre;       // in [n * k, 2I]; its gradient takes its place
  const T* dh;  // [n * k, I]
  T* dx;        // [n, H]
  T* dweight;   // [E, 2I, H] or null
  T* dbias;     // [E, 2I] or null
  LowRank<T> adapter = {};
  LowRankGradient<T> adapter_gradient = {};
};

template <typename T>
struct MoeDownBackwardArgs {
  const T* h;  // [n * k, I]
  MatrixOf<T> weight;
  const T* bias;
  const Routing* routing;
  const T* routing_weight;  // [n, k]
  const T* dx;              // [n, H] of the residual stream, which passes unchanged
  T* dh;                    // out [n * k, I]
  T* drouting_weight;       // out [n, k]
  T* dweight;               // [E, H, I] or null
  T* dbias;                 // [E, H] or null
  LowRank<T> adapter = {};
  LowRankGradient<T> adapter_gradient = {};
};

/// Unembedding, softmax and cross-entropy together, a few rows at a time: all logits never exist at once.
/// The loss is the sum over rows of factor[r] * -log p(target[r]).
template <typename T>
struct CrossEntropyArgs {
  const T* hidden;  // [n, H], final-normed
  int64_t n;
  MatrixOf<T> weight;               // [V, H]
  std::span<const int32_t> target;  // [n]
  std::span<const T> factor;        // [n]
  T* row_loss;                      // out [n]: -log p(target), without the factor
  T* dhidden;                       // [n, H]; null: only the loss
  T* dweight;                       // [V, H] or null
  LowRank<T> adapter = {};
  LowRankGradient<T> adapter_gradient = {};
};

template <typename T>
struct TrainingOps {
  std::string_view name;  // e.g. "reference"
  /// Products round both operands to BF16, and sum in float.
  bool rounds_products = false;
  void (*embed)(ExecContext&, const EmbedTrainArgs<T>&) = nullptr;
  void (*rms_norm)(ExecContext&, const RmsNormTrainArgs<T>&) = nullptr;
  void (*linear)(ExecContext&, const LinearTrainArgs<T>&) = nullptr;
  void (*qkv_rope)(ExecContext&, const QkvRopeTrainArgs<T>&) = nullptr;
  void (*attention)(ExecContext&, const AttentionTrainArgs<T>&) = nullptr;
  void (*router)(ExecContext&, const RouterTrainArgs<T>&) = nullptr;
  void (*moe_gate_up)(ExecContext&, const MoeGateUpTrainArgs<T>&) = nullptr;
  void (*moe_down)(ExecContext&, const MoeDownTrainArgs<T>&) = nullptr;

  void (*embed_backward)(ExecContext&, const EmbedBackwardArgs<T>&) = nullptr;
  void (*rms_norm_backward)(ExecContext&, const RmsNormBackwardArgs<T>&) = nullptr;
  void (*linear_backward)(ExecContext&, const LinearBackwardArgs<T>&) = nullptr;
  void (*qkv_rope_backward)(ExecContext&, const QkvRopeBackwardArgs<T>&) = nullptr;
  void (*attention_backward)(ExecContext&, const AttentionBackwardArgs<T>&) = nullptr;
  void (*router_backward)(ExecContext&, const RouterBackwardArgs<T>&) = nullptr;
  void (*moe_gate_up_backward)(ExecContext&, const MoeGateUpBackwardArgs<T>&) = nullptr;
  void (*moe_down_backward)(ExecContext&, const MoeDownBackwardArgs<T>&) = nullptr;
  void (*cross_entropy)(ExecContext&, const CrossEntropyArgs<T>&) = nullptr;
};

/// The plain implementation, one thread, any dtype of weights. T: float or double.
template <typename T>
const TrainingOps<T>& ReferenceTrainingOps();

}  // namespace gptoss
