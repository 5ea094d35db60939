#include "parallel/exec_context.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace gptoss {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kMinBlock = size_t{1} << 20;

}  // namespace

size_t ScratchArena::capacity() const {
  size_t bytes = 0;
  for (const Block& block : blocks_) bytes += block.memory.size();
  return bytes;
}

Status ScratchArena::Reserve(size_t bytes) {
  GPTOSS_CHECK(current_ == 0 && (blocks_.empty() || blocks_[0].used == 0));
  if (!blocks_.empty() && blocks_[0].memory.size() >= bytes) return Status();
  blocks_.clear();
  GPTOSS_ASSIGN_OR_RETURN(DeviceBuffer memory, DeviceBuffer::Allocate(*device_, bytes));
  blocks_.push_back({.memory = std::move(memory)});
  return Status();
}

void* ScratchArena::AllocateBytes(size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  while (current_ < blocks_.size() && blocks_[current_].memory.size() - blocks_[current_].used < bytes) ++current_;
  if (current_ == blocks_.size()) {
    // Without memory for a step, which was planned or reserved, nothing can go on.
    auto memory = DeviceBuffer::Allocate(*device_, std::max(bytes, kMinBlock));
    GPTOSS_CHECK(memory.ok());
    blocks_.push_back({.memory = *std::move(memory)});
  }
  Block& block = blocks_[current_];
  void* result = block.memory.data() + block.used;
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
