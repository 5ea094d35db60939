#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "backends/cuda/emulator/emulator.h"
#include "backends/cuda/emulator/guarded_memory.h"
#include "base/check.h"

namespace gptoss::cuda {
namespace {

/// Sizes by address, of all emulated devices.
std::map<std::byte*, size_t>& Allocations() {
  static std::map<std::byte*, size_t> allocations;
  return allocations;
}

void Protect(int protection) {
  for (const auto& [memory, bytes] : Allocations()) GPTOSS_CHECK(mprotect(memory, bytes, protection) == 0);
}

class Emulated : public Device {
 public:
  std::string name() const override { return "emulated GPU"; }
  bool is_host() const override { return false; }
  Result<std::byte*> Allocate(size_t bytes) override {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return ResourceExhausted("the emulated GPU has no memory left");
    const auto begin = static_cast<std::byte*>(memory);
    std::fill_n(begin, bytes, kNobodysByte);
    GPTOSS_CHECK(mprotect(memory, bytes, PROT_NONE) == 0);
    Allocations()[begin] = bytes;
    return begin;
  }
  void Free(std::byte* memory) override {
    GPTOSS_CHECK(munmap(memory, Allocations().at(memory)) == 0);
    Allocations().erase(memory);
  }
  void Upload(void* to, const void* from, size_t bytes) override { Copy(to, from, bytes); }
  void Download(void* to, const void* from, size_t bytes) override { Copy(to, from, bytes); }
  void Copy(void* to, const void* from, size_t bytes) override {
    const DeviceScope scope;
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  Status Wait() override { return Status(); }
};

}  // namespace

DeviceScope::DeviceScope() { Protect(PROT_READ | PROT_WRITE); }
DeviceScope::~DeviceScope() { Protect(PROT_NONE); }

std::unique_ptr<Device> EmulatedDevice() { return std::make_unique<Emulated>(); }

}  // namespace gptoss::cuda
