#include "backends/cuda/cuda_ops.h"

#include <algorithm>
#include <span>
#include <vector>

#include "backends/cuda/cuda_batch.h"
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
  const int32_t* slots = args.on_device == nullptr
                             ? ToDevice(context, args.slots)
                             : static_cast<const CudaBatch*>(args.on_device)->slots(args.kv_group);
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

template <bool kExact>
std::unique_ptr<BatchOnDevice> BringBatch(ExecContext& context, const BringBatchArgs& args) {
  const ForwardBatch& batch = args.batch;
  return std::make_unique<CudaBatch>(context, batch.sequences, std::array{&batch.kv[0], &batch.kv[1]},
                                     args.num_heads / args.num_kv_heads,
                                     !kExact && TiledAttentionTakes(args.kv_dtype, args.head_dim));
}

template <bool kExact>
void Attend(ExecContext& context, const AttentionArgs& args) {
  const ScratchFrame frame(context.scratch);
  const bool tensor_cores = !kExact && TiledAttentionTakes(args.kv.dtype, args.head_dim);
  std::unique_ptr<CudaBatch> brought;
  const auto* batch = static_cast<const CudaBatch*>(args.on_device);
  if (batch == nullptr) {
    std::array<const KvGroupBatch*, kNumKvGroups> kv = {};
    kv[static_cast<size_t>(args.kv_group)] = args.group;
    brought =
        std::make_unique<CudaBatch>(context, args.sequences, kv, args.num_heads / args.num_kv_heads, tensor_cores);
    batch = brought.get();
  }
  const AttentionPlaces& a = batch->attention(args.kv_group);
  float* scratch = context.scratch.Allocate<float>(static_cast<size_t>(AttentionScratch(args, a.num_rows, a.longest)));
  Attention(StreamOf(context), args, a.places, a.rows, a.num_rows, a.longest, tensor_cores, scratch);
  TiledAttention(StreamOf(context), args, a.places, a.tiles, a.num_tiles);
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
          .bring_weights = BringWeights,
          .bring_batch = BringBatch<kExact>};
}

constexpr Ops kFastOps = MakeOps<false>("cuda"), kExactOps = MakeOps<true>("cuda-exact");

}  // namespace

const Ops& FastOps() { return kFastOps; }
const Ops& ExactOps() { return kExactOps; }

}  // namespace gptoss::cuda
