// Attention, rotation and append on every target, against the reference and against themselves: other threads, other
// batches and other places in the cache must give the same bits.

#include <gtest/gtest.h>

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
    {2, 1, 64, 0, {{0, 1100}}},
    {4, 1, 10, 0, {{40, 1}}},  // channels that are no multiple of eight
};

using AttentionTest = BackendTest;
using QkvRopeTest = BackendTest;

TEST_P(AttentionTest, IsTheReference) {
  for (const AttentionShape& shape : kShapes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const AttentionData data(shape, dtype, true);
      const std::vector<float> got = data.Run(ops(), context_), want = data.Run(ReferenceOps(), context_);
      // Scores: dot products of `dim` terms with |q| <= 2, |k| <= 3; an error d of a score is a relative error d of its
      // weight. Sums over `keys` weights that add up to at most 1, with |v| <= 3. Twice, for two float computations.
      int keys = 0;
      for (const SequenceSpan& span : data.spans) keys = std::max(keys, span.first_position + span.num_rows);
      if (shape.window != 0) keys = std::min(keys, shape.window);
      const float dim = static_cast<float>(shape.dim);
      const float score_error = dim * 0x1.0p-24f * 6.0f * std::sqrt(dim);
      const float tolerance = 2.0f * 3.0f * (2.0f * score_error + static_cast<float>(keys + 8) * 0x1.0p-24f);
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_NEAR(got[i], want[i], tolerance)
            << shape.heads << " heads, dim " << shape.dim << ", window " << shape.window << ", " << DTypeName(dtype)
            << ", row " << i / (shape.heads * shape.dim);
      }
    }
  }
}

TEST_P(AttentionTest, ThreadsBlocksAndBatchesDoNotChangeBits) {
  for (const AttentionShape& shape : kShapes) {
    const AttentionData data(shape, DType::kBF16, false), moved(shape, DType::kBF16, true);
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
    std::vector<float> last_q, last_want;
    for (SequenceSpan& span : decode.spans) {
      const int row = span.first_row + span.num_rows - 1;
      last_q.insert(last_q.end(), data.q.begin() + row * width, data.q.begin() + (row + 1) * width);
      last_want.insert(last_want.end(), want.begin() + row * width, want.begin() + (row + 1) * width);
      const int position = span.first_position + span.num_rows - 1;
      span = {static_cast<int>(last_q.size()) / width - 1, 1, position};
    }
    decode.q = last_q;
    EXPECT_EQ(decode.Run(ops(), context_), last_want);
  }
}

TEST_P(AttentionTest, ReleasedBlocksOutsideTheWindowAreNotTouched) {
  AttentionShape shape = {8, 1, 64, 128, {{1500, 3}}};
  AttentionData data(shape, DType::kF32, false);
  const std::vector<float> want = data.Run(ops(), context_);
  for (int b = 0; b < (1500 - 127) / kKvBlockSize; ++b) data.group.block_tables[b] = -(1 << 20);
  EXPECT_EQ(data.Run(ops(), context_), want);
}

TEST_P(AttentionTest, ASinkOfMinusInfinityTakesNoPart) {
  const AttentionShape shape = {1, 1, 32, 0, {{0, 1}}};
  AttentionData data(shape, DType::kF32, false);
  data.sinks[0] = -HUGE_VALF;
  const std::vector<float> out = data.Run(ops(), context_);
  const float* v = reinterpret_cast<const float*>(data.v_bytes.data());  // one key: its value comes back
  for (int c = 0; c < 32; ++c) EXPECT_FLOAT_EQ(out[c], v[c]);
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
