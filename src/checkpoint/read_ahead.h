// Advice to the system about a mapped file that will be read with pread.
#pragma once

#include <cstddef>
#include <span>

namespace gptoss {

/// Starts reading these bytes of a mapped file into the page cache, and returns without waiting for them. Does not map
/// them. A failure changes nothing but speed.
void StartReading(std::span<const std::byte> mapped);

}  // namespace gptoss
