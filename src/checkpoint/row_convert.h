// Weights from one element type to another, row by row, saying when bits would be lost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "checkpoint/tensor_spec.h"
#include "tensor/dtype.h"

namespace gptoss {

/// Attention, embedding and unembedding matrices: what GGUF files quantise to Q8_0. The router stays plain.
bool IsDenseMatrix(const TensorSpec& spec);

/// Whether every value of `from` is also one of `to`.
bool IsAlwaysExact(DType from, DType to);

/// Converts rows of `cols` values in canonical encoding. Not for several threads at once: it keeps scratch.
class RowConverter {
 public:
  /// Without `allow_lossy` a value that `to` cannot hold is an error. Quantising to Q8_0 is always a deliberate choice
  /// and never one; MXFP4 is encoded as tensor/mxfp4.h says.
  RowConverter(DType from, DType to, uint64_t cols, bool allow_lossy);

  /// `out_data` or `out_scales` may be empty to skip that part. On failure: kUnsupported; the caller names the tensor.
  Status Row(std::span<const std::byte> data, std::span<const std::byte> scales, std::span<std::byte> out_data,
             std::span<std::byte> out_scales);

 private:
  void Decode(std::span<const std::byte> data, std::span<const std::byte> scales);
  /// Whether every value was kept.
  bool Encode(std::span<std::byte> out_data, std::span<std::byte> out_scales);

  DType from_, to_;
  uint64_t cols_;
  bool allow_lossy_;
  std::vector<float> values_;
  std::vector<std::byte> data_scratch_, scales_scratch_;
};

}  // namespace gptoss
