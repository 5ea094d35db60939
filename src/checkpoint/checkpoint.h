// A source of weights: a checkpoint on disk in any of the public forms, or a generated one. Whatever the form, tensors
// come under canonical names and in canonical encodings (tensor/dtype.h), read by rows into the caller's memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "checkpoint/model_config.h"
#include "checkpoint/tensor_spec.h"
#include "tensor/dtype.h"

namespace gptoss {

enum class CheckpointFormat { kHf, kOriginal, kGguf, kPacked, kSynthetic };
std::string_view CheckpointFormatName(CheckpointFormat format);

/// A tensor as this checkpoint stores it. `spec.shape` has been checked against the configuration.
struct StoredTensor {
  TensorSpec spec;
  DType dtype = DType::kBF16;  // of the canonical encoding that ReadRows gives
};

/// Immutable after opening; all methods may be called from several threads.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  virtual CheckpointFormat format() const = 0;
  const ModelConfig& config() const { return config_; }
  /// In the order of CanonicalTensors, complete.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  /// Null when there is no such canonical name.
  const StoredTensor* Find(std::string_view canonical_name) const;

  /// Reads rows [first, first + count) (all axes but the last flattened) in canonical encoding: `data` receives
  /// count * RowBytes(dtype, cols) bytes, `scales` count * RowScaleBytes(dtype, cols) (empty for plain types).
  /// For a block format either may be empty to skip that part.
  /// Uses pread, so that weights do not stay mapped. On failure: kIo or kCorruptData naming file and tensor.
  virtual Status ReadRows(const StoredTensor& tensor, uint64_t first, uint64_t count, std::span<std::byte> data,
                          std::span<std::byte> scales) const = 0;

  /// The tensor's canonical bytes inside the mapped file, when it is stored as such (plain dtype, contiguous); valid
  /// as long as this object. nullopt otherwise.
  virtual std::optional<std::span<const std::byte>> MappedBytes(const StoredTensor& tensor) const = 0;

  /// Gets the bytes of these rows from the disk into the page cache, for a ReadRows that follows: faster than ReadRows
  /// alone when the file is not there yet, and cheap when it is.
  virtual void Fetch(const StoredTensor&, uint64_t /*first*/, uint64_t /*count*/) const {}

  /// Bytes of all canonical tensors together.
  uint64_t TotalBytes() const;
  /// For messages: the path, or "synthetic 20b, seed 1".
  virtual std::string Describe() const = 0;
  /// Tokens of the vocabulary that the file itself holds (GGUF, or packed from it), in file order; empty when it holds
  /// none.
  virtual std::vector<std::string> VocabularyTokens() const { return {}; }
  virtual std::vector<int32_t> VocabularyTokenTypes() const { return {}; }
  /// The tokenizer.json that the file itself holds (packed); empty when it holds none.
  virtual std::string TokenizerJson() const { return {}; }

 protected:
  /// Position of `tensor` in tensors(). On failure: kInvalidArgument when it is not one of this checkpoint's.
  Result<size_t> IndexOf(const StoredTensor& tensor) const;
  /// IndexOf, after checking the row range and the sizes of both buffers.
  Result<size_t> CheckRead(const StoredTensor& tensor, uint64_t first, uint64_t count, std::span<const std::byte> data,
                           std::span<const std::byte> scales) const;

  ModelConfig config_;
  std::vector<StoredTensor> tensors_;
};

/// Opens a directory (Hugging Face or "original" layout), a .gguf file or a packed file (checkpoint/packed.h), told
/// apart by content, checks every tensor's presence, dtype, shape and extent, and reads no weights. On failure: one
/// error naming file and tensor.
Result<std::unique_ptr<Checkpoint>> OpenCheckpoint(const std::string& path);

struct SynthOptions {
  ModelConfig config;
  std::string shape_name = "micro";  // for Describe()
  uint64_t seed = 1;
  /// Dense matrices (attention, embedding, unembedding): BF16 as published in safetensors.
  DType dense = DType::kBF16;
};
/// Random weights of realistic scales, generated as they are read: a value depends only on (seed, tensor, index).
/// On failure: what ValidateConfig says.
Result<std::unique_ptr<Checkpoint>> MakeSyntheticCheckpoint(const SynthOptions& options);

/// Told about bytes written so far and in all; returning false cancels.
class WriteProgress {
 public:
  virtual ~WriteProgress() = default;
  virtual bool Update(uint64_t done_bytes, uint64_t total_bytes) = 0;
};

/// Vocabulary that a GGUF file carries; llama.cpp needs it to open the file.
struct GgufVocabularyData {
  std::vector<std::string> tokens;  // in the byte-to-character alphabet of GPT-2
  std::vector<int32_t> types;       // 1 normal, 3 control
  std::vector<std::string> merges;
};

struct WriteOptions {
  uint64_t max_shard_bytes = 5'000'000'000;        // hf and original; a single file when all fits into one
  DType gguf_dense = DType::kQ8_0;                 // attention, embedding, unembedding: kQ8_0, kBF16, kF16 or kF32
  const GgufVocabularyData* vocabulary = nullptr;  // null: the file says that it has none
  bool bf16_experts = false;                       // hf and gguf: experts as BF16, not as the source has them
  bool allow_lossy = false;                        // e.g. Q8_0 weights written as BF16
  WriteProgress* progress = nullptr;
};

/// Writers stream: they never hold more than a few tensors' rows. A directory (hf, original) is made; existing files
/// of that name are refused (kInvalidArgument) unless they are empty directories. Files appear under their final name
/// only when complete.
/// On failure: kIo, kResourceExhausted (disk), kCancelled, or kUnsupported when the form cannot hold the tensors' types
/// without losing bits and `allow_lossy` is off, or bf16_experts in the original layout, which has no such form.
Status WriteHf(const Checkpoint& source, const std::string& directory, const WriteOptions& options);
Status WriteOriginal(const Checkpoint& source, const std::string& directory, const WriteOptions& options);
Status WriteGguf(const Checkpoint& source, const std::string& path, const WriteOptions& options);

}  // namespace gptoss
