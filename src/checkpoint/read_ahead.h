// Getting a mapped file into the page cache before it is read with pread.
#pragma once

#include <cstdint>

#include "base/mmap_file.h"

namespace gptoss {

/// Reads bytes [offset, offset + bytes) of a mapped file into the page cache, in huge pages where the system can, and
/// waits for them; the process keeps none of them mapped, nor what the system mapped around them. Faster than pread
/// alone on a cold file, which takes its pages one by one. A failure changes nothing but speed: the pread that follows
/// reports it.
void ReadIntoPageCache(const MappedFile& file, uint64_t offset, uint64_t bytes);

}  // namespace gptoss
