// The only struct that goes down from the engine to the model: which tokens, where they stand, and where their keys and
// values live.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace gptoss {

/// Layers fall into two groups that page their keys and values separately.
enum class KvGroup : int { kSliding = 0, kFull = 1 };
inline constexpr int kNumKvGroups = 2;

/// Positions per block of the paged cache, the same in both groups.
inline constexpr int kKvBlockSize = 32;

/// Tokens of one sequence in the batch: consecutive rows, consecutive positions.
struct SequenceSpan {
  int first_row = 0;
  int num_rows = 0;
  int first_position = 0;  // of first_row; keys of positions 0 … first_position - 1 are already in the cache
};

struct KvGroupBatch {
  std::vector<int32_t> slots;  // [rows] block * kKvBlockSize + offset where each row's K and V go
  std::vector<int32_t>
      block_tables;  // [sequences, blocks_per_sequence] block of position / kKvBlockSize; -1 = released
  int blocks_per_sequence = 0;
};

struct ForwardBatch {
  std::vector<int32_t> tokens;     // [rows]
  std::vector<int32_t> positions;  // [rows]
  std::vector<SequenceSpan> sequences;
  std::array<KvGroupBatch, kNumKvGroups> kv;
  std::vector<int32_t> logit_rows;  // rows whose logits are wanted, ascending
  std::vector<uint32_t> adapters;   // [rows] LowRankUpdate::active; empty: all adapters in all rows

  int rows() const { return static_cast<int>(tokens.size()); }
};

}  // namespace gptoss
