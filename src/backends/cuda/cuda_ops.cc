#include "backends/cuda/cuda_ops.h"

#include <algorithm>
#include <span>
#include <vector>

#include "backends/cuda/kernels.h"
#include "backends/cuda/scratch_plan.h"
#include "backends/cuda/upload.h"
#include "base/check.h"

namespace gptoss::cuda {
namespace {

template <bool kExact>
bool TakesTensorCores(const WeightMatrix& weight, int64_t most_rows) {
  return !kExact && most_rows > kFewRows && ManyRowsTakes(weight);
}

template <bool kExact>
void Multiply(ExecContext& context, const Product& product) {
  GPTOSS_CHECK(product.weight.layout == WeightLayout::kRowMajor);
  if (TakesTensorCores<kExact>(product.weight, product.most_in_group)) {
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
  const int32_t* slots = ToDevice(context, args.slots);
  if (!args.adapter.any() && !TakesTensorCores<kExact>(args.weight, args.n)) {
    return FewRows(StreamOf(context), {.x = args.x,
                                       .n = args.n,
                                       .most_in_group = args.n,
                                       .weight = args.weight,
                                       .bias = args.bias,
                                       .epilogue = Epilogue::kRope,
                                       .rope = &args,
                                       .slots = slots});
  }
  float* qkv = context.scratch.Allocate<float>(args.n * args.weight.rows);
  Linear<kExact>(context, {args.x, args.n, args.weight, args.bias, false, qkv, args.adapter});
  RopeAppend(StreamOf(context), args, slots, qkv);
}

/// A batch as attention sees it.
struct AttentionPlan {
  std::vector<int32_t> sequences, positions;  // [rows]
  std::vector<AttentionTile> tiles;           // of sequences with many rows
  std::vector<int32_t> rows;                  // all others
  int longest = 0;                            // of the sequences of `rows`
};

AttentionPlan PlanAttention(const AttentionArgs& args, bool takes_tiles) {
  AttentionPlan plan;
  const int group = args.num_heads / args.num_kv_heads;
  for (size_t s = 0; s < args.sequences.size(); ++s) {
    const SequenceSpan& span = args.sequences[s];
    const int end_row = span.first_row + span.num_rows;
    GPTOSS_CHECK(span.first_row == static_cast<int>(plan.positions.size()));
    const bool tiled = takes_tiles && span.num_rows > kFewRows;
    for (int row = span.first_row; row < end_row; ++row) {
      plan.sequences.push_back(static_cast<int32_t>(s));
      plan.positions.push_back(span.first_position + row - span.first_row);
      if (!tiled) plan.rows.push_back(row);
    }
    if (!tiled) plan.longest = std::max(plan.longest, span.first_position + span.num_rows);
    for (int i = span.first_row * group; tiled && i < end_row * group; i += kTileVectors) {
      plan.tiles.push_back({i, std::min(i + kTileVectors, end_row * group)});
    }
  }
  return plan;
}

template <bool kExact>
void Attend(ExecContext& context, const AttentionArgs& args) {
  const ScratchFrame frame(context.scratch);
  const AttentionPlan plan = PlanAttention(args, !kExact && TiledAttentionTakes(args));
  const auto on_device = [&](const auto& values) { return ToDevice(context, std::span(values)); };
  const RowPlaces places{on_device(plan.sequences), on_device(plan.positions), on_device(args.group->block_tables),
                         args.group->blocks_per_sequence};
  const auto n = static_cast<int64_t>(plan.rows.size());
  const int32_t* rows = n == std::ssize(plan.positions) ? nullptr : on_device(plan.rows);
  float* scratch = context.scratch.Allocate<float>(static_cast<size_t>(AttentionScratch(args, n, plan.longest)));
  Attention(StreamOf(context), args, places, rows, n, plan.longest, scratch);
  TiledAttention(StreamOf(context), args, places, on_device(plan.tiles), std::ssize(plan.tiles));
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

/// Uploads rows in pieces that `staging` holds, and has the device put the rows of each group apart.
void BringGrouped(ExecContext& context, const std::byte* from, int64_t rows, int64_t row_bytes, int unit,
                  std::byte* staging, std::byte* to) {
  const int64_t step = kStagingBytes / row_bytes / kRowGroup * kRowGroup;
  GPTOSS_CHECK(step > 0);
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    context.device().Upload(staging, from + first * row_bytes, static_cast<size_t>(count * row_bytes));
    UngroupRows(StreamOf(context), staging, count, row_bytes / unit, unit, to + first * row_bytes);
  }
}

void BringWeights(ExecContext& context, const BringWeightsArgs& args) {
  const WeightMatrix& w = args.weight;
  const int64_t rows = args.count * w.rows;
  const auto row_bytes = static_cast<int64_t>(RowBytes(w.dtype, static_cast<uint64_t>(w.cols)));
  const auto scale_bytes = static_cast<int64_t>(RowScaleBytes(w.dtype, static_cast<uint64_t>(w.cols)));
  *args.brought = w;
  args.brought->layout = WeightLayout::kRowMajor;
  args.brought->data = args.memory;
  std::byte* scales = args.memory + BroughtBytes(w, args.count) - rows * scale_bytes;
  args.brought->scales = w.scales == nullptr ? nullptr : scales;
  if (w.layout == WeightLayout::kRowMajor) {
    context.device().Upload(args.memory, w.data, static_cast<size_t>(rows * row_bytes));
    if (w.scales != nullptr) context.device().Upload(scales, w.scales, static_cast<size_t>(rows * scale_bytes));
    return;
  }
  constexpr int kWord = 4;  // bytes of a row that lie together
  const ScratchFrame frame(context.scratch);
  auto* staging = context.scratch.Allocate<std::byte>(kStagingBytes);
  BringGrouped(context, w.data, rows, row_bytes, kWord, staging, args.memory);
  const auto unit = static_cast<int>(RowScaleBytes(w.dtype, kBlockSize));
  BringGrouped(context, w.scales, rows, scale_bytes, unit, staging, scales);
}

template <bool kExact>
constexpr Ops MakeOps(std::string_view name) {
  return {.name = name,
          .weight_layout = WeightLayout::kRowMajor,
          .reads_all_layouts = false,
          .invariant_rows = kExact ? INT32_MAX : kFewRows,
          .scratch_bytes = ScratchBytes,
          .logits = &kLogitOps,
          .embed_lookup = Embed,
          .rms_norm = Norm,
          .linear = Linear<kExact>,
          .qkv_rope = QkvRope<kExact>,
          .attention = Attend<kExact>,
          .router = Choose,
          .moe_gate_up = MoeGateUp<kExact>,
          .moe_down = MoeDown<kExact>,
          .bring_weights = BringWeights};
}

constexpr Ops kFastOps = MakeOps<false>("cuda"), kExactOps = MakeOps<true>("cuda-exact");

}  // namespace

const Ops& FastOps() { return kFastOps; }
const Ops& ExactOps() { return kExactOps; }

}  // namespace gptoss::cuda
