// The tables of training ops of all CPU targets: which kernel computes what, and where the pieces between them lie.
#include "backends/cpu/training/training_ops.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "backends/cpu/cpu_ops.h"
#include "backends/cpu/training/training_kernels.h"
#include "backends/registry.h"
#include "ops/balance_loss.h"

namespace gptoss {
namespace cpu {
namespace {

/// Bytes of logits that exist at once: 1024 rows of a vocabulary of 4096.
constexpr int64_t kLogitBytes = int64_t{16} << 20;
constexpr int64_t kMinLogitRows = 64, kMaxLogitRows = 1024;

std::array<int32_t, 2> OneGroup(int64_t n) { return {0, static_cast<int32_t>(n)}; }

template <const TrainingKernels& kTrain>
void Embed(ExecContext& context, const EmbedTrainArgs<float>& args) {
  kTrain.embed_lookup(context, {args.table, args.tokens, args.x});
}

template <const TrainingKernels& kTrain>
void RmsNorm(ExecContext& context, const RmsNormTrainArgs<float>& args) {
  kTrain.rms_norm(context, {args.x, args.scale, args.eps, args.n, args.width, args.y});
}

WeightMatrix Matrix(const float* values, int64_t rows, int64_t cols) {
  return {.dtype = DType::kF32, .rows = rows, .cols = cols, .data = reinterpret_cast<const std::byte*>(values)};
}

void Scale(float* values, int64_t count, float factor) {
  for (int64_t i = 0; i < count; ++i) values[i] *= factor;
}

/// scale * a x for all rows of the groups: [offsets.back(), rank], in scratch memory.
template <const TrainingKernels& kTrain>
float* LowRankInner(ExecContext& context, const LowRank<float>& adapter, std::span<const int32_t> offsets,
                    const float* x, const int32_t* gather, int64_t cols) {
  const int64_t count = offsets.back() * adapter.rank;
  float* inner = context.scratch.Allocate<float>(static_cast<size_t>(count));
  kTrain.forward(context, {x, gather, offsets, Matrix(adapter.a, adapter.rank, cols), nullptr, false, inner});
  Scale(inner, count, adapter.scale);
  return inner;
}

/// y[r] += scale * b (a x[gather[r]]).
template <const TrainingKernels& kTrain>
void AddLowRank(ExecContext& context, const LowRank<float>& adapter, std::span<const int32_t> offsets, const float* x,
                const int32_t* gather, int64_t cols, int64_t rows, float* y) {
  if (adapter.rank == 0) return;
  const ScratchFrame frame(context.scratch);
  const float* inner = LowRankInner<kTrain>(context, adapter, offsets, x, gather, cols);
  kTrain.forward(context, {inner, nullptr, offsets, Matrix(adapter.b, rows, adapter.rank), nullptr, true, y});
}

/// What an adapter's backward pass reads and writes.
struct LowRankRows {
  std::span<const int32_t> offsets;
  const float* x;
  const int32_t* x_gather;
  int64_t cols;
  const float* dy;
  const int32_t* dy_gather;
  int64_t rows;
  const float* factor;  // of the adapter's own gradients, not of dx
  float* dx;            // [offsets.back(), cols] or null
};

template <const TrainingKernels& kTrain>
void LowRankBackward(ExecContext& context, const LowRank<float>& adapter, const LowRankGradient<float>& gradient,
                     const LowRankRows& p) {
  if (adapter.rank == 0) return;
  const ScratchFrame frame(context.scratch);
  const int64_t rank = adapter.rank, count = p.offsets.back() * rank;
  float* back = context.scratch.Allocate<float>(static_cast<size_t>(count));
  kTrain.input_gradient(context, {p.dy, p.dy_gather, p.offsets, Matrix(adapter.b, p.rows, rank), false, back});
  Scale(back, count, adapter.scale);
  if (p.dx != nullptr) {
    kTrain.input_gradient(context, {back, nullptr, p.offsets, Matrix(adapter.a, rank, p.cols), true, p.dx});
  }
  if (gradient.db != nullptr) {
    const float* inner = LowRankInner<kTrain>(context, adapter, p.offsets, p.x, p.x_gather, p.cols);
    kTrain.weight_gradient(context,
                           {p.dy, p.dy_gather, p.factor, inner, nullptr, p.offsets, p.rows, rank, gradient.db});
  }
  if (gradient.da != nullptr) {
    kTrain.weight_gradient(context, {back, nullptr, p.factor, p.x, p.x_gather, p.offsets, rank, p.cols, gradient.da});
  }
}

template <const TrainingKernels& kTrain>
void Linear(ExecContext& context, const LinearTrainArgs<float>& args) {
  const auto offsets = OneGroup(args.n);
  kTrain.forward(context, {args.x, nullptr, offsets, args.weight, args.bias, args.accumulate, args.y});
  AddLowRank<kTrain>(context, args.adapter, offsets, args.x, nullptr, args.weight.cols, args.weight.rows, args.y);
}

template <const TrainingKernels& kTrain>
void LinearBackward(ExecContext& context, const LinearBackwardArgs<float>& args) {
  const auto offsets = OneGroup(args.n);
  if (args.dx != nullptr) kTrain.input_gradient(context, {args.dy, nullptr, offsets, args.weight, true, args.dx});
  if (args.dweight != nullptr) {
    kTrain.weight_gradient(context, {args.dy, nullptr, nullptr, args.x, nullptr, offsets, args.weight.rows,
                                     args.weight.cols, args.dweight});
  }
  if (args.dbias != nullptr) {
    kTrain.bias_gradient(context, {args.dy, nullptr, nullptr, offsets, args.weight.rows, args.dbias});
  }
  LowRankBackward<kTrain>(
      context, args.adapter, args.adapter_gradient,
      {offsets, args.x, nullptr, args.weight.cols, args.dy, nullptr, args.weight.rows, nullptr, args.dx});
}

template <const TrainingKernels& kTrain>
void QkvRope(ExecContext& context, const QkvRopeTrainArgs<float>& args) {
  Linear<kTrain>(context, {args.x, args.n, args.weight, args.bias, false, args.qkv, args.adapter});
  kTrain.rotate(context, args.heads, args.n, args.cos, args.sin, 1.0f, args.qkv);
}

template <const TrainingKernels& kTrain>
void QkvRopeBackward(ExecContext& context, const QkvRopeBackwardArgs<float>& args) {
  kTrain.rotate(context, args.heads, args.n, args.cos, args.sin, -1.0f, args.dqkv);
  LinearBackward<kTrain>(context, {args.x, args.n, args.weight, args.dqkv, args.dx, args.dweight, args.dbias,
                                   args.adapter, args.adapter_gradient});
}

template <const TrainingKernels& kTrain>
void Router(ExecContext& context, const RouterTrainArgs<float>& args) {
  Routing& routing = *args.routing;
  const int64_t k = routing.experts_per_token, experts = routing.num_experts;
  const auto offsets = OneGroup(routing.n);
  const int64_t cols = args.weight_matrix.cols;
  kTrain.router_forward(context, {args.x, nullptr, offsets, args.weight_matrix, args.bias, false, args.logits});
  AddLowRank<kTrain>(context, args.adapter, offsets, args.x, nullptr, cols, experts, args.logits);
  for (int64_t t = 0; t < routing.n; ++t) {
    ChooseExperts(args.logits + t * experts, static_cast<int>(experts), static_cast<int>(k),
                  routing.expert.data() + t * k, args.weight + t * k);
  }
  GroupByExpert(&routing);
}

template <const TrainingKernels& kTrain>
void RouterBackward(ExecContext& context, const RouterBackwardArgs<float>& args) {
  const ScratchFrame frame(context.scratch);
  const Routing& routing = *args.routing;
  const int64_t k = routing.experts_per_token, experts = routing.num_experts;
  float* dlogits = context.scratch.Allocate<float>(static_cast<size_t>(routing.n * experts));
  std::fill_n(dlogits, routing.n * experts, 0.0f);
  for (int64_t t = 0; t < routing.n; ++t) {
    const float *weight = args.weight + t * k, *dweight = args.dweight + t * k;
    float mean = 0.0f;
    for (int64_t j = 0; j < k; ++j) mean += weight[j] * dweight[j];
    for (int64_t j = 0; j < k; ++j) {
      dlogits[t * experts + routing.expert[static_cast<size_t>(t * k + j)]] = weight[j] * (dweight[j] - mean);
    }
  }
  AddBalanceGradient(routing, args.logits, args.balance, dlogits);
  LinearBackward<kTrain>(context, {args.x, routing.n, args.weight_matrix, dlogits, args.dx, args.dmatrix, args.dbias,
                                   args.adapter, args.adapter_gradient});
}

template <const TrainingKernels& kTrain>
void MoeGateUp(ExecContext& context, const MoeGateUpTrainArgs<float>& args) {
  const Routing& routing = *args.routing;
  kTrain.forward(
      context, {args.x, routing.grouped_token.data(), routing.expert_offsets, args.weight, args.bias, false, args.pre});
  AddLowRank<kTrain>(context, args.adapter, routing.expert_offsets, args.x, routing.grouped_token.data(),
                     args.weight.cols, args.weight.rows, args.pre);
  kTrain.swiglu(context, args.pre, routing.n * routing.experts_per_token, args.weight.rows / 2, args.limit, args.h);
}

template <const TrainingKernels& kTrain>
void MoeGateUpBackward(ExecContext& context, const MoeGateUpBackwardArgs<float>& args) {
  const ScratchFrame frame(context.scratch);
  const Routing& routing = *args.routing;
  const int64_t choices = routing.n * routing.experts_per_token, rows = args.weight.rows, cols = args.weight.cols;
  kTrain.swiglu_backward(context, args.dh, choices, rows / 2, args.limit, args.pre);
  float* dx = context.scratch.Allocate<float>(static_cast<size_t>(choices * cols));
  kTrain.input_gradient(context, {args.pre, nullptr, routing.expert_offsets, args.weight, false, dx});
  LowRankBackward<kTrain>(
      context, args.adapter, args.adapter_gradient,
      {routing.expert_offsets, args.x, routing.grouped_token.data(), cols, args.pre, nullptr, rows, nullptr, dx});
  kTrain.combine(context, routing, nullptr, dx, cols, args.dx);
  if (args.dweight != nullptr) {
    kTrain.weight_gradient(context, {args.pre, nullptr, nullptr, args.x, routing.grouped_token.data(),
                                     routing.expert_offsets, rows, cols, args.dweight});
  }
  if (args.dbias != nullptr) {
    kTrain.bias_gradient(context, {args.pre, nullptr, nullptr, routing.expert_offsets, rows, args.dbias});
  }
}

template <const TrainingKernels& kTrain>
void MoeDown(ExecContext& context, const MoeDownTrainArgs<float>& args) {
  const ScratchFrame frame(context.scratch);
  const Routing& routing = *args.routing;
  const int64_t choices = routing.n * routing.experts_per_token;
  float* y = context.scratch.Allocate<float>(static_cast<size_t>(choices * args.weight.rows));
  kTrain.forward(context, {args.h, nullptr, routing.expert_offsets, args.weight, args.bias, false, y});
  AddLowRank<kTrain>(context, args.adapter, routing.expert_offsets, args.h, nullptr, args.weight.cols, args.weight.rows,
                     y);
  kTrain.combine(context, routing, args.routing_weight, y, args.weight.rows, args.x);
}

template <const TrainingKernels& kTrain>
void MoeDownBackward(ExecContext& context, const MoeDownBackwardArgs<float>& args) {
  const ScratchFrame frame(context.scratch);
  const Routing& routing = *args.routing;
  const int64_t choices = routing.n * routing.experts_per_token, rows = args.weight.rows, cols = args.weight.cols;
  const int32_t* token = routing.grouped_token.data();
  kTrain.input_gradient(context, {args.dx, token, routing.expert_offsets, args.weight, false, args.dh});
  float* factor = context.scratch.Allocate<float>(static_cast<size_t>(choices));
  for (int64_t i = 0; i < choices; ++i) {
    factor[routing.grouped_row[static_cast<size_t>(i)]] = args.routing_weight[i];
  }
  LowRankBackward<kTrain>(context, args.adapter, args.adapter_gradient,
                          {routing.expert_offsets, args.h, nullptr, cols, args.dx, token, rows, factor, args.dh});
  kTrain.weigh_down_gradient(context, args);
  if (args.dweight != nullptr) {
    kTrain.weight_gradient(context,
                           {args.dx, token, factor, args.h, nullptr, routing.expert_offsets, rows, cols, args.dweight});
  }
  if (args.dbias != nullptr) {
    kTrain.bias_gradient(context, {args.dx, token, factor, routing.expert_offsets, rows, args.dbias});
  }
}

template <const TrainingKernels& kTrain>
void EmbedBackward(ExecContext& context, const EmbedBackwardArgs<float>& args) {
  kTrain.add_rows(context, args.tokens, args.width, args.dx, args.dtable);
}

template <const TrainingKernels& kTrain>
void CrossEntropy(ExecContext& context, const CrossEntropyArgs<float>& args) {
  const ScratchFrame frame(context.scratch);
  const int64_t vocab = args.weight.rows, width = args.weight.cols;
  const int64_t fitting = kLogitBytes / (vocab * static_cast<int64_t>(sizeof(float)));
  const int64_t most = std::min(args.n, std::clamp(fitting, kMinLogitRows, kMaxLogitRows));
  const bool gradient = args.dhidden != nullptr || args.dweight != nullptr || args.adapter_gradient.db != nullptr;
  float* logits = context.scratch.Allocate<float>(static_cast<size_t>(most * vocab));
  for (int64_t first = 0; first < args.n; first += most) {
    const int64_t count = std::min(most, args.n - first);
    const float* hidden = args.hidden + first * width;
    Linear<kTrain>(context, {hidden, count, args.weight, nullptr, false, logits, args.adapter});
    kTrain.softmax_loss(context, logits, count, vocab, args.target.data() + first, args.factor.data() + first, gradient,
                        args.row_loss + first);
    if (!gradient) continue;
    float* dhidden = args.dhidden == nullptr ? nullptr : args.dhidden + first * width;
    LinearBackward<kTrain>(context, {hidden, count, args.weight, logits, dhidden, args.dweight, nullptr, args.adapter,
                                     args.adapter_gradient});
  }
}

/// `op`, its time added to the profile under `stage`.
#define GPTOSS_CPU_TIMED(Args, op, stage)             \
  [](ExecContext& context, const Args<float>& args) { \
    const ProfileScope scope(context, stage);         \
    op(context, args);                                \
  }

template <const TrainingKernels& kTrain>
constexpr TrainingOps<float> MakeTrainingOps(std::string_view name) {
  return {
      .name = name,
      .rounds_products = kTrain.rounds_products,
      .embed = GPTOSS_CPU_TIMED(EmbedTrainArgs, Embed<kTrain>, "embedding"),
      .rms_norm = GPTOSS_CPU_TIMED(RmsNormTrainArgs, RmsNorm<kTrain>, "norms"),
      .linear = GPTOSS_CPU_TIMED(LinearTrainArgs, Linear<kTrain>, "attention out"),
      .qkv_rope = GPTOSS_CPU_TIMED(QkvRopeTrainArgs, QkvRope<kTrain>, "qkv"),
      .attention = GPTOSS_CPU_TIMED(AttentionTrainArgs, kTrain.attention, "attention"),
      .router = GPTOSS_CPU_TIMED(RouterTrainArgs, Router<kTrain>, "router"),
      .moe_gate_up = GPTOSS_CPU_TIMED(MoeGateUpTrainArgs, MoeGateUp<kTrain>, "experts gate and up"),
      .moe_down = GPTOSS_CPU_TIMED(MoeDownTrainArgs, MoeDown<kTrain>, "experts down"),
      .embed_backward = GPTOSS_CPU_TIMED(EmbedBackwardArgs, EmbedBackward<kTrain>, "embedding, backward"),
      .rms_norm_backward = GPTOSS_CPU_TIMED(RmsNormBackwardArgs, kTrain.rms_norm_backward, "norms, backward"),
      .linear_backward = GPTOSS_CPU_TIMED(LinearBackwardArgs, LinearBackward<kTrain>, "attention out, backward"),
      .qkv_rope_backward = GPTOSS_CPU_TIMED(QkvRopeBackwardArgs, QkvRopeBackward<kTrain>, "qkv, backward"),
      .attention_backward = GPTOSS_CPU_TIMED(AttentionBackwardArgs, kTrain.attention_backward, "attention, backward"),
      .router_backward = GPTOSS_CPU_TIMED(RouterBackwardArgs, RouterBackward<kTrain>, "router, backward"),
      .moe_gate_up_backward =
          GPTOSS_CPU_TIMED(MoeGateUpBackwardArgs, MoeGateUpBackward<kTrain>, "experts gate and up, backward"),
      .moe_down_backward = GPTOSS_CPU_TIMED(MoeDownBackwardArgs, MoeDownBackward<kTrain>, "experts down, backward"),
      .cross_entropy = GPTOSS_CPU_TIMED(CrossEntropyArgs, CrossEntropy<kTrain>, "unembedding and loss")};
}

#define GPTOSS_CPU_TRAINING_TARGET(target, label)                                                    \
  constexpr TrainingKernels kTrain_##target = {.embed_lookup = target::EmbedLookup,                  \
                                               .rms_norm = target::RmsNorm,                          \
                                               .forward = target::TrainForward,                      \
                                               .router_forward = target::TrainForward,               \
                                               .input_gradient = target::InputGradient,              \
                                               .weight_gradient = target::WeightGradient,            \
                                               .bias_gradient = target::BiasGradient,                \
                                               .attention = target::TrainAttention,                  \
                                               .attention_backward = target::TrainAttentionBackward, \
                                               .rms_norm_backward = target::RmsNormBackward,         \
                                               .rotate = target::RotateRows,                         \
                                               .swiglu = target::SwigluRows,                         \
                                               .swiglu_backward = target::SwigluBackwardRows,        \
                                               .combine = target::CombineRows,                       \
                                               .weigh_down_gradient = target::WeighDownGradient,     \
                                               .softmax_loss = target::SoftmaxLossRows,              \
                                               .add_rows = target::AddRows};                         \
  constexpr TrainingOps<float> kOps_##target = MakeTrainingOps<kTrain_##target>(label);

#if HWY_TARGETS & HWY_SCALAR
GPTOSS_CPU_TRAINING_TARGET(N_SCALAR, "portable")
#endif
#if HWY_TARGETS & HWY_EMU128
GPTOSS_CPU_TRAINING_TARGET(N_EMU128, "portable")
#endif
#if HWY_TARGETS & HWY_NEON
GPTOSS_CPU_TRAINING_TARGET(N_NEON, "neon")
#endif
#if HWY_TARGETS & HWY_SSE4
GPTOSS_CPU_TRAINING_TARGET(N_SSE4, "sse4")
#endif
#if HWY_TARGETS & HWY_AVX2
GPTOSS_CPU_TRAINING_TARGET(N_AVX2, "avx2")
#endif
#if HWY_TARGETS & HWY_AVX3
GPTOSS_CPU_TRAINING_TARGET(N_AVX3, "avx512")
#endif

/// The same with products of BF16.
constexpr TrainingKernels WithProducts(TrainingKernels kernels, void (*forward)(ExecContext&, const TrainForwardArgs&),
                                       void (*input_gradient)(ExecContext&, const InputGradientArgs&),
                                       void (*weight_gradient)(ExecContext&, const WeightGradientArgs&)) {
  kernels.rounds_products = true;
  kernels.forward = forward;
  kernels.input_gradient = input_gradient;
  kernels.weight_gradient = weight_gradient;
  return kernels;
}

#if (HWY_TARGETS & HWY_AVX3) && HWY_ARCH_X86_64
constexpr TrainingKernels kTrain_amx =
    WithProducts(kTrain_N_AVX3, N_AVX3::TrainForwardAmx, N_AVX3::InputGradientAmx, N_AVX3::WeightGradientAmx);
constexpr TrainingOps<float> kOps_amx = MakeTrainingOps<kTrain_amx>("amx");
constexpr TrainingKernels kTrain_avx512bf16 =
    WithProducts(kTrain_N_AVX3, N_AVX3::TrainForwardPairs, N_AVX3::InputGradientPairs, N_AVX3::WeightGradientPairs);
constexpr TrainingOps<float> kOps_avx512bf16 = MakeTrainingOps<kTrain_avx512bf16>("avx512bf16");
#endif

/// Emulated tiles, by the target that computes them.
struct EmulatedAmx {
  std::string_view target;
  const TrainingOps<float>* ops;
};

#define GPTOSS_CPU_EMULATED_AMX_TRAINING(target)                                                       \
  constexpr TrainingKernels kTrain_amx_##target =                                                      \
      WithProducts(kTrain_##target, target::TrainForwardAmxEmulated, target::InputGradientAmxEmulated, \
                   target::WeightGradientAmxEmulated);                                                 \
  constexpr TrainingOps<float> kOps_amx_##target = MakeTrainingOps<kTrain_amx_##target>("emulated-amx");

#if HWY_TARGETS & HWY_NEON
GPTOSS_CPU_EMULATED_AMX_TRAINING(N_NEON)
#endif
#if HWY_TARGETS & HWY_SSE4
GPTOSS_CPU_EMULATED_AMX_TRAINING(N_SSE4)
#endif
#if HWY_TARGETS & HWY_AVX2
GPTOSS_CPU_EMULATED_AMX_TRAINING(N_AVX2)
#endif
#if HWY_TARGETS & HWY_AVX3
GPTOSS_CPU_EMULATED_AMX_TRAINING(N_AVX3)
#endif

constexpr EmulatedAmx kEmulatedAmx[] = {
#if HWY_TARGETS & HWY_NEON
    {"neon", &kOps_amx_N_NEON},
#endif
#if HWY_TARGETS & HWY_SSE4
    {"sse4", &kOps_amx_N_SSE4},
#endif
#if HWY_TARGETS & HWY_AVX2
    {"avx2", &kOps_amx_N_AVX2},
#endif
#if HWY_TARGETS & HWY_AVX3
    {"avx512", &kOps_amx_N_AVX3},
#endif
};

const TrainingOps<float>* const kTables[] = {
#if HWY_TARGETS & HWY_SCALAR
    &kOps_N_SCALAR,
#endif
#if HWY_TARGETS & HWY_EMU128
    &kOps_N_EMU128,
#endif
#if HWY_TARGETS & HWY_NEON
    &kOps_N_NEON,
#endif
#if HWY_TARGETS & HWY_SSE4
    &kOps_N_SSE4,
#endif
#if HWY_TARGETS & HWY_AVX2
    &kOps_N_AVX2,
#endif
#if HWY_TARGETS & HWY_AVX3
    &kOps_N_AVX3,
#if HWY_ARCH_X86_64
    &kOps_avx512bf16, &kOps_amx,
#endif
#endif
};

}  // namespace

const TrainingOps<float>* EmulatedAmxTrainingOps(std::string_view target) {
  for (const EmulatedAmx& entry : kEmulatedAmx) {
    if (entry.target == target) return entry.ops;
  }
  return nullptr;
}

}  // namespace cpu

Result<const TrainingOps<float>*> CpuTrainingOps(const std::string& target) {
  GPTOSS_ASSIGN_OR_RETURN(const Ops* forward, CpuOps(target, Precision::kFast));
  std::string_view extends;
  for (const cpu::Target& t : cpu::Targets()) {
    if (t.name == forward->name) extends = t.extends;
  }
  for (const std::string_view name : {forward->name, extends}) {
    for (const TrainingOps<float>* table : cpu::kTables) {
      if (table->name == name) return table;
    }
  }
  return Unsupported("CPU target '" + std::string(forward->name) + "' has no kernels for training");
}

}  // namespace gptoss
