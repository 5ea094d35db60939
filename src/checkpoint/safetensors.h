// The header of one .safetensors file: 8 bytes of length (little endian), that many bytes of JSON, then the tensors'
// bytes. Source: https://github.com/huggingface/safetensors#format. As strict as the format's own library: the data
// section is covered without gaps or overlaps and ends with the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/mmap_file.h"
#include "base/status.h"
#include "tensor/dtype.h"

namespace gptoss {

/// The limit of the format's own library.
inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;

struct SafetensorsEntry {
  DType dtype = DType::kU8;     // kF32, kF16, kBF16 or kU8
  std::vector<uint64_t> shape;  // outermost first; empty for a scalar
  uint64_t offset = 0;          // from the start of the file
  uint64_t bytes = 0;
};

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry, std::less<>> tensors;
};

/// Checks and decodes the header in `bytes`, the whole file or at least its header; `file_size` is that of the whole
/// file. Total: any bytes give a header or one error. Messages begin with `path`.
/// On failure: kCorruptData; kUnsupported for a dtype that no gpt-oss file has; kResourceExhausted for a huge header.
Result<SafetensorsHeader> ParseSafetensorsHeader(std::span<const std::byte> bytes, uint64_t file_size,
                                                 const std::string& path);

/// The same for an open file. On failure: additionally kIo.
Result<SafetensorsHeader> ReadSafetensorsHeader(const MappedFile& file);

/// "[32, 5760, 90, 16]"
std::string ShapeText(const std::vector<uint64_t>& shape);

}  // namespace gptoss
