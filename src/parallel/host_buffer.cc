#include "parallel/host_buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "base/check.h"

namespace gptoss {
namespace {

/// Below this, rounding up to a huge page could cost more memory than the buffer holds.
constexpr size_t kHugePageThreshold = size_t{4} << 20;

}  // namespace

Result<HostBuffer> HostBuffer::Allocate(size_t bytes) {
  if (bytes == 0) return HostBuffer();
  // NORESERVE: buffers are reserved at their largest and touched as far as they are used; Commit() claims the rest.
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    return ResourceExhausted("cannot reserve " + std::to_string(bytes) + " bytes of memory: " + std::strerror(errno) +
                             "; use a smaller model, a shorter context, or raise the limit on virtual memory");
  }
  // Advice only: without huge pages everything works, with more misses in the translation buffers.
  if (bytes >= kHugePageThreshold) static_cast<void>(madvise(address, bytes, MADV_HUGEPAGE));
  return HostBuffer(static_cast<std::byte*>(address), bytes);
}

HostBuffer::~HostBuffer() {
  if (data_ != nullptr) GPTOSS_CHECK(munmap(data_, size_) == 0);
}

Status HostBuffer::Commit() {
  if (size_ == 0) return Status();
  if (madvise(data_, size_, MADV_POPULATE_WRITE) != 0 && (errno == ENOMEM || errno == EFAULT)) {
    return ResourceExhausted("cannot commit " + std::to_string(size_) +
                             " bytes of memory: the system has no more; use a shorter context or a smaller model");
  }
  // Kernels before 5.14 do not know the advice, and emulators accept it without acting: writing to each page does the
  // same, and costs little where the pages are there.
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (size_t at = 0; at < size_; at += page) {
    volatile std::byte* byte = data_ + at;
    *byte = *byte;
  }
  return Status();
}

void HostBuffer::Release(size_t offset, size_t bytes) {
  GPTOSS_CHECK(offset <= size_ && bytes <= size_ - offset);
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = (offset + bytes) / page * page;
  if (begin < end) static_cast<void>(madvise(data_ + begin, end - begin, MADV_DONTNEED));
}

}  // namespace gptoss
