// Large anonymous memory: committed page by page when first touched, in huge pages where the system allows.
#pragma once

#include <cstddef>
#include <utility>

#include "base/status.h"

namespace gptoss {

/// Zero-filled memory of its own mapping, aligned to a page. Pages that are never touched cost nothing. Move-only.
class HostBuffer {
 public:
  HostBuffer() = default;  // empty: data() is null
  HostBuffer(HostBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  HostBuffer& operator=(HostBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  ~HostBuffer();

  /// Reserves `bytes`; 0 gives an empty buffer. On failure: kResourceExhausted naming the size.
  static Result<HostBuffer> Allocate(size_t bytes);

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }

  /// Commits every page now, so that no later write can find the system out of memory. On failure: kResourceExhausted.
  Status Commit();

  /// Returns the pages that lie wholly inside [offset, offset + bytes) to the system; they read as zero afterwards.
  void Release(size_t offset, size_t bytes);

 private:
  HostBuffer(std::byte* data, size_t size) : data_(data), size_(size) {}
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace gptoss
