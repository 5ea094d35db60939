#include "backends/cuda/cuda_ops.h"

#include <algorithm>
#include <span>
#include <vector>

#include "backends/cuda/kernels.h"
#include "base/check.h"

namespace gptoss::cuda {
namespace {

Stream StreamOf(ExecContext& context) { return context.device().queue(); }

/// A copy of host integers in scratch memory of the device.
template <typename T>
const T* ToDevice(ExecContext& context, std::span<const T> values) {
  T* copy = context.scratch.Allocate<T>(values.size());
  context.device().Upload(copy, values.data(), values.size_bytes());
  return copy;
}

template <bool kExact>
void Multiply(ExecContext& context, const Product& product) {
  GPTOSS_CHECK(product.weight.layout == WeightLayout::kRowMajor);
  if (!kExact && product.most_in_group > kFewRows && ManyRowsTakes(product.weight)) {
    ManyRows(StreamOf(context), product);
  } else {
    FewRows(StreamOf(context), product);
  }
}

/// y += (x a^T) b^T. Rows of x are gathered, those of y are not. tokens [product.n], on the device: the token of each
/// row; null: row r is token r.
void AddUpdate(ExecContext& context, const LowRankUpdate& update, const int32_t* tokens, Product product, float* y) {
  if (!update.any()) return;
  const ScratchFrame frame(context.scratch);
  float* inner = context.scratch.Allocate<float>(product.n * update.a.rows);
  product.bias = nullptr;
  product.epilogue = Epilogue::kStore;
  product.weight = update.a;
  product.y = inner;
  FewRows(StreamOf(context), product);
  if (!update.active.empty()) {
    DropInactiveRanks(StreamOf(context), update.owner, ToDevice(context, update.active), tokens, product.n,
                      update.a.rows, inner);
  }
  product.gather = nullptr;
  product.x = inner;
  product.weight = update.b;
  product.epilogue = Epilogue::kAdd;
  product.y = y;
  FewRows(StreamOf(context), product);
}

void Embed(ExecContext& context, const EmbedLookupArgs& args) {
  const ScratchFrame frame(context.scratch);
  EmbedLookup(StreamOf(context), args.table, ToDevice(context, args.tokens), static_cast<int64_t>(args.tokens.size()),
              args.x);
}

void Norm(ExecContext& context, const RmsNormArgs& args) { RmsNorm(StreamOf(context), args); }

template <bool kExact>
void Linear(ExecContext& context, const LinearArgs& args) {
  const Product product{.x = args.x,
                        .n = args.n,
                        .most_in_group = args.n,
                        .weight = args.weight,
                        .bias = args.bias,
                        .epilogue = args.accumulate ? Epilogue::kAdd : Epilogue::kStore,
                        .y = args.y};
  Multiply<kExact>(context, product);
  AddUpdate(context, args.adapter, nullptr, product, args.y);
}

template <bool kExact>
void QkvRope(ExecContext& context, const QkvRopeArgs& args) {
  const ScratchFrame frame(context.scratch);
  float* qkv = context.scratch.Allocate<float>(args.n * args.weight.rows);
  Linear<kExact>(context, {args.x, args.n, args.weight, args.bias, false, qkv, args.adapter});
  RopeAppend(StreamOf(context), args, ToDevice(context, args.slots), qkv);
}

void Attend(ExecContext& context, const AttentionArgs& args) {
  const ScratchFrame frame(context.scratch);
  std::vector<int32_t> sequences, positions;
  int longest = 0;
  for (size_t s = 0; s < args.sequences.size(); ++s) {
    const SequenceSpan& span = args.sequences[s];
    GPTOSS_CHECK(span.first_row == static_cast<int>(positions.size()));
    for (int r = 0; r < span.num_rows; ++r) {
      sequences.push_back(static_cast<int32_t>(s));
      positions.push_back(span.first_position + r);
    }
    longest = std::max(longest, span.first_position + span.num_rows);
  }
  const auto n = static_cast<int64_t>(positions.size());
  const auto on_device = [&](const std::vector<int32_t>& values) { return ToDevice(context, std::span(values)); };
  const RowPlaces places{on_device(sequences), on_device(positions), on_device(args.group->block_tables),
                         args.group->blocks_per_sequence};
  float* scratch = context.scratch.Allocate<float>(static_cast<size_t>(AttentionScratch(args, n, longest)));
  Attention(StreamOf(context), args, places, n, longest, scratch);
}

/// In float: a choice of experts must not hang on the rounding of activations.
void Choose(ExecContext& context, const RouterArgs& args) {
  Linear<true>(context, {args.x, args.routing->n, args.weight, args.bias, false, args.logits, args.adapter});
  Route(StreamOf(context), args.logits, *args.routing);
}

template <bool kExact>
void MoeGateUp(ExecContext& context, const MoeGateUpArgs& args) {
  const Routing& routing = *args.routing;
  Product product{.x = args.x,
                  .gather = routing.grouped_token.data(),
                  .n = routing.n * routing.experts_per_token,
                  .most_in_group = routing.n,
                  .offsets = routing.expert_offsets.data(),
                  .groups = routing.num_experts,
                  .weight = args.weight,
                  .bias = args.bias,
                  .epilogue = Epilogue::kSwiglu,
                  .limit = args.limit,
                  .y = args.h};
  if (!args.adapter.any()) return Multiply<kExact>(context, product);
  // The adapter must be added before the clamps.
  const ScratchFrame frame(context.scratch);
  float* pre = context.scratch.Allocate<float>(product.n * args.weight.rows);
  product.epilogue = Epilogue::kStore;
  product.y = pre;
  Multiply<kExact>(context, product);
  AddUpdate(context, args.adapter, routing.grouped_token.data(), product, pre);
  SwigluRows(StreamOf(context), pre, product.n, args.weight.rows / 2, args.limit, args.h);
}

template <bool kExact>
void MoeDown(ExecContext& context, const MoeDownArgs& args) {
  const Routing& routing = *args.routing;
  const ScratchFrame frame(context.scratch);
  const int64_t rows = routing.n * routing.experts_per_token;
  float* y = context.scratch.Allocate<float>(rows * args.weight.rows);
  const Product product{.x = args.h,
                        .n = rows,
                        .most_in_group = routing.n,
                        .offsets = routing.expert_offsets.data(),
                        .groups = routing.num_experts,
                        .weight = args.weight,
                        .bias = args.bias,
                        .y = y};
  Multiply<kExact>(context, product);
  AddUpdate(context, args.adapter, routing.grouped_token.data(), product, y);
  CombineExperts(StreamOf(context), routing, y, args.weight.rows, args.x);
}

/// Mirrors the allocations above, op by op.
uint64_t ScratchBytes(const StepShape& s) {
  const int64_t qkv = s.rows * (int64_t{s.num_heads + 2 * s.num_kv_heads} * s.head_dim + s.adapter_rank + 2);
  AttentionArgs args{};
  args.num_heads = s.num_heads;
  args.num_kv_heads = s.num_kv_heads;
  args.head_dim = s.head_dim;
  const int64_t blocks = s.positions / kKvBlockSize + 1;
  const int64_t attention = MostAttentionScratch(args, s.rows, s.positions) + 2 * s.rows + s.sequences * blocks;
  // With an adapter: gate and up before they are clamped, the inner rows, owners by token.
  const int64_t choices = s.rows * s.experts_per_token;
  const int64_t adapted = s.adapter_rank == 0 ? 0 : choices * (2 * s.intermediate_size + s.adapter_rank) + s.rows;
  const int64_t down = choices * (s.hidden_size + s.adapter_rank) + s.rows;
  return static_cast<uint64_t>(std::max({qkv, attention, adapted, down})) * sizeof(float);
}

template <bool kExact>
constexpr Ops MakeOps(std::string_view name) {
  return {.name = name,
          .weight_layout = WeightLayout::kRowMajor,
          .reads_all_layouts = false,
          .invariant_rows = kExact ? INT32_MAX : kFewRows,
          .scratch_bytes = ScratchBytes,
          .embed_lookup = Embed,
          .rms_norm = Norm,
          .linear = Linear<kExact>,
          .qkv_rope = QkvRope<kExact>,
          .attention = Attend,
          .router = Choose,
          .moe_gate_up = MoeGateUp<kExact>,
          .moe_down = MoeDown<kExact>};
}

constexpr Ops kFastOps = MakeOps<false>("cuda"), kExactOps = MakeOps<true>("cuda-exact");

}  // namespace

const Ops& FastOps() { return kFastOps; }
const Ops& ExactOps() { return kExactOps; }

}  // namespace gptoss::cuda
