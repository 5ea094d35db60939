// Kernels that do little arithmetic for what they read.
#include "backends/cuda/launch.cuh"
#include "backends/cuda/rope.cuh"
#include "base/check.h"

namespace gptoss::cuda {
namespace {

constexpr unsigned kThreads = 256;

template <DType kDType>
__global__ void EmbedKernel(const uint8_t* data, const uint8_t* scales, const int32_t* tokens, int64_t cols, float* x) {
  const int64_t row = blockIdx.x, blocks = cols / 32;
  for (int64_t b = threadIdx.x; b < blocks; b += blockDim.x) {
    const StoredBlock<kDType> stored = LoadStored<kDType>(data, scales, tokens[row] * blocks + b);
    GPTOSS_UNROLL
    for (int i = 0; i < 32; ++i) x[row * cols + 32 * b + i] = ValueOf(stored, i) * stored.scale;
  }
}

/// One block a row; the sum of squares in the order of threads, lanes, warps.
__global__ void RmsNormKernel(const float* x, const float* scale, float eps, int64_t width, float* y) {
  GPTOSS_SHARED(float, sums);
  const float* in = x + blockIdx.x * width;
  float* out = y + blockIdx.x * width;
  float squares = 0.0f;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) squares = __fmaf_rn(in[i], in[i], squares);
  squares = WarpSum(squares);
  if (Lane() == 0) sums[WarpInBlock()] = squares;
  __syncthreads();
  float total = 0.0f;
  for (unsigned w = 0; w < blockDim.x / kWarp; ++w) total += sums[w];
  const float factor = 1.0f / sqrtf(total / static_cast<float>(width) + eps);
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) out[i] = in[i] * factor * scale[i];
}

__global__ void SwigluKernel(const float* pre, int64_t count, float limit, float* h) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) h[i] = Swiglu(pre[2 * i], pre[2 * i + 1], limit);
}

/// One thread a value.
__global__ void DropInactiveKernel(const uint8_t* owner, const uint32_t* active, const int32_t* tokens, int64_t count,
                                   int64_t ranks, float* inner) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int64_t row = i / ranks, token = tokens == nullptr ? row : tokens[row];
  if ((active[token] >> owner[i % ranks / kRankStep] & 1) == 0) inner[i] = 0.0f;
}

/// One thread a unit; writes side by side.
template <typename Unit>
__global__ void UngroupKernel(const Unit* grouped, int64_t count, int64_t units, Unit* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int64_t row = i / units, unit = i % units;
  out[i] = grouped[(row / kRowGroup * units + unit) * kRowGroup + row % kRowGroup];
}

/// One block a row, one thread a pair of values.
__global__ void RopeAppendKernel(const float* qkv, RopeArguments a) {
  const int64_t row = blockIdx.x, dim = a.head_dim, half = dim / 2;
  const int64_t heads = a.heads + 2 * a.kv_heads;
  for (int64_t i = threadIdx.x; i < heads * half; i += blockDim.x) {
    const int64_t head = i / half, pair = i % half;
    const float* from = qkv + (row * heads + head) * dim;
    TurnAndStore(a, row, head, pair, from[pair], from[pair + half]);
  }
}

/// One thread a value of the residual stream; choices in order, so that every batch gives the same sum.
__global__ void CombineKernel(const float* y, const int32_t* grouped_row, const float* weight, int k, int64_t width,
                              int64_t count, float* x) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int64_t token = i / width, column = i % width;
  float sum = 0.0f;
  for (int j = 0; j < k; ++j) {
    sum = __fmaf_rn(weight[token * k + j], y[grouped_row[token * k + j] * width + column], sum);
  }
  x[i] += sum;
}

}  // namespace

void EmbedLookup(Stream stream, const WeightMatrix& table, const int32_t* tokens, int64_t n, float* x) {
  if (n == 0) return;
  const auto launch = [&](auto kernel) {
    Launch(stream, dim3{static_cast<unsigned>(n), 1, 1}, 128, 0, kernel, Bytes(table.data), Bytes(table.scales), tokens,
           table.cols, x);
  };
  switch (table.dtype) {
    case DType::kF32:
      return launch(EmbedKernel<DType::kF32>);
    case DType::kF16:
      return launch(EmbedKernel<DType::kF16>);
    case DType::kBF16:
      return launch(EmbedKernel<DType::kBF16>);
    case DType::kQ8_0:
      return launch(EmbedKernel<DType::kQ8_0>);
    case DType::kMxfp4:
      return launch(EmbedKernel<DType::kMxfp4>);
    case DType::kU8:
      GPTOSS_CHECK(false);
  }
}

void RmsNorm(Stream stream, const RmsNormArgs& args) {
  if (args.n == 0) return;
  Launch(stream, dim3{static_cast<unsigned>(args.n), 1, 1}, kThreads, kThreads / kWarp * sizeof(float), RmsNormKernel,
         args.x, args.scale, args.eps, args.width, args.y);
}

namespace {

template <typename Unit>
void Ungroup(Stream stream, const std::byte* grouped, int64_t rows, int64_t units, std::byte* out) {
  const int64_t count = rows * units;
  Launch(stream, dim3{BlocksFor(count, kThreads)}, kThreads, 0, UngroupKernel<Unit>,
         reinterpret_cast<const Unit*>(grouped), count, units, reinterpret_cast<Unit*>(out));
}

}  // namespace

void UngroupRows(Stream stream, const std::byte* grouped, int64_t rows, int64_t units, int unit, std::byte* out) {
  GPTOSS_CHECK(rows % kRowGroup == 0);
  if (rows * units == 0) return;
  switch (unit) {
    case 1:
      return Ungroup<uint8_t>(stream, grouped, rows, units, out);
    case 2:
      return Ungroup<uint16_t>(stream, grouped, rows, units, out);
    case 4:
      return Ungroup<uint32_t>(stream, grouped, rows, units, out);
    default:
      GPTOSS_CHECK(false && "units are of 1, 2 or 4 bytes");
  }
}

void SwigluRows(Stream stream, const float* pre, int64_t rows, int64_t width, float limit, float* h) {
  if (rows == 0) return;
  Launch(stream, dim3{BlocksFor(rows * width, kThreads), 1, 1}, kThreads, 0, SwigluKernel, pre, rows * width, limit, h);
}

void DropInactiveRanks(Stream stream, const uint8_t* owner, const uint32_t* active, const int32_t* tokens, int64_t rows,
                       int64_t ranks, float* inner) {
  if (rows == 0) return;
  Launch(stream, dim3{BlocksFor(rows * ranks, kThreads), 1, 1}, kThreads, 0, DropInactiveKernel, owner, active, tokens,
         rows * ranks, ranks, inner);
}

void RopeAppend(Stream stream, const QkvRopeArgs& args, const int32_t* slots, const float* qkv) {
  if (args.n == 0) return;
  Launch(stream, dim3{static_cast<unsigned>(args.n), 1, 1}, kThreads, 0, RopeAppendKernel, qkv,
         ArgumentsOf(args, slots));
}

void CombineExperts(Stream stream, const Routing& routing, const float* y, int64_t width, float* x) {
  if (routing.n == 0) return;
  Launch(stream, dim3{BlocksFor(routing.n * width, kThreads), 1, 1}, kThreads, 0, CombineKernel, y,
         routing.grouped_row.data(), routing.weight.data(), routing.experts_per_token, width, routing.n * width, x);
}

}  // namespace gptoss::cuda
