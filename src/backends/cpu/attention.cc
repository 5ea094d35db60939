// Softmax attention over the paged cache. One item of work is (sequence, kv head, tile of query rows): all query heads
// of the kv head and a few rows share one pass over K and V.
//
// Queries are the lanes of the vectors: scores of one key for all queries of the tile are a vector, so the softmax
// needs no operation across lanes and K needs no transposing. Keys come in blocks of 32 with a running maximum (online
// softmax; Milakov, Gimelshein 2018). The context is cut at multiples of kSplitKeys; each part starts afresh and parts
// are merged in order, so a long context can be spread over threads and yet gives the same bits as one thread, as a
// prefill, and in any batch.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/attention.cc"
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "backends/cpu/kernels.h"
#include "hwy/foreach_target.h"
// After foreach_target: included once per target.
#include "backends/cpu/unpack-inl.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
/// For the queries of one position, of which a group has eight: half a vector of 512 bits.
using NarrowD = hn::CappedTag<float, 8>;
using NarrowV = hn::Vec<NarrowD>;
constexpr int kNarrowLanes = static_cast<int>(hn::MaxLanes(NarrowD()));

constexpr int64_t kCacheLine = 64;
constexpr int kSplitKeys = 1024;
constexpr int kMaxQueries = 48;  // query vectors per tile: 6 rows of 8 heads; a multiple of every vector
/// Below every score that occurs, and finite, so that differences of two of them are 0 and not NaN.
constexpr float kLowest = -1e30f;

int PadToLanes(int count) {
  const int lanes = static_cast<int>(hn::Lanes(D()));
  return (count + lanes - 1) / lanes * lanes;
}

/// Query rows [row_begin, row_end) of sequence `sequence` and heads [head_begin, head_end) of one kv head, keys of part
/// `part`.
struct Item {
  int sequence, kv_head;
  int head_begin, head_end;
  int row_begin, row_end;
  int part_begin, part_end;  // parts of kSplitKeys keys
};

/// What softmax has seen so far, per query: maximum, sum of exp(score - maximum), and the same sum weighted by V.
struct State {
  float* max;     // [queries]
  float* sum;     // [queries]
  float* values;  // [head_dim, queries]
};

/// A worker's memory.
struct Scratch {
  float* q;        // [head_dim, queries], scaled
  float* scores;   // [kKvBlockSize, queries]
  float* factors;  // [queries] by which earlier sums shrink
  float* widened;  // [kKvBlockSize, head_dim] keys, then values: one buffer, so that less of the L1 cache is taken
  int32_t *first, *last;  // [queries] first and last key that each query sees
  State part, total;
};

int64_t StateFloats(int head_dim) { return static_cast<int64_t>(head_dim + 2) * kMaxQueries; }

State MakeState(float* memory) { return {memory, memory + kMaxQueries, memory + 2 * kMaxQueries}; }

void Clear(const State& state, int queries, int head_dim) {
  std::fill_n(state.max, queries, kLowest);
  std::fill_n(state.sum, queries, 0.0f);
  std::fill_n(state.values, static_cast<int64_t>(queries) * head_dim, 0.0f);
}

/// total = total and part together.
template <class Tag>
void Merge(Tag d, const State& part, int queries, int head_dim, const State& total) {
  using Vector = hn::Vec<Tag>;
  for (int i = 0; i < queries; i += static_cast<int>(hn::Lanes(d))) {
    const Vector m0 = hn::Load(d, total.max + i), m1 = hn::Load(d, part.max + i), m = hn::Max(m0, m1);
    const Vector f0 = hn::Exp(d, hn::Sub(m0, m)), f1 = hn::Exp(d, hn::Sub(m1, m));
    hn::Store(m, d, total.max + i);
    const auto merge = [&](float* to, const float* from) HWY_ATTR {
      hn::Store(hn::MulAdd(hn::Load(d, to + i), f0, hn::Mul(hn::Load(d, from + i), f1)), d, to + i);
    };
    merge(total.sum, part.sum);
    for (int c = 0; c < head_dim; ++c) merge(total.values + c * queries, part.values + c * queries);
  }
}

/// sums[r][v] += a[r * stride + i * step] * b[i * queries + v * lanes …] over i: kRows rows share kVectors query
/// vectors.
template <int kRows, int kVectors>
HWY_INLINE void BroadcastDot(const float* HWY_RESTRICT a, int stride, int step, const float* HWY_RESTRICT b,
                             int queries, int count, V (&sums)[kRows][kVectors]) {
  const D d;
  for (int i = 0; i < count; ++i) {
    V columns[kVectors];
    for (int v = 0; v < kVectors; ++v) columns[v] = hn::Load(d, b + i * queries + v * hn::Lanes(d));
    for (int r = 0; r < kRows; ++r) {
      const V value = hn::Set(d, a[r * stride + i * step]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::MulAdd(value, columns[v], sums[r][v]);
    }
  }
}

/// Rows that go with kVectors query vectors: about 12 accumulators in 16 registers.
template <int kVectors>
constexpr int kBroadcastRows = kVectors == 1 ? 8 : 4;

/// Calls run.operator()<kVectors>(first query) so that all queries are covered, three vectors at a time where possible.
template <class Run>
void ForQueryVectors(int queries, const Run& run) {
  const int lanes = static_cast<int>(hn::Lanes(D()));
  int i = 0;
  for (; i + 3 * lanes <= queries; i += 3 * lanes) run.template operator()<3>(i);
  if (i + 2 * lanes <= queries) return run.template operator()<2>(i);
  if (i < queries) run.template operator()<1>(i);
}

/// The head dimension of both released models; known when compiling, it makes the addresses of eight rows constants,
/// which as variables do not fit into the registers.
constexpr int kUsualHeadDim = 64;

/// Fetches `bytes` bytes of the block that follows, a few lines between two rounds of work: of those that are asked for
/// all at once processors drop some. Blocks of one head lie apart, so that the hardware does not see them coming.
HWY_INLINE void FetchSome(const std::byte* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += kCacheLine) hwy::Prefetch(from + i);
}

/// scores[key][query] = k[key] · q[query]. kHeadDim is 0 when only `any_head_dim` tells it. Fetches the block at
/// `next`, of `value_bytes` a value.
template <int kHeadDim>
void Scores(const float* k, const std::byte* next, int64_t value_bytes, const float* q, int queries, int any_head_dim,
            float* scores) {
  ForQueryVectors(queries, [&]<int kVectors>(int i) HWY_ATTR {
    const D d;
    const int head_dim = kHeadDim == 0 ? any_head_dim : kHeadDim;
    constexpr int kRows = kBroadcastRows<kVectors>;
    static_assert(kKvBlockSize % kRows == 0);
    for (int key = 0; key < kKvBlockSize; key += kRows) {
      if (i == 0) FetchSome(next + key * head_dim * value_bytes, kRows * head_dim * value_bytes);
      V sums[kRows][kVectors];
      for (auto& row : sums) std::fill_n(row, kVectors, hn::Zero(d));
      BroadcastDot<kRows, kVectors>(k + key * head_dim, head_dim, 1, q + i, queries, head_dim, sums);
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) {
          hn::Store(sums[r][v], d, scores + (key + r) * queries + i + v * hn::Lanes(d));
        }
      }
    }
  });
}

/// values[c][query] = values[c][query] * factors[query] + sum over keys of v[key][c] * weights[key][query], for kRows
/// channels from `c` on.
template <int kRows, int kVectors>
void AddChannels(const float* v, const float* weights, const float* factors, int queries, int head_dim, int c, int i,
                 float* values) {
  const D d;
  const auto at = [&](int r, int vector) { return values + (c + r) * queries + i + vector * hn::Lanes(d); };
  V sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int n = 0; n < kVectors; ++n) {
      sums[r][n] = hn::Mul(hn::Load(d, at(r, n)), hn::Load(d, factors + i + n * hn::Lanes(d)));
    }
  }
  BroadcastDot<kRows, kVectors>(v + c, 1, head_dim, weights + i, queries, kKvBlockSize, sums);
  for (int r = 0; r < kRows; ++r) {
    for (int n = 0; n < kVectors; ++n) hn::Store(sums[r][n], d, at(r, n));
  }
}

/// AddChannels for all channels. Fetches the block at `next`, of `value_bytes` a value.
void AddValues(const float* v, const std::byte* next, int64_t value_bytes, const float* weights, const float* factors,
               int queries, int head_dim, float* values) {
  ForQueryVectors(queries, [&]<int kVectors>(int i) HWY_ATTR {
    constexpr int kRows = kBroadcastRows<kVectors>;
    int c = 0;
    for (; c + kRows <= head_dim; c += kRows) {
      if (i == 0) FetchSome(next + c * kKvBlockSize * value_bytes, kRows * kKvBlockSize * value_bytes);
      AddChannels<kRows, kVectors>(v, weights, factors, queries, head_dim, c, i, values);
    }
    for (; c < head_dim; ++c) AddChannels<1, kVectors>(v, weights, factors, queries, head_dim, c, i, values);
  });
}

/// Turns the scores of the 32 keys from `position` on into weights, relative to the new maximum, and says by what
/// factor earlier sums shrink. Keys outside a query's [first, last] have no weight for it; `masked` says that there are
/// such keys.
template <class Tag>
void Softmax(Tag d, const Scratch& s, int queries, int position, bool masked, const State& state) {
  using Vector = hn::Vec<Tag>;
  const hn::RebindToSigned<Tag> di;
  for (int i = 0; i < queries; i += static_cast<int>(hn::Lanes(d))) {
    const auto first = hn::Load(di, s.first + i), last = hn::Load(di, s.last + i);
    const Vector old_max = hn::Load(d, state.max + i);
    Vector max = old_max;
    for (int key = 0; key < kKvBlockSize; ++key) {
      Vector score = hn::Load(d, s.scores + key * queries + i);
      if (masked) {
        const auto at = hn::Set(di, position + key);
        const auto hidden = hn::Or(hn::Lt(at, first), hn::Gt(at, last));
        score = hn::IfThenElse(hn::RebindMask(d, hidden), hn::Set(d, kLowest), score);
        hn::Store(score, d, s.scores + key * queries + i);
      }
      max = hn::Max(max, score);
    }
    Vector sum = hn::Zero(d);
    for (int key = 0; key < kKvBlockSize; ++key) {
      Vector weight = hn::Exp(d, hn::Sub(hn::Load(d, s.scores + key * queries + i), max));
      if (masked) {
        const auto at = hn::Set(di, position + key);
        const auto hidden = hn::Or(hn::Lt(at, first), hn::Gt(at, last));
        weight = hn::IfThenElse(hn::RebindMask(d, hidden), hn::Zero(d), weight);
      }
      hn::Store(weight, d, s.scores + key * queries + i);
      sum = hn::Add(sum, weight);
    }
    const Vector factor = hn::Exp(d, hn::Sub(old_max, max));
    hn::Store(max, d, state.max + i);
    hn::Store(factor, d, s.factors + i);
    hn::Store(hn::MulAdd(hn::Load(d, state.sum + i), factor, sum), d, state.sum + i);
  }
}

/// Two BF16 values side by side, in all lanes.
using Pair = hn::Vec<hn::Repartition<uint32_t, NarrowD>>;
HWY_INLINE Pair PairOf(const uint16_t* values) {
  uint32_t pair;
  std::memcpy(&pair, values, sizeof(pair));
  return hn::Set(hn::Repartition<uint32_t, NarrowD>(), pair);
}

/// As floats, the value at the lower address and the one after it.
HWY_INLINE NarrowV First(Pair pair) { return hn::BitCast(NarrowD(), hn::ShiftLeft<16>(pair)); }
HWY_INLINE NarrowV Second(Pair pair) {
  return hn::BitCast(NarrowD(), hn::And(pair, hn::Set(hn::Repartition<uint32_t, NarrowD>(), 0xFFFF0000u)));
}

/// Keys or channels whose sums NarrowV keeps in registers at once: each sum is a chain of dependent additions, so the
/// more of them the better they overlap.
constexpr int kNarrowRows = HWY_TARGET <= HWY_AVX3 ? 16 : 8;

/// Scores when one NarrowV holds all queries, as in decoding: K is then read once as BF16 and not widened before. Each
/// round fetches as many bytes from `next`, the block that follows, as it reads. The same sums as Scores, bit by bit.
template <int kHeadDim>
void NarrowScores(const uint16_t* k, const uint16_t* next, const float* q, int any_head_dim, float* scores) {
  constexpr int kRows = kNarrowRows;
  const NarrowD d;
  const int lanes = kNarrowLanes, head_dim = kHeadDim == 0 ? any_head_dim : kHeadDim;
  for (int key = 0; key < kKvBlockSize; key += kRows) {
    NarrowV sums[kRows];
    std::fill_n(sums, kRows, hn::Zero(d));
    for (int c = 0; c < head_dim; c += 2) {
      hwy::Prefetch(next + key * head_dim + c * kRows);
      const NarrowV q0 = hn::Load(d, q + c * lanes), q1 = hn::Load(d, q + (c + 1) * lanes);
      for (int r = 0; r < kRows; ++r) {
        const auto pair = PairOf(k + (key + r) * head_dim + c);
        sums[r] = hn::MulAdd(Second(pair), q1, hn::MulAdd(First(pair), q0, sums[r]));
      }
    }
    for (int r = 0; r < kRows; ++r) hn::Store(sums[r], d, scores + (key + r) * lanes);
  }
}

/// AddValues in the same way, for kChannels channels.
template <int kChannels>
HWY_INLINE void AddNarrowChannels(const uint16_t* v, const uint16_t* next, const float* weights, NarrowV factor,
                                  int head_dim, float* values) {
  const NarrowD d;
  const int lanes = kNarrowLanes;
  NarrowV sums[kChannels];
  for (int r = 0; r < kChannels; ++r) sums[r] = hn::Mul(hn::Load(d, values + r * lanes), factor);
  for (int key = 0; key < kKvBlockSize; ++key) {
    hwy::Prefetch(next + key * kChannels);
    const NarrowV weight = hn::Load(d, weights + key * lanes);
    for (int r = 0; r < kChannels; r += 2) {
      const auto pair = PairOf(v + key * head_dim + r);
      sums[r] = hn::MulAdd(First(pair), weight, sums[r]);
      sums[r + 1] = hn::MulAdd(Second(pair), weight, sums[r + 1]);
    }
  }
  for (int r = 0; r < kChannels; ++r) hn::Store(sums[r], d, values + r * lanes);
}

void AddNarrowValues(const uint16_t* v, const uint16_t* next, const float* weights, const float* factors, int head_dim,
                     float* values) {
  const NarrowV factor = hn::Load(NarrowD(), factors);
  const auto add = [&]<int kChannels>(int c) HWY_ATTR {
    AddNarrowChannels<kChannels>(v + c, next + c * kKvBlockSize, weights, factor, head_dim, values + c * kNarrowLanes);
  };
  constexpr int kMost = kNarrowRows;
  int c = 0;
  for (; c + kMost <= head_dim; c += kMost) add.template operator()<kMost>(c);
  for (; c < head_dim; c += 2) add.template operator()<2>(c);
}

/// The work on one item with what it needs of the arguments.
class TileRunner {
 public:
  TileRunner(const AttentionArgs& args, const Item& item, const Scratch& scratch)
      : args_(args),
        item_(item),
        s_(scratch),
        span_(args.sequences[item.sequence]),
        heads_(item.head_end - item.head_begin),
        count_((item.row_end - item.row_begin) * heads_),
        narrow_(args.kv.dtype == DType::kBF16 && count_ <= kNarrowLanes && args.head_dim % 2 == 0),
        queries_(narrow_ ? kNarrowLanes : PadToLanes(count_)) {
    LoadQueries();
  }

  /// Keys of part `part`, from nothing, into `state`.
  void RunPart(int part, const State& state) const {
    Clear(state, queries_, args_.head_dim);
    const int32_t* table = args_.group->block_tables.data() + item_.sequence * args_.group->blocks_per_sequence;
    const int begin = std::max(part * kSplitKeys, lowest_key_),
              end = std::min((part + 1) * kSplitKeys, highest_key_ + 1);
    const auto index_of = [&](int block) {
      return (static_cast<int64_t>(table[block]) * args_.num_kv_heads + item_.kv_head) * kKvBlockSize * args_.head_dim;
    };
    for (int block = begin / kKvBlockSize; block * kKvBlockSize < end; ++block) {
      const int position = block * kKvBlockSize;
      const int64_t index = index_of(block), next = (block + 1) * kKvBlockSize < end ? index_of(block + 1) : index;
      const bool masked = position < first_seen_by_all_ || position + kKvBlockSize - 1 > last_seen_by_all_;
      if (narrow_) {
        const uint16_t *k = Bf16(args_.kv.k), *v = Bf16(args_.kv.v);
        const auto scores = args_.head_dim == kUsualHeadDim ? &NarrowScores<kUsualHeadDim> : &NarrowScores<0>;
        scores(k + index, k + next, s_.q, args_.head_dim, s_.scores);
        Softmax(NarrowD(), s_, queries_, position, masked, state);
        AddNarrowValues(v + index, v + next, s_.scores, s_.factors, args_.head_dim, state.values);
      } else {
        const auto scores = args_.head_dim == kUsualHeadDim ? &Scores<kUsualHeadDim> : &Scores<0>;
        const auto value_bytes = static_cast<int64_t>(RowBytes(args_.kv.dtype, 1));
        scores(Widen(args_.kv.k, index), args_.kv.k + next * value_bytes, value_bytes, s_.q, queries_, args_.head_dim,
               s_.scores);
        Softmax(D(), s_, queries_, position, masked, state);
        AddValues(Widen(args_.kv.v, index), args_.kv.v + next * value_bytes, value_bytes, s_.scores, s_.factors,
                  queries_, args_.head_dim, state.values);
      }
    }
  }

  void MergeInto(const State& part, const State& total) const {
    narrow_ ? Merge(NarrowD(), part, queries_, args_.head_dim, total)
            : Merge(D(), part, queries_, args_.head_dim, total);
  }
  void ClearTotal(const State& total) const { Clear(total, queries_, args_.head_dim); }

  /// Adds the sinks and writes the outputs.
  void Finish(const State& total) const {
    for (int i = 0; i < count_; ++i) {
      const float sink = std::max(args_.sinks[Head(i)], kLowest), max = std::max(total.max[i], sink);
      const float factor = std::exp(total.max[i] - max);
      const float scale = factor / (total.sum[i] * factor + std::exp(sink - max));
      float* out = args_.out + Offset(i);
      for (int c = 0; c < args_.head_dim; ++c) out[c] = total.values[c * queries_ + i] * scale;
    }
  }

 private:
  int Head(int query) const { return item_.head_begin + query % heads_; }
  int Row(int query) const { return item_.row_begin + query / heads_; }
  int64_t Offset(int query) const {
    return (static_cast<int64_t>(span_.first_row + Row(query)) * args_.num_heads + Head(query)) * args_.head_dim;
  }
  int FirstKey(int row) const {
    return args_.window == 0 ? 0 : std::max(0, span_.first_position + row - args_.window + 1);
  }

  void LoadQueries() {
    const float scale = 1.0f / std::sqrt(static_cast<float>(args_.head_dim));
    for (int i = 0; i < queries_; ++i) {
      // Lanes past the end repeat the last query; nobody reads them.
      const int query = std::min(i, count_ - 1);
      const float* q = args_.q + Offset(query);
      for (int c = 0; c < args_.head_dim; ++c) s_.q[c * queries_ + i] = q[c] * scale;
      s_.first[i] = FirstKey(Row(query));
      s_.last[i] = span_.first_position + Row(query);
    }
    lowest_key_ = FirstKey(item_.row_begin);
    first_seen_by_all_ = FirstKey(item_.row_end - 1);
    last_seen_by_all_ = span_.first_position + item_.row_begin;
    highest_key_ = span_.first_position + item_.row_end - 1;
  }

  /// The block of keys or values at `index` as float: in place, or widened, until the next call.
  const float* Widen(const std::byte* cache, int64_t index) const {
    if (args_.kv.dtype == DType::kF32) return reinterpret_cast<const float*>(cache) + index;
    UnpackBf16(Bf16(cache) + index, int64_t{kKvBlockSize} * args_.head_dim, s_.widened, /*ahead=*/0);
    return s_.widened;
  }

  static const uint16_t* Bf16(const std::byte* cache) { return reinterpret_cast<const uint16_t*>(cache); }

  const AttentionArgs& args_;
  const Item& item_;
  const Scratch& s_;
  const SequenceSpan& span_;
  int heads_, count_;
  bool narrow_;  // one NarrowD holds all queries, and the cache is BF16
  int queries_;
  int lowest_key_ = 0, highest_key_ = 0, first_seen_by_all_ = 0, last_seen_by_all_ = 0;
};

/// Cuts the batch into tiles, all parts of the context in one item.
std::vector<Item> MakeTiles(const AttentionArgs& args) {
  const int group = args.num_heads / args.num_kv_heads;
  const int heads = std::min(group, kMaxQueries), rows = std::max(1, kMaxQueries / heads);
  std::vector<Item> items;
  for (int s = 0; s < static_cast<int>(args.sequences.size()); ++s) {
    const SequenceSpan& span = args.sequences[s];
    // The last rows see the most keys: they go first, so that short pieces are left for the end.
    for (int end = span.num_rows; end > 0; end -= rows) {
      const int begin = std::max(0, end - rows);
      const int first_key = args.window == 0 ? 0 : std::max(0, span.first_position + begin - args.window + 1);
      const int last_key = span.first_position + end - 1;
      for (int kv_head = 0; kv_head < args.num_kv_heads; ++kv_head) {
        for (int h = kv_head * group; h < (kv_head + 1) * group; h += heads) {
          items.push_back({s, kv_head, h, std::min(h + heads, (kv_head + 1) * group), begin, end,
                           first_key / kSplitKeys, last_key / kSplitKeys + 1});
        }
      }
    }
  }
  return items;
}

std::vector<Scratch> MakeScratch(ExecContext& context, int head_dim) {
  std::vector<Scratch> scratch(context.pool.num_threads());
  for (Scratch& s : scratch) {
    const auto floats = [&](int64_t count) { return context.scratch.Allocate<float>(count); };
    s.q = floats(kMaxQueries * head_dim);
    s.scores = floats(kKvBlockSize * kMaxQueries);
    s.factors = floats(kMaxQueries);
    s.widened = floats(kKvBlockSize * head_dim);
    s.first = context.scratch.Allocate<int32_t>(kMaxQueries);
    s.last = context.scratch.Allocate<int32_t>(kMaxQueries);
    s.part = MakeState(floats(StateFloats(head_dim)));
    s.total = MakeState(floats(StateFloats(head_dim)));
  }
  return scratch;
}

/// Each tile as a whole on one thread.
void RunWhole(ExecContext& context, const AttentionArgs& args, const std::vector<Item>& tiles,
              const std::vector<Scratch>& scratch) {
  context.pool.Run(static_cast<int64_t>(tiles.size()), [&](int64_t task, int worker) {
    const Scratch& s = scratch[worker];
    const TileRunner runner(args, tiles[task], s);
    runner.ClearTotal(s.total);
    for (int part = tiles[task].part_begin; part < tiles[task].part_end; ++part) {
      runner.RunPart(part, s.part);
      runner.MergeInto(s.part, s.total);
    }
    runner.Finish(s.total);
  });
}

/// The parts of all tiles spread over the threads, merged in order afterwards.
void RunSplit(ExecContext& context, const AttentionArgs& args, const std::vector<Item>& tiles,
              const std::vector<Scratch>& scratch) {
  std::vector<std::pair<int, int>> work;  // tile, part
  for (int t = 0; t < static_cast<int>(tiles.size()); ++t) {
    for (int part = tiles[t].part_begin; part < tiles[t].part_end; ++part) work.emplace_back(t, part);
  }
  const int64_t state_floats = StateFloats(args.head_dim);
  float* states = context.scratch.Allocate<float>(state_floats * static_cast<int64_t>(work.size()));
  context.pool.Run(static_cast<int64_t>(work.size()), [&](int64_t task, int worker) {
    const TileRunner runner(args, tiles[work[task].first], scratch[worker]);
    runner.RunPart(work[task].second, MakeState(states + task * state_floats));
  });
  const Scratch& s = scratch[0];
  for (size_t w = 0; w < work.size();) {
    const int tile = work[w].first;
    const TileRunner runner(args, tiles[tile], s);
    runner.ClearTotal(s.total);
    for (; w < work.size() && work[w].first == tile; ++w) {
      runner.MergeInto(MakeState(states + static_cast<int64_t>(w) * state_floats), s.total);
    }
    runner.Finish(s.total);
  }
}

}  // namespace

void Attention(ExecContext& context, const AttentionArgs& args) {
  GPTOSS_CHECK(args.num_heads % args.num_kv_heads == 0);
  GPTOSS_CHECK(args.kv.dtype == DType::kF32 || args.kv.dtype == DType::kBF16);
  const std::vector<Item> tiles = MakeTiles(args);
  int most_parts = 0;
  for (const Item& tile : tiles) most_parts = std::max(most_parts, tile.part_end - tile.part_begin);
  const ScratchFrame frame(context.scratch);
  const std::vector<Scratch> scratch = MakeScratch(context, args.head_dim);
  // Splitting pays when tiles alone would leave threads idle at the end; with many tiles its memory would not.
  const bool split = context.pool.num_threads() > 1 && most_parts > 1 &&
                     static_cast<int>(tiles.size()) < 16 * context.pool.num_threads();
  split ? RunSplit(context, args, tiles, scratch) : RunWhole(context, args, tiles, scratch);
}

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();
