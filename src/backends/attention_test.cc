// Attention, rotation and append on every target, against the reference and against themselves: other threads, other
// batches and other places in the cache must give the same bits.

#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <vector>

#include "backends/test_util.h"

namespace gptoss {
namespace {

using namespace testing_util;  // NOLINT

struct AttentionShape {
  int heads, kv_heads, dim, window;
  std::vector<std::pair<int, int>> sequences;  // first position, rows
};

/// A filled cache with several sequences and one layer's queries.
struct AttentionData {
  AttentionData(const AttentionShape& s, DType dtype, bool reversed_blocks) : shape(s) {
    int blocks = 0, rows = 0, longest = 0;
    for (const auto& [first, count] : s.sequences) {
      spans.push_back({rows, count, first});
      rows += count;
      longest = std::max(longest, (first + count + kKvBlockSize - 1) / kKvBlockSize);
      blocks += (first + count + kKvBlockSize - 1) / kKvBlockSize;
    }
    group.blocks_per_sequence = longest;
    group.block_tables.assign(spans.size() * longest, -1);
    const int64_t block_floats = static_cast<int64_t>(s.kv_heads) * kKvBlockSize * s.dim;
    std::vector<float> keys(blocks * block_floats), values(keys.size());
    int next = 0;
    for (size_t i = 0; i < spans.size(); ++i) {
      const int used = (spans[i].first_position + spans[i].num_rows + kKvBlockSize - 1) / kKvBlockSize;
      for (int b = 0; b < used; ++b, ++next) {
        const int block = reversed_blocks ? blocks - 1 - next : next;
        group.block_tables[i * longest + b] = block;
        // Contents by sequence and position, not by place.
        const std::vector<float> k = RandomFloats(block_floats, 1000 + next, 3.0f);
        const std::vector<float> v = RandomFloats(block_floats, 2000 + next, 3.0f);
        std::copy(k.begin(), k.end(), keys.begin() + block * block_floats);
        std::copy(v.begin(), v.end(), values.begin() + block * block_floats);
      }
    }
    Store(dtype, keys, &k_bytes);
    Store(dtype, values, &v_bytes);
    kv = {dtype, k_bytes.data(), v_bytes.data()};
    q = RandomFloats(static_cast<size_t>(rows) * s.heads * s.dim, 3, 2.0f);
    sinks = RandomFloats(s.heads, 4, 5.0f);
  }

  static void Store(DType dtype, const std::vector<float>& from, std::vector<std::byte>* to) {
    to->resize(RowBytes(dtype, from.size()));
    if (dtype == DType::kF32) {
      std::memcpy(to->data(), from.data(), to->size());
    } else {
      std::transform(from.begin(), from.end(), reinterpret_cast<uint16_t*>(to->data()), F32ToBf16);
    }
  }

  std::vector<float> Run(const Ops& table, ExecContext& context) const {
    std::vector<float> out(q.size(), -7.0f);
    table.attention(context, {q.data(), shape.heads, shape.kv_heads, shape.dim, spans, &group, kv, shape.window,
                              sinks.data(), out.data()});
    return out;
  }

  /// Puts NaN where nobody need have written: behind each sequence's last position, and before the window of its first
  /// row.
  void SpoilTheRest() {
    const std::vector<float> nan(shape.dim, std::numeric_limits<float>::quiet_NaN());
    std::vector<std::byte> bytes;
    Store(kv.dtype, nan, &bytes);
    for (size_t i = 0; i < spans.size(); ++i) {
      const int begin = spans[i].first_position + 1 - Seen(spans[i].first_position);
      const int end = spans[i].first_position + spans[i].num_rows;
      for (int p = 0; p < end || p % kKvBlockSize != 0; ++p) {
        for (int h = 0; h < shape.kv_heads && (p < begin || p >= end); ++h) {
          const size_t at = static_cast<size_t>(Index(i, p, h)) / shape.dim * bytes.size();
          std::ranges::copy(bytes, k_bytes.begin() + at);
          std::ranges::copy(bytes, v_bytes.begin() + at);
        }
      }
    }
  }

  /// Where in the cache a position's values begin.
  int64_t Index(size_t sequence, int position, int kv_head) const {
    const int64_t block = group.block_tables[sequence * group.blocks_per_sequence + position / kKvBlockSize];
    return ((block * shape.kv_heads + kv_head) * kKvBlockSize + position % kKvBlockSize) * shape.dim;
  }

  /// Positions that the row at `position` sees: so many up to its own.
  int Seen(int position) const { return shape.window == 0 ? position + 1 : std::min(position + 1, shape.window); }

  /// The largest sum of |q k| dim^-0.5 over the keys that a head of row `row` of a span sees, or its sink.
  float Magnitude(size_t sequence, int row, int head) const {
    const SequenceSpan& span = spans[sequence];
    const int position = span.first_position + row, kv_head = head / (shape.heads / shape.kv_heads);
    const float* query = q.data() + ((span.first_row + row) * shape.heads + head) * shape.dim;
    float largest = 0.0f;
    for (int p = position - Seen(position) + 1; p <= position; ++p) {
      const int64_t key = Index(sequence, p, kv_head);
      float sum = 0.0f;
      for (int c = 0; c < shape.dim; ++c) {
        const float k = kv.dtype == DType::kF32 ? reinterpret_cast<const float*>(kv.k)[key + c]
                                                : Bf16ToF32(reinterpret_cast<const uint16_t*>(kv.k)[key + c]);
        sum += std::abs(query[c] * k);
      }
      largest = std::max(largest, sum);
    }
    return std::max(largest / std::sqrt(static_cast<float>(shape.dim)), std::abs(sinks[head]));
  }

  /// Makes the batch one of a single sequence's rows `begin` … `end` - 1, whose keys are all in the cache.
  void Keep(int begin, int end) {
    const int width = shape.heads * shape.dim;
    q = {q.begin() + begin * width, q.begin() + end * width};
    spans = {{0, end - begin, spans[0].first_position + begin}};
  }

  /// Makes the batch one of sequence `i` alone.
  void KeepSequence(size_t i) {
    const int width = shape.heads * shape.dim;
    const SequenceSpan span = spans[i];
    q = {q.begin() + span.first_row * width, q.begin() + (span.first_row + span.num_rows) * width};
    const auto table = group.block_tables.begin() + static_cast<int64_t>(i) * group.blocks_per_sequence;
    group.block_tables = std::vector<int32_t>(table, table + group.blocks_per_sequence);
    spans = {{0, span.num_rows, span.first_position}};
  }

  AttentionShape shape;
  std::vector<SequenceSpan> spans;
  KvGroupBatch group;
  std::vector<std::byte> k_bytes, v_bytes;
  KvLayer kv;
  std::vector<float> q, sinks;
};

const AttentionShape kShapes[] = {
    {8, 1, 64, 0, {{0, 1}}},
    {8, 2, 64, 0, {{0, 70}, {37, 1}, {5, 2}}},
    {8, 1, 64, 128, {{0, 200}, {500, 1}, {127, 3}, {1020, 8}}},
    {3, 1, 32, 4, {{0, 9}, {31, 33}}},
    {6, 2, 24, 1, {{0, 5}, {64, 2}}},
    {112, 2, 16, 0, {{33, 3}}},             // more heads per kv head than one tile has
    {4, 2, 64, 0, {{2100, 1}, {1023, 2}}},  // several parts
    {2, 1, 64, 0, {{1000, 50}}},
    {4, 1, 10, 0, {{40, 1}}},                                        // channels that are no multiple of eight
    {16, 2, 64, 0, {{100, 1}, {0, 45}, {70, 2}, {40, 33}, {3, 1}}},  // prompts among single rows
    {2, 2, 128, 40, {{10, 71}}},                                     // no head shares its keys
    {4, 1, 48, 0, {{3, 18}, {0, 16}}},
    {40, 1, 32, 20, {{29, 17}}},  // a row's heads are in two tiles
};

class AttentionTest : public BackendTest {
 protected:
  /// On the host, caches are zero from the start; kernels for GPUs must not read what nobody has written.
  AttentionData Data(const AttentionShape& shape, DType dtype, bool reversed_blocks) const {
    AttentionData data(shape, dtype, reversed_blocks);
    if (GetParam().target == "cuda") data.SpoilTheRest();
    return data;
  }
  bool TakesTensorCores(const AttentionData& data) const {
    return GetParam().target == "cuda" && fast() && data.kv.dtype == DType::kBF16 && data.shape.dim % 16 == 0;
  }
  /// Whether a span is taken in tiles, which round otherwise than the way for few rows (Ops::invariant_rows).
  bool TakesTiles(const AttentionData& data, const SequenceSpan& span) const {
    return TakesTensorCores(data) && span.num_rows > ops().invariant_rows;
  }
  /// How far the results of a row's head may be from the reference.
  float Tolerance(const AttentionData& data, size_t sequence, int row, int head) const;
};

/// Roundings of values of at most `magnitude` in a score, and of at most 1 after it. A score and its distance to the
/// largest take dim + 8 of them; of a weight, exp takes 8; for every block of 32 keys what was summed before may be
/// multiplied with another exp of such a distance; sums take one a key. Each is 2^-24 in the reference and in float.
/// Tensor cores take queries and weights as two BF16, each within 2^-16 of its value, so that sums have twice as many
/// terms, and may cut off, 2^-23, where others round. What changes a weight changes both a weighted sum and, but
/// for its split, the sum of weights; |v| <= 3.
float AttentionTest::Tolerance(const AttentionData& data, size_t sequence, int row, int head) const {
  const SequenceSpan& span = data.spans[sequence];
  const auto keys = static_cast<float>(data.Seen(span.first_position + row)), dim = static_cast<float>(data.shape.dim);
  const float magnitude = data.Magnitude(sequence, row, head), blocks = keys / kKvBlockSize + 2.0f;
  const float roundings = (dim + 8.0f) * magnitude + 8.0f + blocks * (8.0f + 2.0f * magnitude) + keys;
  const bool tensor_cores = TakesTensorCores(data);
  const float rounding = (tensor_cores ? 1.0f + 2.0f * 2.0f : 1.0f + 1.0f) * 0x1.0p-24f;
  const float split = tensor_cores ? 0x1.0p-16f : 0.0f;
  return 3.0f * (2.0f * (rounding * roundings + split * magnitude) + split);
}

using QkvRopeTest = BackendTest;

TEST_P(AttentionTest, IsTheReference) {
  for (const AttentionShape& shape : kShapes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const AttentionData data = Data(shape, dtype, true);
      const std::vector<float> got = data.Run(ops(), context_), want = data.Run(ReferenceOps(), context_);
      for (size_t i = 0; i < data.spans.size(); ++i) {
        for (int h = 0; h < data.spans[i].num_rows * shape.heads; ++h) {
          const int row = h / shape.heads;
          const float tolerance = Tolerance(data, i, row, h % shape.heads);
          const size_t first = static_cast<size_t>(data.spans[i].first_row * shape.heads + h) * shape.dim;
          for (size_t c = first; c < first + shape.dim; ++c) {
            ASSERT_NEAR(got[c], want[c], tolerance)
                << shape.heads << " heads, dim " << shape.dim << ", window " << shape.window << ", " << DTypeName(dtype)
                << ", sequence " << i << ", row " << row << ", head " << h % shape.heads;
          }
        }
      }
    }
  }
}

TEST_P(AttentionTest, ThreadsBlocksAndBatchesDoNotChangeBits) {
  for (const AttentionShape& shape : kShapes) {
    const AttentionData data = Data(shape, DType::kBF16, false), moved = Data(shape, DType::kBF16, true);
    const std::vector<float> want = data.Run(ops(), context_);
    EXPECT_EQ(moved.Run(ops(), context_), want);
    for (const int threads : {1, 3}) {
      ThreadPool pool(threads);
      ExecContext context{pool, scratch_};
      EXPECT_EQ(data.Run(ops(), context), want) << threads << " threads";
    }
    // The last row of every sequence as a batch of its own: what decoding computes.
    AttentionData decode = data;
    const int width = shape.heads * shape.dim;
    decode.q.clear();
    for (SequenceSpan& span : decode.spans) {
      const int row = span.first_row + span.num_rows - 1, position = span.first_position + span.num_rows - 1;
      decode.q.insert(decode.q.end(), data.q.begin() + row * width, data.q.begin() + (row + 1) * width);
      span = {static_cast<int>(decode.q.size()) / width - 1, 1, position};
    }
    const std::vector<float> got = decode.Run(ops(), context_);
    for (size_t i = 0; i < data.spans.size(); ++i) {
      if (TakesTiles(data, data.spans[i])) continue;
      const int row = data.spans[i].first_row + data.spans[i].num_rows - 1;
      EXPECT_TRUE(std::equal(got.begin() + i * width, got.begin() + (i + 1) * width, want.begin() + row * width))
          << shape.heads << " heads, dim " << shape.dim << ", window " << shape.window << ", sequence " << i;
    }
  }
}

// In pieces that take tiles where the whole does.
TEST_P(AttentionTest, PiecesOfAPromptHaveTheBitsOfTheWhole) {
  for (const int window : {0, 50}) {
    const AttentionShape shape = {10, 2, 64, window, {{20, 97}}};
    const AttentionData data = Data(shape, DType::kBF16, false);
    AttentionData first = data, second = data;
    first.Keep(0, 43);
    second.Keep(43, 97);
    std::vector<float> got = first.Run(ops(), context_);
    const std::vector<float> rest = second.Run(ops(), context_);
    got.insert(got.end(), rest.begin(), rest.end());
    EXPECT_EQ(got, data.Run(ops(), context_)) << window;
  }
}

// So many that a GPU takes the parts of a sequence one after the other, which it takes side by side when it is alone.
TEST_P(AttentionTest, ManySequencesHaveTheBitsOfEachAlone) {
  AttentionShape shape = {8, 8, 16, 0, {}};
  for (int i = 0; i < 40; ++i) shape.sequences.push_back({490 + i, 1});
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const AttentionData data = Data(shape, dtype, false);
    const std::vector<float> all = data.Run(ops(), context_);
    for (const size_t i : {0u, 21u, 22u, 39u}) {  // up to 511, 512, 513 and 530 positions
      AttentionData one = data;
      one.KeepSequence(i);
      const size_t width = static_cast<size_t>(shape.heads) * shape.dim;
      EXPECT_EQ(one.Run(ops(), context_), std::vector<float>(all.begin() + i * width, all.begin() + (i + 1) * width))
          << DTypeName(dtype) << ", sequence " << i;
    }
  }
}

TEST_P(AttentionTest, ReleasedBlocksOutsideTheWindowAreNotTouched) {
  for (const auto& [rows, dtype] :
       {std::pair(3, DType::kF32), std::pair(3, DType::kBF16), std::pair(20, DType::kBF16)}) {
    AttentionData data = Data({8, 1, 64, 128, {{1500, rows}}}, dtype, false);
    const std::vector<float> want = data.Run(ops(), context_);
    for (int b = 0; b < (1500 - 127) / kKvBlockSize; ++b) data.group.block_tables[b] = -(1 << 20);
    EXPECT_EQ(data.Run(ops(), context_), want) << rows;
  }
}

TEST_P(AttentionTest, ASinkOfMinusInfinityTakesNoPart) {
  for (const int rows : {1, 40}) {  // of which the last see nothing of the first block
    AttentionData data = Data({1, 1, 32, 4, {{0, rows}}}, DType::kBF16, false);
    data.sinks[0] = -HUGE_VALF;
    const std::vector<float> out = data.Run(ops(), context_);
    const auto* v = reinterpret_cast<const uint16_t*>(data.v_bytes.data());  // one key: its value comes back
    for (int c = 0; c < 32; ++c) EXPECT_FLOAT_EQ(out[c], Bf16ToF32(v[c]));
    for (const float value : out) EXPECT_TRUE(std::isfinite(value));
  }
}

TEST_P(QkvRopeTest, QkvRotatesAndAppends) {
  const int heads = 6, kv_heads = 2, dim = 24;
  const int64_t n = 9, hidden = 64, rows = (heads + 2 * kv_heads) * dim;
  const OwnedMatrix w = RandomMatrix(DType::kBF16, 1, rows, hidden, 1);
  const std::vector<float> values = Decoded(w.view, 1), x = RandomFloats(n * hidden, 2), bias = RandomFloats(rows, 3),
                           cos = RandomFloats(n * dim / 2, 4, 1.0f), sin = RandomFloats(n * dim / 2, 5, 1.0f);
  const std::vector<int32_t> slots = {64, 65, 3, 4, 5, 95, 31, 32, 0};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const size_t cache_values = 3 * kKvBlockSize * kv_heads * dim, cache_bytes = RowBytes(dtype, cache_values);
    std::vector<std::byte> k(cache_bytes), v(cache_bytes), want_k(cache_bytes), want_v(cache_bytes);
    std::vector<float> q(n * heads * dim), want_q(q.size());
    const auto run = [&](const Ops& table, KvLayer kv, float* out) {
      table.qkv_rope(context_,
                     {x.data(), n, w.view, bias.data(), heads, kv_heads, dim, cos.data(), sin.data(), slots, kv, out});
    };
    run(ops(), {dtype, k.data(), v.data()}, q.data());
    run(ReferenceOps(), {dtype, want_k.data(), want_v.data()}, want_q.data());
    // Rotation adds two products with |cos|, |sin| <= 1: at most twice the projection's error and a few roundings of
    // values below 200; BF16 may round to the neighbour, 2^-8 of the value.
    float projection = 0.0f;
    for (int64_t i = 0; i < n * rows; ++i) {
      projection = std::max(
          projection, DotTolerance(values.data() + i % rows * hidden, x.data() + i / rows * hidden, hidden, false));
    }
    const float tolerance = 2.0f * projection + 4 * 0x1.0p-24f * 200.0f;
    for (size_t i = 0; i < q.size(); ++i) ASSERT_NEAR(q[i], want_q[i], tolerance) << i;
    const auto load = [&](const std::vector<std::byte>& cache, size_t i) {
      return dtype == DType::kF32 ? reinterpret_cast<const float*>(cache.data())[i]
                                  : Bf16ToF32(reinterpret_cast<const uint16_t*>(cache.data())[i]);
    };
    size_t filled = 0;
    for (size_t i = 0; i < cache_values; ++i) {
      const float neighbour = dtype == DType::kBF16 ? 0x1.0p-8f : 0.0f;
      ASSERT_NEAR(load(k, i), load(want_k, i), tolerance + neighbour * std::abs(load(want_k, i))) << i;
      ASSERT_NEAR(load(v, i), load(want_v, i), tolerance + neighbour * std::abs(load(want_v, i))) << i;
      filled += load(v, i) != 0.0f;
    }
    EXPECT_EQ(filled, static_cast<size_t>(n * kv_heads * dim));
  }
}

/// The tables of a target mostly share their attention: once is enough then.
std::vector<TableParam> TablesWithTheirOwnAttention() {
  std::vector<TableParam> tables;
  for (const TableParam& param : AllTables()) {
    const auto same = [&](const TableParam& other) { return TableOf(other).attention == TableOf(param).attention; };
    if (!WhyNotHere().empty() || std::ranges::none_of(tables, same)) tables.push_back(param);
  }
  return tables;
}

INSTANTIATE_TEST_SUITE_P(Targets, AttentionTest, testing::ValuesIn(TablesWithTheirOwnAttention()), TableName);
INSTANTIATE_TEST_SUITE_P(Targets, QkvRopeTest, testing::ValuesIn(AllTables()), TableName);

}  // namespace
}  // namespace gptoss
