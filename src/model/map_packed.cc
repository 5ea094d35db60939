#include "model/map_packed.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <string>

#include "model/weight_map.h"

namespace gptoss {
namespace {

constexpr uint64_t kFetchBytes = 32ull << 20;

/// The whole pages around a stretch of the mapping.
std::span<std::byte> PagesAround(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(bytes.data()) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(bytes.data()) + bytes.size() + page - 1) / page * page;
  return {reinterpret_cast<std::byte*>(begin), end - begin};
}

Status FetchPages(std::span<const std::byte> bytes, const std::string& path) {
  const std::span<std::byte> pages = PagesAround(bytes);
  // Only advice: the page cache then takes huge pages for what is read from the disk, and maps them as such.
  static_cast<void>(::madvise(pages.data(), pages.size(), MADV_HUGEPAGE));
#ifdef MADV_POPULATE_READ
  int result;
  do {
    result = ::madvise(pages.data(), pages.size(), MADV_POPULATE_READ);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return Status();
  // Kernels before 5.14 do not know it; there the pages come when they are touched.
  if (errno != EINVAL) return IoError(path + ": cannot read: " + std::strerror(errno));
#endif
  static_cast<void>(::madvise(pages.data(), pages.size(), MADV_WILLNEED));
  return Status();
}

}  // namespace

Status CheckPackedPrecision(const PackedCheckpoint& packed, DensePrecision dense) {
  const PackedHeader& header = packed.header();
  const auto again = [&](const char* flag, const char* wanted) {
    return Unsupported(
        packed.Describe() + ": packed with --dense " + header.dense + ", which " + wanted +
        ": leave --exact and --dense away, or pack the model again with gptoss convert --packed --dense " + flag);
  };
  if (dense == DensePrecision::kAsStored && !header.exact) return again("bf16", "rounded some weights");
  if (dense != DensePrecision::kInt8) return Status();
  for (const PackedTensor& tensor : header.tensors) {
    const WeightPurpose purpose = PurposeOf(tensor.held.spec);
    const bool is_dense = purpose == WeightPurpose::kAttention || purpose == WeightPurpose::kUnembedding;
    if (is_dense && tensor.dtype != DType::kQ8_0) return again("int8", "keeps some weights as they were stored");
  }
  return Status();
}

Result<WeightLayout> PackedLayout(const PackedCheckpoint& packed, const PackedTensor& tensor) {
  const std::optional<WeightLayout> layout = WeightLayoutOf(tensor.layout);
  if (layout) return *layout;
  return Unsupported(packed.Describe() + ": tensor \"" + tensor.held.spec.name + "\" is arranged as \"" +
                     tensor.layout +
                     "\", which this build does not know: pack the model again with gptoss convert --packed");
}

Status FetchPackedPages(const PackedCheckpoint& packed, ThreadPool& pool, WriteProgress* progress) {
  std::vector<std::span<const std::byte>> pieces;
  uint64_t total = 0;
  for (const PackedTensor& tensor : packed.header().tensors) {
    if (PurposeOf(tensor.held.spec) == WeightPurpose::kEmbedding) continue;
    for (const PackedArray& array : {tensor.data, tensor.scales}) {
      const std::span<const std::byte> bytes = packed.Bytes(array);
      for (size_t at = 0; at < bytes.size(); at += kFetchBytes) {
        pieces.push_back(bytes.subspan(at, std::min<size_t>(kFetchBytes, bytes.size() - at)));
      }
      total += bytes.size();
    }
  }
  std::mutex mutex;  // guards the two below, and progress
  Status error;
  uint64_t done = 0;
  std::atomic<bool> stop{false};
  pool.Run(static_cast<int64_t>(pieces.size()), [&](int64_t i, int) {
    if (stop.load(std::memory_order_relaxed)) return;
    const Status status = FetchPages(pieces[static_cast<size_t>(i)], packed.Describe());
    const std::lock_guard lock(mutex);
    done += pieces[static_cast<size_t>(i)].size();
    if (!status.ok() && error.ok()) error = status;
    if (error.ok() && progress != nullptr && !progress->Update(done, total)) error = Cancelled("loading cancelled");
    if (!error.ok()) stop.store(true, std::memory_order_relaxed);
  });
  return error;
}

}  // namespace gptoss
