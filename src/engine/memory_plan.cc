#include "engine/memory_plan.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string>
#include <utility>

namespace gptoss {
namespace {

/// Code, libraries, stacks, the tokenizer's tables, and read buffers of the loading threads; measured.
constexpr uint64_t kProcessBytes = 48ull << 20;

/// The number after `key` in a file of "key: value kB" lines; 0 when absent.
uint64_t KilobytesField(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t digits = line.find_first_of("0123456789");
    uint64_t value = 0;
    if (digits != std::string::npos) std::from_chars(line.data() + digits, line.data() + line.size(), value);
    return value * 1024;
  }
  return 0;
}

/// A file that holds one number; `otherwise` when it is absent or says "max".
uint64_t NumberFile(const char* path, uint64_t otherwise) {
  std::ifstream file(path);
  uint64_t value;
  return file >> value ? value : otherwise;
}

/// Largest n in [0, limit] with fits(n), where fits is monotone.
template <typename Fits>
int LargestThatFits(int limit, const Fits& fits) {
  int low = 0, high = limit;
  while (low < high) {
    const int middle = low + (high - low + 1) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

/// The figures at the end of a plan, where `needs(options)` bytes of `left` may be taken.
template <typename Needs>
void FindLargest(const ModelConfig& config, const RunnerOptions& options, uint64_t left, const Needs& needs,
                 MemoryPlan* plan) {
  plan->largest_context = LargestThatFits(config.max_context, [&](int context) {
    RunnerOptions o = options;
    o.max_context = context;
    return context == 0 || needs(o) <= left;
  });
  plan->most_sequences = LargestThatFits(4096, [&](int sequences) {
    RunnerOptions o = options;
    o.max_sequences = sequences;
    return sequences == 0 || needs(o) <= left;
  });
}

uint64_t LeftOf(uint64_t available, uint64_t taken) { return available > taken ? available - taken : 0; }

}  // namespace

MemoryPlan PlanMemory(const Checkpoint& checkpoint, DensePrecision dense, const RunnerOptions& options,
                      uint64_t available) {
  const ModelConfig& config = checkpoint.config();
  MemoryPlan plan;
  plan.weights = PlanWeights(checkpoint, dense);
  const RunnerPlan runner = PlanRunner(config, options);
  plan.kv_cache = runner.kv_bytes;
  plan.activations = runner.activation_bytes;
  plan.process = kProcessBytes;
  plan.mapped = plan.weights.mapped_embedding;
  const uint64_t fixed = plan.weights.total() + plan.process;
  const auto needs = [&](const RunnerOptions& o) {
    const RunnerPlan r = PlanRunner(config, o);
    return r.kv_bytes + r.activation_bytes;
  };
  FindLargest(config, options, LeftOf(available, fixed), needs, &plan);
  return plan;
}

GpuPlan PlanGpu(const Checkpoint& checkpoint, DensePrecision dense, const RunnerOptions& options,
                uint64_t (*scratch_bytes)(const StepShape&), uint64_t available, bool bring_experts) {
  const ModelConfig& config = checkpoint.config();
  GpuPlan plan;
  MemoryPlan& memory = plan.memory;
  memory.weights = PlanWeights(checkpoint, dense);
  // The host would read the embedding from the file.
  memory.weights.embedding += std::exchange(memory.weights.mapped_embedding, 0);
  memory.process = kProcessBytes;
  const uint64_t layer = memory.weights.layer_mlp;
  uint64_t brought = 0;
  const auto needs = [&](const RunnerOptions& o) {
    return PlanRunner(config, o).kv_bytes + ReservedBytes(config, o, scratch_bytes, 0, brought);
  };
  const auto staying = [&] { return static_cast<uint64_t>(plan.host_layers) * layer; };
  const auto place = [&](uint64_t bytes_brought) {
    brought = bytes_brought;
    const uint64_t everything = memory.weights.total() + needs(options);
    const uint64_t excess = LeftOf(everything, available);
    plan.host_layers = static_cast<int>(std::min<uint64_t>(config.num_layers, (excess + layer - 1) / layer));
    plan.on_gpu = everything - staying();
    plan.fits_gpu = plan.on_gpu <= available;
  };
  place(0);
  if (bring_experts && plan.host_layers > 0) {
    place(layer);
    if (!plan.fits_gpu) place(0);
  }
  plan.brings_experts = brought > 0;
  memory.kv_cache = PlanRunner(config, options).kv_bytes;
  memory.activations = needs(options) - memory.kv_cache;
  plan.on_host = staying() + memory.process;
  if (staying() > 0) plan.on_host += PlanRunner(config, options).activation_bytes;
  FindLargest(config, options, LeftOf(available, memory.weights.total() - staying()), needs, &memory);
  return plan;
}

uint64_t AvailableMemory() {
  const uint64_t available = KilobytesField("/proc/meminfo", "MemAvailable:");
  const uint64_t limit = NumberFile("/sys/fs/cgroup/memory.max", UINT64_MAX);
  const uint64_t used = NumberFile("/sys/fs/cgroup/memory.current", 0);
  return std::min(available, limit > used ? limit - used : 0);
}

uint64_t PeakResidentBytes() { return KilobytesField("/proc/self/status", "VmHWM:"); }

}  // namespace gptoss
