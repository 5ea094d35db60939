// Operands of the tile kernel: weights widened to BF16 row by row, activations as BF16 in pairs of columns. Included
// once per target.
//
// Weights are the left operand, so that a row stays a row: transposing every panel would cost as much as multiplying it
// by 64 rows of activations. What the right operand needs, pairs of columns of 16 rows side by side, is made from the
// activations, once for all panels.
//
// MXFP4 decodes without shuffling to another order of columns, which the activations take too. Of each 128 columns,
// position 32 v + 8 b + w holds column 32 b + 16 (v % 2) + 2 w + v / 2 (v, b < 4; w < 8); columns past the end are
// zero.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "backends/cpu/amx/tiles-inl.h"
#include "backends/cpu/unpack-inl.h"
#include "ops/ops.h"
#include "tensor/float_convert.h"
#include "tensor/mxfp4.h"
#include "tensor/weight_layout.h"

#if defined(GPTOSS_BACKENDS_CPU_AMX_PANEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GPTOSS_BACKENDS_CPU_AMX_PANEL_INL_H_
#undef GPTOSS_BACKENDS_CPU_AMX_PANEL_INL_H_
#else
#define GPTOSS_BACKENDS_CPU_AMX_PANEL_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr int64_t kMxfp4GroupCols = 128;

/// Columns of an operand in memory: whole steps, for MXFP4 whole groups.
constexpr int64_t PaddedCols(DType dtype, int64_t cols) {
  return dtype == DType::kMxfp4 ? (cols + kMxfp4GroupCols - 1) / kMxfp4GroupCols * kMxfp4GroupCols : cols;
}

/// from[i] -= value of bf16[i]: exact, and what a second BF16 can add to the first. Zero where that is no number.
inline void SubtractBf16(const uint16_t* HWY_RESTRICT bf16, int64_t count, float* HWY_RESTRICT values) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const hn::Rebind<uint16_t, decltype(d)> du16;
  for (int64_t i = 0; i < count; i += static_cast<int64_t>(hn::Lanes(d))) {
    const auto bits = hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(du16, bf16 + i)));
    const auto rest = hn::Sub(hn::LoadU(d, values + i), hn::BitCast(d, bits));
    hn::StoreU(hn::IfThenElseZero(hn::Lt(hn::Abs(rest), hn::Set(d, HUGE_VALF)), rest), d, values + i);
  }
}

/// Nearest even; not-a-numbers stay so. `count` is a multiple of 16.
inline void RoundToBf16(const float* HWY_RESTRICT from, int64_t count, uint16_t* HWY_RESTRICT to) {
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::RebindToUnsigned<decltype(d)> du;
  const hn::Rebind<uint16_t, decltype(d)> du16;
  for (int64_t i = 0; i < count; i += static_cast<int64_t>(hn::Lanes(d))) {
    const auto value = hn::LoadU(d, from + i);
    const auto bits = hn::BitCast(du, value), high = hn::ShiftRight<16>(bits);
    const auto nearest = hn::ShiftRight<16>(hn::Add(bits, hn::Add(hn::Set(du, 0x7FFF), hn::And(high, hn::Set(du, 1)))));
    const auto quiet = hn::Or(high, hn::Set(du, 0x0040));
    const auto result = hn::IfThenElse(hn::RebindMask(du, hn::Eq(value, value)), nearest, quiet);
    hn::StoreU(hn::DemoteTo(du16, hn::BitCast(di, result)), du16, to + i);
  }
}

/// 32 values in order of columns to their four places in an MXFP4 group.
inline void PermuteBlock(const uint16_t* HWY_RESTRICT from, uint16_t* HWY_RESTRICT to) {
  const hn::FixedTag<uint16_t, 8> d;
  const auto a = hn::LoadU(d, from), b = hn::LoadU(d, from + 8);
  const auto c = hn::LoadU(d, from + 16), e = hn::LoadU(d, from + 24);
  hn::StoreU(hn::ConcatEven(d, b, a), d, to);
  hn::StoreU(hn::ConcatEven(d, e, c), d, to + 32);
  hn::StoreU(hn::ConcatOdd(d, b, a), d, to + 64);
  hn::StoreU(hn::ConcatOdd(d, e, c), d, to + 96);
}

/// A row in order of columns to the order of MXFP4 groups.
inline void PermuteRow(const uint16_t* HWY_RESTRICT from, int64_t cols, uint16_t* HWY_RESTRICT to) {
  std::fill(to + cols / kMxfp4GroupCols * kMxfp4GroupCols, to + PaddedCols(DType::kMxfp4, cols), uint16_t{0});
  for (int64_t block = 0; block < cols / kBlockSize; ++block) {
    PermuteBlock(from + block * kBlockSize, to + block / 4 * kMxfp4GroupCols + block % 4 * 8);
  }
}

/// Decodes blocks of 32 codes, as many as a vector has parts of 16 bytes.
///
/// Each part looks up in a table of its own: the values of the 16 codes times the block's scale, exact for scales from
/// kSmallest to kLargest. Below, some are subnormal; above, infinite.
class Mxfp4Decoder {
 public:
  static constexpr uint8_t kSmallest = 2, kLargest = 252;
  static constexpr int kBlocks = HWY_MIN(HWY_MAX_BYTES, 64) / 16;

  /// kBlocks blocks at `codes`; `scales` as kBlocks bytes. Writes to + 32 v for v = 0 … 3, 8 values of each block.
  static HWY_INLINE void Decode(const uint8_t* HWY_RESTRICT codes, uint32_t scales, uint16_t* HWY_RESTRICT to) {
    const D8 d8;
    const D16 d16;
    // Codes 0 … 7 with exponents for a scale of 127 taken away, so that adding the scale gives the exponent.
    alignas(16) static constexpr uint16_t kBase[8] = {0, 0xFF80, 0x0000, 0x0040, 0x0080, 0x00C0, 0x0100, 0x0140};
    alignas(16) static constexpr uint16_t kNonZero[8] = {0, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF};
    alignas(16) static constexpr uint8_t kLowBytes[16] = {0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14};
    alignas(16) static constexpr uint8_t kHighBytes[16] = {1, 3, 5, 7, 9, 11, 13, 15, 1, 3, 5, 7, 9, 11, 13, 15};
    alignas(16) static constexpr uint8_t kSigns[16] = {0,    0,    0,    0,    0,    0,    0,    0,
                                                       0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80};
    const auto words =
        hn::And(hn::Add(hn::LoadDup128(d16, kBase), hn::ShiftLeft<7>(Spread(scales))), hn::LoadDup128(d16, kNonZero));
    const auto table = hn::BitCast(d8, words);
    const auto low_bytes = hn::TableLookupBytes(table, hn::LoadDup128(d8, kLowBytes));
    const auto high_bytes =
        hn::Or(hn::TableLookupBytes(table, hn::LoadDup128(d8, kHighBytes)), hn::LoadDup128(d8, kSigns));
    const auto nibbles = hn::Set(d8, 0x0F), bytes = hn::LoadU(d8, codes);
    const auto shifted = hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, bytes)));
    const auto even = hn::And(bytes, nibbles), odd = hn::And(shifted, nibbles);
    const auto even_low = hn::TableLookupBytes(low_bytes, even), even_high = hn::TableLookupBytes(high_bytes, even);
    const auto odd_low = hn::TableLookupBytes(low_bytes, odd), odd_high = hn::TableLookupBytes(high_bytes, odd);
    hn::StoreU(hn::BitCast(d16, hn::InterleaveLower(d8, even_low, even_high)), d16, to);
    hn::StoreU(hn::BitCast(d16, hn::InterleaveUpper(d8, even_low, even_high)), d16, to + 32);
    hn::StoreU(hn::BitCast(d16, hn::InterleaveLower(d8, odd_low, odd_high)), d16, to + 64);
    hn::StoreU(hn::BitCast(d16, hn::InterleaveUpper(d8, odd_low, odd_high)), d16, to + 96);
  }

 private:
  using D8 = hn::CappedTag<uint8_t, 64>;
  using D16 = hn::Repartition<uint16_t, D8>;

  /// Byte b of `scales` in all 16-bit lanes of part b.
  static HWY_INLINE hn::Vec<D16> Spread(uint32_t scales) {
    constexpr uint8_t kNone = 0x80;
    alignas(64) static constexpr uint8_t kParts[64] = {
        0, kNone, 0, kNone, 0, kNone, 0, kNone, 0, kNone, 0, kNone, 0, kNone, 0, kNone, 1, kNone, 1, kNone, 1, kNone,
        1, kNone, 1, kNone, 1, kNone, 1, kNone, 1, kNone, 2, kNone, 2, kNone, 2, kNone, 2, kNone, 2, kNone, 2, kNone,
        2, kNone, 2, kNone, 3, kNone, 3, kNone, 3, kNone, 3, kNone, 3, kNone, 3, kNone, 3, kNone, 3, kNone};
    const hn::Repartition<uint32_t, D8> d32;
    const auto all = hn::BitCast(D8(), hn::Set(d32, scales));
    return hn::BitCast(D16(), hn::TableLookupBytesOr0(all, hn::Load(D8(), kParts)));
  }
};

/// Decodes a row of MXFP4 to PaddedCols values.
inline void UnpackMxfp4(const uint8_t* codes, const uint8_t* scales, int64_t cols, uint16_t* HWY_RESTRICT to) {
  constexpr int64_t kBlocks = Mxfp4Decoder::kBlocks;
  const int64_t blocks = cols / kBlockSize, padded = PaddedCols(DType::kMxfp4, cols) / kBlockSize;
  const auto target = [&](int64_t block) { return to + block / 4 * kMxfp4GroupCols + block % 4 * 8; };
  uint8_t least = 255, most = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    least = std::min(least, scales[block]);
    most = std::max(most, scales[block]);
  }
  if (least < Mxfp4Decoder::kSmallest || most > Mxfp4Decoder::kLargest) {  // no trained model has such scales
    std::fill_n(to, padded * kBlockSize, uint16_t{0});
    for (int64_t block = 0; block < blocks; ++block) {
      uint16_t values[kBlockSize];
      for (int i = 0; i < kBlockSize; ++i) {
        const int code = codes[block * 16 + i / 2] >> (4 * (i % 2)) & 15;
        values[i] = F32ToBf16(kFp4Values[code] * E8m0ToF32(scales[block]));
      }
      PermuteBlock(values, target(block));
    }
    return;
  }
  for (int64_t block = 0; block < padded; block += kBlocks) {
    uint32_t some = 0;
    if (block + kBlocks <= blocks) {
      std::memcpy(&some, scales + block, kBlocks);
      Mxfp4Decoder::Decode(codes + block * 16, some, target(block));
    } else {
      uint8_t rest[kBlocks * 16] = {}, one[sizeof(some)] = {127, 127, 127, 127};
      const int64_t left = std::max<int64_t>(0, blocks - block);
      std::memcpy(rest, codes + block * 16, static_cast<size_t>(left * 16));
      std::memcpy(one, scales + block, static_cast<size_t>(left));
      std::memcpy(&some, one, sizeof(some));
      Mxfp4Decoder::Decode(rest, some, target(block));
    }
  }
}

/// How many BF16 values make one weight. The products of Q8_0, quant times scale, have up to 18 bits.
constexpr int WeightParts(DType dtype) { return dtype == DType::kQ8_0 ? 2 : 1; }

/// Decodes a row of Q8_0 to `cols` values in BF16 and then what these lack, in BF16 too.
inline void UnpackQ8(const uint8_t* quants, const uint8_t* scales, int64_t cols, uint16_t* HWY_RESTRICT to) {
  HWY_ALIGN float values[kBlockSize];
  for (int64_t block = 0; block < cols / kBlockSize; ++block) {
    uint16_t scale;
    std::memcpy(&scale, scales + block * 2, 2);
    ScaleBlock(reinterpret_cast<const int8_t*>(quants) + block * kBlockSize, F16ToF32(scale), values);
    RoundToBf16(values, kBlockSize, to + block * kBlockSize);
    SubtractBf16(to + block * kBlockSize, kBlockSize, values);
    RoundToBf16(values, kBlockSize, to + cols + block * kBlockSize);
  }
}

/// to[j][i] = from[i][j] for 4 x 4 values of 32 bits.
inline void Transpose4(const uint32_t* const* from, int64_t at, uint32_t* to, int64_t to_stride) {
  const hn::FixedTag<uint32_t, 4> d;
  const hn::FixedTag<uint64_t, 2> d64;
  const auto a = hn::LoadU(d, from[0] + at), b = hn::LoadU(d, from[1] + at);
  const auto c = hn::LoadU(d, from[2] + at), e = hn::LoadU(d, from[3] + at);
  const auto ab_low = hn::BitCast(d64, hn::InterleaveLower(d, a, b));
  const auto ab_high = hn::BitCast(d64, hn::InterleaveUpper(d, a, b));
  const auto ce_low = hn::BitCast(d64, hn::InterleaveLower(d, c, e));
  const auto ce_high = hn::BitCast(d64, hn::InterleaveUpper(d, c, e));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, ab_low, ce_low)), d, to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, ab_low, ce_low)), d, to + to_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, ab_high, ce_high)), d, to + 2 * to_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, ab_high, ce_high)), d, to + 3 * to_stride);
}

/// Rows that lie side by side (kRows8), one after the other again. A worker's memory.
struct SplitRows {
  uint8_t* codes;   // [kRowGroup, bytes of a row]
  uint8_t* scales;  // [kRowGroup, bytes of a row's scales]
};

/// The group of kRows8 that begins with row `row`.
inline void SplitGroup(const WeightMatrix& w, int64_t row, const SplitRows& out) {
  const int64_t blocks = w.cols / kBlockSize, row_words = static_cast<int64_t>(RowBytes(w.dtype, w.cols)) / 4;
  const auto* codes = reinterpret_cast<const uint32_t*>(w.Row(row));
  auto* words = reinterpret_cast<uint32_t*>(out.codes);
  for (int64_t word = 0; word < row_words; word += 4) {
    for (int64_t half = 0; half < kRowGroup; half += 4) {
      const uint32_t* const from[4] = {codes, codes + kRowGroup, codes + 2 * kRowGroup, codes + 3 * kRowGroup};
      Transpose4(from, word * kRowGroup + half, words + half * row_words + word, row_words);
    }
  }
  const auto* scales = reinterpret_cast<const uint8_t*>(w.RowScales(row));
  const int64_t bytes = w.dtype == DType::kMxfp4 ? 1 : 2;
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t r = 0; r < kRowGroup; ++r) {
      std::memcpy(out.scales + (r * blocks + block) * bytes, scales + (block * kRowGroup + r) * bytes,
                  static_cast<size_t>(bytes));
    }
  }
}

/// `rows` rows from row `row` on (counted through all matrices; for kRows8 the first of a group) of MXFP4, Q8_0 or BF16
/// weights, as WeightParts times PaddedCols values each. Exact but for Q8_0, which keeps 16 bits.
inline void UnpackPanel(const WeightMatrix& w, int64_t row, int64_t rows, const SplitRows& split, uint16_t* to) {
  const int64_t padded = PaddedCols(w.dtype, w.cols);
  const auto bytes = static_cast<int64_t>(RowBytes(w.dtype, w.cols));
  const auto scale_bytes = static_cast<int64_t>(RowScaleBytes(w.dtype, w.cols));
  for (int64_t r = 0; r < rows; ++r, to += padded * WeightParts(w.dtype)) {
    const auto* codes = reinterpret_cast<const uint8_t*>(w.data) + (row + r) * bytes;
    const auto* scales = reinterpret_cast<const uint8_t*>(w.scales) + (row + r) * scale_bytes;
    if (w.layout == WeightLayout::kRows8) {
      const int64_t lane = r % kRowGroup;
      if (lane == 0) SplitGroup(w, row + r, split);
      codes = split.codes + lane * bytes;
      scales = split.scales + lane * scale_bytes;
    }
    if (w.dtype == DType::kMxfp4) {
      UnpackMxfp4(codes, scales, w.cols, to);
    } else if (w.dtype == DType::kQ8_0) {
      UnpackQ8(codes, scales, w.cols, to);
    } else {
      std::memcpy(to, codes, static_cast<size_t>(bytes));
    }
  }
}

/// Right operands of 16 rows of `cols` BF16 values: tile s, at to + s * stride, holds columns 32 s … 32 s + 31, in its
/// row i column 2 i and 2 i + 1 of all 16 rows.
inline void PackTiles(const uint16_t* const* rows, int64_t cols, int64_t stride, uint16_t* to) {
  const uint32_t* pairs[kTileRows];
  for (int n = 0; n < kTileRows; ++n) pairs[n] = reinterpret_cast<const uint32_t*>(rows[n]);
  for (int64_t pair = 0; pair < cols / 2; pair += 4) {
    auto* out = reinterpret_cast<uint32_t*>(to + pair / kTileRows * stride) + pair % kTileRows * kTileRows;
    for (int n = 0; n < kTileRows; n += 4) Transpose4(pairs + n, pair, out + n, kTileRows);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif
