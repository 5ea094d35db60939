// The emulated device's memory, out of reach except inside a DeviceScope.
#pragma once

namespace gptoss::cuda {

/// While one exists, the memory of all emulated devices can be read and written. Not nested, not thread-safe.
class DeviceScope {
 public:
  DeviceScope();
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;
};

}  // namespace gptoss::cuda
