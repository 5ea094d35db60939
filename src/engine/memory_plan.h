// What a model, a context and a number of sequences will take, before anything is loaded.
#pragma once

#include <cstdint>

#include "engine/model_runner.h"
#include "model/weights.h"

namespace gptoss {

struct MemoryPlan {
  WeightPlan weights;
  uint64_t kv_cache = 0;     // when all sequences have reached the context
  uint64_t activations = 0;  // buffers of one forward pass, logits included
  uint64_t process = 0;      // code, libraries, tokenizer, what the file reader keeps
  uint64_t mapped = 0;       // read from the mapped file as needed; the system may drop it at any time; not in total()
  uint64_t total() const { return weights.total() + kv_cache + activations + process; }

  int largest_context = 0;  // for the number of sequences that was asked for; 0 when not even one position fits
  int most_sequences = 0;   // for the context that was asked for
};

/// `available` bytes bound the two figures at the end.
MemoryPlan PlanMemory(const Checkpoint& checkpoint, DensePrecision dense, const RunnerOptions& options,
                      uint64_t available);

/// A model on a GPU. What does not fit there stays on the host, layer by layer: norm, router and experts.
struct GpuPlan {
  MemoryPlan memory;    // of both together; largest_context and most_sequences with `host_layers` as they are
  int host_layers = 0;  // the fewest with which the rest fits; all when nothing does
  uint64_t on_gpu = 0;  // bytes: weights, cache, activations, scratch memory of ops
  uint64_t on_host = 0;
  bool brings_experts = false;  // there is room on the GPU for one layer that passes bring there
  bool fits_gpu = false;
};

/// `available` bytes of the GPU. `scratch_bytes` as in Ops. With `bring_experts` room is left for a layer that stays on
/// the host, if all fits then (GptOss::BringExpertsFrom).
GpuPlan PlanGpu(const Checkpoint& checkpoint, DensePrecision dense, const RunnerOptions& options,
                uint64_t (*scratch_bytes)(const StepShape&), uint64_t available, bool bring_experts = false);

/// Memory that this process may still take: the least of what the system has available and its control group's limit.
uint64_t AvailableMemory();

/// Highest resident size of this process so far, in bytes.
uint64_t PeakResidentBytes();

}  // namespace gptoss
