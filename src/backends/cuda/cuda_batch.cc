#include "backends/cuda/cuda_batch.h"

#include <algorithm>

#include "backends/cuda/cuda_ops.h"
#include "backends/cuda/scratch_plan.h"
#include "backends/cuda/upload.h"
#include "base/check.h"

namespace gptoss::cuda {
namespace {

/// Integers that go up together.
class Integers {
 public:
  size_t Add(std::span<const int32_t> values) {
    const size_t at = all_.size();
    all_.insert(all_.end(), values.begin(), values.end());
    return at;
  }
  std::span<const int32_t> all() const { return all_; }

 private:
  std::vector<int32_t> all_;
};

static_assert(sizeof(AttentionTile) == 2 * sizeof(int32_t));
std::span<const int32_t> AsIntegers(const std::vector<AttentionTile>& tiles) {
  return {reinterpret_cast<const int32_t*>(tiles.data()), 2 * tiles.size()};
}

}  // namespace

AttentionPlan PlanAttention(std::span<const SequenceSpan> sequences, int group, bool takes_tiles) {
  AttentionPlan plan;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const SequenceSpan& span = sequences[s];
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

CudaBatch::CudaBatch(ExecContext& context, std::span<const SequenceSpan> sequences,
                     const std::array<const KvGroupBatch*, kNumKvGroups>& kv, int group, bool takes_tiles) {
  const AttentionPlan plan = PlanAttention(sequences, group, takes_tiles);
  Integers integers;
  // Tiles first: their pairs are aligned as the whole is.
  const size_t tiles = integers.Add(AsIntegers(plan.tiles)), rows = integers.Add(plan.rows),
               of_sequence = integers.Add(plan.sequences), positions = integers.Add(plan.positions);
  std::array<size_t, kNumKvGroups> slots = {}, tables = {};
  for (size_t g = 0; g < kNumKvGroups; ++g) {
    if (kv[g] == nullptr) continue;
    slots[g] = integers.Add(kv[g]->slots);
    tables[g] = integers.Add(kv[g]->block_tables);
  }
  const int32_t* base = ToDevice(context, integers.all());
  for (size_t g = 0; g < kNumKvGroups; ++g) {
    if (kv[g] == nullptr) continue;
    slots_[g] = base + slots[g];
    attention_[g] = {.places = {base + of_sequence, base + positions, base + tables[g], kv[g]->blocks_per_sequence},
                     .rows = plan.rows.size() == plan.positions.size() ? nullptr : base + rows,
                     .num_rows = std::ssize(plan.rows),
                     .longest = plan.longest,
                     .tiles = reinterpret_cast<const AttentionTile*>(base + tiles),
                     .num_tiles = std::ssize(plan.tiles)};
  }
}

}  // namespace gptoss::cuda
