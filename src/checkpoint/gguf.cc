#include "checkpoint/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/utf8.h"
#include "checkpoint/ggml_blocks.h"

namespace gptoss {
namespace {

constexpr uint64_t kMaxTensors = 1 << 20, kMaxPairs = 1 << 20, kMaxKeyBytes = 1 << 16, kMaxAlignment = 1 << 20;
constexpr uint32_t kMaxDimensions = 4;

/// Reads forward through bytes; after the first failure everything reads as zero and `ok` is false.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename T>
  T Read() {
    T value{};
    const std::span<const std::byte> from = Take(sizeof(T));
    if (ok_) std::memcpy(&value, from.data(), sizeof(T));
    return value;
  }
  std::span<const std::byte> Take(uint64_t n) {
    if (!ok_ || n > bytes_.size() - at_) {
      ok_ = false;
      return {};
    }
    at_ += n;
    return bytes_.subspan(at_ - n, n);
  }
  std::span<const std::byte> String() { return Take(Read<uint64_t>()); }
  bool ok() const { return ok_; }
  uint64_t at() const { return at_; }
  std::span<const std::byte> Since(uint64_t start) const { return bytes_.subspan(start, at_ - start); }

 private:
  std::span<const std::byte> bytes_;
  uint64_t at_ = 0;
  bool ok_ = true;
};

std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// 0 for strings and arrays, and for ids that do not exist.
uint64_t ScalarBytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

uint64_t ReadScalar(Cursor& in, GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kBool:
      return in.Read<uint8_t>();
    case GgufType::kI8:
      return static_cast<uint64_t>(int64_t{in.Read<int8_t>()});
    case GgufType::kU16:
      return in.Read<uint16_t>();
    case GgufType::kI16:
      return static_cast<uint64_t>(int64_t{in.Read<int16_t>()});
    case GgufType::kU32:
    case GgufType::kF32:
      return in.Read<uint32_t>();
    case GgufType::kI32:
      return static_cast<uint64_t>(int64_t{in.Read<int32_t>()});
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return in.Read<uint64_t>();
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  return 0;
}

Status Truncated() { return CorruptData("the file ends here (is it truncated? download it again)"); }

Status ReadArray(Cursor& in, GgufValue* value) {
  const uint32_t element = in.Read<uint32_t>();
  value->count = in.Read<uint64_t>();
  if (!in.ok()) return Truncated();
  if (element > static_cast<uint32_t>(GgufType::kF64)) {
    return CorruptData("array of type " + std::to_string(element) + ", which does not exist");
  }
  value->element = static_cast<GgufType>(element);
  if (value->element == GgufType::kArray) return Unsupported("array of arrays");
  const uint64_t start = in.at();
  if (value->element == GgufType::kString) {
    // Each string takes at least 8 bytes of the file, so the loop ends with it.
    for (uint64_t i = 0; i < value->count && in.ok(); ++i) in.String();
  } else {
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(value->count, ScalarBytes(value->element), &bytes)) return Truncated();
    in.Take(bytes);
  }
  if (!in.ok()) return Truncated();
  value->bytes = in.Since(start);
  return Status();
}

Status ReadValue(Cursor& in, GgufValue* value) {
  const uint32_t type = in.Read<uint32_t>();
  if (!in.ok()) return Truncated();
  if (type > static_cast<uint32_t>(GgufType::kF64)) {
    return CorruptData("type " + std::to_string(type) + ", which does not exist");
  }
  value->type = static_cast<GgufType>(type);
  if (value->type == GgufType::kArray) return ReadArray(in, value);
  if (value->type == GgufType::kString) {
    value->bytes = in.String();
  } else {
    value->bits = ReadScalar(in, value->type);
  }
  return in.ok() ? Status() : Truncated();
}

Status ReadMetadata(Cursor& in, uint64_t count, GgufHeader* header) {
  for (uint64_t i = 0; i < count; ++i) {
    const std::span<const std::byte> key_bytes = in.String();
    if (!in.ok()) return Truncated().WithContext("metadata pair " + std::to_string(i));
    if (key_bytes.size() > kMaxKeyBytes || FirstInvalidUtf8(Text(key_bytes)) != key_bytes.size()) {
      return CorruptData("the key of metadata pair " + std::to_string(i) + " is not UTF-8 of at most 65536 bytes");
    }
    const std::string key(Text(key_bytes));
    GgufValue value;
    GPTOSS_RETURN_IF_ERROR(ReadValue(in, &value).WithContext("metadata \"" + key + "\""));
    if (!header->metadata.emplace(key, value).second) return CorruptData("metadata \"" + key + "\" occurs twice");
  }
  return Status();
}

/// Reads one description; `tensor->offset` is still relative to the data section.
Status ReadTensor(Cursor& in, GgufTensor* tensor) {
  const uint32_t dimensions = in.Read<uint32_t>();
  if (in.ok() && (dimensions == 0 || dimensions > kMaxDimensions)) {
    return CorruptData(std::to_string(dimensions) + " dimensions, there can be 1 to 4");
  }
  for (uint32_t d = 0; d < dimensions && in.ok(); ++d) tensor->shape.push_back(in.Read<uint64_t>());
  const uint32_t type = in.Read<uint32_t>();
  tensor->offset = in.Read<uint64_t>();
  if (!in.ok()) return Truncated();
  const std::optional<DType> dtype = DTypeOfGgml(type);
  if (!dtype) {
    return Unsupported(GgmlTypeText(type) +
                       " is not one of MXFP4, Q8_0, BF16, F16 and F32; use a file quantised to those");
  }
  tensor->dtype = *dtype;
  uint64_t elements = 1;
  for (const uint64_t dim : tensor->shape) {
    // The largest element has 4 bytes; this keeps every later product of sizes within 64 bits.
    if (dim == 0 || __builtin_mul_overflow(elements, dim, &elements) || elements > UINT64_MAX / 8) {
      return CorruptData("impossible dimensions");
    }
  }
  const uint64_t cols = tensor->shape[0];
  if (HasScales(*dtype) && cols % kBlockSize != 0) {
    return CorruptData("rows of " + std::to_string(cols) + " values do not fill blocks of 32");
  }
  tensor->bytes = elements / cols * GgmlRowBytes(*dtype, cols);
  std::reverse(tensor->shape.begin(), tensor->shape.end());
  return Status();
}

Status ReadTensors(Cursor& in, uint64_t count, GgufHeader* header) {
  for (uint64_t i = 0; i < count; ++i) {
    const std::span<const std::byte> name_bytes = in.String();
    if (!in.ok()) return Truncated().WithContext("tensor " + std::to_string(i));
    if (name_bytes.size() > kMaxKeyBytes || FirstInvalidUtf8(Text(name_bytes)) != name_bytes.size()) {
      return CorruptData("the name of tensor " + std::to_string(i) + " is not UTF-8 of at most 65536 bytes");
    }
    const std::string name(Text(name_bytes));
    GgufTensor tensor;
    GPTOSS_RETURN_IF_ERROR(ReadTensor(in, &tensor).WithContext("tensor \"" + name + "\""));
    if (!header->tensors.emplace(name, std::move(tensor)).second) {
      return CorruptData("tensor \"" + name + "\" occurs twice");
    }
  }
  return Status();
}

/// Turns relative offsets into offsets in the file and checks that the tensors are aligned, inside and disjoint.
Status PlaceTensors(uint64_t header_bytes, uint64_t file_size, GgufHeader* header) {
  uint64_t alignment = 32;
  if (header->Find("general.alignment") != nullptr) {
    const std::optional<int64_t> stated = header->Integer("general.alignment");
    if (!stated || *stated < 1 || static_cast<uint64_t>(*stated) > kMaxAlignment ||
        !std::has_single_bit(static_cast<uint64_t>(*stated))) {
      return CorruptData("metadata \"general.alignment\" is not a power of two of at most 1048576");
    }
    alignment = static_cast<uint64_t>(*stated);
  }
  const uint64_t data_start = (header_bytes + alignment - 1) / alignment * alignment;
  std::vector<std::pair<const std::string, GgufTensor>*> order;
  for (auto& item : header->tensors) {
    GgufTensor& tensor = item.second;
    if (tensor.offset % alignment != 0) {
      return CorruptData("tensor \"" + item.first + "\": offset " + std::to_string(tensor.offset) +
                         " is not a multiple of the alignment " + std::to_string(alignment));
    }
    if (data_start > file_size || tensor.offset > file_size - data_start ||
        tensor.bytes > file_size - data_start - tensor.offset) {
      return CorruptData("tensor \"" + item.first + "\": its " + std::to_string(tensor.bytes) + " bytes at offset " +
                         std::to_string(tensor.offset) + " lie outside the file of " + std::to_string(file_size) +
                         " bytes (is it truncated? download it again)");
    }
    tensor.offset += data_start;
    order.push_back(&item);
  }
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->second.offset < b->second.offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->second.offset < order[i - 1]->second.offset + order[i - 1]->second.bytes) {
      return CorruptData("tensor \"" + order[i]->first + "\": its bytes overlap those of \"" + order[i - 1]->first +
                         "\"");
    }
  }
  return Status();
}

Result<GgufHeader> Parse(std::span<const std::byte> file) {
  Cursor in(file);
  const std::span<const std::byte> magic = in.Take(4);
  if (!in.ok() || Text(magic) != "GGUF") return CorruptData("does not begin with \"GGUF\": not a GGUF file");
  const uint32_t version = in.Read<uint32_t>();
  if (in.ok() && version != 3) {
    const bool swapped = version == 0x03000000;
    return Unsupported(swapped ? "big endian GGUF; convert it to little endian"
                               : "GGUF version " + std::to_string(version) + ", only version 3 is read");
  }
  const uint64_t tensors = in.Read<uint64_t>(), pairs = in.Read<uint64_t>();
  if (!in.ok()) return Truncated();
  if (tensors > kMaxTensors || pairs > kMaxPairs) {
    return ResourceExhausted(std::to_string(tensors) + " tensors and " + std::to_string(pairs) +
                             " metadata pairs, the limit is 1048576 each");
  }
  GgufHeader header;
  GPTOSS_RETURN_IF_ERROR(ReadMetadata(in, pairs, &header));
  GPTOSS_RETURN_IF_ERROR(ReadTensors(in, tensors, &header));
  GPTOSS_RETURN_IF_ERROR(PlaceTensors(in.at(), file.size(), &header));
  return header;
}

}  // namespace

const GgufValue* GgufHeader::Find(std::string_view key) const {
  const auto found = metadata.find(key);
  return found == metadata.end() ? nullptr : &found->second;
}

std::optional<int64_t> GgufHeader::Integer(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr || ScalarBytes(value->type) == 0 || value->type == GgufType::kF32 ||
      value->type == GgufType::kF64 || (value->type == GgufType::kU64 && value->bits > INT64_MAX)) {
    return std::nullopt;
  }
  return static_cast<int64_t>(value->bits);
}

std::optional<double> GgufHeader::Real(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value != nullptr && value->type == GgufType::kF64) return std::bit_cast<double>(value->bits);
  if (value != nullptr && value->type == GgufType::kF32) {
    return std::bit_cast<float>(static_cast<uint32_t>(value->bits));
  }
  const std::optional<int64_t> integer = Integer(key);
  return integer ? std::optional<double>(static_cast<double>(*integer)) : std::nullopt;
}

std::optional<std::string_view> GgufHeader::String(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr || value->type != GgufType::kString) return std::nullopt;
  return Text(value->bytes);
}

std::vector<std::string> GgufHeader::Strings(std::string_view key) const {
  const GgufValue* value = Find(key);
  std::vector<std::string> strings;
  if (value == nullptr || value->type != GgufType::kArray || value->element != GgufType::kString) return strings;
  Cursor in(value->bytes);
  for (uint64_t i = 0; i < value->count; ++i) strings.emplace_back(Text(in.String()));
  return strings;
}

std::vector<int32_t> GgufHeader::Int32s(std::string_view key) const {
  const GgufValue* value = Find(key);
  std::vector<int32_t> numbers;
  if (value == nullptr || value->type != GgufType::kArray || ScalarBytes(value->element) != 4) return numbers;
  if (value->element == GgufType::kF32) return numbers;
  numbers.resize(value->count);
  if (!numbers.empty()) std::memcpy(numbers.data(), value->bytes.data(), value->bytes.size());
  return numbers;
}

Result<GgufHeader> ParseGguf(std::span<const std::byte> file, const std::string& path) {
  Result<GgufHeader> header = Parse(file);
  if (!header.ok()) return header.status().WithContext(path);
  return header;
}

}  // namespace gptoss
