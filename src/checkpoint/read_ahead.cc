#include "checkpoint/read_ahead.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace gptoss {

void ReadIntoPageCache(std::span<const std::byte> mapped) {
  if (mapped.empty()) return;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(mapped.data()) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(mapped.data()) + mapped.size();
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
