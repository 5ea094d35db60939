// The backward ops written down from the derivatives of the forward ones, in the same order of loops.
#include <algorithm>
#include <cmath>

#include "ops/balance_loss.h"
#include "ops/reference/training_ops.h"

namespace gptoss {
namespace reference_training {
namespace {

/// Rows of which the logits exist at once: 16 rows of the released models are 13 MB of float.
constexpr int64_t kLogitRows = 16;

template <typename T>
void EmbedBackward(ExecContext&, const EmbedBackwardArgs<T>& args) {
  for (size_t t = 0; t < args.tokens.size(); ++t) {
    AddScaled(T(1), args.dx + static_cast<int64_t>(t) * args.width, args.width,
              args.dtable + args.tokens[t] * args.width);
  }
}

/// y = x r g with r = (mean(x^2) + eps)^-1/2, so dx = r g dy - x r^3 / width * sum(g dy x).
template <typename T>
void RmsNormBackward(ExecContext&, const RmsNormBackwardArgs<T>& args) {
  for (int64_t t = 0; t < args.n; ++t) {
    const T *x = args.x + t * args.width, *dy = args.dy + t * args.width;
    T* dx = args.dx + t * args.width;
    const T width = static_cast<T>(args.width);
    const T r = T(1) / std::sqrt(Dot(x, x, args.width) / width + args.eps);
    T sum = 0;
    for (int64_t i = 0; i < args.width; ++i) sum += args.scale[i] * dy[i] * x[i];
    const T along = r * r * r / width * sum;
    for (int64_t i = 0; i < args.width; ++i) dx[i] += r * args.scale[i] * dy[i] - along * x[i];
    if (args.dscale == nullptr) continue;
    for (int64_t i = 0; i < args.width; ++i) args.dscale[i] += dy[i] * x[i] * r;
  }
}

template <typename T>
void LinearBackward(ExecContext&, const LinearBackwardArgs<T>& args) {
  RowReader<T> reader(args.weight);
  const int64_t rows = args.weight.rows, cols = args.weight.cols;
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = args.dx != nullptr ? reader.Row(r) : nullptr;
    for (int64_t t = 0; t < args.n; ++t) {
      const T dy = args.dy[t * rows + r];
      if (args.dx != nullptr) AddScaled(dy, row, cols, args.dx + t * cols);
      if (args.dweight != nullptr) AddScaled(dy, args.x + t * cols, cols, args.dweight + r * cols);
      if (args.dbias != nullptr) args.dbias[r] += dy;
    }
  }
  const std::array<int32_t, 2> all = {0, static_cast<int32_t>(args.n)};
  LowRankBackward<T>(args.adapter, args.adapter_gradient,
                     {all, args.x, nullptr, cols, args.dy, nullptr, rows, nullptr, args.dx, nullptr});
}

/// The gradient turns back by the angle by which q and k were turned; cos and sin carry the concentration.
template <typename T>
void QkvRopeBackward(ExecContext& context, const QkvRopeBackwardArgs<T>& args) {
  const HeadShape& s = args.heads;
  const int half = s.head_dim / 2;
  for (int64_t t = 0; t < args.n; ++t) {
    const T *cos = args.cos + t * half, *sin = args.sin + t * half;
    for (int h = 0; h < s.num_heads + s.num_kv_heads; ++h) {
      T* head = args.dqkv + t * s.qkv_size() + static_cast<int64_t>(h) * s.head_dim;
      for (int i = 0; i < half; ++i) {
        const T a = head[i], b = head[i + half];
        head[i] = a * cos[i] + b * sin[i];
        head[i + half] = b * cos[i] - a * sin[i];
      }
    }
  }
  LinearBackward<T>(context, {args.x, args.n, args.weight, args.dqkv, args.dx, args.dweight, args.dbias, args.adapter,
                              args.adapter_gradient});
}

/// P = exp(s - lse), dP = dout · v, dS = P (dP - dout · out); the sink has probability but no value.
template <typename T>
void AttendHeadBackward(const AttentionBackwardArgs<T>& args, int64_t first, int64_t row, int head) {
  const HeadShape& s = args.heads;
  const int64_t width = s.qkv_size(), dim = s.head_dim;
  const int kv_head = head / (s.num_heads / s.num_kv_heads);
  const T scale = T(1) / std::sqrt(static_cast<T>(s.head_dim));
  const int64_t q_at = row * width + head * dim, k_at = s.q_size() + kv_head * dim, v_at = k_at + s.kv_size();
  const int64_t out_at = row * s.q_size() + head * dim;
  const T* dout = args.dout + out_at;
  const T lse = args.log_sum_exp[row * s.num_heads + head];
  const T mean = Dot(dout, args.out + out_at, dim);
  for (int64_t p = first; p <= row; ++p) {
    const T *k = args.qkv + p * width + k_at, *v = args.qkv + p * width + v_at;
    const T probability = std::exp(Dot(args.qkv + q_at, k, dim) * scale - lse);
    const T dscore = probability * (Dot(dout, v, dim) - mean) * scale;
    AddScaled(dscore, k, dim, args.dqkv + q_at);
    AddScaled(dscore, args.qkv + q_at, dim, args.dqkv + p * width + k_at);
    AddScaled(probability, dout, dim, args.dqkv + p * width + v_at);
  }
  if (args.dsinks != nullptr) args.dsinks[head] -= std::exp(args.sinks[head] - lse) * mean;
}

template <typename T>
void AttentionBackward(ExecContext&, const AttentionBackwardArgs<T>& args) {
  for (const SequenceSpan& span : args.sequences) {
    std::fill_n(args.dqkv + span.first_row * args.heads.qkv_size(), span.num_rows * args.heads.qkv_size(), T(0));
    for (int r = 0; r < span.num_rows; ++r) {
      const int first = args.window == 0 ? 0 : std::max(0, r - args.window + 1);
      for (int head = 0; head < args.heads.num_heads; ++head) {
        AttendHeadBackward(args, span.first_row + first, span.first_row + r, head);
      }
    }
  }
}

template <typename T>
void RouterBackward(ExecContext& context, const RouterBackwardArgs<T>& args) {
  const Routing& routing = *args.routing;
  const int64_t k = routing.experts_per_token;
  std::vector<T> dlogits(static_cast<size_t>(routing.n * routing.num_experts), T(0));
  for (int64_t t = 0; t < routing.n; ++t) {
    const T *weight = args.weight + t * k, *dweight = args.dweight + t * k;
    T mean = 0;
    for (int64_t j = 0; j < k; ++j) mean += weight[j] * dweight[j];
    for (int64_t j = 0; j < k; ++j) {
      dlogits[static_cast<size_t>(t * routing.num_experts + routing.expert[static_cast<size_t>(t * k + j)])] =
          weight[j] * (dweight[j] - mean);
    }
  }
  AddBalanceGradient(routing, args.logits, args.balance, dlogits.data());
  LinearBackward<T>(context, {args.x, routing.n, args.weight_matrix, dlogits.data(), args.dx, args.dmatrix, args.dbias,
                              args.adapter, args.adapter_gradient});
}

/// Turns dh of one grouped row and its pre-activations into the gradient of the latter, in place.
template <typename T>
void SwigluBackward(const T* dh, int64_t width, T limit, T* pre) {
  const T alpha = static_cast<T>(kSwigluAlpha);
  for (int64_t i = 0; i < width; ++i) {
    const T gate_in = pre[2 * i], up_in = pre[2 * i + 1];
    const T gate = std::min(gate_in, limit), up = std::clamp(up_in, -limit, limit);
    const T sigmoid = T(1) / (T(1) + std::exp(-alpha * gate));
    const T dgate = sigmoid * (T(1) + alpha * gate * (T(1) - sigmoid)) * (up + T(1));
    pre[2 * i] = gate_in <= limit ? dh[i] * dgate : T(0);
    pre[2 * i + 1] = up_in >= -limit && up_in <= limit ? dh[i] * gate * sigmoid : T(0);
  }
}

template <typename T>
void MoeGateUpBackward(ExecContext&, const MoeGateUpBackwardArgs<T>& args) {
  const Routing& routing = *args.routing;
  RowReader<T> reader(args.weight);
  const int64_t rows = args.weight.rows, cols = args.weight.cols, width = rows / 2;
  for (int64_t r = 0; r < routing.n * routing.experts_per_token; ++r) {
    SwigluBackward(args.dh + r * width, width, args.limit, args.pre + r * rows);
  }
  for (int e = 0; e < routing.num_experts; ++e) {
    const int first = routing.expert_offsets[e], end = routing.expert_offsets[e + 1];
    for (int64_t i = 0; i < rows && first != end; ++i) {
      const int64_t w = e * rows + i;
      const T* row = reader.Row(w);
      for (int64_t r = first; r < end; ++r) {
        const int64_t token = routing.grouped_token[r];
        const T dpre = args.pre[r * rows + i];
        AddScaled(dpre, row, cols, args.dx + token * cols);
        if (args.dweight != nullptr) AddScaled(dpre, args.x + token * cols, cols, args.dweight + w * cols);
        if (args.dbias != nullptr) args.dbias[w] += dpre;
      }
    }
  }
  const int32_t* token = routing.grouped_token.data();
  LowRankBackward<T>(args.adapter, args.adapter_gradient,
                     {routing.expert_offsets, args.x, token, cols, args.pre, nullptr, rows, nullptr, args.dx, token});
}

/// With y = W h + b and x += w y: g = W^T dx gives dh = w g and dw = g · h + dx · b, without y.
template <typename T>
void MoeDownBackward(ExecContext&, const MoeDownBackwardArgs<T>& args) {
  const Routing& routing = *args.routing;
  RowReader<T> reader(args.weight);
  const int64_t rows = args.weight.rows, cols = args.weight.cols, choices = routing.n * routing.experts_per_token;
  std::vector<T> weight_of(static_cast<size_t>(choices)), from_bias(static_cast<size_t>(choices), T(0));
  for (int64_t i = 0; i < choices; ++i) {
    weight_of[static_cast<size_t>(routing.grouped_row[static_cast<size_t>(i)])] = args.routing_weight[i];
  }
  std::fill_n(args.dh, choices * cols, T(0));
  for (int e = 0; e < routing.num_experts; ++e) {
    const int first = routing.expert_offsets[e], end = routing.expert_offsets[e + 1];
    for (int64_t i = 0; i < rows && first != end; ++i) {
      const int64_t w = e * rows + i;
      const T* row = reader.Row(w);
      for (int64_t r = first; r < end; ++r) {
        const T dx = args.dx[routing.grouped_token[r] * rows + i];
        const T dy = dx * weight_of[static_cast<size_t>(r)];
        AddScaled(dx, row, cols, args.dh + r * cols);
        from_bias[static_cast<size_t>(r)] += dx * args.bias[w];
        if (args.dweight != nullptr) AddScaled(dy, args.h + r * cols, cols, args.dweight + w * cols);
        if (args.dbias != nullptr) args.dbias[w] += dy;
      }
    }
  }
  LowRankBackward<T>(args.adapter, args.adapter_gradient,
                     {routing.expert_offsets, args.h, nullptr, cols, args.dx, routing.grouped_token.data(), rows,
                      weight_of.data(), args.dh, nullptr});
  for (int64_t i = 0; i < choices; ++i) {
    const int64_t r = routing.grouped_row[static_cast<size_t>(i)];
    T* dh = args.dh + r * cols;
    args.drouting_weight[i] = Dot(dh, args.h + r * cols, cols) + from_bias[static_cast<size_t>(r)];
    for (int64_t c = 0; c < cols; ++c) dh[c] *= args.routing_weight[i];
  }
}

/// Loss of one row of logits, which become factor * (softmax - one-hot) when gradients are wanted.
template <typename T>
T SoftmaxLoss(T* logits, int64_t count, int32_t target, T factor, bool gradient) {
  const T max = *std::max_element(logits, logits + count);
  T sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += std::exp(logits[i] - max);
  const T log_sum = max + std::log(sum);
  const T loss = log_sum - logits[target];
  if (gradient) {
    for (int64_t i = 0; i < count; ++i) logits[i] = factor * std::exp(logits[i] - log_sum);
    logits[target] -= factor;
  }
  return loss;
}

template <typename T>
void CrossEntropy(ExecContext& context, const CrossEntropyArgs<T>& args) {
  const int64_t vocab = args.weight.rows, width = args.weight.cols;
  const bool gradient = args.dhidden != nullptr || args.dweight != nullptr || args.adapter_gradient.db != nullptr;
  std::vector<T> logits(static_cast<size_t>(std::min(args.n, kLogitRows) * vocab));
  for (int64_t first = 0; first < args.n; first += kLogitRows) {
    const int64_t count = std::min(kLogitRows, args.n - first);
    const T* hidden = args.hidden + first * width;
    Linear<T>(context, {hidden, count, args.weight, nullptr, false, logits.data(), args.adapter});
    for (int64_t r = 0; r < count; ++r) {
      const auto at = static_cast<size_t>(first + r);
      args.row_loss[at] = SoftmaxLoss(logits.data() + r * vocab, vocab, args.target[at], args.factor[at], gradient);
    }
    if (!gradient) continue;
    LinearBackward<T>(context, {hidden, count, args.weight, logits.data(),
                                args.dhidden == nullptr ? nullptr : args.dhidden + first * width, args.dweight, nullptr,
                                args.adapter, args.adapter_gradient});
  }
}

}  // namespace
}  // namespace reference_training

template <typename T>
const TrainingOps<T>& ReferenceTrainingOps() {
  using namespace reference_training;
  static constexpr TrainingOps<T> kOps = {.name = "reference",
                                          .embed = Embed<T>,
                                          .rms_norm = RmsNorm<T>,
                                          .linear = Linear<T>,
                                          .qkv_rope = QkvRope<T>,
                                          .attention = Attention<T>,
                                          .router = Router<T>,
                                          .moe_gate_up = MoeGateUp<T>,
                                          .moe_down = MoeDown<T>,
                                          .embed_backward = EmbedBackward<T>,
                                          .rms_norm_backward = RmsNormBackward<T>,
                                          .linear_backward = LinearBackward<T>,
                                          .qkv_rope_backward = QkvRopeBackward<T>,
                                          .attention_backward = AttentionBackward<T>,
                                          .router_backward = RouterBackward<T>,
                                          .moe_gate_up_backward = MoeGateUpBackward<T>,
                                          .moe_down_backward = MoeDownBackward<T>,
                                          .cross_entropy = CrossEntropy<T>};
  return kOps;
}
template const TrainingOps<float>& ReferenceTrainingOps<float>();
template const TrainingOps<double>& ReferenceTrainingOps<double>();

}  // namespace gptoss
