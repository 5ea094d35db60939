// CUDA's tables for the tests of ops, on a GPU: every op gets copies of its arguments in the GPU's memory, and what it
// wrote is copied back.
#include <algorithm>
#include <functional>

#include "backends/cuda/cuda_device.h"
#include "backends/cuda/cuda_ops.h"
#include "backends/test_util.h"

namespace gptoss::testing_util {
namespace {

struct Gpu {
  std::unique_ptr<Device> device;
  std::string why_not;
};
Gpu& TheGpu() {
  static Gpu gpu = [] {
    Gpu made;
    auto opened = cuda::OpenGpu(0);
    if (opened.ok()) {
      made.device = *std::move(opened);
    } else {
      made.why_not = opened.status().message();
    }
    return made;
  }();
  return gpu;
}

/// The arguments of one call on the GPU.
class Mirror {
 public:
  Mirror() : device_(*TheGpu().device), scratch_(device_), context_{pool_, scratch_} {}
  /// Copies back what was written, and fails the test when the GPU failed.
  ~Mirror() {
    for (const auto& copy : back_) copy();
    const Status status = device_.Wait();
    EXPECT_TRUE(status.ok()) << status.message();
  }

  ExecContext& context() { return context_; }

  template <typename T>
  T* In(const T* host, int64_t count) {
    if (host == nullptr) return nullptr;
    T* copy = scratch_.Allocate<T>(static_cast<size_t>(count));
    device_.Upload(copy, host, static_cast<size_t>(count) * sizeof(T));
    return copy;
  }
  template <typename T>
  T* InOut(T* host, int64_t count) {
    T* copy = In(host, count);
    back_.push_back(
        [this, host, copy, count] { device_.Download(host, copy, static_cast<size_t>(count) * sizeof(T)); });
    return copy;
  }
  WeightMatrix In(const WeightMatrix& weight, int64_t matrices) {
    WeightMatrix copy = weight;
    copy.data = In(weight.data, matrices * weight.rows * static_cast<int64_t>(RowBytes(weight.dtype, weight.cols)));
    copy.scales =
        In(weight.scales, matrices * weight.rows * static_cast<int64_t>(RowScaleBytes(weight.dtype, weight.cols)));
    return copy;
  }
  Routing InOut(Routing* routing) {
    Routing copy = *routing;
    const auto mirrored = [&](auto span) { return std::span(InOut(span.data(), std::ssize(span)), span.size()); };
    copy.expert = mirrored(routing->expert);
    copy.weight = mirrored(routing->weight);
    copy.expert_offsets = mirrored(routing->expert_offsets);
    copy.grouped_token = mirrored(routing->grouped_token);
    copy.grouped_row = mirrored(routing->grouped_row);
    return copy;
  }
  KvLayer InOut(const KvLayer& kv, int64_t blocks, int64_t kv_heads, int64_t head_dim) {
    const auto bytes =
        static_cast<int64_t>(RowBytes(kv.dtype, static_cast<uint64_t>(blocks * kv_heads * kKvBlockSize * head_dim)));
    return {kv.dtype, InOut(kv.k, bytes), InOut(kv.v, bytes)};
  }

 private:
  Device& device_;
  ThreadPool pool_{1};
  ScratchArena scratch_;
  ExecContext context_;
  std::vector<std::function<void()>> back_;
};

template <const Ops& (*kOps)()>
void Embed(ExecContext&, const EmbedLookupArgs& args) {
  Mirror m;
  const auto n = static_cast<int64_t>(args.tokens.size());
  kOps().embed_lookup(m.context(), {m.In(args.table, 1), args.tokens, m.InOut(args.x, n * args.table.cols)});
}

template <const Ops& (*kOps)()>
void Norm(ExecContext&, const RmsNormArgs& args) {
  Mirror m;
  const int64_t count = args.n * args.width;
  float* y = m.InOut(args.y, count);
  const float* x = args.x == args.y ? y : m.In(args.x, count);
  kOps().rms_norm(m.context(), {x, m.In(args.scale, args.width), args.eps, args.n, args.width, y});
}

template <const Ops& (*kOps)()>
void Linear(ExecContext&, const LinearArgs& args) {
  Mirror m;
  kOps().linear(m.context(),
                {m.In(args.x, args.n * args.weight.cols), args.n, m.In(args.weight, 1),
                 m.In(args.bias, args.weight.rows), args.accumulate, m.InOut(args.y, args.n * args.weight.rows)});
}

template <const Ops& (*kOps)()>
void Qkv(ExecContext&, const QkvRopeArgs& args) {
  Mirror m;
  const int64_t angles = args.n * args.head_dim / 2;
  const int64_t blocks = *std::ranges::max_element(args.slots) / kKvBlockSize + 1;
  kOps().qkv_rope(m.context(), {m.In(args.x, args.n * args.weight.cols), args.n, m.In(args.weight, 1),
                                m.In(args.bias, args.weight.rows), args.num_heads, args.num_kv_heads, args.head_dim,
                                m.In(args.cos, angles), m.In(args.sin, angles), args.slots,
                                m.InOut(args.kv, blocks, args.num_kv_heads, args.head_dim),
                                m.InOut(args.q, args.n * args.num_heads * args.head_dim)});
}

template <const Ops& (*kOps)()>
void Attention(ExecContext&, const AttentionArgs& args) {
  Mirror m;
  int64_t rows = 0;
  for (const SequenceSpan& span : args.sequences) rows += span.num_rows;
  const int64_t blocks = *std::ranges::max_element(args.group->block_tables) + 1;
  const int64_t count = rows * args.num_heads * args.head_dim;
  AttentionArgs copy = args;
  copy.q = m.In(args.q, count);
  copy.kv = m.InOut(args.kv, blocks, args.num_kv_heads, args.head_dim);
  copy.sinks = m.In(args.sinks, args.num_heads);
  copy.out = m.InOut(args.out, count);
  kOps().attention(m.context(), copy);
}

template <const Ops& (*kOps)()>
void Router(ExecContext&, const RouterArgs& args) {
  Mirror m;
  Routing routing = m.InOut(args.routing);
  kOps().router(m.context(),
                {m.In(args.x, routing.n * args.weight.cols), m.In(args.weight, 1), m.In(args.bias, args.weight.rows),
                 m.InOut(args.logits, routing.n * args.weight.rows), &routing});
}

template <const Ops& (*kOps)()>
void GateUp(ExecContext&, const MoeGateUpArgs& args) {
  Mirror m;
  Routing host = *args.routing;
  const Routing routing = m.InOut(&host);
  const int64_t experts = routing.num_experts, rows = routing.n * routing.experts_per_token;
  kOps().moe_gate_up(m.context(), {m.In(args.x, routing.n * args.weight.cols), m.In(args.weight, experts),
                                   m.In(args.bias, experts * args.weight.rows), args.limit, &routing,
                                   m.InOut(args.h, rows * args.weight.rows / 2)});
}

template <const Ops& (*kOps)()>
void Down(ExecContext&, const MoeDownArgs& args) {
  Mirror m;
  Routing host = *args.routing;
  const Routing routing = m.InOut(&host);
  const int64_t experts = routing.num_experts, rows = routing.n * routing.experts_per_token;
  kOps().moe_down(m.context(), {m.In(args.h, rows * args.weight.cols), m.In(args.weight, experts),
                                m.In(args.bias, experts * args.weight.rows), &routing,
                                m.InOut(args.x, routing.n * args.weight.rows)});
}

template <const Ops& (*kOps)()>
const Ops& Mirrored() {
  static const Ops ops = [] {
    Ops table = kOps();
    table.embed_lookup = Embed<kOps>;
    table.rms_norm = Norm<kOps>;
    table.linear = Linear<kOps>;
    table.qkv_rope = Qkv<kOps>;
    table.attention = Attention<kOps>;
    table.router = Router<kOps>;
    table.moe_gate_up = GateUp<kOps>;
    table.moe_down = Down<kOps>;
    return table;
  }();
  return ops;
}

}  // namespace

std::vector<TableParam> AllTables() { return {{"cuda", Precision::kFast}, {"cuda", Precision::kExact}}; }
std::string WhyNotHere() { return TheGpu().why_not; }
const Ops& TableOf(const TableParam& param) {
  return param.precision == Precision::kExact ? Mirrored<cuda::ExactOps>() : Mirrored<cuda::FastOps>();
}

}  // namespace gptoss::testing_util
