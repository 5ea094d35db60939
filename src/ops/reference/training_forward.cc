// The forward ops of training: those of reference_ops.cc, in float or double, on dense keys and values.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/reference/training_ops.h"

namespace gptoss::reference_training {

template <typename T>
void Embed(ExecContext&, const EmbedTrainArgs<T>& args) {
  RowReader<T> reader(args.table);
  const int64_t width = args.table.cols;
  for (size_t t = 0; t < args.tokens.size(); ++t) {
    std::copy_n(reader.Row(args.tokens[t]), width, args.x + static_cast<int64_t>(t) * width);
  }
}

template <typename T>
void RmsNorm(ExecContext&, const RmsNormTrainArgs<T>& args) {
  for (int64_t t = 0; t < args.n; ++t) {
    const T* x = args.x + t * args.width;
    T* y = args.y + t * args.width;
    const T scale = T(1) / std::sqrt(Dot(x, x, args.width) / static_cast<T>(args.width) + args.eps);
    for (int64_t i = 0; i < args.width; ++i) y[i] = x[i] * scale * args.scale[i];
  }
}

template <typename T>
void Linear(ExecContext&, const LinearTrainArgs<T>& args) {
  RowReader<T> reader(args.weight);
  const int64_t rows = args.weight.rows, cols = args.weight.cols;
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = reader.Row(r);
    const T bias = args.bias != nullptr ? args.bias[r] : T(0);
    for (int64_t t = 0; t < args.n; ++t) {
      const T value = Dot(row, args.x + t * cols, cols) + bias;
      T& y = args.y[t * rows + r];
      y = args.accumulate ? y + value : value;
    }
  }
  const std::array<int32_t, 2> all = {0, static_cast<int32_t>(args.n)};
  AddLowRank(args.adapter, all, args.x, nullptr, cols, rows, args.y);
}

template <typename T>
void QkvRope(ExecContext& context, const QkvRopeTrainArgs<T>& args) {
  const HeadShape& s = args.heads;
  Linear<T>(context, {args.x, args.n, args.weight, args.bias, false, args.qkv, args.adapter});
  const int half = s.head_dim / 2;
  for (int64_t t = 0; t < args.n; ++t) {
    const T *cos = args.cos + t * half, *sin = args.sin + t * half;
    for (int h = 0; h < s.num_heads + s.num_kv_heads; ++h) {
      T* head = args.qkv + t * s.qkv_size() + static_cast<int64_t>(h) * s.head_dim;
      for (int i = 0; i < half; ++i) {
        const T a = head[i], b = head[i + half];
        head[i] = a * cos[i] - b * sin[i];
        head[i + half] = b * cos[i] + a * sin[i];
      }
    }
  }
}

namespace {

/// One query head of row `row`, whose sequence's first visible row is `first`.
template <typename T>
void AttendHead(const AttentionTrainArgs<T>& args, int64_t first, int64_t row, int head, std::vector<T>* scores) {
  const HeadShape& s = args.heads;
  const int64_t width = s.qkv_size();
  const int kv_head = head / (s.num_heads / s.num_kv_heads);
  const T scale = T(1) / std::sqrt(static_cast<T>(s.head_dim));
  const T* q = args.qkv + row * width + static_cast<int64_t>(head) * s.head_dim;
  const T* k = args.qkv + s.q_size() + static_cast<int64_t>(kv_head) * s.head_dim;
  const T* v = k + s.kv_size();
  scores->resize(static_cast<size_t>(row - first + 1));
  T max = args.sinks[head];
  for (int64_t p = first; p <= row; ++p) {
    const T score = Dot(q, k + p * width, s.head_dim) * scale;
    (*scores)[static_cast<size_t>(p - first)] = score;
    max = std::max(max, score);
  }
  T denominator = std::exp(args.sinks[head] - max);
  for (T& score : *scores) denominator += score = std::exp(score - max);
  T* out = args.out + row * s.q_size() + static_cast<int64_t>(head) * s.head_dim;
  std::fill_n(out, s.head_dim, T(0));
  for (int64_t p = first; p <= row; ++p) {
    AddScaled((*scores)[static_cast<size_t>(p - first)] / denominator, v + p * width, s.head_dim, out);
  }
  args.log_sum_exp[row * s.num_heads + head] = max + std::log(denominator);
}

}  // namespace

template <typename T>
void Attention(ExecContext&, const AttentionTrainArgs<T>& args) {
  std::vector<T> scores;
  for (const SequenceSpan& span : args.sequences) {
    for (int r = 0; r < span.num_rows; ++r) {
      const int first = args.window == 0 ? 0 : std::max(0, r - args.window + 1);
      for (int head = 0; head < args.heads.num_heads; ++head) {
        AttendHead(args, span.first_row + first, span.first_row + r, head, &scores);
      }
    }
  }
}

template <typename T>
void Router(ExecContext& context, const RouterTrainArgs<T>& args) {
  Routing& routing = *args.routing;
  const int num_experts = routing.num_experts, k = routing.experts_per_token;
  Linear<T>(context, {args.x, routing.n, args.weight_matrix, args.bias, false, args.logits, args.adapter});
  std::vector<int32_t> order(static_cast<size_t>(num_experts));
  for (int64_t t = 0; t < routing.n; ++t) {
    const T* logits = args.logits + t * num_experts;
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
    T sum = 0;
    T* weight = args.weight + t * k;
    for (int j = 0; j < k; ++j) {
      const int32_t expert = order[static_cast<size_t>(j)];
      routing.expert[static_cast<size_t>(t * k + j)] = expert;
      sum += weight[j] = std::exp(logits[expert] - logits[order[0]]);
    }
    for (int j = 0; j < k; ++j) weight[j] /= sum;
  }
  GroupByExpert(&routing);
}

template <typename T>
void MoeGateUp(ExecContext&, const MoeGateUpTrainArgs<T>& args) {
  const Routing& routing = *args.routing;
  RowReader<T> reader(args.weight);
  const int64_t rows = args.weight.rows, cols = args.weight.cols, width = rows / 2;
  for (int e = 0; e < routing.num_experts; ++e) {
    const int first = routing.expert_offsets[e], end = routing.expert_offsets[e + 1];
    for (int64_t i = 0; i < rows && first != end; ++i) {
      const T* row = reader.Row(e * rows + i);
      for (int64_t r = first; r < end; ++r) {
        args.pre[r * rows + i] = Dot(row, args.x + routing.grouped_token[r] * cols, cols) + args.bias[e * rows + i];
      }
    }
  }
  AddLowRank<T>(args.adapter, routing.expert_offsets, args.x, routing.grouped_token.data(), cols, rows, args.pre);
  for (int64_t r = 0; r < routing.n * routing.experts_per_token; ++r) {
    for (int64_t i = 0; i < width; ++i) {
      const T gate = std::min(args.pre[r * rows + 2 * i], args.limit);
      const T up = std::clamp(args.pre[r * rows + 2 * i + 1], -args.limit, args.limit);
      args.h[r * width + i] = gate / (T(1) + std::exp(-static_cast<T>(kSwigluAlpha) * gate)) * (up + T(1));
    }
  }
}

template <typename T>
void MoeDown(ExecContext&, const MoeDownTrainArgs<T>& args) {
  const Routing& routing = *args.routing;
  RowReader<T> reader(args.weight);
  const int64_t rows = args.weight.rows, cols = args.weight.cols, k = routing.experts_per_token;
  std::vector<T> y(static_cast<size_t>(routing.n * k * rows));
  for (int e = 0; e < routing.num_experts; ++e) {
    const int first = routing.expert_offsets[e], end = routing.expert_offsets[e + 1];
    for (int64_t i = 0; i < rows && first != end; ++i) {
      const T* row = reader.Row(e * rows + i);
      for (int64_t r = first; r < end; ++r) {
        y[static_cast<size_t>(r * rows + i)] = Dot(row, args.h + r * cols, cols) + args.bias[e * rows + i];
      }
    }
  }
  AddLowRank<T>(args.adapter, routing.expert_offsets, args.h, nullptr, cols, rows, y.data());
  for (int64_t t = 0; t < routing.n; ++t) {
    for (int64_t i = 0; i < rows; ++i) {
      T sum = 0;
      for (int64_t j = 0; j < k; ++j) {
        sum += args.routing_weight[t * k + j] * y[static_cast<size_t>(routing.grouped_row[t * k + j] * rows + i)];
      }
      args.x[t * rows + i] += sum;
    }
  }
}

#define GPTOSS_INSTANTIATE(T)                                             \
  template void Embed<T>(ExecContext&, const EmbedTrainArgs<T>&);         \
  template void RmsNorm<T>(ExecContext&, const RmsNormTrainArgs<T>&);     \
  template void Linear<T>(ExecContext&, const LinearTrainArgs<T>&);       \
  template void QkvRope<T>(ExecContext&, const QkvRopeTrainArgs<T>&);     \
  template void Attention<T>(ExecContext&, const AttentionTrainArgs<T>&); \
  template void Router<T>(ExecContext&, const RouterTrainArgs<T>&);       \
  template void MoeGateUp<T>(ExecContext&, const MoeGateUpTrainArgs<T>&); \
  template void MoeDown<T>(ExecContext&, const MoeDownTrainArgs<T>&)
GPTOSS_INSTANTIATE(float);
GPTOSS_INSTANTIATE(double);
#undef GPTOSS_INSTANTIATE

}  // namespace gptoss::reference_training
