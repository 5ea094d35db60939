#include "checkpoint/read_ahead.h"

#include <sys/mman.h>

#include <algorithm>

namespace gptoss {
namespace {

/// The system maps pages around those asked for, up to a huge page.
constexpr uintptr_t kHugePage = uintptr_t{2} << 20;

}  // namespace

void ReadIntoPageCache(const MappedFile& file, uint64_t offset, uint64_t bytes) {
  if (bytes == 0) return;
  // A mapping begins at a page; its last page belongs to it whole.
  const auto base = reinterpret_cast<uintptr_t>(file.bytes().data());
  const uintptr_t begin = std::max(base, (base + offset) / kHugePage * kHugePage);
  const uintptr_t end = std::min(base + file.size(), (base + offset + bytes + kHugePage - 1) / kHugePage * kHugePage);
  void* address = reinterpret_cast<void*>(begin);
  static_cast<void>(::madvise(address, end - begin, MADV_HUGEPAGE));
#ifdef MADV_POPULATE_READ
  // Fails with EINVAL on kernels before 5.14.
  if (::madvise(address, end - begin, MADV_POPULATE_READ) == 0) {
    static_cast<void>(::madvise(address, end - begin, MADV_DONTNEED));
    return;
  }
#endif
  static_cast<void>(::madvise(address, end - begin, MADV_WILLNEED));
}

}  // namespace gptoss
