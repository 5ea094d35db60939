#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "base/check.h"
#include "checkpoint/output.h"
#include "checkpoint/packed.h"
#include "checkpoint/xxh64.h"
#include "json/json.h"
#include "tensor/weight_layout.h"

namespace gptoss {

Result<std::unique_ptr<PackedCheckpoint>> PackedCheckpoint::Open(const std::string& path) {
  GPTOSS_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  GPTOSS_ASSIGN_OR_RETURN(PackedHeader header, ParsePackedHeader(file.bytes(), path));
  return std::unique_ptr<PackedCheckpoint>(new PackedCheckpoint(std::move(file), std::move(header)));
}

PackedCheckpoint::PackedCheckpoint(MappedFile file, PackedHeader header)
    : file_(std::move(file)), header_(std::move(header)) {
  config_ = header_.config;
  std::vector<TensorSpec> specs = CanonicalTensors(config_);
  tensors_.resize(specs.size());
  parts_.resize(specs.size());
  for (size_t held = 0; held < header_.tensors.size(); ++held) {
    const PackedTensor& tensor = header_.tensors[held];
    uint64_t rows = 0, columns = 0;
    for (const size_t index : tensor.held.parts) {
      const bool is_vector = specs[index].shape.size() == 1;
      parts_[index] = {held, rows, columns};
      rows += is_vector ? 0 : specs[index].rows();
      columns += is_vector ? specs[index].cols() : 0;
      tensors_[index] = {std::move(specs[index]), tensor.dtype};
    }
  }
}

Status PackedCheckpoint::ReadRows(const StoredTensor& tensor, uint64_t first, uint64_t count, std::span<std::byte> data,
                                  std::span<std::byte> scales) const {
  GPTOSS_ASSIGN_OR_RETURN(const size_t index, CheckRead(tensor, first, count, data, scales));
  const Part& part = parts_[index];
  const PackedTensor& held = header_.tensors[part.held];
  const std::optional<WeightLayout> layout = WeightLayoutOf(held.layout);
  if (!layout) {
    return Unsupported(file_.path() + ": tensor \"" + held.held.spec.name + "\" is arranged as \"" + held.layout +
                       "\", which this version does not know: pack the model again with gptoss convert --packed");
  }
  const uint64_t row = part.first_row + first, cols = tensor.spec.cols();
  if (*layout == WeightLayout::kRows8) {
    UnpackRows8(held.dtype, static_cast<int64_t>(cols), Bytes(held.data).data(), Bytes(held.scales).data(),
                static_cast<int64_t>(row), static_cast<int64_t>(count), data.data(), scales.data());
    return Status();
  }
  const uint64_t at = row * RowBytes(held.dtype, cols) + RowBytes(held.dtype, part.column);
  if (!data.empty()) GPTOSS_RETURN_IF_ERROR(file_.ReadAt(held.data.offset + at, data));
  if (scales.empty()) return Status();
  return file_.ReadAt(held.scales.offset + row * RowScaleBytes(held.dtype, cols), scales);
}

std::optional<std::span<const std::byte>> PackedCheckpoint::MappedBytes(const StoredTensor& tensor) const {
  const Result<size_t> index = IndexOf(tensor);
  if (!index.ok()) return std::nullopt;
  const Part& part = parts_[*index];
  const PackedTensor& held = header_.tensors[part.held];
  if (HasScales(held.dtype) || held.layout != WeightLayoutName(WeightLayout::kRowMajor)) return std::nullopt;
  const TensorSpec& spec = tensors_[*index].spec;
  const uint64_t at = part.first_row * RowBytes(held.dtype, spec.cols()) + RowBytes(held.dtype, part.column);
  return Bytes(held.data).subspan(at, spec.rows() * RowBytes(held.dtype, spec.cols()));
}

std::string PackedCheckpoint::VocabularyText() const {
  const std::span<const std::byte> bytes = Bytes(header_.tokenizer);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<std::string> PackedCheckpoint::VocabularyTokens() const {
  if (header_.tokenizer_form != "gguf") return {};
  const auto json = ParseJson(VocabularyText(), {.max_bytes = 256u << 20});
  const Json* tokens = json.ok() ? FindField(*json, "tokens") : nullptr;
  std::vector<std::string> out;
  if (tokens == nullptr || !tokens->is_array()) return out;
  for (const Json& token : *tokens) out.push_back(token.is_string() ? token.get<std::string>() : std::string());
  return out;
}

std::vector<int32_t> PackedCheckpoint::VocabularyTokenTypes() const {
  if (header_.tokenizer_form != "gguf") return {};
  const auto json = ParseJson(VocabularyText(), {.max_bytes = 256u << 20});
  const Json* types = json.ok() ? FindField(*json, "types") : nullptr;
  std::vector<int32_t> out;
  if (types == nullptr || !types->is_array()) return out;
  for (const Json& type : *types) out.push_back(type.is_number_integer() ? type.get<int32_t>() : 0);
  return out;
}

std::string PackedCheckpoint::TokenizerJson() const {
  return header_.tokenizer_form == "tokenizer.json" ? VocabularyText() : std::string();
}

Status PackedCheckpoint::VerifyChecksums(WriteProgress* progress) const {
  struct Check {
    std::string name;
    const PackedArray* array;
    std::vector<uint64_t> sums;
  };
  std::vector<Check> checks;
  for (const PackedTensor& tensor : header_.tensors) {
    checks.push_back({"tensor \"" + tensor.held.spec.name + "\"", &tensor.data, {}});
    if (tensor.scales.bytes > 0) checks.push_back({"scales of \"" + tensor.held.spec.name + "\"", &tensor.scales, {}});
  }
  if (header_.tokenizer.bytes > 0) checks.push_back({"the tokenizer", &header_.tokenizer, {}});
  std::vector<WriteTask> tasks;
  for (Check& check : checks) {
    const PackedArray& array = *check.array;
    check.sums.resize(array.blocks());
    for (uint64_t block = 0; block < array.blocks(); ++block) {
      const uint64_t begin = block * array.block_bytes, size = std::min(array.block_bytes, array.bytes - begin);
      tasks.push_back({size, [this, &check, &array, block, begin, size](WriteScratch& scratch) {
                         scratch.data.resize(size);
                         GPTOSS_RETURN_IF_ERROR(file_.ReadAt(array.offset + begin, scratch.data));
                         check.sums[block] = Xxh64(scratch.data);
                         return Status();
                       }});
    }
  }
  GPTOSS_RETURN_IF_ERROR(RunWriteTasks(tasks, progress));
  for (const Check& check : checks) {
    if (CombineBlockChecksums(check.sums) == check.array->checksum) continue;
    return CorruptData(file_.path() + ": " + check.name + ": the checksum of its " +
                       std::to_string(check.array->bytes) + " bytes at offset " + std::to_string(check.array->offset) +
                       " differs: the file is damaged; make it again with gptoss convert --packed");
  }
  return Status();
}

}  // namespace gptoss
