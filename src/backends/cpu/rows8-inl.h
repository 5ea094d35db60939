// Eight rows of weights, side by side (kRows8 of tensor/weight_layout.h): where they lie so, or rearranged in passing.
// Included once per target.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "backends/cpu/quantize-inl.h"
#include "tensor/weight_layout.h"

#if defined(GPTOSS_BACKENDS_CPU_ROWS8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GPTOSS_BACKENDS_CPU_ROWS8_INL_H_
#undef GPTOSS_BACKENDS_CPU_ROWS8_INL_H_
#else
#define GPTOSS_BACKENDS_CPU_ROWS8_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

/// Interleaves the lanes of v[i] and v[i + 4]. Three times in a row this transposes: afterwards lane l of the eight
/// rows follow each other, for l ascending through the vectors.
template <class D, class V>
HWY_INLINE void Zip(D d, V (&v)[kRowGroup]) {
  V out[kRowGroup];
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = hn::InterleaveLower(d, v[i], v[i + 4]);
    out[2 * i + 1] = hn::InterleaveUpper(d, v[i], v[i + 4]);
  }
  std::copy_n(out, kRowGroup, v);
}

/// [rows of `stride` values][count] to [count][8], for values of one or two bytes. Rows are rows[0] … rows[7].
template <typename T>
void TransposeScales(const uint8_t* const* rows, int64_t count, uint8_t* HWY_RESTRICT out) {
  const hn::CappedTag<T, 16 / sizeof(T)> d;
  constexpr int64_t kStep = 16 / sizeof(T);
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    hn::Vec<decltype(d)> v[kRowGroup];
    for (int r = 0; r < kRowGroup; ++r) v[r] = hn::LoadU(d, reinterpret_cast<const T*>(rows[r]) + i);
    for (int pass = 0; pass < 3; ++pass) Zip(d, v);
    for (int r = 0; r < kRowGroup; ++r) hn::StoreU(v[r], d, reinterpret_cast<T*>(out) + i * kRowGroup + r * kStep);
  }
  for (; i < count; ++i) {
    for (int r = 0; r < kRowGroup; ++r) {
      std::memcpy(out + (i * kRowGroup + r) * sizeof(T), rows[r] + i * sizeof(T), sizeof(T));
    }
  }
}

/// `bytes` bytes (a multiple of 16) of each of eight rows, four at a time.
inline void TransposeWords(const uint8_t* const* rows, int64_t bytes, uint8_t* HWY_RESTRICT out) {
  const hn::CappedTag<int32_t, 4> d;
  const hn::Repartition<int64_t, decltype(d)> d64;
  for (int64_t i = 0; i < bytes; i += 16) {
    for (int half = 0; half < 2; ++half) {
      const auto load = [&](int r)
                            HWY_ATTR { return hn::LoadU(d, reinterpret_cast<const int32_t*>(rows[4 * half + r] + i)); };
      const auto a = load(0), b = load(1), c = load(2), e = load(3);
      const auto ab_low = hn::BitCast(d64, hn::InterleaveLower(d, a, b));
      const auto ab_high = hn::BitCast(d64, hn::InterleaveUpper(d, a, b));
      const auto ce_low = hn::BitCast(d64, hn::InterleaveLower(d, c, e));
      const auto ce_high = hn::BitCast(d64, hn::InterleaveUpper(d, c, e));
      auto* to = reinterpret_cast<int64_t*>(out + i * kRowGroup + half * 16);
      hn::StoreU(hn::InterleaveLower(d64, ab_low, ce_low), d64, to);
      hn::StoreU(hn::InterleaveUpper(d64, ab_low, ce_low), d64, to + 4);
      hn::StoreU(hn::InterleaveLower(d64, ab_high, ce_high), d64, to + 8);
      hn::StoreU(hn::InterleaveUpper(d64, ab_high, ce_high), d64, to + 12);
    }
  }
}

/// Eight rows as the kernels read them.
struct RowGroup {
  const uint8_t* codes;
  const uint8_t* scales;
};

/// Eight rows' codes and scales in the memory of a worker.
struct RowGroupBuffer {
  uint8_t *codes, *scales;

  static RowGroupBuffer Allocate(ScratchArena& arena, DType dtype, int64_t cols, int64_t groups) {
    const auto width = static_cast<uint64_t>(cols), rows = static_cast<uint64_t>(groups * kRowGroup);
    return {arena.Allocate<uint8_t>(rows * RowBytes(dtype, width)),
            arena.Allocate<uint8_t>(rows * RowScaleBytes(dtype, width))};
  }
};

/// Rows `row` … `row` + 7 (counted through all matrices) of a matrix that lies row by row, as a group. Rows from `end`
/// on repeat the last one before it.
template <class Format>
RowGroup PackGroup(const WeightMatrix& w, int64_t row, int64_t end, const RowGroupBuffer& buffer) {
  const uint8_t *codes[kRowGroup], *scales[kRowGroup];
  for (int r = 0; r < kRowGroup; ++r) {
    codes[r] = reinterpret_cast<const uint8_t*>(w.Row(std::min(row + r, end - 1)));
    scales[r] = reinterpret_cast<const uint8_t*>(w.RowScales(std::min(row + r, end - 1)));
  }
  const int64_t blocks = w.cols / kBlockSize;
  TransposeWords(codes, blocks * Format::kBlockBytes, buffer.codes);
  TransposeScales<std::conditional_t<Format::kScaleBytes == 1, uint8_t, uint16_t>>(scales, blocks, buffer.scales);
  return {buffer.codes, buffer.scales};
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif
