// A batch as kernels see it: which rows attention takes how, and where keys and values live, uploaded in one copy.
#pragma once

#include <array>
#include <vector>

#include "backends/cuda/kernels.h"
#include "ops/ops.h"

namespace gptoss::cuda {

/// How attention goes over the rows of a batch: sequences with many of them in tiles, where the arguments allow tiles,
/// all others row by row.
struct AttentionPlan {
  std::vector<int32_t> sequences, positions;  // [rows]
  std::vector<AttentionTile> tiles;
  std::vector<int32_t> rows;  // those that are in no tile
  int longest = 0;            // positions of the longest sequence of `rows`
};
/// `group`: query heads that share a key/value head.
AttentionPlan PlanAttention(std::span<const SequenceSpan> sequences, int group, bool takes_tiles);

/// The same on the device, with the block tables of one group of layers.
struct AttentionPlaces {
  RowPlaces places;
  const int32_t* rows = nullptr;  // null: all
  int64_t num_rows = 0;           // that are in no tile
  int longest = 0;
  const AttentionTile* tiles = nullptr;
  int64_t num_tiles = 0;
};

class CudaBatch : public BatchOnDevice {
 public:
  /// Groups of layers whose `kv` is null are left out. `group` query heads share a key/value head; `takes_tiles` as in
  /// PlanAttention.
  CudaBatch(ExecContext& context, std::span<const SequenceSpan> sequences,
            const std::array<const KvGroupBatch*, kNumKvGroups>& kv, int group, bool takes_tiles);

  const int32_t* slots(KvGroup group) const { return slots_[static_cast<size_t>(group)]; }
  const AttentionPlaces& attention(KvGroup group) const { return attention_[static_cast<size_t>(group)]; }

 private:
  std::array<const int32_t*, kNumKvGroups> slots_ = {};
  std::array<AttentionPlaces, kNumKvGroups> attention_ = {};
};

}  // namespace gptoss::cuda
