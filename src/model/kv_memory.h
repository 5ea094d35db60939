// The memory behind the paged key/value cache. Which blocks are whose is kv_cache/'s business.
#pragma once

#include <span>
#include <vector>

#include "checkpoint/model_config.h"
#include "ops/ops.h"
#include "parallel/device.h"

namespace gptoss {

struct KvCapacity {
  int sliding_blocks = 0;  // blocks of kKvBlockSize positions, in each sliding layer
  int full_blocks = 0;     // likewise in each full layer
};

class KvMemory {
 public:
  /// Commits all of the memory: a conversation that was admitted cannot run out of it later, and what `plan` says is
  /// what the process holds. `device` must outlive it. On failure: kResourceExhausted.
  static Result<KvMemory> Allocate(const ModelConfig& config, DType dtype, const KvCapacity& capacity,
                                   Device& device = HostDevice());

  const KvLayer& layer(int n) const { return layers_[n]; }
  size_t bytes() const { return memory_.size(); }

  /// Bytes of one block in all layers of `group`.
  uint64_t GroupBlockBytes(KvGroup group) const;
  /// Copies block `from` over block `to` in every layer of `group`.
  void CopyBlock(KvGroup group, int32_t from, int32_t to);
  /// All layers' parts of a block, one after the other, K before V: GroupBlockBytes(group) bytes.
  void ReadBlock(KvGroup group, int32_t block, std::span<std::byte> bytes) const;
  void WriteBlock(KvGroup group, int32_t block, std::span<const std::byte> bytes);

  /// Bytes of one block of one layer, K and V together.
  static uint64_t BlockBytes(const ModelConfig& config, DType dtype) {
    return 2ull * kKvBlockSize * static_cast<uint64_t>(config.kv_size()) * RowBytes(dtype, 1);
  }
  static uint64_t TotalBytes(const ModelConfig& config, DType dtype, const KvCapacity& capacity);

 private:
  /// Calls function(part) for K and V of `block` in each layer of the group, part being BlockBytes / 2 bytes.
  template <typename Function>
  void ForEachPart(KvGroup group, int32_t block, const Function& function) const;

  Device* device_ = nullptr;
  DeviceBuffer memory_;
  std::vector<KvLayer> layers_;
  std::vector<KvGroup> groups_;  // by layer
  uint64_t part_bytes_ = 0;      // of K, or of V, of a block
};

}  // namespace gptoss
