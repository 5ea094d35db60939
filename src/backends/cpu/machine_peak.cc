#include "backends/cpu/machine_peak.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#include "backends/cpu/cpu_ops.h"
#include "base/check.h"
#include "hwy/cache_control.h"
#include "parallel/host_buffer.h"

namespace gptoss {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kBufferBytes = size_t{512} << 20;
constexpr int64_t kPieceBytes = int64_t{1} << 20;
constexpr int64_t kPrefetchBytes = 8192;
constexpr double kReadSeconds = 0.8, kComputeSeconds = 0.4;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Reads every byte of [data, data + kPieceBytes). Whether prefetching helps depends on the processor.
template <bool kPrefetch>
uint64_t Consume(const std::byte* data) {
  constexpr int kStreams = 8;
  uint64_t sums[kStreams] = {};
  for (int64_t i = 0; i < kPieceBytes; i += kStreams * 8) {
    if constexpr (kPrefetch) hwy::Prefetch(data + i + kPrefetchBytes);
    for (int s = 0; s < kStreams; ++s) {
      uint64_t word;
      std::memcpy(&word, data + i + s * 8, sizeof(word));
      sums[s] ^= word;
    }
  }
  uint64_t all = 0;
  for (const uint64_t s : sums) all ^= s;
  return all;
}

}  // namespace

Result<double> MeasureReadBandwidth(ThreadPool& pool) {
  GPTOSS_ASSIGN_OR_RETURN(HostBuffer buffer, HostBuffer::Allocate(kBufferBytes));
  const int64_t pieces = static_cast<int64_t>(kBufferBytes) / kPieceBytes;
  // Memory that was never written reads as one shared page of zeros, out of the cache.
  pool.Run(pieces, [&](int64_t piece, int) {
    std::memset(buffer.data() + piece * kPieceBytes, static_cast<int>(piece % 255) + 1, kPieceBytes);
  });
  std::vector<uint64_t> results(pieces);  // written from many threads, so the reads cannot be left out
  double best = 0.0;
  const Clock::time_point start = Clock::now();
  for (bool prefetch = false; SecondsSince(start) < kReadSeconds; prefetch = !prefetch) {
    const auto consume = prefetch ? Consume<true> : Consume<false>;
    const Clock::time_point pass = Clock::now();
    pool.Run(pieces, [&](int64_t piece, int) { results[piece] += consume(buffer.data() + piece * kPieceBytes); });
    best = std::max(best, static_cast<double>(kBufferBytes) / SecondsSince(pass) / 1e9);
  }
  return best;
}

double MeasureCompute(ThreadPool& pool, const Ops& ops) {
  // Targets that share an exact table follow the one that it was made for.
  const auto targets = cpu::Targets();
  const auto target = std::find_if(targets.begin(), targets.end(), [&](const cpu::Target& candidate) {
    return candidate.fast->name == ops.name || candidate.exact->name == ops.name;
  });
  GPTOSS_CHECK(target != targets.end());
  const cpu::Kernels* kernels = target->kernels;
  constexpr int64_t kIterations = 200000, kTasksPerThread = 16;
  const int64_t tasks = kTasksPerThread * pool.num_threads();
  std::vector<float> sinks(tasks, 0.5f);
  std::vector<double> operations(tasks);
  double best = 0.0;
  const Clock::time_point start = Clock::now();
  do {
    const Clock::time_point run = Clock::now();
    pool.Run(tasks,
             [&](int64_t task, int) { operations[task] = kernels->multiply_add_loop(kIterations, &sinks[task]); });
    const double seconds = SecondsSince(run);
    double sum = 0.0;
    for (const double count : operations) sum += count;
    best = std::max(best, sum / seconds / 1e12);
  } while (SecondsSince(start) < kComputeSeconds);
  return best;
}

}  // namespace gptoss
