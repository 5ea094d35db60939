// The header of one GGUF v3 file (little endian): metadata key-value pairs and tensor descriptions.
// Source: docs/gguf.md of github.com/ggml-org/ggml.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/dtype.h"

namespace gptoss {

enum class GgufType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
};

/// One metadata value. Scalars are held; strings and arrays stay in the file's bytes, checked to lie within them.
struct GgufValue {
  GgufType type = GgufType::kU8;
  uint64_t bits = 0;                 // an integer or bool, sign-extended; a float's bits as of its own type
  GgufType element = GgufType::kU8;  // of an array; arrays of arrays are refused
  uint64_t count = 0;                // elements of an array
  std::span<const std::byte> bytes;  // a string's characters; an array's elements as they are in the file
};

struct GgufTensor {
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;  // outermost first (the file has it reversed), without the file's padding
  uint64_t offset = 0;          // from the start of the file
  uint64_t bytes = 0;
};

/// Refers to the bytes it was parsed from.
struct GgufHeader {
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::map<std::string, GgufTensor, std::less<>> tensors;

  const GgufValue* Find(std::string_view key) const;
  // Null when the key is absent or of another type; integers of any width are read.
  std::optional<int64_t> Integer(std::string_view key) const;
  std::optional<double> Real(std::string_view key) const;  // also integers
  std::optional<std::string_view> String(std::string_view key) const;
  /// Empty when absent or not an array of strings.
  std::vector<std::string> Strings(std::string_view key) const;
  std::vector<int32_t> Int32s(std::string_view key) const;
};

/// Checks and decodes the header of a whole file. Total: any bytes give a header or one error, and memory stays within
/// a small multiple of the header's size. Messages begin with `path`. On failure: kCorruptData; kUnsupported for other
/// versions, byte orders, tensor types; kResourceExhausted past a limit.
Result<GgufHeader> ParseGguf(std::span<const std::byte> file, const std::string& path);

}  // namespace gptoss
