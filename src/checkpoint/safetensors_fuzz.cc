// Any bytes as a .safetensors file: a header or an error, and what a header says must hold.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto header = gptoss::ParseSafetensorsHeader(std::as_bytes(std::span(data, size)), size, "fuzz");
  if (header.ok()) {
    for (const auto& [name, entry] : header->tensors) {
      GPTOSS_CHECK(entry.offset <= size && entry.bytes <= size - entry.offset);
    }
  }
  return 0;
}
