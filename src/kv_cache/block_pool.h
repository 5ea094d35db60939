// Bookkeeping of the paged key/value cache: which blocks are free, which belong to whom. Ids only; no memory, no model.
// After PagedAttention (Kwon et al., 2023), with one pool per group of layers.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace gptoss {

/// Blocks 0 … size - 1, each with its number of holders. Blocks are given out lowest first, so that memory grows only
/// as needed.
class BlockPool {
 public:
  explicit BlockPool(int size);

  int size() const { return static_cast<int>(holders_.size()); }
  int free_blocks() const { return free_; }
  int holders(int32_t block) const { return holders_[block]; }

  /// A block with one holder; nullopt when none is free.
  std::optional<int32_t> Allocate();
  /// One more holder of a block that has some.
  void Share(int32_t block);
  /// One holder less; without any, the block is free. It must have one.
  void Free(int32_t block);

 private:
  std::vector<int32_t> holders_;
  int free_;
  int32_t lowest_ = 0;  // no free block lies below
};

/// The contents of block `from` must be copied to block `to`.
struct BlockCopy {
  int32_t from, to;
};

/// The blocks of one sequence in one group: entry i holds positions [i * block_size, (i + 1) * block_size), or is
/// kReleased. A block that has other holders is only read. The pool must outlive the table; the destructor gives all
/// blocks back.
class BlockTable {
 public:
  static constexpr int32_t kReleased = -1;

  BlockTable(BlockPool* pool, int block_size) : pool_(pool), block_size_(block_size) {}
  ~BlockTable() { Clear(); }
  BlockTable(BlockTable&& other) noexcept;
  BlockTable& operator=(BlockTable&&) = delete;

  std::span<const int32_t> blocks() const { return blocks_; }

  /// Makes sure that positions [begin, end) have blocks of this table's own, to be written. A shared block that also
  /// holds earlier positions is replaced by a copy, which the caller must make now: `copy`, when given, is set then.
  /// False, and nothing changed, when the pool cannot give what is needed.
  bool Reserve(int begin, int end, std::optional<BlockCopy>* copy = nullptr);
  /// Becomes a holder of `blocks`, as the entries from `first` on; the table must end there or before.
  void Share(int first, std::span<const int32_t> blocks);
  /// Gives back the blocks that hold only positions below `position`.
  void ReleaseBefore(int position);
  /// Gives back the blocks that hold only positions at or after `position`.
  void Truncate(int position);
  void Clear() { Truncate(0); }
  /// True if every position in [begin, end) has a block.
  bool Covers(int begin, int end) const;
  /// Where the cache holds `position`: block * block_size + offset. It must be covered.
  int32_t Slot(int position) const;

 private:
  bool NeedsBlock(int entry) const;

  BlockPool* pool_;
  int block_size_;
  std::vector<int32_t> blocks_;
};

}  // namespace gptoss
