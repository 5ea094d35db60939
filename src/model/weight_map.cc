#include "model/weight_map.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/check.h"
#include "checkpoint/packed.h"
#include "tensor/float_convert.h"
#include "tensor/mxfp4.h"
#include "tensor/q8.h"
#include "tensor/weight_layout.h"

namespace gptoss {
namespace {

constexpr uint64_t kChunkBytes = 4ull << 20;
/// Chunks begin at a multiple of this many rows, so that layouts which interleave rows can be made chunk by chunk.
constexpr uint64_t kChunkRowMultiple = 64;

constexpr uint64_t AlignUp(uint64_t n) { return (n + kPackedAlignment - 1) / kPackedAlignment * kPackedAlignment; }

DType TypeInMemory(const StoredTensor& tensor, WeightPurpose purpose, DensePrecision dense) {
  if (purpose == WeightPurpose::kSmall) return DType::kF32;
  const bool is_dense = purpose == WeightPurpose::kAttention || purpose == WeightPurpose::kUnembedding;
  if (!is_dense || dense == DensePrecision::kAsStored) return tensor.dtype;
  const bool is_out = purpose == WeightPurpose::kUnembedding || tensor.spec.name.ends_with(".out.weight");
  return is_out || dense == DensePrecision::kInt8 ? DType::kQ8_0 : tensor.dtype;
}

void DecodeRows(DType dtype, std::span<const std::byte> data, std::span<const std::byte> scales,
                std::span<float> values) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(data.data());
  const auto* halves = reinterpret_cast<const uint16_t*>(data.data());
  switch (dtype) {
    case DType::kF32:
      std::copy_n(reinterpret_cast<const float*>(bytes), values.size(), values.begin());
      return;
    case DType::kBF16:
      std::transform(halves, halves + values.size(), values.begin(), Bf16ToF32);
      return;
    case DType::kF16:
      std::transform(halves, halves + values.size(), values.begin(), F16ToF32);
      return;
    case DType::kMxfp4:
      DecodeMxfp4({bytes, data.size()}, {reinterpret_cast<const uint8_t*>(scales.data()), scales.size()}, values);
      return;
    case DType::kQ8_0:
      DecodeQ8({reinterpret_cast<const int8_t*>(bytes), data.size()},
               {reinterpret_cast<const uint16_t*>(scales.data()), scales.size() / 2}, values);
      return;
    case DType::kU8:
      GPTOSS_CHECK(false);
  }
}

/// Rows of one canonical tensor as type `dtype`.
Status ReadPart(const Checkpoint& checkpoint, const StoredTensor& part, DType dtype, uint64_t first, uint64_t count,
                std::span<std::byte> data, std::span<std::byte> scales) {
  if (part.dtype == dtype) return checkpoint.ReadRows(part, first, count, data, scales);
  const uint64_t cols = part.spec.cols();
  std::vector<std::byte> raw(count * RowBytes(part.dtype, cols)), raw_scales(count * RowScaleBytes(part.dtype, cols));
  GPTOSS_RETURN_IF_ERROR(checkpoint.ReadRows(part, first, count, raw, raw_scales));
  if (dtype == DType::kF32) {
    DecodeRows(part.dtype, raw, raw_scales, {reinterpret_cast<float*>(data.data()), count * cols});
    return Status();
  }
  GPTOSS_CHECK(dtype == DType::kQ8_0);
  std::vector<float> values(count * cols);
  DecodeRows(part.dtype, raw, raw_scales, values);
  EncodeQ8(values, {reinterpret_cast<int8_t*>(data.data()), data.size()},
           {reinterpret_cast<uint16_t*>(scales.data()), scales.size() / 2});
  return Status();
}

/// Calls function(part, first row of the part, count) for the parts that hold rows [first,
/// first + count). Vectors are one row, of which every part holds a piece: they are given whole.
template <typename Function>
void ForParts(const HeldTensor& tensor, uint64_t first, uint64_t count, const Function& function) {
  const bool is_vector = tensor.held.spec.shape.size() == 1;
  uint64_t begin = 0;  // of the part's rows in the tensor
  for (const StoredTensor* part : tensor.parts) {
    if (is_vector) {
      function(*part, 0, 1);
      continue;
    }
    const uint64_t rows = part->spec.rows();
    const uint64_t from = std::max(first, begin), to = std::min(first + count, begin + rows);
    if (from < to) function(*part, from - begin, to - from);
    begin += rows;
  }
}

}  // namespace

WeightPurpose PurposeOf(const TensorSpec& spec) {
  if (spec.name == "embedding") return WeightPurpose::kEmbedding;
  if (spec.name == "unembedding") return WeightPurpose::kUnembedding;
  if (spec.is_expert_weight) return WeightPurpose::kExperts;
  return IsHeldAsFloat(spec) ? WeightPurpose::kSmall : WeightPurpose::kAttention;
}

uint64_t HeldTensor::chunk_rows() const {
  const uint64_t step = kChunkBytes / std::max<uint64_t>(1, row_bytes()) / kChunkRowMultiple * kChunkRowMultiple;
  return std::min(rows(), std::max(step, kChunkRowMultiple));
}

const HeldTensor& WeightMap::Find(const std::string& name) const {
  const auto it =
      std::find_if(tensors.begin(), tensors.end(), [&](const HeldTensor& t) { return t.held.spec.name == name; });
  GPTOSS_CHECK(it != tensors.end());  // the checkpoint promised a complete set
  return *it;
}

bool IsMlpOfFirstLayers(const TensorSpec& spec, int layers) {
  constexpr std::string_view kLayers = "layers.";
  if (!spec.name.starts_with(kLayers)) return false;
  const char* const end = spec.name.data() + spec.name.size();
  int layer = 0;
  const char* const after = std::from_chars(spec.name.data() + kLayers.size(), end, layer).ptr;
  const std::string_view what(after, end);
  return layer < layers && (what.starts_with(".mlp_norm") || what.starts_with(".router") ||
                            what.starts_with(".gate_up") || what.starts_with(".down"));
}

WeightMap MapWeights(const Checkpoint& checkpoint, DensePrecision dense, bool embedding_too,
                     const WeightPlacement& placement) {
  WeightMap map;
  const auto allocate = [](uint64_t bytes, uint64_t* block) {
    const uint64_t offset = *block;
    *block = AlignUp(*block + bytes);
    return offset;
  };
  for (HeldSpec& held : HeldTensors(checkpoint.config())) {
    HeldTensor tensor;
    tensor.purpose = PurposeOf(held.spec);
    for (const size_t part : held.parts) tensor.parts.push_back(&checkpoint.tensors()[part]);
    const StoredTensor& first = *tensor.parts[0];
    if (tensor.purpose == WeightPurpose::kEmbedding && !embedding_too) {
      if (const auto mapped = checkpoint.MappedBytes(first)) {
        map.mapped_embedding_bytes = mapped->size();
        continue;
      }
    }
    tensor.dtype = TypeInMemory(first, tensor.purpose, dense);
    tensor.held = std::move(held);
    tensor.stays_on_host = IsMlpOfFirstLayers(tensor.held.spec, placement.host_layers);
    const WeightLayout layout = tensor.stays_on_host ? placement.host_layout : placement.layout;
    // Experts' matrices lie one after the other, so their rows must be whole groups each. The embedding is read by
    // rows.
    const auto& shape = tensor.held.spec.shape;
    if (shape.size() >= 2 && tensor.purpose != WeightPurpose::kEmbedding &&
        LayoutHolds(layout, tensor.dtype, static_cast<int64_t>(shape[shape.size() - 2]))) {
      tensor.layout = layout;
    }
    uint64_t* const block = tensor.stays_on_host ? &map.host_bytes : &map.bytes;
    tensor.data_offset = allocate(tensor.data_bytes(), block);
    tensor.scale_offset = allocate(tensor.scale_bytes(), block);
    map.tensors.push_back(std::move(tensor));
  }
  map.bytes += kPackedSlackBytes;
  if (map.host_bytes > 0) map.host_bytes += kPackedSlackBytes;
  return map;
}

Status CheckUniformParts(const WeightMap& map) {
  for (const HeldTensor& tensor : map.tensors) {
    const bool convertible = tensor.dtype == DType::kQ8_0 || tensor.dtype == DType::kF32;
    for (const StoredTensor* part : tensor.parts) {
      if (part->dtype != tensor.dtype && !convertible) {
        return Unsupported(part->spec.name + ": q, k and v of a layer must be stored with the same type");
      }
    }
  }
  return Status();
}

Status ReadHeldRows(const Checkpoint& checkpoint, const HeldTensor& tensor, uint64_t first, uint64_t count,
                    std::span<std::byte> data, std::span<std::byte> scales) {
  if (tensor.layout == WeightLayout::kRows8) {
    HeldTensor by_row = tensor;
    by_row.layout = WeightLayout::kRowMajor;
    std::vector<std::byte> rows(data.size()), row_scales(scales.size());
    GPTOSS_RETURN_IF_ERROR(ReadHeldRows(checkpoint, by_row, first, count, rows, row_scales));
    PackRows8(tensor.dtype, static_cast<int64_t>(count), static_cast<int64_t>(tensor.cols()), rows, row_scales, data,
              scales);
    return Status();
  }
  uint64_t at = 0, scales_at = 0;
  Status status;
  ForParts(tensor, first, count, [&](const StoredTensor& part, uint64_t row, uint64_t rows) {
    const uint64_t bytes = rows * RowBytes(tensor.dtype, part.spec.cols());
    const uint64_t scale_bytes = rows * RowScaleBytes(tensor.dtype, part.spec.cols());
    if (status.ok()) {
      status = ReadPart(checkpoint, part, tensor.dtype, row, rows, data.subspan(at, bytes),
                        scales.subspan(scales_at, scale_bytes));
    }
    at += bytes;
    scales_at += scale_bytes;
  });
  return status;
}

void FetchHeldRows(const Checkpoint& checkpoint, const HeldTensor& tensor, uint64_t first, uint64_t count) {
  ForParts(tensor, first, count,
           [&](const StoredTensor& part, uint64_t row, uint64_t rows) { checkpoint.Fetch(part, row, rows); });
}

}  // namespace gptoss
