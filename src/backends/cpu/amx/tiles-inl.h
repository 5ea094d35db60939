// The tile instructions that the kernel needs, in two forms with one interface: the processor's, and ordinary code with
// the same results. Included once per target.
//
// A tile is 16 rows of 64 bytes. Operands hold BF16, sums hold float. Source: Intel 64 and IA-32 Architectures Software
// Developer's Manual, volume 2, TDPBF16PS, and the sections on LDTILECFG and TILELOADD.

#include <cstdint>
#include <cstring>

#if defined(GPTOSS_BACKENDS_CPU_AMX_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GPTOSS_BACKENDS_CPU_AMX_TILES_INL_H_
#undef GPTOSS_BACKENDS_CPU_AMX_TILES_INL_H_
#else
#define GPTOSS_BACKENDS_CPU_AMX_TILES_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr int kTileRows = 16;      // rows of a tile, and values of a row of sums
inline constexpr int kTileRowBytes = 64;  // 32 BF16 or 16 float
inline constexpr int kTileValues = 512;   // BF16 of an operand
inline constexpr int kStepCols = 32;      // columns of both operands that one product takes
inline constexpr int kTileCount = 8;

/// Tiles as ordinary memory.
class EmulatedTiles {
 public:
  template <int kTile>
  void Zero() {
    std::memset(tiles_[kTile], 0, sizeof(tiles_[kTile]));
  }

  template <int kTile>
  void Load(const void* from, int64_t stride) {
    for (int r = 0; r < kTileRows; ++r) {
      std::memcpy(tiles_[kTile][r], static_cast<const char*>(from) + r * stride, kTileRowBytes);
    }
  }

  template <int kTile>
  void Store(void* to, int64_t stride) const {
    for (int r = 0; r < kTileRows; ++r) {
      std::memcpy(static_cast<char*>(to) + r * stride, tiles_[kTile][r], kTileRowBytes);
    }
  }

  /// Row m of the sums gains, in column n, the products of row m of `kA` with the pairs n of all rows of `kB`: values
  /// of even and of odd index are two chains of fused multiply-adds from zero, whose sum is added to the old value.
  /// Subnormal operands and results are zero, rounding is to nearest even. Without a fused instruction the product is
  /// exact all the same (8 bits times 8), unless it leaves the range of float.
  template <int kSum, int kA, int kB>
  HWY_NOINLINE void MultiplyAdd() {
    const D d;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    for (int m = 0; m < kTileRows; ++m) {
      for (int64_t n = 0; n < kTileRows; n += lanes) {
        auto even = hn::Zero(d), odd = hn::Zero(d);
        for (int k = 0; k < kTileRows; ++k) {
          const auto a = hn::Set(DU(), tiles_[kA][m][k]), b = hn::Load(DU(), tiles_[kB][k] + n);
          even = Flush(hn::MulAdd(Low(a), Low(b), even));
          odd = Flush(hn::MulAdd(High(a), High(b), odd));
        }
        auto* sums = reinterpret_cast<float*>(tiles_[kSum][m]) + n;
        hn::Store(Flush(hn::Add(Flush(hn::Load(d, sums)), Flush(hn::Add(even, odd)))), d, sums);
      }
    }
  }

 private:
  using D = hn::CappedTag<float, kTileRows>;
  using DU = hn::RebindToUnsigned<D>;

  static HWY_INLINE hn::Vec<D> Flush(hn::Vec<D> v) {
    return hn::IfThenZeroElse(hn::Lt(hn::Abs(v), hn::Set(D(), 0x1.0p-126f)), v);
  }
  static HWY_INLINE hn::Vec<D> Low(hn::Vec<DU> pair) { return Flush(hn::BitCast(D(), hn::ShiftLeft<16>(pair))); }
  static HWY_INLINE hn::Vec<D> High(hn::Vec<DU> pair) {
    return Flush(hn::BitCast(D(), hn::And(pair, hn::Set(DU(), 0xFFFF0000))));
  }

  alignas(64) uint32_t tiles_[kTileCount][kTileRows][kTileRowBytes / 4] = {};
};

#if HWY_TARGET == HWY_AVX3 && HWY_ARCH_X86_64

/// The processor's tiles. They belong to the thread: one object at a time on each, not passed to another one. Assembly
/// instead of intrinsics: it needs no compiler flags, so that the kernel is one template for both classes.
class AmxTiles {
 public:
  AmxTiles() {
    struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    static_assert(sizeof(config) == 64);
    for (int t = 0; t < kTileCount; ++t) {
      config.row_bytes[t] = kTileRowBytes;
      config.rows[t] = kTileRows;
    }
    asm volatile("ldtilecfg %0" : : "m"(config));
  }
  /// Without it the system would go on saving 8 KB at every switch of threads.
  ~AmxTiles() { asm volatile("tilerelease"); }
  AmxTiles(const AmxTiles&) = delete;

  template <int kTile>
  HWY_INLINE void Zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }

  template <int kTile>
  HWY_INLINE void Load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
  }

  template <int kTile>
  HWY_INLINE void Store(void* to, int64_t stride) const {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
  }

  template <int kSum, int kA, int kB>
  HWY_INLINE void MultiplyAdd() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
  }
};

#endif

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();

#endif
