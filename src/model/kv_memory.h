// The memory behind the paged key/value cache. Which blocks are whose is kv_cache/'s business.
#pragma once

#include <vector>

#include "checkpoint/model_config.h"
#include "ops/ops.h"
#include "parallel/host_buffer.h"

namespace gptoss {

struct KvCapacity {
  int sliding_blocks = 0;  // blocks of kKvBlockSize positions, in each sliding layer
  int full_blocks = 0;     // likewise in each full layer
};

class KvMemory {
 public:
  /// Commits all of the memory: a conversation that was admitted cannot run out of it later, and what `plan` says is
  /// what the process holds. On failure: kResourceExhausted.
  static Result<KvMemory> Allocate(const ModelConfig& config, DType dtype, const KvCapacity& capacity);

  const KvLayer& layer(int n) const { return layers_[n]; }

  /// Bytes of one block of one layer, K and V together.
  static uint64_t BlockBytes(const ModelConfig& config, DType dtype) {
    return 2ull * kKvBlockSize * static_cast<uint64_t>(config.kv_size()) * RowBytes(dtype, 1);
  }
  static uint64_t TotalBytes(const ModelConfig& config, DType dtype, const KvCapacity& capacity);

 private:
  HostBuffer memory_;
  std::vector<KvLayer> layers_;
};

}  // namespace gptoss
