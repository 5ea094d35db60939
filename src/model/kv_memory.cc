#include "model/kv_memory.h"

namespace gptoss {

uint64_t KvMemory::TotalBytes(const ModelConfig& config, DType dtype, const KvCapacity& capacity) {
  uint64_t blocks = 0;
  for (int n = 0; n < config.num_layers; ++n) {
    blocks += static_cast<uint64_t>(config.IsSliding(n) ? capacity.sliding_blocks : capacity.full_blocks);
  }
  return blocks * BlockBytes(config, dtype);
}

Result<KvMemory> KvMemory::Allocate(const ModelConfig& config, DType dtype, const KvCapacity& capacity) {
  KvMemory memory;
  GPTOSS_ASSIGN_OR_RETURN(memory.memory_, HostBuffer::Allocate(TotalBytes(config, dtype, capacity)));
  GPTOSS_RETURN_IF_ERROR(memory.memory_.Commit());
  std::byte* next = memory.memory_.data();
  for (int n = 0; n < config.num_layers; ++n) {
    const auto blocks = static_cast<uint64_t>(config.IsSliding(n) ? capacity.sliding_blocks : capacity.full_blocks);
    const uint64_t half = blocks * BlockBytes(config, dtype) / 2;
    memory.layers_.push_back({dtype, next, next + half});
    next += 2 * half;
  }
  return memory;
}

}  // namespace gptoss
