// The ops written down as the papers and the official code have them: plain float loops, one thread, no vectorisation
// by hand. This file is the yardstick and is never optimised.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "ops/ops.h"
#include "ops/reference/decode_row.h"
#include "tensor/float_convert.h"

namespace gptoss {
namespace {

float Dot(const float* a, const float* b, int64_t n) {
  float sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void EmbedLookup(ExecContext&, const EmbedLookupArgs& args) {
  std::vector<float> row;
  for (size_t t = 0; t < args.tokens.size(); ++t) {
    DecodeRow(args.table, args.tokens[t], &row);
    std::copy(row.begin(), row.end(), args.x + t * row.size());
  }
}

void RmsNorm(ExecContext&, const RmsNormArgs& args) {
  for (int64_t t = 0; t < args.n; ++t) {
    const float* x = args.x + t * args.width;
    float* y = args.y + t * args.width;
    const float mean = Dot(x, x, args.width) / static_cast<float>(args.width);
    const float scale = 1.0f / std::sqrt(mean + args.eps);
    for (int64_t i = 0; i < args.width; ++i) y[i] = x[i] * scale * args.scale[i];
  }
}

/// For each group g of rows: y[r] += b_g (a_g x[gather[r]]); gather null: row r itself. Row r is token tokens[r].
void AddUpdate(const LowRankUpdate& u, std::span<const int32_t> offsets, const float* x, const int32_t* gather,
               const int32_t* tokens, float* y) {
  std::vector<float> row, inner(u.a.rows);
  for (int64_t g = 0; u.any() && g + 1 < static_cast<int64_t>(offsets.size()); ++g) {
    for (int64_t r = offsets[g]; r < offsets[g + 1]; ++r) {
      const float* from = x + (gather == nullptr ? r : gather[r]) * u.a.cols;
      for (int64_t i = 0; i < u.a.rows; ++i) {
        DecodeRow(u.a, g * u.a.rows + i, &row);
        inner[i] = Dot(row.data(), from, u.a.cols);
      }
      const auto token = static_cast<int32_t>(tokens == nullptr ? r : tokens[r]);
      DropInactive(u, &token, 1, inner.data());
      for (int64_t i = 0; i < u.b.rows; ++i) {
        DecodeRow(u.b, g * u.b.rows + i, &row);
        y[r * u.b.rows + i] += Dot(row.data(), inner.data(), u.b.cols);
      }
    }
  }
}

void Linear(ExecContext&, const LinearArgs& args) {
  std::vector<float> row;
  for (int64_t r = 0; r < args.weight.rows; ++r) {
    DecodeRow(args.weight, r, &row);
    for (int64_t t = 0; t < args.n; ++t) {
      const float value = Dot(row.data(), args.x + t * args.weight.cols, args.weight.cols) +
                          (args.bias != nullptr ? args.bias[r] : 0.0f);
      float& y = args.y[t * args.weight.rows + r];
      y = args.accumulate ? y + value : value;
    }
  }
  const std::array<int32_t, 2> all = {0, static_cast<int32_t>(args.n)};
  AddUpdate(args.adapter, all, args.x, nullptr, nullptr, args.y);
}

/// Rotates one head in place.
void Rotate(float* head, const float* cos, const float* sin, int half) {
  for (int i = 0; i < half; ++i) {
    const float a = head[i], b = head[i + half];
    head[i] = a * cos[i] - b * sin[i];
    head[i + half] = b * cos[i] + a * sin[i];
  }
}

int64_t KvIndex(int kv_heads, int head_dim, int32_t slot, int head) {
  const int64_t block = slot / kKvBlockSize, offset = slot % kKvBlockSize;
  return ((block * kv_heads + head) * kKvBlockSize + offset) * head_dim;
}

void StoreKv(DType dtype, std::byte* cache, int64_t index, const float* values, int count) {
  if (dtype == DType::kF32) {
    std::memcpy(cache + index * 4, values, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  auto* out = reinterpret_cast<uint16_t*>(cache) + index;
  std::transform(values, values + count, out, F32ToBf16);
}

void LoadKv(DType dtype, const std::byte* cache, int64_t index, int count, float* values) {
  if (dtype == DType::kF32) {
    std::memcpy(values, cache + index * 4, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  const auto* in = reinterpret_cast<const uint16_t*>(cache) + index;
  std::transform(in, in + count, values, Bf16ToF32);
}

void QkvRope(ExecContext& context, const QkvRopeArgs& args) {
  const int half = args.head_dim / 2;
  const int64_t q_size = static_cast<int64_t>(args.num_heads) * args.head_dim;
  const int64_t kv_size = static_cast<int64_t>(args.num_kv_heads) * args.head_dim;
  std::vector<float> qkv(args.n * args.weight.rows);
  Linear(context, {args.x, args.n, args.weight, args.bias, false, qkv.data(), args.adapter});
  for (int64_t t = 0; t < args.n; ++t) {
    float* q = qkv.data() + t * args.weight.rows;
    float* k = q + q_size;
    const float* v = k + kv_size;
    const float* cos = args.cos + t * half;
    const float* sin = args.sin + t * half;
    for (int h = 0; h < args.num_heads; ++h) Rotate(q + h * args.head_dim, cos, sin, half);
    std::copy(q, q + q_size, args.q + t * q_size);
    for (int h = 0; h < args.num_kv_heads; ++h) {
      Rotate(k + h * args.head_dim, cos, sin, half);
      const int64_t index = KvIndex(args.num_kv_heads, args.head_dim, args.slots[t], h);
      StoreKv(args.kv.dtype, args.kv.k, index, k + h * args.head_dim, args.head_dim);
      StoreKv(args.kv.dtype, args.kv.v, index, v + h * args.head_dim, args.head_dim);
    }
  }
}

/// One query head over keys first … last of its sequence.
void AttendHead(const AttentionArgs& args, const int32_t* block_table, int head, int first, int last, const float* q,
                float* out) {
  const int kv_head = head / (args.num_heads / args.num_kv_heads);
  const float scale = 1.0f / std::sqrt(static_cast<float>(args.head_dim));
  std::vector<float> scores(last - first + 1), row(args.head_dim);
  const auto index = [&](int position) {
    const int32_t slot = block_table[position / kKvBlockSize] * kKvBlockSize + position % kKvBlockSize;
    return KvIndex(args.num_kv_heads, args.head_dim, slot, kv_head);
  };
  float max = args.sinks[head];
  for (int p = first; p <= last; ++p) {
    LoadKv(args.kv.dtype, args.kv.k, index(p), args.head_dim, row.data());
    scores[p - first] = Dot(q, row.data(), args.head_dim) * scale;
    max = std::max(max, scores[p - first]);
  }
  float denominator = std::exp(args.sinks[head] - max);
  for (float& s : scores) denominator += s = std::exp(s - max);
  std::fill(out, out + args.head_dim, 0.0f);
  for (int p = first; p <= last; ++p) {
    LoadKv(args.kv.dtype, args.kv.v, index(p), args.head_dim, row.data());
    const float weight = scores[p - first] / denominator;
    for (int i = 0; i < args.head_dim; ++i) out[i] += weight * row[i];
  }
}

void Attention(ExecContext&, const AttentionArgs& args) {
  const int64_t q_size = static_cast<int64_t>(args.num_heads) * args.head_dim;
  for (size_t s = 0; s < args.sequences.size(); ++s) {
    const SequenceSpan& span = args.sequences[s];
    const int32_t* table = args.group->block_tables.data() + s * args.group->blocks_per_sequence;
    for (int r = 0; r < span.num_rows; ++r) {
      const int position = span.first_position + r;
      const int first = args.window == 0 ? 0 : std::max(0, position - args.window + 1);
      for (int head = 0; head < args.num_heads; ++head) {
        const int64_t offset = (span.first_row + r) * q_size + static_cast<int64_t>(head) * args.head_dim;
        AttendHead(args, table, head, first, position, args.q + offset, args.out + offset);
      }
    }
  }
}

void Router(ExecContext& context, const RouterArgs& args) {
  Routing& routing = *args.routing;
  const int num_experts = routing.num_experts, k = routing.experts_per_token;
  Linear(context, {args.x, routing.n, args.weight, args.bias, false, args.logits, args.adapter});
  std::vector<int32_t> order(num_experts);
  for (int64_t t = 0; t < routing.n; ++t) {
    const float* logits = args.logits + t * num_experts;
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
    float sum = 0.0f;
    for (int j = 0; j < k; ++j) {
      routing.expert[t * k + j] = order[j];
      sum += routing.weight[t * k + j] = std::exp(logits[order[j]] - logits[order[0]]);
    }
    for (int j = 0; j < k; ++j) routing.weight[t * k + j] /= sum;
  }
  GroupByExpert(&routing);
}

float Swiglu(float gate, float up, float limit) {
  gate = std::min(gate, limit);
  up = std::clamp(up, -limit, limit);
  return gate * (1.0f / (1.0f + std::exp(-1.702f * gate))) * (up + 1.0f);
}

void MoeGateUp(ExecContext&, const MoeGateUpArgs& args) {
  const Routing& routing = *args.routing;
  const int64_t rows = args.weight.rows, cols = args.weight.cols, choices = routing.n * routing.experts_per_token;
  std::vector<float> pre(choices * rows), row;
  for (int e = 0; e < routing.num_experts; ++e) {
    const int first = routing.expert_offsets[e], end = routing.expert_offsets[e + 1];
    for (int64_t i = 0; i < rows && first != end; ++i) {
      DecodeRow(args.weight, e * rows + i, &row);
      for (int r = first; r < end; ++r) {
        pre[r * rows + i] = Dot(row.data(), args.x + routing.grouped_token[r] * cols, cols) + args.bias[e * rows + i];
      }
    }
  }
  const int32_t* const tokens = routing.grouped_token.data();
  AddUpdate(args.adapter, routing.expert_offsets, args.x, tokens, tokens, pre.data());
  for (int64_t i = 0; i < choices * rows / 2; ++i) args.h[i] = Swiglu(pre[2 * i], pre[2 * i + 1], args.limit);
}

void MoeDown(ExecContext&, const MoeDownArgs& args) {
  const Routing& routing = *args.routing;
  const int64_t rows = args.weight.rows, k = routing.experts_per_token;
  std::vector<float> y(routing.n * k * rows), row;
  for (int e = 0; e < routing.num_experts; ++e) {
    const int first = routing.expert_offsets[e], end = routing.expert_offsets[e + 1];
    for (int64_t i = 0; i < rows && first != end; ++i) {
      DecodeRow(args.weight, e * rows + i, &row);
      for (int r = first; r < end; ++r) {
        y[r * rows + i] = Dot(row.data(), args.h + r * args.weight.cols, args.weight.cols) + args.bias[e * rows + i];
      }
    }
  }
  AddUpdate(args.adapter, routing.expert_offsets, args.h, nullptr, routing.grouped_token.data(), y.data());
  for (int64_t t = 0; t < routing.n; ++t) {
    for (int64_t i = 0; i < rows; ++i) {
      float sum = 0.0f;
      for (int64_t j = 0; j < k; ++j) {
        sum += routing.weight[t * k + j] * y[routing.grouped_row[t * k + j] * rows + i];
      }
      args.x[t * rows + i] += sum;
    }
  }
}

}  // namespace

const Ops& ReferenceOps() {
  static constexpr Ops kOps = {.name = "reference",
                               .embed_lookup = EmbedLookup,
                               .rms_norm = RmsNorm,
                               .linear = Linear,
                               .qkv_rope = QkvRope,
                               .attention = Attention,
                               .router = Router,
                               .moe_gate_up = MoeGateUp,
                               .moe_down = MoeDown};
  return kOps;
}

}  // namespace gptoss
