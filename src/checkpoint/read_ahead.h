// Getting a mapped file into the page cache before it is read with pread.
#pragma once

#include <cstddef>
#include <span>

namespace gptoss {

/// Reads these bytes of a mapped file into the page cache, in huge pages where the system can, and waits for them; the
/// process keeps none of them mapped. Faster than pread alone on a cold file, which takes its pages one by one. A
/// failure changes nothing but speed: the pread that follows reports it.
void ReadIntoPageCache(std::span<const std::byte> mapped);

}  // namespace gptoss
