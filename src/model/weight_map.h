// What a loaded model holds: type, arrangement and place of every tensor, decided before anything is read. Loading
// fills one block of memory by this map; packing writes a file with the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/held_spec.h"
#include "model/weights.h"

namespace gptoss {

enum class WeightPurpose : uint8_t { kExperts, kAttention, kEmbedding, kUnembedding, kSmall };
WeightPurpose PurposeOf(const TensorSpec& spec);

struct HeldTensor {
  HeldSpec held;
  WeightPurpose purpose = WeightPurpose::kSmall;
  DType dtype = DType::kF32;
  WeightLayout layout = WeightLayout::kRowMajor;
  std::vector<const StoredTensor*> parts;      // of the checkpoint; their rows follow one another
  bool stays_on_host = false;                  // it is in the second block
  uint64_t data_offset = 0, scale_offset = 0;  // from the beginning of the block

  uint64_t rows() const { return held.spec.rows(); }
  uint64_t cols() const { return held.spec.cols(); }
  uint64_t row_bytes() const { return RowBytes(dtype, cols()); }
  uint64_t row_scale_bytes() const { return RowScaleBytes(dtype, cols()); }
  uint64_t data_bytes() const { return rows() * row_bytes(); }
  uint64_t scale_bytes() const { return rows() * row_scale_bytes(); }
  /// Rows that are read, converted and checksummed together: a few MB.
  uint64_t chunk_rows() const;
};

struct WeightMap {
  std::vector<HeldTensor> tensors;  // as HeldTensors(config); without the embedding when it stays in its mapped file
  uint64_t bytes = 0;               // of the block, slack for kernels that read whole vectors included
  uint64_t host_bytes = 0;          // of a second one, for what stays on the host beside another device; mostly 0
  uint64_t mapped_embedding_bytes = 0;  // 0 when it is one of `tensors`

  const HeldTensor& Find(const std::string& name) const;  // must be there
};

/// `embedding_too`: take the embedding into the block even when it could be read from the mapped file.
WeightMap MapWeights(const Checkpoint& checkpoint, DensePrecision dense, bool embedding_too,
                     const WeightPlacement& placement = {});

/// True for a tensor of the second half of a layer below `layers`: its norm, router and experts.
bool IsMlpOfFirstLayers(const TensorSpec& spec, int layers);

/// Parts of one matrix must share one type, by nature or by conversion. On failure: kUnsupported naming the tensor.
Status CheckUniformParts(const WeightMap& map);

/// Rows [first, first + count) of `tensor` as they are held. Reads each byte of the checkpoint once.
/// On failure: the checkpoint's error.
Status ReadHeldRows(const Checkpoint& checkpoint, const HeldTensor& tensor, uint64_t first, uint64_t count,
                    std::span<std::byte> data, std::span<std::byte> scales);
/// Checkpoint::Fetch for these rows.
void FetchHeldRows(const Checkpoint& checkpoint, const HeldTensor& tensor, uint64_t first, uint64_t count);

}  // namespace gptoss
