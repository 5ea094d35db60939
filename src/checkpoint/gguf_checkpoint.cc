#include "checkpoint/gguf_checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "checkpoint/ggml_blocks.h"
#include "checkpoint/gguf.h"
#include "checkpoint/name_map_gguf.h"
#include "checkpoint/read_ahead.h"
#include "checkpoint/safetensors.h"

namespace gptoss {
namespace {

/// Read at once: what fits into a second-level cache beside what is made of it.
constexpr uint64_t kChunkBytes = 256 << 10;
constexpr int64_t kMaxSplits = 999;

struct Part {
  MappedFile file;
  GgufHeader header;
};

Result<Part> OpenPart(const std::string& path) {
  GPTOSS_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  GPTOSS_ASSIGN_OR_RETURN(GgufHeader header, ParseGguf(file.bytes(), path));
  return Part{std::move(file), std::move(header)};
}

/// Opens `path` and, when it is one of several splits, the others. The first element holds the metadata.
Result<std::vector<Part>> OpenParts(const std::string& path) {
  GPTOSS_ASSIGN_OR_RETURN(Part given, OpenPart(path));
  const int64_t count = given.header.Integer("split.count").value_or(1);
  if (count < 0 || count > kMaxSplits) return CorruptData(path + ": metadata \"split.count\" is out of range");
  std::vector<Part> parts;
  if (count <= 1) {
    parts.push_back(std::move(given));
    return parts;
  }
  char tail[32];
  const auto tail_of = [&](int64_t n) {
    std::snprintf(tail, sizeof(tail), "-%05d-of-%05d.gguf", static_cast<int>(n), static_cast<int>(count));
    return std::string(tail);
  };
  const std::string own_tail = tail_of(given.header.Integer("split.no").value_or(0) + 1);
  if (!path.ends_with(own_tail)) {
    return CorruptData(path + ": is one of " + std::to_string(count) + " splits and must be named …" + own_tail);
  }
  const std::string stem = path.substr(0, path.size() - own_tail.size());
  for (int64_t n = 1; n <= count; ++n) {
    const std::string name = stem + tail_of(n);
    if (!std::filesystem::exists(name)) return NotFound(name + ": the split is missing; " + path + " implies it");
    GPTOSS_ASSIGN_OR_RETURN(Part part, OpenPart(name));
    if (part.header.Integer("split.no") != n - 1 || part.header.Integer("split.count") != count) {
      return CorruptData(name + ": metadata \"split.no\" and \"split.count\" do not agree with its name");
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

class GgufCheckpoint final : public Checkpoint {
 public:
  GgufCheckpoint(std::string path, std::vector<Part> parts) : path_(std::move(path)), parts_(std::move(parts)) {}

  /// Reads the configuration, then finds and checks every canonical tensor.
  Status Resolve();

  CheckpointFormat format() const override { return CheckpointFormat::kGguf; }
  Status ReadRows(const StoredTensor& tensor, uint64_t first, uint64_t count, std::span<std::byte> data,
                  std::span<std::byte> scales) const override;
  void Fetch(const StoredTensor& tensor, uint64_t first, uint64_t count) const override;
  std::optional<std::span<const std::byte>> MappedBytes(const StoredTensor& tensor) const override;
  std::string Describe() const override { return path_; }
  std::vector<std::string> VocabularyTokens() const override {
    return parts_[0].header.Strings("tokenizer.ggml.tokens");
  }
  std::vector<int32_t> VocabularyTokenTypes() const override {
    return parts_[0].header.Int32s("tokenizer.ggml.token_type");
  }

 private:
  struct FileTensor {
    const Part* part = nullptr;
    const GgufTensor* tensor = nullptr;
  };
  struct Place {
    FileTensor plain;  // or gate
    FileTensor up;     // only of gate_up
  };

  Status MergeParts();
  Result<FileTensor> Require(const std::string& name, const std::vector<uint64_t>& shape, bool quantised) const;
  Status ReadPlain(const FileTensor& from, uint64_t first, uint64_t count, std::span<std::byte> data,
                   std::span<std::byte> scales) const;
  Status ReadGateUpRows(const Place& place, uint64_t first, uint64_t count, std::span<std::byte> data,
                        std::span<std::byte> scales) const;
  Status ReadGateUpBias(const Place& place, uint64_t first, uint64_t count, std::span<std::byte> data) const;

  std::string path_;
  std::vector<Part> parts_;
  std::map<std::string, FileTensor, std::less<>> by_name_;
  std::vector<Place> places_;  // parallel to tensors_
};

Status GgufCheckpoint::MergeParts() {
  for (const Part& part : parts_) {
    for (const auto& [name, tensor] : part.header.tensors) {
      const auto [at, inserted] = by_name_.try_emplace(name, FileTensor{&part, &tensor});
      if (!inserted) {
        return CorruptData(part.file.path() + ": tensor \"" + name + "\" is also in " + at->second.part->file.path());
      }
    }
  }
  return Status();
}

Result<GgufCheckpoint::FileTensor> GgufCheckpoint::Require(const std::string& name, const std::vector<uint64_t>& shape,
                                                           bool quantised) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return NotFound(path_ + ": tensor \"" + name + "\" is missing");
  const GgufTensor& tensor = *found->second.tensor;
  const std::string where = found->second.part->file.path() + ": tensor \"" + name + "\"";
  if (tensor.shape != shape) {
    return CorruptData(where + " has shape " + ShapeText(tensor.shape) + ", the metadata implies " + ShapeText(shape));
  }
  if (HasScales(tensor.dtype) && !quantised) {
    return Unsupported(where + " is " + std::string(DTypeName(tensor.dtype)) + "; F32, F16 or BF16 belongs here");
  }
  return found->second;
}

Status GgufCheckpoint::Resolve() {
  GPTOSS_RETURN_IF_ERROR(MergeParts());
  GgufHeader merged = parts_[0].header;  // the embedding's shape may be described in another part
  if (const auto embedding = by_name_.find("token_embd.weight"); embedding != by_name_.end()) {
    merged.tensors.try_emplace("token_embd.weight", *embedding->second.tensor);
  }
  const Result<ModelConfig> config = ParseGgufConfig(merged);
  if (!config.ok()) return config.status().WithContext(path_);
  config_ = *config;
  const std::vector<GgufLayoutTensor> layout = GgufLayout(config_);
  std::vector<TensorSpec> specs = CanonicalTensors(config_);
  std::set<std::string_view> known;
  for (size_t i = 0; i < specs.size(); ++i) {
    const GgufLayoutTensor& in = layout[i];
    const bool is_matrix = specs[i].shape.size() > 1 && !specs[i].name.ends_with(".bias");
    Place place;
    GPTOSS_ASSIGN_OR_RETURN(place.plain, Require(in.name, in.shape, is_matrix));
    known.insert(in.name);
    const DType dtype = place.plain.tensor->dtype;
    const std::string where = place.plain.part->file.path() + ": tensor \"" + in.name + "\"";
    if (dtype == DType::kMxfp4 && !specs[i].is_expert_weight) {
      return Unsupported(where + " is MXFP4; only experts' weights can be");
    }
    if (!in.up_name.empty()) {
      GPTOSS_ASSIGN_OR_RETURN(place.up, Require(in.up_name, in.shape, is_matrix));
      known.insert(in.up_name);
      if (place.up.tensor->dtype != dtype) {
        return Unsupported(where + " and \"" + in.up_name + "\" are of different types");
      }
    }
    tensors_.push_back({std::move(specs[i]), dtype});
    places_.push_back(place);
  }
  for (const auto& [name, tensor] : by_name_) {
    if (!known.contains(name)) {
      return CorruptData(tensor.part->file.path() + ": tensor \"" + name + "\" is not part of a gpt-oss model of " +
                         std::to_string(config_.num_layers) + " layers");
    }
  }
  return Status();
}

/// Rows of one tensor of the file, in chunks that keep the scratch small. Plain types go straight to their place.
Status GgufCheckpoint::ReadPlain(const FileTensor& from, uint64_t first, uint64_t count, std::span<std::byte> data,
                                 std::span<std::byte> scales) const {
  const DType dtype = from.tensor->dtype;
  const uint64_t cols = from.tensor->shape.back(), row_bytes = GgmlRowBytes(dtype, cols);
  const uint64_t offset = from.tensor->offset + first * row_bytes;
  if (!HasScales(dtype)) return from.part->file.ReadAt(offset, data);
  const uint64_t chunk_rows = std::max<uint64_t>(1, std::min(count, kChunkBytes / row_bytes));
  const auto scratch = std::make_unique_for_overwrite<std::byte[]>(chunk_rows * row_bytes);
  for (uint64_t r = 0; r < count; r += chunk_rows) {
    const uint64_t n = std::min(chunk_rows, count - r);
    const std::span<std::byte> chunk(scratch.get(), n * row_bytes);
    GPTOSS_RETURN_IF_ERROR(from.part->file.ReadAt(offset + r * row_bytes, chunk));
    const auto part = [&](std::span<std::byte> whole, uint64_t bytes) {
      return whole.empty() ? whole : whole.subspan(r * bytes, n * bytes);
    };
    UnpackGgml(dtype, chunk, part(data, RowBytes(dtype, cols)), part(scales, RowScaleBytes(dtype, cols)));
  }
  return Status();
}

/// Canonical row r is row r / 2 of gate (r even) or of up (r odd): experts have as many rows of the one as of the
/// other. Rows go from the scratch straight to their places.
Status GgufCheckpoint::ReadGateUpRows(const Place& place, uint64_t first, uint64_t count, std::span<std::byte> data,
                                      std::span<std::byte> scales) const {
  const DType dtype = place.plain.tensor->dtype;
  const uint64_t cols = place.plain.tensor->shape.back(), row_bytes = GgmlRowBytes(dtype, cols);
  const uint64_t data_bytes = data.empty() ? 0 : RowBytes(dtype, cols);
  const uint64_t scale_bytes = scales.empty() ? 0 : RowScaleBytes(dtype, cols);
  const uint64_t chunk_rows = std::max<uint64_t>(1, kChunkBytes / row_bytes);
  const auto scratch = std::make_unique_for_overwrite<std::byte[]>(std::min(chunk_rows, count) * row_bytes);
  for (uint64_t parity = 0; parity < 2; ++parity) {
    const FileTensor& from = parity == 0 ? place.plain : place.up;
    const uint64_t begin = (first + 1 - parity) / 2, end = (first + count + 1 - parity) / 2;  // rows of `from`
    for (uint64_t row = begin; row < end; row += chunk_rows) {
      const uint64_t n = std::min(chunk_rows, end - row);
      const std::span<std::byte> blocks(scratch.get(), n * row_bytes);
      GPTOSS_RETURN_IF_ERROR(from.part->file.ReadAt(from.tensor->offset + row * row_bytes, blocks));
      for (uint64_t i = 0; i < n; ++i) {
        const uint64_t to = 2 * (row + i) + parity - first;
        UnpackGgml(dtype, blocks.subspan(i * row_bytes, row_bytes), data.subspan(to * data_bytes, data_bytes),
                   scales.subspan(to * scale_bytes, scale_bytes));
      }
    }
  }
  return Status();
}

/// Within one expert's bias, gate and up elements alternate.
Status GgufCheckpoint::ReadGateUpBias(const Place& place, uint64_t first, uint64_t count,
                                      std::span<std::byte> data) const {
  const uint64_t size = RowBytes(place.plain.tensor->dtype, 1), elements = count * place.plain.tensor->shape.back();
  std::vector<std::byte> half(elements * size);
  for (uint64_t parity = 0; parity < 2; ++parity) {
    GPTOSS_RETURN_IF_ERROR(ReadPlain(parity == 0 ? place.plain : place.up, first, count, half, {}));
    for (uint64_t i = 0; i < elements; ++i) std::memcpy(&data[(2 * i + parity) * size], &half[i * size], size);
  }
  return Status();
}

Status GgufCheckpoint::ReadRows(const StoredTensor& tensor, uint64_t first, uint64_t count, std::span<std::byte> data,
                                std::span<std::byte> scales) const {
  GPTOSS_ASSIGN_OR_RETURN(const size_t index, CheckRead(tensor, first, count, data, scales));
  const Place& place = places_[index];
  Status status;
  if (place.up.tensor == nullptr) {
    status = ReadPlain(place.plain, first, count, data, scales);
  } else if (place.plain.tensor->shape.size() == 2) {
    status = ReadGateUpBias(place, first, count, data);
  } else {
    status = ReadGateUpRows(place, first, count, data, scales);
  }
  return status.WithContext("tensor \"" + tensors_[index].spec.name + "\"");
}

void GgufCheckpoint::Fetch(const StoredTensor& tensor, uint64_t first, uint64_t count) const {
  const Result<size_t> index = IndexOf(tensor);
  if (!index.ok() || first > tensor.spec.rows() || count > tensor.spec.rows() - first) return;
  const Place& place = places_[*index];
  const bool is_split = place.up.tensor != nullptr && place.plain.tensor->shape.size() == 3;
  for (const FileTensor& from : {place.plain, place.up}) {
    if (from.tensor == nullptr) continue;
    const uint64_t row_bytes = GgmlRowBytes(from.tensor->dtype, from.tensor->shape.back());
    const uint64_t begin = is_split ? first / 2 : first, end = is_split ? (first + count + 1) / 2 : first + count;
    ReadIntoPageCache(from.part->file, from.tensor->offset + begin * row_bytes, (end - begin) * row_bytes);
  }
}

std::optional<std::span<const std::byte>> GgufCheckpoint::MappedBytes(const StoredTensor& tensor) const {
  const Result<size_t> index = IndexOf(tensor);
  if (!index.ok()) return std::nullopt;
  const Place& place = places_[*index];
  const GgufTensor& in = *place.plain.tensor;
  if (place.up.tensor != nullptr || HasScales(in.dtype) || in.offset % RowBytes(in.dtype, 1) != 0) return std::nullopt;
  return place.plain.part->file.bytes().subspan(in.offset, in.bytes);
}

}  // namespace

Result<std::unique_ptr<Checkpoint>> OpenGguf(const std::string& path) {
  GPTOSS_ASSIGN_OR_RETURN(std::vector<Part> parts, OpenParts(path));
  auto checkpoint = std::make_unique<GgufCheckpoint>(path, std::move(parts));
  GPTOSS_RETURN_IF_ERROR(checkpoint->Resolve());
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

}  // namespace gptoss
