// Any bytes as a packed file: a header whose arrays lie inside the file, or an error. The size and the checksum in the
// prefix are put right first, or nothing would come further.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "checkpoint/packed.h"
#include "checkpoint/xxh64.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto as_given = gptoss::ParsePackedHeader(std::as_bytes(std::span(data, size)), "fuzz");
  std::vector<uint8_t> file(32 + size + (1 << 20));
  const auto text_bytes = static_cast<uint32_t>(size);
  const uint64_t file_bytes = file.size(), sum = gptoss::Xxh64(std::as_bytes(std::span(data, size)));
  std::memcpy(file.data(), gptoss::kPackedMagic.data(), 8);
  std::memcpy(file.data() + 8, &gptoss::kPackedVersion, 4);
  std::memcpy(file.data() + 12, &text_bytes, 4);
  std::memcpy(file.data() + 16, &file_bytes, 8);
  std::memcpy(file.data() + 24, &sum, 8);
  if (size > 0) std::memcpy(file.data() + 32, data, size);
  for (const auto& header : {as_given, gptoss::ParsePackedHeader(std::as_bytes(std::span(file)), "fuzz")}) {
    if (!header.ok()) continue;
    GPTOSS_CHECK(gptoss::ValidateConfig(header->config).ok());
    for (const gptoss::PackedTensor& tensor : header->tensors) {
      for (const gptoss::PackedArray& array : {tensor.data, tensor.scales}) {
        GPTOSS_CHECK(array.offset <= file.size() && array.bytes <= file.size() - array.offset);
      }
    }
  }
  return 0;
}
