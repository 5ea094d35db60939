#include "model/kv_memory.h"

#include <algorithm>

namespace gptoss {

uint64_t KvMemory::TotalBytes(const ModelConfig& config, DType dtype, const KvCapacity& capacity) {
  uint64_t blocks = 0;
  for (int n = 0; n < config.num_layers; ++n) {
    blocks += static_cast<uint64_t>(config.IsSliding(n) ? capacity.sliding_blocks : capacity.full_blocks);
  }
  return blocks * BlockBytes(config, dtype);
}

Result<KvMemory> KvMemory::Allocate(const ModelConfig& config, DType dtype, const KvCapacity& capacity,
                                    Device& device) {
  KvMemory memory;
  memory.device_ = &device;
  GPTOSS_ASSIGN_OR_RETURN(memory.memory_, DeviceBuffer::Allocate(device, TotalBytes(config, dtype, capacity)));
  GPTOSS_RETURN_IF_ERROR(memory.memory_.Commit());
  memory.part_bytes_ = BlockBytes(config, dtype) / 2;
  std::byte* next = memory.memory_.data();
  for (int n = 0; n < config.num_layers; ++n) {
    const auto blocks = static_cast<uint64_t>(config.IsSliding(n) ? capacity.sliding_blocks : capacity.full_blocks);
    const uint64_t half = blocks * BlockBytes(config, dtype) / 2;
    memory.layers_.push_back({dtype, next, next + half});
    memory.groups_.push_back(config.IsSliding(n) ? KvGroup::kSliding : KvGroup::kFull);
    next += 2 * half;
  }
  return memory;
}

template <typename Function>
void KvMemory::ForEachPart(KvGroup group, int32_t block, const Function& function) const {
  const auto offset = static_cast<uint64_t>(block) * part_bytes_;
  for (size_t n = 0; n < layers_.size(); ++n) {
    if (groups_[n] != group) continue;
    function(layers_[n].k + offset);
    function(layers_[n].v + offset);
  }
}

uint64_t KvMemory::GroupBlockBytes(KvGroup group) const {
  return 2 * part_bytes_ * static_cast<uint64_t>(std::ranges::count(groups_, group));
}

void KvMemory::CopyBlock(KvGroup group, int32_t from, int32_t to) {
  const auto distance = (static_cast<int64_t>(to) - from) * static_cast<int64_t>(part_bytes_);
  ForEachPart(group, from, [&](std::byte* part) { device_->Copy(part + distance, part, part_bytes_); });
}

void KvMemory::ReadBlock(KvGroup group, int32_t block, std::span<std::byte> bytes) const {
  std::byte* next = bytes.data();
  ForEachPart(group, block, [&](const std::byte* part) {
    device_->Download(next, part, part_bytes_);
    next += part_bytes_;
  });
}

void KvMemory::WriteBlock(KvGroup group, int32_t block, std::span<const std::byte> bytes) {
  const std::byte* next = bytes.data();
  ForEachPart(group, block, [&](std::byte* part) {
    device_->Upload(part, next, part_bytes_);
    next += part_bytes_;
  });
}

}  // namespace gptoss
