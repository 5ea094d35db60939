#include "checkpoint/packed.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <utility>

#include "checkpoint/xxh64.h"
#include "json/json.h"
#include "tensor/weight_layout.h"

namespace gptoss {
namespace {

constexpr uint64_t kPrefixBytes = 32;
constexpr uint64_t kMaxHeaderBytes = 16 << 20;  // gpt-oss-120b's is 0.2 MB
constexpr uint64_t kMinBlockBytes = 16 << 10, kMaxBlockBytes = 1 << 30;
constexpr uint64_t kMaxTokenizerBytes = 256 << 20;

template <typename T>
void AppendLittleEndian(T value, std::string* out) {
  for (size_t i = 0; i < sizeof(T); ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

template <typename T>
T ReadLittleEndian(std::span<const std::byte> bytes, size_t offset) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(std::to_integer<T>(bytes[offset + i]) << (8 * i));
  return value;
}

std::string Hex(uint64_t value) {
  std::array<char, 17> text;
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(value));
  return text.data();
}

Json ArrayJson(const PackedArray& array) {
  return {
      {"offset", array.offset}, {"bytes", array.bytes}, {"block", array.block_bytes}, {"xxh64", Hex(array.checksum)}};
}

std::optional<DType> DTypeOfName(std::string_view name) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kMxfp4, DType::kQ8_0}) {
    if (DTypeName(dtype) == name) return dtype;
  }
  return std::nullopt;
}

/// Checks places of arrays as they are read: each inside the file, and in the end none over another.
class HeaderReader {
 public:
  HeaderReader(uint64_t arrays_begin, uint64_t file_bytes) : begin_(arrays_begin), end_(file_bytes) {}

  /// `expected` bytes, or any number up to `most` when absent.
  Result<PackedArray> Array(const Json& owner, const char* key, std::optional<uint64_t> expected, uint64_t most) {
    const Json* json = FindField(owner, key);
    if (json == nullptr || !json->is_object()) return CorruptData("\"" + std::string(key) + "\" is missing");
    PackedArray array;
    const std::array<std::pair<const char*, uint64_t*>, 3> fields = {
        {{"offset", &array.offset}, {"bytes", &array.bytes}, {"block", &array.block_bytes}}};
    for (const auto& [name, value] : fields) {
      const Json* field = FindField(*json, name);
      if (field == nullptr || !field->is_number_unsigned()) {
        return CorruptData("\"" + std::string(key) + "\": \"" + name + "\" is not a number of bytes");
      }
      *value = field->get<uint64_t>();
    }
    const std::string* sum = FindString(*json, "xxh64");
    if (sum == nullptr || !ParseHex(*sum, &array.checksum)) {
      return CorruptData("\"" + std::string(key) + "\": \"xxh64\" is not 16 hexadecimal digits");
    }
    GPTOSS_RETURN_IF_ERROR(CheckPlace(array, expected, most).WithContext("\"" + std::string(key) + "\""));
    return array;
  }

  Status CheckOverlaps() {
    std::sort(used_.begin(), used_.end());
    for (size_t i = 1; i < used_.size(); ++i) {
      if (used_[i].first < used_[i - 1].second) {
        return CorruptData("two arrays overlap at byte " + std::to_string(used_[i].first));
      }
    }
    return Status();
  }

 private:
  static bool ParseHex(const std::string& text, uint64_t* value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value, 16);
    return text.size() == 16 && error == std::errc() && end == text.data() + text.size();
  }

  Status CheckPlace(const PackedArray& array, std::optional<uint64_t> expected, uint64_t most) {
    const std::string bytes = std::to_string(array.bytes);
    if (expected && array.bytes != *expected) {
      return CorruptData(bytes + " bytes, but type and shape imply " + std::to_string(*expected));
    }
    if (array.bytes > most) return CorruptData(bytes + " bytes, more than the limit of " + std::to_string(most));
    if (array.bytes == 0) return Status();
    if (array.block_bytes < std::min(kMinBlockBytes, array.bytes) || array.block_bytes > kMaxBlockBytes) {
      return CorruptData("\"block\" is out of range");
    }
    const std::string offset = std::to_string(array.offset);
    if (array.offset % kPackedAlignment != 0) {
      return CorruptData("offset " + offset + " is not a multiple of " + std::to_string(kPackedAlignment));
    }
    const uint64_t last = end_ - kPackedSlackBytes;
    if (array.offset < begin_ || array.offset > last || array.bytes > last - array.offset) {
      return CorruptData(bytes + " bytes at offset " + offset + " lie outside of the file's arrays");
    }
    used_.emplace_back(array.offset, array.offset + array.bytes);
    return Status();
  }

  uint64_t begin_, end_;
  std::vector<std::pair<uint64_t, uint64_t>> used_;
};

Status ReadShape(const Json& entry, const TensorSpec& spec) {
  const Json* shape = FindField(entry, "shape");
  bool same = shape != nullptr && shape->is_array() && shape->size() == spec.shape.size();
  for (size_t i = 0; same && i < spec.shape.size(); ++i) {
    same = (*shape)[i].is_number_unsigned() && (*shape)[i].get<uint64_t>() == spec.shape[i];
  }
  return same ? Status() : CorruptData("\"shape\" is not " + WriteJson(spec.shape) + ", as the configuration implies");
}

/// Experts' matrices lie one after the other, so the rows of each must fit. The embedding is read by single rows. What
/// a layout of a later version can hold is not known here: loading refuses it.
bool LayoutFits(const TensorSpec& spec, DType dtype, const std::string& name) {
  const std::optional<WeightLayout> layout = WeightLayoutOf(name);
  if (!layout || *layout == WeightLayout::kRowMajor) return true;
  return spec.shape.size() >= 2 && spec.name != "embedding" &&
         LayoutHolds(*layout, dtype, static_cast<int64_t>(spec.shape[spec.shape.size() - 2]));
}

Result<PackedTensor> ReadTensor(const Json& entry, HeldSpec held, HeaderReader& reader) {
  PackedTensor tensor;
  const std::string *type = FindString(entry, "dtype"), *layout = FindString(entry, "layout");
  const std::optional<DType> dtype = type == nullptr ? std::nullopt : DTypeOfName(*type);
  if (!dtype) return CorruptData("\"dtype\" is missing or unknown");
  const bool is_float = IsHeldAsFloat(held.spec);
  const bool fits = is_float ? *dtype == DType::kF32 : held.spec.is_expert_weight || *dtype != DType::kMxfp4;
  if (!fits) return CorruptData("\"dtype\" " + *type + " is not one that this tensor is held in");
  if (layout == nullptr || layout->empty()) return CorruptData("\"layout\" is missing");
  GPTOSS_RETURN_IF_ERROR(ReadShape(entry, held.spec));
  const uint64_t rows = held.spec.rows(), cols = held.spec.cols();
  GPTOSS_ASSIGN_OR_RETURN(tensor.data, reader.Array(entry, "data", rows * RowBytes(*dtype, cols), UINT64_MAX));
  if (HasScales(*dtype)) {
    GPTOSS_ASSIGN_OR_RETURN(tensor.scales,
                            reader.Array(entry, "scales", rows * RowScaleBytes(*dtype, cols), UINT64_MAX));
  }
  tensor.dtype = *dtype;
  tensor.layout = *layout;
  if (!LayoutFits(held.spec, *dtype, tensor.layout)) {
    return CorruptData("\"layout\" \"" + *layout + "\" cannot hold this type and shape");
  }
  tensor.held = std::move(held);
  return tensor;
}

Status ReadTensors(const Json& document, HeaderReader& reader, PackedHeader* header) {
  const Json* tensors = FindField(document, "tensors");
  if (tensors == nullptr || !tensors->is_array()) return CorruptData("\"tensors\" is missing");
  std::map<std::string, const Json*> by_name;
  for (const Json& entry : *tensors) {
    const std::string* name = FindString(entry, "name");
    if (name == nullptr) return CorruptData("an element of \"tensors\" has no \"name\"");
    if (!by_name.emplace(*name, &entry).second) return CorruptData("tensor \"" + *name + "\" occurs twice");
  }
  for (HeldSpec& held : HeldTensors(header->config)) {
    const std::string where = "tensor \"" + held.spec.name + "\"";
    const auto found = by_name.find(held.spec.name);
    if (found == by_name.end()) return CorruptData(where + " is missing");
    Result<PackedTensor> tensor = ReadTensor(*found->second, std::move(held), reader);
    if (!tensor.ok()) return tensor.status().WithContext(where);
    header->tensors.push_back(*std::move(tensor));
    by_name.erase(found);
  }
  if (by_name.empty()) return Status();
  return CorruptData("tensor \"" + by_name.begin()->first + "\" is not one of this configuration");
}

Result<PackedHeader> ReadDocument(const Json& document, HeaderReader reader) {
  PackedHeader header;
  const Json *config = FindField(document, "config"), *exact = FindField(document, "exact");
  if (config == nullptr || !config->is_object()) return CorruptData("\"config\" is missing");
  Result<ModelConfig> parsed = ParseHfConfig(*config);
  if (!parsed.ok()) return parsed.status().WithContext("\"config\"");
  header.config = *std::move(parsed);
  const std::string* dense = FindString(document, "dense");
  if (dense == nullptr || (*dense != "auto" && *dense != "int8" && *dense != "bf16")) {
    return CorruptData("\"dense\" is not auto, int8 or bf16");
  }
  if (exact == nullptr || !exact->is_boolean()) return CorruptData("\"exact\" is not true or false");
  header.dense = *dense;
  header.exact = exact->get<bool>();
  GPTOSS_RETURN_IF_ERROR(ReadTensors(document, reader, &header));
  if (const Json* tokenizer = FindField(document, "tokenizer")) {
    const std::string* form = FindString(*tokenizer, "form");
    if (form == nullptr || (*form != "tokenizer.json" && *form != "gguf")) {
      return CorruptData("\"tokenizer\": \"form\" is not tokenizer.json or gguf");
    }
    header.tokenizer_form = *form;
    GPTOSS_ASSIGN_OR_RETURN(header.tokenizer, reader.Array(document, "tokenizer", std::nullopt, kMaxTokenizerBytes));
  }
  GPTOSS_RETURN_IF_ERROR(reader.CheckOverlaps());
  return header;
}

}  // namespace

uint64_t CombineBlockChecksums(std::span<const uint64_t> checksums) {
  std::string bytes;
  for (const uint64_t checksum : checksums) AppendLittleEndian(checksum, &bytes);
  return Xxh64(std::as_bytes(std::span(bytes)));
}

Result<std::string> FormatPackedHeader(const PackedHeader& header, uint64_t file_bytes) {
  Json tensors = Json::array();
  for (const PackedTensor& tensor : header.tensors) {
    Json entry = {{"name", tensor.held.spec.name},
                  {"dtype", DTypeName(tensor.dtype)},
                  {"layout", tensor.layout},
                  {"shape", tensor.held.spec.shape},
                  {"data", ArrayJson(tensor.data)}};
    if (HasScales(tensor.dtype)) entry["scales"] = ArrayJson(tensor.scales);
    tensors.push_back(std::move(entry));
  }
  Json document = {{"config", HfConfigJson(header.config)},
                   {"dense", header.dense},
                   {"exact", header.exact},
                   {"tensors", std::move(tensors)}};
  if (header.tokenizer.bytes > 0) {
    document["tokenizer"] = ArrayJson(header.tokenizer);
    document["tokenizer"]["form"] = header.tokenizer_form;
  }
  const std::string text = WriteJson(document);
  if (text.size() > kMaxHeaderBytes) {
    return ResourceExhausted("the packed form's header would have " + std::to_string(text.size()) + " bytes; at most " +
                             std::to_string(kMaxHeaderBytes) + " can be read");
  }
  std::string bytes(kPackedMagic);
  AppendLittleEndian(kPackedVersion, &bytes);
  AppendLittleEndian(static_cast<uint32_t>(text.size()), &bytes);
  AppendLittleEndian(file_bytes, &bytes);
  AppendLittleEndian(Xxh64(std::as_bytes(std::span(text))), &bytes);
  return bytes + text;
}

Result<PackedHeader> ParsePackedHeader(std::span<const std::byte> file, const std::string& path) {
  if (file.size() < kPrefixBytes || std::memcmp(file.data(), kPackedMagic.data(), kPackedMagic.size()) != 0) {
    return CorruptData(path + ": not a packed gptoss file");
  }
  if (const auto version = ReadLittleEndian<uint32_t>(file, 8); version != kPackedVersion) {
    return Unsupported(path + ": version " + std::to_string(version) +
                       " of the packed form; this gptoss reads version " + std::to_string(kPackedVersion) +
                       ": make the file again with gptoss convert --packed");
  }
  const uint64_t text_bytes = ReadLittleEndian<uint32_t>(file, 12), claimed = ReadLittleEndian<uint64_t>(file, 16);
  if (claimed != file.size()) {
    return CorruptData(path + ": the file has " + std::to_string(file.size()) + " bytes and says " +
                       std::to_string(claimed) + ": it is truncated or damaged; copy it again");
  }
  if (text_bytes > kMaxHeaderBytes || kPrefixBytes + text_bytes + kPackedSlackBytes > file.size()) {
    return CorruptData(path + ": the header claims " + std::to_string(text_bytes) + " bytes");
  }
  const std::span<const std::byte> text = file.subspan(kPrefixBytes, text_bytes);
  if (Xxh64(text) != ReadLittleEndian<uint64_t>(file, 24)) {
    return CorruptData(path + ": the header is damaged (checksum); copy the file again");
  }
  const auto document = ParseJson({reinterpret_cast<const char*>(text.data()), text.size()},
                                  {.max_bytes = kMaxHeaderBytes, .max_depth = 8});
  if (!document.ok()) return document.status().WithContext(path + ": header");
  Result<PackedHeader> header = ReadDocument(*document, HeaderReader(kPrefixBytes + text_bytes, file.size()));
  if (!header.ok()) return header.status().WithContext(path);
  return header;
}

bool IsPackedFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string magic(kPackedMagic.size(), '\0');
  return in.read(magic.data(), static_cast<std::streamsize>(magic.size())) && magic == kPackedMagic;
}

}  // namespace gptoss
