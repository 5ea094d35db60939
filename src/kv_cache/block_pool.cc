#include "kv_cache/block_pool.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace gptoss {

BlockPool::BlockPool(int size) : holders_(size, 0), free_(size) {}

std::optional<int32_t> BlockPool::Allocate() {
  if (free_ == 0) return std::nullopt;
  while (holders_[lowest_] > 0) ++lowest_;
  holders_[lowest_] = 1;
  --free_;
  return lowest_;
}

void BlockPool::Share(int32_t block) {
  GPTOSS_CHECK(holders_[block] > 0);
  ++holders_[block];
}

void BlockPool::Free(int32_t block) {
  GPTOSS_CHECK(holders_[block] > 0);
  if (--holders_[block] > 0) return;
  ++free_;
  lowest_ = std::min(lowest_, block);
}

BlockTable::BlockTable(BlockTable&& other) noexcept
    : pool_(other.pool_), block_size_(other.block_size_), blocks_(std::exchange(other.blocks_, {})) {}

bool BlockTable::NeedsBlock(int entry) const {
  return entry >= static_cast<int>(blocks_.size()) || blocks_[entry] == kReleased || pool_->holders(blocks_[entry]) > 1;
}

bool BlockTable::Reserve(int begin, int end, std::optional<BlockCopy>* copy) {
  const int first = begin / block_size_, last = (end + block_size_ - 1) / block_size_;
  int missing = 0;
  for (int i = first; i < last; ++i) missing += NeedsBlock(i) ? 1 : 0;
  if (missing > pool_->free_blocks()) return false;
  if (last > static_cast<int>(blocks_.size())) blocks_.resize(last, kReleased);
  for (int i = first; i < last; ++i) {
    if (!NeedsBlock(i)) continue;
    const int32_t old = std::exchange(blocks_[i], *pool_->Allocate());
    if (old == kReleased) continue;
    if (i * block_size_ < begin) {
      GPTOSS_CHECK(copy != nullptr);
      *copy = BlockCopy{old, blocks_[i]};
    }
    pool_->Free(old);  // others hold it on
  }
  return true;
}

void BlockTable::Share(int first, std::span<const int32_t> blocks) {
  GPTOSS_CHECK(first >= static_cast<int>(blocks_.size()));
  blocks_.resize(first, kReleased);
  for (const int32_t block : blocks) {
    pool_->Share(block);
    blocks_.push_back(block);
  }
}

void BlockTable::ReleaseBefore(int position) {
  const int end = std::min(position / block_size_, static_cast<int>(blocks_.size()));
  for (int i = 0; i < end; ++i) {
    if (blocks_[i] != kReleased) pool_->Free(std::exchange(blocks_[i], kReleased));
  }
}

void BlockTable::Truncate(int position) {
  const auto keep = static_cast<size_t>((position + block_size_ - 1) / block_size_);
  while (blocks_.size() > keep) {
    if (blocks_.back() != kReleased) pool_->Free(blocks_.back());
    blocks_.pop_back();
  }
}

bool BlockTable::Covers(int begin, int end) const {
  for (int i = begin / block_size_; i * block_size_ < end; ++i) {
    if (i >= static_cast<int>(blocks_.size()) || blocks_[i] == kReleased) return false;
  }
  return true;
}

int32_t BlockTable::Slot(int position) const {
  const int32_t block = blocks_[position / block_size_];
  GPTOSS_CHECK(block != kReleased);
  return block * block_size_ + position % block_size_;
}

}  // namespace gptoss
