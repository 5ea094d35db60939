// Where ops keep their memory: the machine's own, or that of an accelerator, reached by copies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "base/status.h"
#include "parallel/host_buffer.h"

namespace gptoss {

/// Work on a device is done in the order in which it was asked for, copies included. Not thread-safe.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;
  /// Its memory is the machine's: host code may use its pointers as soon as an op returns.
  virtual bool is_host() const = 0;

  /// Bytes that Allocate could give now, about; of the host nothing is said.
  virtual uint64_t free_bytes() const { return 0; }
  /// Memory with the alignment of a page or better, contents undefined. On failure: kResourceExhausted.
  virtual Result<std::byte*> Allocate(size_t bytes) = 0;
  virtual void Free(std::byte* memory) = 0;

  /// From the host's memory; `from` may be changed as soon as this returns.
  virtual void Upload(void* to, const void* from, size_t bytes) = 0;
  /// To the host's memory, when all that was asked for before is done.
  virtual void Download(void* to, const void* from, size_t bytes) = 0;
  /// Within the device; the two do not overlap.
  virtual void Copy(void* to, const void* from, size_t bytes) = 0;

  /// Waits for all work. On failure: the first thing that went wrong on the device; what it computed since is lost.
  virtual Status Wait() = 0;

  /// Where the backend of this device puts its work (a CUDA stream); null for the host.
  virtual void* queue() { return nullptr; }
};

/// The machine itself.
Device& HostDevice();

/// Memory of a device, returned to it at the end. Host memory is a HostBuffer. Move-only.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;  // empty: data() is null
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  /// `bytes` bytes, uninitialised; 0 gives an empty buffer. On failure: kResourceExhausted naming the size.
  static Result<DeviceBuffer> Allocate(Device& device, size_t bytes);

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }

  /// Claims every page now where the device hands them out when they are touched. On failure: kResourceExhausted.
  Status Commit() { return host_.Commit(); }

 private:
  Device* device_ = nullptr;  // null: memory is in host_, or there is none
  HostBuffer host_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace gptoss
