#include "parallel/exec_context.h"

#include <algorithm>
#include <cstdint>
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
  Block block;
  GPTOSS_ASSIGN_OR_RETURN(block.memory, DeviceBuffer::Allocate(*device_, std::max(bytes, kMinBlock)));
  blocks_.push_back(std::move(block));
  return Status();
}

void* ScratchArena::AllocateBytes(size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  while (current_ < blocks_.size() && blocks_[current_].memory.size() - blocks_[current_].used < bytes) ++current_;
  // What a step needs was planned and reserved where memory is scarce; a machine without address space cannot go on.
  if (current_ == blocks_.size()) GPTOSS_CHECK(Reserve(bytes).ok());
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
