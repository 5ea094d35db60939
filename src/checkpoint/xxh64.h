// XXH64, a fast 64-bit checksum against accidental damage (not against forgery).
// Source: the specification in doc/xxhash_spec.md of github.com/Cyan4973/xxHash.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace gptoss {

/// XXH64 with seed 0. The same on every machine, whatever its byte order.
uint64_t Xxh64(std::span<const std::byte> bytes);

}  // namespace gptoss
