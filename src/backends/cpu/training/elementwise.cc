// What training does row by row: norms, rotation, swiglu, the experts' weighted sums, softmax with its loss, sums over
// rows.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/training/elementwise.cc"
#include <algorithm>
#include <cmath>
#include <vector>

#include "backends/cpu/training/training_kernels.h"
#include "hwy/foreach_target.h"
// After foreach_target: included once per target.
#include "backends/cpu/swiglu-inl.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

constexpr int64_t kSerialValues = 16384;  // less is not worth waking threads for
constexpr int64_t kScaleRows = 128;       // rows whose gradient of a norm's scale is summed before the sums are added
constexpr int64_t kColumns = 64;          // columns that one task sums over all rows

template <typename Run>
void ForRows(ExecContext& context, int64_t rows, int64_t width, const Run& run) {
  if (rows * width <= kSerialValues) return run(int64_t{0}, rows);
  const int64_t grain = std::max<int64_t>(1, kSerialValues / std::max<int64_t>(1, width));
  context.pool.ParallelFor(rows, grain, [&](int64_t begin, int64_t end, int) { run(begin, end); });
}

/// Sum of f(i) over vectors at i, and of g(i) over the values that fill no vector.
template <typename VectorTerm, typename Term>
HWY_INLINE float SumOver(int64_t count, const VectorTerm& f, const Term& g) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  V a = hn::Zero(d), b = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    a = hn::Add(a, f(i));
    b = hn::Add(b, f(i + lanes));
  }
  for (; i + lanes <= count; i += lanes) a = hn::Add(a, f(i));
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(a, b)));
  for (; i < count; ++i) sum += g(i);
  return sum;
}

/// See the reference for the derivation. dscale, when wanted, is that of kScaleRows rows together.
void NormRowBackward(const RmsNormBackwardArgs<float>& args, int64_t row, float* dscale) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const float *x = args.x + row * args.width, *dy = args.dy + row * args.width;
  float* dx = args.dx + row * args.width;
  const auto width = static_cast<float>(args.width);
  const float squares = SumOver(
      args.width,
      [&](int64_t i) HWY_ATTR {
        const V v = hn::LoadU(d, x + i);
        return hn::Mul(v, v);
      },
      [&](int64_t i) { return x[i] * x[i]; });
  const float r = 1.0f / std::sqrt(squares / width + args.eps);
  const float sum = SumOver(
      args.width,
      [&](int64_t i) HWY_ATTR {
        return hn::Mul(hn::Mul(hn::LoadU(d, args.scale + i), hn::LoadU(d, dy + i)), hn::LoadU(d, x + i));
      },
      [&](int64_t i) { return args.scale[i] * dy[i] * x[i]; });
  const float along = r * r * r / width * sum;
  int64_t i = 0;
  for (; i + lanes <= args.width; i += lanes) {
    const V xi = hn::LoadU(d, x + i), dyi = hn::LoadU(d, dy + i);
    const V straight = hn::Mul(hn::Mul(hn::Set(d, r), hn::LoadU(d, args.scale + i)), dyi);
    hn::StoreU(hn::Add(hn::LoadU(d, dx + i), hn::Sub(straight, hn::Mul(hn::Set(d, along), xi))), d, dx + i);
    if (dscale == nullptr) continue;
    hn::StoreU(hn::Add(hn::LoadU(d, dscale + i), hn::Mul(hn::Mul(dyi, xi), hn::Set(d, r))), d, dscale + i);
  }
  for (; i < args.width; ++i) {
    dx[i] += r * args.scale[i] * dy[i] - along * x[i];
    if (dscale != nullptr) dscale[i] += dy[i] * x[i] * r;
  }
}

void SwigluRow(const float* pre, int64_t width, float limit, float* h) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= width; i += lanes) {
    V gate, up;
    hn::LoadInterleaved2(d, pre + 2 * i, gate, up);
    hn::StoreU(Swiglu(d, gate, up, limit), d, h + i);
  }
  for (; i < width; ++i) {
    const float gate = std::min(pre[2 * i], limit), up = std::clamp(pre[2 * i + 1], -limit, limit);
    h[i] = gate / (1.0f + std::exp(-kSwigluAlpha * gate)) * (up + 1.0f);
  }
}

void SwigluBackwardValue(float dh, float limit, float* pre) {
  const float gate = std::min(pre[0], limit), up = std::clamp(pre[1], -limit, limit);
  const float sigmoid = 1.0f / (1.0f + std::exp(-kSwigluAlpha * gate));
  const float dgate = sigmoid * (1.0f + kSwigluAlpha * gate * (1.0f - sigmoid)) * (up + 1.0f);
  const bool inside = pre[1] >= -limit && pre[1] <= limit;
  pre[0] = pre[0] <= limit ? dh * dgate : 0.0f;
  pre[1] = inside ? dh * gate * sigmoid : 0.0f;
}

void SwigluBackwardRow(const float* dh, int64_t width, float limit, float* pre) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const V top = hn::Set(d, limit), bottom = hn::Set(d, -limit), one = hn::Set(d, 1.0f);
  int64_t i = 0;
  for (; i + lanes <= width; i += lanes) {
    V gate_in, up_in;
    hn::LoadInterleaved2(d, pre + 2 * i, gate_in, up_in);
    const V gate = hn::Min(gate_in, top), up = hn::Max(hn::Min(up_in, top), bottom);
    const V sigmoid = SwigluSigmoid(d, gate), out = hn::LoadU(d, dh + i);
    const V slope = hn::Add(one, hn::Mul(hn::Mul(hn::Set(d, kSwigluAlpha), gate), hn::Sub(one, sigmoid)));
    const V dgate = hn::Mul(out, hn::Mul(hn::Mul(sigmoid, slope), hn::Add(up, one)));
    const V dup = hn::Mul(out, hn::Mul(gate, sigmoid));
    const auto up_inside = hn::And(hn::Ge(up_in, bottom), hn::Le(up_in, top));
    hn::StoreInterleaved2(hn::IfThenElseZero(hn::Le(gate_in, top), dgate), hn::IfThenElseZero(up_inside, dup), d,
                          pre + 2 * i);
  }
  for (; i < width; ++i) SwigluBackwardValue(dh[i], limit, pre + 2 * i);
}

float SoftmaxLossRow(float* logits, int64_t count, int32_t target, float factor, bool gradient) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  float max = logits[0];
  int64_t i = 0;
  V top = hn::Set(d, max);
  for (; i + lanes <= count; i += lanes) top = hn::Max(top, hn::LoadU(d, logits + i));
  max = hn::GetLane(hn::MaxOfLanes(d, top));
  for (; i < count; ++i) max = std::max(max, logits[i]);
  const V shift = hn::Set(d, max);
  const float sum = SumOver(
      count, [&](int64_t at) HWY_ATTR { return hn::Exp(d, hn::Sub(hn::LoadU(d, logits + at), shift)); },
      [&](int64_t at) { return std::exp(logits[at] - max); });
  const float log_sum = max + std::log(sum);
  const float loss = log_sum - logits[target];
  if (!gradient) return loss;
  const V all = hn::Set(d, log_sum), factors = hn::Set(d, factor);
  for (i = 0; i + lanes <= count; i += lanes) {
    hn::StoreU(hn::Mul(factors, hn::Exp(d, hn::Sub(hn::LoadU(d, logits + i), all))), d, logits + i);
  }
  for (; i < count; ++i) logits[i] = factor * std::exp(logits[i] - log_sum);
  logits[target] -= factor;
  return loss;
}

/// y += factor * x, on one thread.
HWY_INLINE void AddScaled(float factor, const float* HWY_RESTRICT x, int64_t count, float* HWY_RESTRICT y) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const V f = hn::Set(d, factor);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(hn::MulAdd(f, hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, y + i);
  for (; i < count; ++i) y[i] += factor * x[i];
}

void RotateHead(int half, const float* cos, const float* sin, float direction, float* head) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const V turn = hn::Set(d, direction);
  int i = 0;
  for (; i + lanes <= half; i += lanes) {
    const V a = hn::LoadU(d, head + i), b = hn::LoadU(d, head + half + i);
    const V c = hn::LoadU(d, cos + i), s = hn::Mul(hn::LoadU(d, sin + i), turn);
    hn::StoreU(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), d, head + i);
    hn::StoreU(hn::Add(hn::Mul(b, c), hn::Mul(a, s)), d, head + half + i);
  }
  for (; i < half; ++i) {
    const float a = head[i], b = head[half + i], s = sin[i] * direction;
    head[i] = a * cos[i] - b * s;
    head[half + i] = b * cos[i] + a * s;
  }
}

}  // namespace

void RmsNormBackward(ExecContext& context, const RmsNormBackwardArgs<float>& args) {
  const ScratchFrame frame(context.scratch);
  const int64_t pieces = (args.n + kScaleRows - 1) / kScaleRows;
  float* sums =
      args.dscale == nullptr ? nullptr : context.scratch.Allocate<float>(static_cast<size_t>(pieces * args.width));
  context.pool.Run(pieces, [&](int64_t piece, int) {
    float* own = sums == nullptr ? nullptr : sums + piece * args.width;
    if (own != nullptr) std::fill_n(own, args.width, 0.0f);
    const int64_t end = std::min(args.n, (piece + 1) * kScaleRows);
    for (int64_t row = piece * kScaleRows; row < end; ++row) NormRowBackward(args, row, own);
  });
  for (int64_t piece = 0; piece < pieces && sums != nullptr; ++piece) {
    AddScaled(1.0f, sums + piece * args.width, args.width, args.dscale);
  }
}

void RotateRows(ExecContext& context, const HeadShape& heads, int64_t n, const float* cos, const float* sin,
                float direction, float* qkv) {
  const int half = heads.head_dim / 2;
  ForRows(context, n, heads.qkv_size(), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int h = 0; h < heads.num_heads + heads.num_kv_heads; ++h) {
        float* head = qkv + t * heads.qkv_size() + static_cast<int64_t>(h) * heads.head_dim;
        RotateHead(half, cos + t * half, sin + t * half, direction, head);
      }
    }
  });
}

void SwigluRows(ExecContext& context, const float* pre, int64_t rows, int64_t width, float limit, float* h) {
  ForRows(context, rows, width, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) SwigluRow(pre + r * 2 * width, width, limit, h + r * width);
  });
}

void SwigluBackwardRows(ExecContext& context, const float* dh, int64_t rows, int64_t width, float limit, float* pre) {
  ForRows(context, rows, width, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) SwigluBackwardRow(dh + r * width, width, limit, pre + r * 2 * width);
  });
}

void CombineRows(ExecContext& context, const Routing& routing, const float* weight, const float* y, int64_t width,
                 float* x) {
  const int64_t k = routing.experts_per_token;
  ForRows(context, routing.n, width * k, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * k; i < end * k; ++i) {
      const float factor = weight == nullptr ? 1.0f : weight[i];
      AddScaled(factor, y + routing.grouped_row[static_cast<size_t>(i)] * width, width, x + i / k * width);
    }
  });
}

void WeighDownGradient(ExecContext& context, const MoeDownBackwardArgs<float>& args) {
  const Routing& routing = *args.routing;
  const int64_t rows = args.weight.rows, cols = args.weight.cols, k = routing.experts_per_token;
  ForRows(context, routing.n * k, rows + cols, [&](int64_t begin, int64_t end) {
    const D d;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    const auto dot = [&](const float* a, const float* b, int64_t count) HWY_ATTR {
      return SumOver(
          count, [&](int64_t i) HWY_ATTR { return hn::Mul(hn::LoadU(d, a + i), hn::LoadU(d, b + i)); },
          [&](int64_t i) { return a[i] * b[i]; });
    };
    for (int64_t i = begin; i < end; ++i) {
      const int64_t r = routing.grouped_row[static_cast<size_t>(i)];
      float* dh = args.dh + r * cols;
      const int64_t expert = routing.expert[static_cast<size_t>(i)];
      args.drouting_weight[i] =
          dot(dh, args.h + r * cols, cols) + dot(args.dx + i / k * rows, args.bias + expert * rows, rows);
      const V factor = hn::Set(d, args.routing_weight[i]);
      int64_t c = 0;
      for (; c + lanes <= cols; c += lanes) hn::StoreU(hn::Mul(hn::LoadU(d, dh + c), factor), d, dh + c);
      for (; c < cols; ++c) dh[c] *= args.routing_weight[i];
    }
  });
}

void SoftmaxLossRows(ExecContext& context, float* logits, int64_t rows, int64_t vocab, const int32_t* target,
                     const float* factor, bool gradient, float* row_loss) {
  ForRows(context, rows, vocab, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      row_loss[r] = SoftmaxLossRow(logits + r * vocab, vocab, target[r], factor[r], gradient);
    }
  });
}

void BiasGradient(ExecContext& context, const BiasGradientArgs& args) {
  const int64_t blocks = (args.width + kColumns - 1) / kColumns;
  const auto groups = static_cast<int64_t>(args.offsets.size()) - 1;
  context.pool.Run(groups * blocks, [&](int64_t task, int) {
    const int64_t g = task / blocks, first = task % blocks * kColumns;
    const int64_t count = std::min(kColumns, args.width - first);
    float sums[kColumns] = {};
    for (int64_t r = args.offsets[static_cast<size_t>(g)]; r < args.offsets[static_cast<size_t>(g) + 1]; ++r) {
      const int64_t from = args.gather == nullptr ? r : args.gather[r];
      AddScaled(args.factor == nullptr ? 1.0f : args.factor[r], args.dy + from * args.width + first, count, sums);
    }
    AddScaled(1.0f, sums, count, args.dbias + g * args.width + first);
  });
}

void AddRows(ExecContext& context, std::span<const int32_t> rows, int64_t width, const float* x, float* y) {
  context.pool.ParallelFor(width, kColumns, [&](int64_t begin, int64_t end, int) {
    for (size_t t = 0; t < rows.size(); ++t) {
      AddScaled(1.0f, x + static_cast<int64_t>(t) * width + begin, end - begin, y + rows[t] * width + begin);
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();
