#include "checkpoint/checkpoint.h"

#include <filesystem>
#include <functional>
#include <system_error>

#include "checkpoint/gguf_checkpoint.h"
#include "checkpoint/packed.h"
#include "checkpoint/safetensors_checkpoint.h"

namespace gptoss {

std::string_view CheckpointFormatName(CheckpointFormat format) {
  switch (format) {
    case CheckpointFormat::kHf:
      return "hf";
    case CheckpointFormat::kOriginal:
      return "original";
    case CheckpointFormat::kGguf:
      return "gguf";
    case CheckpointFormat::kPacked:
      return "packed";
    case CheckpointFormat::kSynthetic:
      return "synthetic";
  }
  return "?";
}

const StoredTensor* Checkpoint::Find(std::string_view canonical_name) const {
  for (const StoredTensor& tensor : tensors_) {
    if (tensor.spec.name == canonical_name) return &tensor;
  }
  return nullptr;
}

uint64_t Checkpoint::TotalBytes() const {
  uint64_t total = 0;
  for (const StoredTensor& tensor : tensors_) {
    const uint64_t cols = tensor.spec.cols();
    total += tensor.spec.rows() * (RowBytes(tensor.dtype, cols) + RowScaleBytes(tensor.dtype, cols));
  }
  return total;
}

Result<size_t> Checkpoint::IndexOf(const StoredTensor& tensor) const {
  const StoredTensor* found = &tensor;
  const std::less<const StoredTensor*> before;
  if (before(found, tensors_.data()) || !before(found, tensors_.data() + tensors_.size())) {
    found = Find(tensor.spec.name);  // the caller holds a copy
  }
  if (found == nullptr) {
    return InvalidArgument(Describe() + ": there is no tensor \"" + tensor.spec.name + "\"");
  }
  return static_cast<size_t>(found - tensors_.data());
}

Result<size_t> Checkpoint::CheckRead(const StoredTensor& tensor, uint64_t first, uint64_t count,
                                     std::span<const std::byte> data, std::span<const std::byte> scales) const {
  GPTOSS_ASSIGN_OR_RETURN(const size_t index, IndexOf(tensor));
  const StoredTensor& own = tensors_[index];
  const uint64_t rows = own.spec.rows(), cols = own.spec.cols();
  // A block format may be read in parts; a plain one has only its data.
  const auto fits = [&](size_t size, uint64_t row_bytes) {
    return size == count * row_bytes || (size == 0 && HasScales(own.dtype));
  };
  if (first > rows || count > rows - first || !fits(data.size(), RowBytes(own.dtype, cols)) ||
      !fits(scales.size(), RowScaleBytes(own.dtype, cols))) {
    return InvalidArgument(Describe() + ": tensor \"" + own.spec.name + "\": rows " + std::to_string(first) + " + " +
                           std::to_string(count) + " of " + std::to_string(rows) +
                           " were asked for with buffers of another size");
  }
  return index;
}

Result<std::unique_ptr<Checkpoint>> OpenCheckpoint(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) return NotFound(path + ": no such file or directory");
  if (std::filesystem::is_directory(status)) return OpenSafetensorsDirectory(path);
  if (std::filesystem::is_regular_file(status) && IsPackedFile(path)) {
    GPTOSS_ASSIGN_OR_RETURN(std::unique_ptr<PackedCheckpoint> packed, PackedCheckpoint::Open(path));
    return std::unique_ptr<Checkpoint>(std::move(packed));
  }
  if (std::filesystem::is_regular_file(status) && !path.ends_with(".safetensors")) return OpenGguf(path);
  return InvalidArgument(
      path +
      ": not a model: give a directory with config.json, a .gguf file, or a file made by gptoss convert --packed");
}

}  // namespace gptoss
