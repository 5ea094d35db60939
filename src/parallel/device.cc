#include "parallel/device.h"

#include <cstring>

#include "base/check.h"

namespace gptoss {
namespace {

class Host : public Device {
 public:
  std::string name() const override { return "cpu"; }
  bool is_host() const override { return true; }
  Result<std::byte*> Allocate(size_t) override { return Unsupported("host memory is a HostBuffer"); }
  void Free(std::byte*) override {}
  void Upload(void* to, const void* from, size_t bytes) override { Copy(to, from, bytes); }
  void Download(void* to, const void* from, size_t bytes) override { Copy(to, from, bytes); }
  void Copy(void* to, const void* from, size_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  Status Wait() override { return Status(); }
};

}  // namespace

Device& HostDevice() {
  static Host host;
  return host;
}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(host_, other.host_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

DeviceBuffer::~DeviceBuffer() {
  if (device_ != nullptr) device_->Free(data_);
}

Result<DeviceBuffer> DeviceBuffer::Allocate(Device& device, size_t bytes) {
  DeviceBuffer buffer;
  if (bytes == 0) return buffer;
  if (device.is_host()) {
    GPTOSS_ASSIGN_OR_RETURN(buffer.host_, HostBuffer::Allocate(bytes));
    buffer.data_ = buffer.host_.data();
  } else {
    GPTOSS_ASSIGN_OR_RETURN(buffer.data_, device.Allocate(bytes));
    buffer.device_ = &device;
  }
  buffer.size_ = bytes;
  return buffer;
}

}  // namespace gptoss
