// The emulated device's memory, out of reach except inside a DeviceScope.
#pragma once

#include <cstddef>

namespace gptoss::cuda {

/// What memory holds that nobody has written: numbers that are none in every floating-point format, and no index.
inline constexpr std::byte kNobodysByte{0xFF};

/// While one exists, the memory of all emulated devices can be read and written. Not nested, not thread-safe.
class DeviceScope {
 public:
  DeviceScope();
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;
};

}  // namespace gptoss::cuda
