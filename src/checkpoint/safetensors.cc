#include "checkpoint/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "checkpoint/strict_json.h"

namespace gptoss {
namespace {

static_assert(std::endian::native == std::endian::little, "checkpoints are read without swapping bytes");

constexpr uint64_t kPrefixBytes = 8;
constexpr size_t kMaxDimensions = 8;

std::string Tensor(const std::string& name) { return "tensor \"" + name + "\": "; }

Result<DType> ParseDType(const std::string& text) {
  if (text == "F32") return DType::kF32;
  if (text == "F16") return DType::kF16;
  if (text == "BF16") return DType::kBF16;
  if (text == "U8") return DType::kU8;
  return Unsupported("dtype \"" + text.substr(0, 32) + "\" is not one of F32, F16, BF16 and U8");
}

std::optional<uint64_t> AsUnsigned(const MapJson& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  return value.get<uint64_t>();
}

/// Bytes of a tensor, or nullopt when the product overflows.
std::optional<uint64_t> ByteSize(const SafetensorsEntry& entry) {
  uint64_t n = RowBytes(entry.dtype, 1);
  for (const uint64_t dim : entry.shape) {
    if (__builtin_mul_overflow(n, dim, &n)) return std::nullopt;
  }
  return n;
}

/// `data_start` and `data_bytes` say where the data section lies.
Result<SafetensorsEntry> ParseEntry(const MapJson& json, uint64_t data_start, uint64_t data_bytes) {
  if (!json.is_object()) return CorruptData("its description is not a JSON object");
  const auto dtype = json.find("dtype"), shape = json.find("shape"), offsets = json.find("data_offsets");
  if (dtype == json.end() || !dtype->is_string()) return CorruptData("\"dtype\" is missing or not a string");
  if (shape == json.end() || !shape->is_array()) return CorruptData("\"shape\" is missing or not an array");
  if (offsets == json.end() || !offsets->is_array() || offsets->size() != 2) {
    return CorruptData("\"data_offsets\" is missing or not a pair");
  }
  SafetensorsEntry entry;
  GPTOSS_ASSIGN_OR_RETURN(entry.dtype, ParseDType(dtype->get_ref<const std::string&>()));
  if (shape->size() > kMaxDimensions) return CorruptData("\"shape\" has more than 8 dimensions");
  for (const MapJson& dim : *shape) {
    const std::optional<uint64_t> n = AsUnsigned(dim);
    if (!n) return CorruptData("\"shape\" holds something that is not a size");
    entry.shape.push_back(*n);
  }
  const std::optional<uint64_t> begin = AsUnsigned((*offsets)[0]), end = AsUnsigned((*offsets)[1]);
  if (!begin || !end || *begin > *end) return CorruptData("\"data_offsets\" is not a range");
  const std::string range = "bytes " + std::to_string(*begin) + " to " + std::to_string(*end);
  if (*end > data_bytes) {
    return CorruptData(range + " lie outside the file's " + std::to_string(data_bytes) +
                       " bytes of data (is the file truncated? download it again)");
  }
  if (*begin % RowBytes(entry.dtype, 1) != 0) return CorruptData(range + " are not aligned to the element size");
  const std::optional<uint64_t> size = ByteSize(entry);
  if (!size || *size != *end - *begin) {
    return CorruptData(range + " do not fit shape " + ShapeText(entry.shape) + " of " +
                       std::string(DTypeName(entry.dtype)));
  }
  entry.offset = data_start + *begin;
  entry.bytes = *size;
  return entry;
}

/// The tensors in order of offset must follow each other from `data_start` to the end of the file.
Status CheckCoverage(const SafetensorsHeader& header, uint64_t data_start, uint64_t file_size) {
  using Item = std::pair<const std::string, SafetensorsEntry>;
  std::vector<const Item*> order;
  order.reserve(header.tensors.size());
  for (const Item& item : header.tensors) order.push_back(&item);
  std::sort(order.begin(), order.end(), [](const Item* a, const Item* b) {
    return std::pair(a->second.offset, a->second.bytes) < std::pair(b->second.offset, b->second.bytes);
  });
  uint64_t at = data_start;
  const std::string* previous = nullptr;
  for (const Item* item : order) {
    if (item->second.offset < at)
      return CorruptData(Tensor(item->first) + "its bytes overlap those of \"" + *previous + "\"");
    if (item->second.offset > at) {
      return CorruptData(Tensor(item->first) + std::to_string(item->second.offset - at) +
                         " bytes before it belong to no tensor");
    }
    at += item->second.bytes;
    previous = &item->first;
  }
  if (at == file_size) return Status();
  return CorruptData(std::to_string(file_size - at) + " bytes after the last tensor belong to no tensor");
}

}  // namespace

std::string ShapeText(const std::vector<uint64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

Result<SafetensorsHeader> ParseSafetensorsHeader(std::span<const std::byte> bytes, uint64_t file_size,
                                                 const std::string& path) {
  const auto fail = [&](const Status& status) { return status.WithContext(path); };
  if (file_size < kPrefixBytes || bytes.size() < kPrefixBytes) {
    return fail(CorruptData("too short for a safetensors file (" + std::to_string(file_size) + " bytes)"));
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), kPrefixBytes);
  if (header_bytes > file_size - kPrefixBytes || header_bytes > bytes.size() - kPrefixBytes) {
    return fail(CorruptData("the header claims " + std::to_string(header_bytes) + " bytes, the file has " +
                            std::to_string(file_size) + " (truncated, or not a safetensors file)"));
  }
  if (header_bytes > kMaxSafetensorsHeader) {
    return fail(ResourceExhausted("the header claims " + std::to_string(header_bytes) + " bytes, the limit is " +
                                  std::to_string(kMaxSafetensorsHeader)));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kPrefixBytes, header_bytes);
  if (text.empty() || text[0] != '{') return fail(CorruptData("the header does not begin with \"{\""));
  Result<MapJson> json = ParseStrictJson(text);
  if (!json.ok()) return fail(json.status().WithContext("header"));

  SafetensorsHeader header;
  const uint64_t data_start = kPrefixBytes + header_bytes;
  for (const auto& [name, description] : json->items()) {
    if (name == "__metadata__") continue;
    Result<SafetensorsEntry> entry = ParseEntry(description, data_start, file_size - data_start);
    if (!entry.ok()) return fail(entry.status().WithContext("tensor \"" + name + "\""));
    header.tensors.emplace(name, *std::move(entry));
  }
  GPTOSS_RETURN_IF_ERROR(fail(CheckCoverage(header, data_start, file_size)));
  return header;
}

Result<SafetensorsHeader> ReadSafetensorsHeader(const MappedFile& file) {
  std::vector<std::byte> bytes(std::min(file.size(), kPrefixBytes));
  GPTOSS_RETURN_IF_ERROR(file.ReadAt(0, bytes));
  if (bytes.size() == kPrefixBytes) {
    uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, bytes.data(), kPrefixBytes);
    // Lengths that the parser will refuse are not read.
    if (header_bytes <= kMaxSafetensorsHeader && header_bytes <= file.size() - kPrefixBytes) {
      bytes.resize(kPrefixBytes + header_bytes);
      GPTOSS_RETURN_IF_ERROR(file.ReadAt(0, bytes));
    }
  }
  return ParseSafetensorsHeader(bytes, file.size(), file.path());
}

}  // namespace gptoss
