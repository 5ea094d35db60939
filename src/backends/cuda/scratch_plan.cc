#include "backends/cuda/scratch_plan.h"

#include <algorithm>

#include "ops/forward_batch.h"

namespace gptoss::cuda {
namespace {

/// Fewer blocks than this leave a large GPU idle, so chunks get blocks of their own.
constexpr int64_t kEnoughBlocks = 264;

}  // namespace

int64_t HeadBlocks(const AttentionArgs& args) {
  const int group = args.num_heads / args.num_kv_heads;
  return int64_t{args.num_kv_heads} * ((group + kHeadsInBlock - 1) / kHeadsInBlock);
}

int MostChunks(const AttentionArgs& args, int longest) {
  const int all = (longest + kAttentionChunk - 1) / kAttentionChunk;
  // A window may begin and end inside of a chunk.
  return args.window == 0 ? all : std::min(all, args.window / kAttentionChunk + 2);
}

int64_t AttentionScratch(const AttentionArgs& args, int64_t n, int longest) {
  const int chunks = MostChunks(args, longest);
  if (chunks == 1 || n * HeadBlocks(args) >= kEnoughBlocks) return 0;
  return n * args.num_heads * chunks * (args.head_dim + 2);
}

int64_t MostAttentionScratch(const AttentionArgs& args, int64_t n, int longest) {
  // It grows with the rows until there are enough blocks without it.
  const int64_t most_split = (kEnoughBlocks - 1) / HeadBlocks(args);
  return AttentionScratch(args, std::min(n, most_split), longest);
}

/// Mirrors what the ops of cuda_ops.cc allocate, op by op, beside the batch, which stays for the whole pass.
uint64_t ScratchBytes(const StepShape& s) {
  const int64_t qkv = s.rows * (int64_t{s.num_heads + 2 * s.num_kv_heads} * s.head_dim + s.adapter_rank + 1);
  AttentionArgs args{};
  args.num_heads = s.num_heads;
  args.num_kv_heads = s.num_kv_heads;
  args.head_dim = s.head_dim;
  const int64_t blocks = s.positions / kKvBlockSize + 1;
  // Of each row its sequence, its position, its slots and, where others are in tiles, its number; of each tile begin
  // and end.
  const int64_t tiles = s.rows * s.num_heads / s.num_kv_heads / kTileVectors + s.sequences;
  const int64_t batch = (3 + kNumKvGroups) * s.rows + 2 * tiles + kNumKvGroups * s.sequences * blocks;
  const int64_t attention = MostAttentionScratch(args, s.rows, s.positions);
  // With an adapter: gate and up before they are clamped, the inner rows, owners by token.
  const int64_t choices = s.rows * s.experts_per_token;
  const int64_t adapted = s.adapter_rank == 0 ? 0 : choices * (2 * s.intermediate_size + s.adapter_rank) + s.rows;
  const int64_t down = choices * (s.hidden_size + s.adapter_rank) + s.rows;
  const auto floats = static_cast<uint64_t>(std::max({qkv, attention, adapted, down}));
  return static_cast<uint64_t>(batch) * sizeof(int32_t) +
         std::max(floats * sizeof(float), s.brings_weights ? uint64_t{kStagingBytes} : 0);
}

}  // namespace gptoss::cuda
