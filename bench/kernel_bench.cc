// The model's matrix products and attention one at a time, on data that is too large for the caches. Arguments: tokens,
// and for the dense and expert products whether weights lie row by row (0) or as kRows8 (1); for attention new
// positions and all positions. Counters: GB/s of weights read and GMAC/s. GPTOSS_CPU chooses the instruction set; all
// cores are used.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "backends/registry.h"
#include "base/check.h"
#include "base/rng.h"
#include "ops/ops.h"
#include "parallel/exec_context.h"
#include "parallel/host_buffer.h"
#include "tensor/weight_layout.h"

namespace gptoss {
namespace {

constexpr int64_t kHidden = 2880;
constexpr int kExperts = 32, kChosen = 4;

/// One op table, its threads and memory.
struct Machine {
  ThreadPool pool{static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))};
  ScratchArena scratch;
  ExecContext context{pool, scratch};
  const Ops* ops;

  Machine() {
    const auto table = CpuOps("", Precision::kFast);
    GPTOSS_CHECK(table.ok());
    ops = *table;
  }
};

Machine& TheMachine() {
  static Machine machine;
  return machine;
}

std::vector<float> Floats(int64_t count, uint64_t seed) {
  const RandomStream random(seed, 0);
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>(random.Word(static_cast<uint64_t>(i)) >> 40) * 0x1p-23f - 1.0f;
  }
  return values;
}

/// `matrices` random matrices. Any bytes are valid weights; scales are 1.
class Weights {
 public:
  Weights(DType dtype, WeightLayout layout, int64_t matrices, int64_t rows, int64_t cols)
      : view_{.dtype = dtype, .layout = layout, .rows = rows, .cols = cols} {
    const uint64_t width = static_cast<uint64_t>(cols), all = static_cast<uint64_t>(matrices * rows);
    const size_t data_bytes = all * RowBytes(dtype, width), scale_bytes = all * RowScaleBytes(dtype, width);
    auto memory = HostBuffer::Allocate(data_bytes + scale_bytes + 4096);
    GPTOSS_CHECK(memory.ok());
    memory_ = std::move(*memory);
    const RandomStream random(7, 0);
    for (size_t i = 0; i < data_bytes; i += sizeof(uint64_t)) {
      uint64_t word = random.Word(i);
      // 16-bit floats must not be infinite.
      if (!HasScales(dtype)) word = (word & 0x80FF80FF80FF80FF) | 0x3C003C003C003C00;
      std::memcpy(memory_.data() + i, &word, sizeof(word));
    }
    for (size_t i = 0; i < scale_bytes; ++i) {
      memory_.data()[data_bytes + i] = static_cast<std::byte>(dtype == DType::kMxfp4 ? 127 : i % 2 == 1 ? 0x3c : 0);
    }
    view_.data = memory_.data();
    view_.scales = HasScales(dtype) ? memory_.data() + data_bytes : nullptr;
  }
  const WeightMatrix& view() const { return view_; }
  /// Bytes of one matrix.
  double bytes() const {
    const auto width = static_cast<uint64_t>(view_.cols);
    return static_cast<double>(view_.rows) *
           static_cast<double>(RowBytes(view_.dtype, width) + RowScaleBytes(view_.dtype, width));
  }

 private:
  HostBuffer memory_;
  WeightMatrix view_;
};

void Report(benchmark::State& state, double bytes, double macs) {
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["GB/s"] = benchmark::Counter(bytes * 1e-9, rate);
  state.counters["GMAC/s"] = benchmark::Counter(macs * 1e-9, rate);
}

/// A dense product, with several matrices in turn so that none stays in the caches.
void Dense(benchmark::State& state, DType dtype, int64_t rows, int64_t cols) {
  const int64_t tokens = state.range(0), matrices = std::max<int64_t>(1, 268435456 / (rows * cols));
  const Weights weights(dtype, static_cast<WeightLayout>(state.range(1)), matrices, rows, cols);
  const std::vector<float> x = Floats(tokens * cols, 1);
  std::vector<float> y(tokens * rows);
  Machine& machine = TheMachine();
  int64_t turn = 0;
  for (auto _ : state) {
    WeightMatrix w = weights.view();
    const int64_t first = turn++ % matrices * rows;
    w.scales = w.scales == nullptr ? nullptr : w.RowScales(first);
    w.data = w.Row(first);
    machine.ops->linear(machine.context, {x.data(), tokens, w, nullptr, false, y.data()});
  }
  Report(state, weights.bytes(), static_cast<double>(tokens * rows * cols));
}

/// gate_up (rows = 2 * 2880) or down (rows = 2880) of a layer of 32 experts, 4 for each token, spread evenly.
void Experts(benchmark::State& state, bool up) {
  const int64_t tokens = state.range(0), rows = up ? 2 * kHidden : kHidden;
  const Weights weights(DType::kMxfp4, static_cast<WeightLayout>(state.range(1)), kExperts, rows, kHidden);
  std::vector<int32_t> expert(tokens * kChosen), offsets(kExperts + 1), token(expert.size()), row(expert.size());
  std::vector<float> weight(expert.size(), 0.25f);
  Routing routing{tokens, kExperts, kChosen, expert, weight, offsets, token, row};
  const std::vector<float> x = Floats(tokens * kChosen * kHidden, 1), bias(kExperts * rows, 0.5f);
  std::vector<float> y(tokens * kChosen * kHidden);
  Machine& machine = TheMachine();
  uint64_t turn = 0;
  double read = 0;
  for (auto _ : state) {
    state.PauseTiming();
    for (int64_t t = 0; t < tokens; ++t) {
      const uint64_t first = RandomStream(turn, static_cast<uint64_t>(t)).Word(0) % 8;
      for (int j = 0; j < kChosen; ++j) expert[t * kChosen + j] = static_cast<int32_t>(first + 8 * j + turn) % kExperts;
    }
    ++turn;
    GroupByExpert(&routing);
    for (int e = 0; e < kExperts; ++e) read += offsets[e] < offsets[e + 1] ? weights.bytes() : 0.0;
    state.ResumeTiming();
    if (up) {
      machine.ops->moe_gate_up(machine.context, {x.data(), weights.view(), bias.data(), 7.0f, &routing, y.data()});
    } else {
      machine.ops->moe_down(machine.context, {x.data(), weights.view(), bias.data(), &routing, y.data()});
    }
  }
  Report(state, read / static_cast<double>(turn), static_cast<double>(tokens * kChosen * rows * kHidden));
}

/// Attention of a layer: `range(0)` new positions of a sequence that ends at `range(1)` positions. Several layers'
/// caches in turn, so that none stays in the caches of the processor.
void Attend(benchmark::State& state, int window) {
  constexpr int kHeads = 64, kKvHeads = 8, kHeadDim = 64;
  const int rows = static_cast<int>(state.range(0)), positions = static_cast<int>(state.range(1));
  const int blocks = (positions + kKvBlockSize - 1) / kKvBlockSize, layers = std::max(1, 65536 / positions);
  const int64_t layer_values = int64_t{blocks} * kKvBlockSize * kKvHeads * kHeadDim;
  const Weights cache(DType::kBF16, WeightLayout::kRowMajor, 2 * layers, layer_values / kHeadDim, kHeadDim);
  std::vector<int32_t> table(blocks);
  for (int b = 0; b < blocks; ++b) table[b] = b;
  const std::vector<SequenceSpan> spans{{.first_row = 0, .num_rows = rows, .first_position = positions - rows}};
  const KvGroupBatch group{.slots = {}, .block_tables = table, .blocks_per_sequence = blocks};
  const std::vector<float> q = Floats(int64_t{rows} * kHeads * kHeadDim, 1), sinks = Floats(kHeads, 2);
  std::vector<float> out(q.size());
  Machine& machine = TheMachine();
  int64_t turn = 0;
  for (auto _ : state) {
    const int64_t layer = turn++ % layers * 2 * layer_values / kHeadDim;
    const auto at = [&](int64_t row) { return const_cast<std::byte*>(cache.view().Row(row)); };
    const KvLayer kv{DType::kBF16, at(layer), at(layer + layer_values / kHeadDim)};
    machine.ops->attention(machine.context,
                           {q.data(), kHeads, kKvHeads, kHeadDim, spans, &group, kv, window, sinks.data(), out.data()});
  }
  const double seen = window == 0 ? positions : std::min(window, positions);
  Report(state, seen * kKvHeads * kHeadDim * 2 * 2, seen * rows * kHeads * kHeadDim * 2);
}

void Sizes(benchmark::internal::Benchmark* b) {
  for (const int64_t layout : {0, 1}) {
    for (const int64_t tokens : {1, 4, 16, 512}) b->Args({tokens, layout});
  }
  b->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.3);
}

void RowMajorSizes(benchmark::internal::Benchmark* b) {
  for (const int64_t tokens : {1, 4, 16, 512}) b->Args({tokens, 0});
  b->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.3);
}

BENCHMARK_CAPTURE(Experts, gate_up, true)->Apply(Sizes);
BENCHMARK_CAPTURE(Experts, down, false)->Apply(Sizes);
BENCHMARK_CAPTURE(Dense, qkv_q8, DType::kQ8_0, 5120, kHidden)->Apply(Sizes);
BENCHMARK_CAPTURE(Dense, out_q8, DType::kQ8_0, kHidden, 4096)->Apply(Sizes);
BENCHMARK_CAPTURE(Dense, qkv_bf16, DType::kBF16, 5120, kHidden)->Apply(RowMajorSizes);
BENCHMARK_CAPTURE(Dense, head_q8, DType::kQ8_0, 201088, kHidden)->Args({1, 0})->Args({1, 1})->UseRealTime();

BENCHMARK_CAPTURE(Attend, full, 0)
    ->Args({1, 512})
    ->Args({1, 8192})
    ->Args({1, 32768})
    ->Args({8, 8192})
    ->Args({512, 512})
    ->Args({512, 8192})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Attend, window, 128)->Args({1, 8192})->Args({512, 512})->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace gptoss

BENCHMARK_MAIN();
