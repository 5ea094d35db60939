#include "engine/memory_plan.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string>

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

uint64_t RunnerBytes(const ModelConfig& config, const RunnerOptions& options) {
  const RunnerPlan plan = PlanRunner(config, options);
  return plan.kv_bytes + plan.activation_bytes;
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
  const uint64_t left = available > fixed ? available - fixed : 0;
  plan.largest_context = LargestThatFits(config.max_context, [&](int context) {
    RunnerOptions o = options;
    o.max_context = context;
    return context == 0 || RunnerBytes(config, o) <= left;
  });
  plan.most_sequences = LargestThatFits(4096, [&](int sequences) {
    RunnerOptions o = options;
    o.max_sequences = sequences;
    return sequences == 0 || RunnerBytes(config, o) <= left;
  });
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
