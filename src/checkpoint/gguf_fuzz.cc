// Any bytes as a .gguf file: a header or an error; whatever the header holds can be read.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "checkpoint/gguf.h"
#include "checkpoint/name_map_gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto header = gptoss::ParseGguf(std::as_bytes(std::span(data, size)), "fuzz");
  if (!header.ok()) return 0;
  for (const auto& [name, tensor] : header->tensors) {
    GPTOSS_CHECK(tensor.offset <= size && tensor.bytes <= size - tensor.offset);
  }
  for (const auto& [key, value] : header->metadata) {
    const size_t strings = header->Strings(key).size(), numbers = header->Int32s(key).size();
    GPTOSS_CHECK(strings == 0 || strings == value.count);
    GPTOSS_CHECK(numbers == 0 || numbers == value.count);
    static_cast<void>(header->Real(key));
    static_cast<void>(header->String(key));
  }
  const auto config = gptoss::ParseGgufConfig(*header);
  GPTOSS_CHECK(!config.ok() || gptoss::ValidateConfig(*config).ok());
  return 0;
}
