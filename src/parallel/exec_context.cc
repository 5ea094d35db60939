#include "parallel/exec_context.h"

#include <algorithm>
#include <cstdint>

namespace gptoss {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kMinBlock = size_t{1} << 20;

}  // namespace

size_t ScratchArena::capacity() const {
  size_t bytes = 0;
  for (const Block& block : blocks_) bytes += block.size;
  return bytes;
}

void* ScratchArena::AllocateBytes(size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  while (current_ < blocks_.size() && blocks_[current_].size - blocks_[current_].used < bytes) ++current_;
  if (current_ == blocks_.size()) {
    Block block;
    block.size = std::max(bytes, kMinBlock);
    block.memory = std::make_unique_for_overwrite<std::byte[]>(block.size + kAlignment);
    blocks_.push_back(std::move(block));
  }
  Block& block = blocks_[current_];
  const uintptr_t base = (reinterpret_cast<uintptr_t>(block.memory.get()) + kAlignment - 1) & ~(kAlignment - 1);
  void* result = reinterpret_cast<void*>(base + block.used);
  block.used += bytes;
  return result;
}

ScratchFrame::ScratchFrame(ScratchArena& arena)
    : arena_(arena),
      block_(arena.current_),
      used_(arena.current_ < arena.blocks_.size() ? arena.blocks_[arena.current_].used : 0) {}

ScratchFrame::~ScratchFrame() {
  for (size_t i = block_; i < arena_.blocks_.size(); ++i) arena_.blocks_[i].used = i == block_ ? used_ : 0;
  arena_.current_ = block_;
}

}  // namespace gptoss
