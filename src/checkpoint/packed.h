// The packed form: one file with the exact bytes that a loaded model holds, so that mapping it is loading it.
//
// Layout, little endian:
//   bytes 0..7    "GPTOSSPK"
//   bytes 8..11   version, 1
//   bytes 12..15  bytes of the header text, n
//   bytes 16..23  bytes of the whole file
//   bytes 24..31  XXH64 of the header text
//   bytes 32..    n bytes of JSON: configuration, precision, and for every tensor type, layout, shape, places,
//   checksums then          arrays, each at a multiple of 4096; 4096 bytes of slack at the end, which kernels may read
//   into
// The JSON is described in docs/formats.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mmap_file.h"
#include "base/status.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/held_spec.h"

namespace gptoss {

inline constexpr std::string_view kPackedMagic = "GPTOSSPK";
inline constexpr uint32_t kPackedVersion = 1;
/// Of every array: a page, so that the system can drop and fetch arrays apart. Huge pages need no more: neighbouring
/// arrays share them.
inline constexpr uint64_t kPackedAlignment = 4096;
inline constexpr uint64_t kPackedSlackBytes = 4096;

/// A stretch of the file. Its checksum is the XXH64 of the XXH64 (8 bytes, little endian) of each block in turn, so
/// that blocks can be written and checked in any order.
struct PackedArray {
  uint64_t offset = 0, bytes = 0;
  uint64_t block_bytes = 0;  // 0 only when bytes is 0; the last block may be shorter
  uint64_t checksum = 0;

  uint64_t blocks() const { return bytes == 0 ? 0 : (bytes + block_bytes - 1) / block_bytes; }
};
uint64_t CombineBlockChecksums(std::span<const uint64_t> checksums);

struct PackedTensor {
  HeldSpec held;
  DType dtype = DType::kF32;
  std::string layout;  // WeightLayoutName, or a name that a later version gave
  PackedArray data;
  PackedArray scales;  // empty for types without
};

struct PackedHeader {
  ModelConfig config;
  std::string dense;                  // "auto", "int8" or "bf16": what convert was asked for
  bool exact = false;                 // no weight was rounded
  std::vector<PackedTensor> tensors;  // as HeldTensors(config)
  PackedArray tokenizer;              // may be empty
  std::string tokenizer_form;         // "tokenizer.json", or "gguf" (see docs/formats.md)
};

/// The bytes of a file's beginning: everything before the arrays. `file_bytes` is the size of the whole file.
/// On failure: kResourceExhausted when the header would be longer than a reader accepts.
Result<std::string> FormatPackedHeader(const PackedHeader& header, uint64_t file_bytes);

/// Checks and decodes the header of a whole file: magic, version, sizes, checksum of the header, configuration; all
/// tensors there once, with the right shape and size, aligned, inside the file, without overlaps. Total: any bytes give
/// a header or one error that begins with `path`. On failure: kCorruptData; kUnsupported for other versions.
Result<PackedHeader> ParsePackedHeader(std::span<const std::byte> file, const std::string& path);

/// True when the file begins as a packed one does. On failure: false.
bool IsPackedFile(const std::string& path);

/// A packed file as a checkpoint: q, k and v come apart again when they are read by rows.
class PackedCheckpoint final : public Checkpoint {
 public:
  /// On failure: kNotFound, kIo, and what ParsePackedHeader says.
  static Result<std::unique_ptr<PackedCheckpoint>> Open(const std::string& path);

  CheckpointFormat format() const override { return CheckpointFormat::kPacked; }
  /// On failure: also kUnsupported for a tensor whose layout this version does not know.
  Status ReadRows(const StoredTensor& tensor, uint64_t first, uint64_t count, std::span<std::byte> data,
                  std::span<std::byte> scales) const override;
  std::optional<std::span<const std::byte>> MappedBytes(const StoredTensor& tensor) const override;
  std::string Describe() const override { return file_.path(); }
  std::vector<std::string> VocabularyTokens() const override;
  std::vector<int32_t> VocabularyTokenTypes() const override;
  std::string TokenizerJson() const override;

  const PackedHeader& header() const { return header_; }
  std::span<const std::byte> Bytes(const PackedArray& array) const {
    return file_.bytes().subspan(array.offset, array.bytes);
  }
  /// Reads everything and compares the checksums. On failure: kCorruptData naming the first damaged tensor;
  /// kCancelled.
  Status VerifyChecksums(WriteProgress* progress) const;

 private:
  struct Part {
    size_t held = 0;         // index into header_.tensors
    uint64_t first_row = 0;  // of the canonical tensor's rows in it
    uint64_t column = 0;     // for parts of a bias: elements before it
  };
  PackedCheckpoint(MappedFile file, PackedHeader header);
  std::string VocabularyText() const;

  MappedFile file_;
  PackedHeader header_;
  std::vector<Part> parts_;  // parallel to tensors_
};

}  // namespace gptoss
