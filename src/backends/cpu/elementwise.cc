// Everything that is linear in the activations: embedding rows, norms, rotation and append, the experts' weighted sum.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/elementwise.cc"
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "backends/cpu/kernels.h"
#include "hwy/foreach_target.h"
// After foreach_target: included once per target.
#include "backends/cpu/unpack-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

using D = hn::ScalableTag<float>;

/// Values below which an element-wise op is not worth waking threads for: about 10 µs of work.
constexpr int64_t kSerialValues = 16384;

/// Calls run(begin, end) on rows, in the caller when there are few values.
template <typename Run>
void ForRows(ExecContext& context, int64_t rows, int64_t width, const Run& run) {
  if (rows * width <= kSerialValues) return run(int64_t{0}, rows);
  const int64_t grain = std::max<int64_t>(1, kSerialValues / 2 / std::max<int64_t>(1, width));
  context.pool.ParallelFor(rows, grain, [&](int64_t begin, int64_t end, int) { run(begin, end); });
}

/// Sum of squares in double: each float square is exact there.
double SumOfSquares(const float* x, int64_t count) {
  int64_t i = 0;
  double sum = 0.0;
#if !(HWY_TARGET & GPTOSS_CPU_EMULATED_TARGETS)
  const hn::Repartition<double, D> dd;
  const hn::Half<D> dh;
  const int64_t half = static_cast<int64_t>(hn::Lanes(dh));
  auto s0 = hn::Zero(dd), s1 = hn::Zero(dd);
  for (; i + 2 * half <= count; i += 2 * half) {
    const auto a = hn::PromoteTo(dd, hn::LoadU(dh, x + i)), b = hn::PromoteTo(dd, hn::LoadU(dh, x + i + half));
    s0 = hn::MulAdd(a, a, s0);
    s1 = hn::MulAdd(b, b, s1);
  }
  sum = hn::GetLane(hn::SumOfLanes(dd, hn::Add(s0, s1)));
#endif
  for (; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

void NormRow(const RmsNormArgs& args, int64_t row) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const float* x = args.x + row * args.width;
  float* y = args.y + row * args.width;
  const auto mean = static_cast<float>(SumOfSquares(x, args.width) / static_cast<double>(args.width));
  const float factor = 1.0f / std::sqrt(mean + args.eps);
  const auto f = hn::Set(d, factor);
  int64_t i = 0;
  for (; i + lanes <= args.width; i += lanes) {
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, x + i), f), hn::LoadU(d, args.scale + i)), d, y + i);
  }
  for (; i < args.width; ++i) y[i] = x[i] * factor * args.scale[i];
}

/// Rotates one head from `in` to `out`. Products are rounded before they are added, on every target alike.
void RotateHead(const float* in, const float* cos, const float* sin, int half, float* out) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  int i = 0;
  for (; i + lanes <= half; i += lanes) {
    const auto a = hn::LoadU(d, in + i), b = hn::LoadU(d, in + half + i);
    const auto c = hn::LoadU(d, cos + i), s = hn::LoadU(d, sin + i);
    hn::StoreU(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), d, out + i);
    hn::StoreU(hn::Add(hn::Mul(b, c), hn::Mul(a, s)), d, out + half + i);
  }
  for (; i < half; ++i) {
    out[i] = in[i] * cos[i] - in[half + i] * sin[i];
    out[half + i] = in[half + i] * cos[i] + in[i] * sin[i];
  }
}

void StoreKv(DType dtype, std::byte* cache, int64_t index, const float* values, int count) {
  if (dtype == DType::kF32) {
    std::memcpy(cache + index * 4, values, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  GPTOSS_CHECK(dtype == DType::kBF16);
  auto* out = reinterpret_cast<uint16_t*>(cache) + index;
  for (int i = 0; i < count; ++i) out[i] = F32ToBf16(values[i]);
}

void RopeRow(const QkvRopeArgs& args, const float* qkv, int64_t row, float* head) {
  const int dim = args.head_dim, half = dim / 2;
  const float *cos = args.cos + row * half, *sin = args.sin + row * half;
  const float* from = qkv + row * args.weight.rows;
  float* q = args.q + row * args.num_heads * dim;
  for (int h = 0; h < args.num_heads; ++h) RotateHead(from + h * dim, cos, sin, half, q + h * dim);
  const float* k = from + args.num_heads * dim;
  const float* v = k + args.num_kv_heads * dim;
  const int64_t block = args.slots[row] / kKvBlockSize, offset = args.slots[row] % kKvBlockSize;
  for (int h = 0; h < args.num_kv_heads; ++h) {
    const int64_t index = ((block * args.num_kv_heads + h) * kKvBlockSize + offset) * dim;
    RotateHead(k + h * dim, cos, sin, half, head);
    StoreKv(args.kv.dtype, args.kv.k, index, head, dim);
    StoreKv(args.kv.dtype, args.kv.v, index, v + h * dim, dim);
  }
}

void CombineRow(const MoeDownArgs& args, const float* y, int64_t token, int64_t begin, int64_t end) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), width = args.weight.rows;
  const int64_t k = args.routing->experts_per_token;
  const float* weight = args.routing->weight.data() + token * k;
  const int32_t* rows = args.routing->grouped_row.data() + token * k;
  float* x = args.x + token * width;
  int64_t i = begin;
  for (; i + lanes <= end; i += lanes) {
    auto sum = hn::Zero(d);
    for (int64_t j = 0; j < k; ++j) {
      sum = hn::Add(sum, hn::Mul(hn::Set(d, weight[j]), hn::LoadU(d, y + rows[j] * width + i)));
    }
    hn::StoreU(hn::Add(hn::LoadU(d, x + i), sum), d, x + i);
  }
  for (; i < end; ++i) {
    float sum = 0.0f;
    for (int64_t j = 0; j < k; ++j) sum += weight[j] * y[rows[j] * width + i];
    x[i] += sum;
  }
}

}  // namespace

void EmbedLookup(ExecContext& context, const EmbedLookupArgs& args) {
  const int64_t width = args.table.cols;
  ForRows(context, static_cast<int64_t>(args.tokens.size()), width, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) UnpackRow(args.table, args.tokens[t], 0, width, args.x + t * width);
  });
}

void RmsNorm(ExecContext& context, const RmsNormArgs& args) {
  ForRows(context, args.n, args.width, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) NormRow(args, t);
  });
}

void RopeAppend(ExecContext& context, const QkvRopeArgs& args, const float* qkv) {
  const ScratchFrame frame(context.scratch);
  float* heads = context.scratch.Allocate<float>(args.n * args.head_dim);
  ForRows(context, args.n, args.weight.rows, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) RopeRow(args, qkv, t, heads + t * args.head_dim);
  });
}

void CombineExperts(ExecContext& context, const MoeDownArgs& args, const float* y) {
  ForRows(context, args.routing->n, args.weight.rows, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) CombineRow(args, y, t, 0, args.weight.rows);
  });
}

double MultiplyAddLoop(int64_t iterations, float* sink) {
  const D d;
  constexpr int kChains = 12;  // more than latency times throughput of any current core
  hn::Vec<D> a[kChains];
  for (int c = 0; c < kChains; ++c) a[c] = hn::Set(d, static_cast<float>(c));
  const auto m = hn::Set(d, 0.999f), b = hn::Set(d, *sink);
  for (int64_t i = 0; i < iterations; ++i) {
    for (int c = 0; c < kChains; ++c) a[c] = hn::MulAdd(a[c], m, b);
  }
  for (int c = 1; c < kChains; ++c) a[0] = hn::Add(a[0], a[c]);
  *sink = hn::GetLane(a[0]);
  return 2.0 * kChains * static_cast<double>(hn::Lanes(d)) * static_cast<double>(iterations);
}

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();
