#include <algorithm>
#include <atomic>
#include <mutex>
#include <string>

#include "base/check.h"
#include "base/mmap_file.h"
#include "model/weights.h"
#include "tensor/float_convert.h"
#include "tensor/mxfp4.h"
#include "tensor/q8.h"

namespace gptoss {
namespace {

constexpr uint64_t kAlignment = 256;          // of every array; a multiple of a cache line and of a tile row
constexpr uint64_t kChunkBytes = 4ull << 20;  // read at once by one thread
/// Kernels may read a few bytes past the last row (whole vectors); the block ends with slack so that they stay inside.
constexpr uint64_t kSlackBytes = 4096;

constexpr uint64_t AlignUp(uint64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

enum class Purpose { kExperts, kAttention, kEmbedding, kUnembedding, kSmall };

/// Where one canonical tensor goes.
struct Placement {
  const StoredTensor* tensor;
  Purpose purpose;
  DType dtype;  // in memory
  uint64_t data_offset, scale_offset;
};

bool EndsWith(const std::string& s, const char* suffix) { return s.ends_with(suffix); }

Purpose PurposeOf(const TensorSpec& spec) {
  if (spec.name == "embedding") return Purpose::kEmbedding;
  if (spec.name == "unembedding") return Purpose::kUnembedding;
  if (spec.is_expert_weight) return Purpose::kExperts;
  const bool matrix = EndsWith(spec.name, ".weight") && !EndsWith(spec.name, "router.weight");
  return matrix ? Purpose::kAttention : Purpose::kSmall;
}

DType TypeInMemory(const StoredTensor& tensor, Purpose purpose, DensePrecision dense) {
  if (purpose == Purpose::kSmall) return DType::kF32;
  if (dense == DensePrecision::kAsStored || purpose == Purpose::kExperts || purpose == Purpose::kEmbedding) {
    return tensor.dtype;
  }
  const bool is_out = purpose == Purpose::kUnembedding || EndsWith(tensor.spec.name, ".out.weight");
  return is_out || dense == DensePrecision::kInt8 ? DType::kQ8_0 : tensor.dtype;
}

struct Layout {
  std::vector<Placement> placements;
  uint64_t bytes = 0;
  bool embedding_mapped = false;
};

/// Assigns offsets in the order of use. q, k and v of a layer become consecutive rows of one matrix.
Layout MakeLayout(const Checkpoint& checkpoint, DensePrecision dense) {
  Layout layout;
  const auto& tensors = checkpoint.tensors();
  const auto allocate = [&](uint64_t bytes) {
    const uint64_t offset = layout.bytes;
    layout.bytes = AlignUp(layout.bytes + bytes);
    return offset;
  };
  for (size_t i = 0; i < tensors.size(); ++i) {
    const StoredTensor& tensor = tensors[i];
    const Purpose purpose = PurposeOf(tensor.spec);
    if (purpose == Purpose::kEmbedding && checkpoint.MappedBytes(tensor).has_value()) {
      layout.embedding_mapped = true;
      continue;
    }
    const DType dtype = TypeInMemory(tensor, purpose, dense);
    const uint64_t row_bytes = RowBytes(dtype, tensor.spec.cols());
    const uint64_t scale_bytes = RowScaleBytes(dtype, tensor.spec.cols());
    // k and v rows follow q's: the array was sized for all three when q came.
    const bool is_q = EndsWith(tensor.spec.name, ".q.weight") || EndsWith(tensor.spec.name, ".q.bias");
    const bool follows_q = EndsWith(tensor.spec.name, ".k.weight") || EndsWith(tensor.spec.name, ".v.weight") ||
                           EndsWith(tensor.spec.name, ".k.bias") || EndsWith(tensor.spec.name, ".v.bias");
    if (follows_q) continue;
    if (!is_q) {
      const uint64_t data = allocate(tensor.spec.rows() * row_bytes);
      layout.placements.push_back({&tensor, purpose, dtype, data, allocate(tensor.spec.rows() * scale_bytes)});
      continue;
    }
    const std::string stem = tensor.spec.name.substr(0, tensor.spec.name.rfind(".q."));
    const std::string kind = tensor.spec.name.substr(tensor.spec.name.rfind('.'));
    const StoredTensor* parts[] = {&tensor, checkpoint.Find(stem + ".k" + kind), checkpoint.Find(stem + ".v" + kind)};
    uint64_t data_bytes = 0, all_scales = 0;
    for (const StoredTensor* part : parts) {
      data_bytes += part->spec.rows() * RowBytes(dtype, part->spec.cols());
      all_scales += part->spec.rows() * RowScaleBytes(dtype, part->spec.cols());
    }
    uint64_t data = allocate(data_bytes), scales = allocate(all_scales);
    for (const StoredTensor* part : parts) {
      layout.placements.push_back({part, purpose, dtype, data, scales});
      data += part->spec.rows() * RowBytes(dtype, part->spec.cols());
      scales += part->spec.rows() * RowScaleBytes(dtype, part->spec.cols());
    }
  }
  layout.bytes += kSlackBytes;
  return layout;
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

/// Reads rows of a tensor into their place, converting when the stored type differs.
Status ReadInto(const Checkpoint& checkpoint, const Placement& place, uint64_t first, uint64_t count,
                std::byte* memory) {
  const StoredTensor& tensor = *place.tensor;
  const uint64_t cols = tensor.spec.cols();
  const uint64_t row_bytes = RowBytes(place.dtype, cols), row_scales = RowScaleBytes(place.dtype, cols);
  const std::span<std::byte> data(memory + place.data_offset + first * row_bytes, count * row_bytes);
  const std::span<std::byte> scales(memory + place.scale_offset + first * row_scales, count * row_scales);
  if (tensor.dtype == place.dtype) return checkpoint.ReadRows(tensor, first, count, data, scales);
  std::vector<std::byte> raw(count * RowBytes(tensor.dtype, cols)),
      raw_scales(count * RowScaleBytes(tensor.dtype, cols));
  GPTOSS_RETURN_IF_ERROR(checkpoint.ReadRows(tensor, first, count, raw, raw_scales));
  if (place.dtype == DType::kF32) {
    DecodeRows(tensor.dtype, raw, raw_scales, {reinterpret_cast<float*>(data.data()), count * cols});
    return Status();
  }
  GPTOSS_CHECK(place.dtype == DType::kQ8_0);
  std::vector<float> values(count * cols);
  DecodeRows(tensor.dtype, raw, raw_scales, values);
  EncodeQ8(values, {reinterpret_cast<int8_t*>(data.data()), data.size()},
           {reinterpret_cast<uint16_t*>(scales.data()), scales.size() / 2});
  return Status();
}

struct Chunk {
  const Placement* place;
  uint64_t first, count;
};

std::vector<Chunk> CutIntoChunks(const Layout& layout) {
  std::vector<Chunk> chunks;
  for (const Placement& place : layout.placements) {
    const uint64_t rows = place.tensor->spec.rows();
    const uint64_t row_bytes = RowBytes(place.tensor->dtype, place.tensor->spec.cols());
    const uint64_t step = std::max<uint64_t>(1, kChunkBytes / row_bytes);
    for (uint64_t first = 0; first < rows; first += step) {
      chunks.push_back({&place, first, std::min(step, rows - first)});
    }
  }
  return chunks;
}

Status ReadAll(const Checkpoint& checkpoint, const Layout& layout, ThreadPool& pool, WriteProgress* progress,
               std::byte* memory) {
  const std::vector<Chunk> chunks = CutIntoChunks(layout);
  std::mutex mutex;
  Status error;
  uint64_t done = 0;
  std::atomic<bool> stop{false};
  pool.Run(static_cast<int64_t>(chunks.size()), [&](int64_t i, int) {
    if (stop.load(std::memory_order_relaxed)) return;
    const Chunk& chunk = chunks[i];
    const Status status = ReadInto(checkpoint, *chunk.place, chunk.first, chunk.count, memory);
    const std::lock_guard lock(mutex);
    done += chunk.count * RowBytes(chunk.place->dtype, chunk.place->tensor->spec.cols());
    if (!status.ok() && error.ok()) error = status;
    if (error.ok() && progress != nullptr && !progress->Update(done, layout.bytes))
      error = Cancelled("loading cancelled");
    if (!error.ok()) stop.store(true, std::memory_order_relaxed);
  });
  return error;
}

/// Looks tensors up by name among the placements.
class Binder {
 public:
  Binder(const Layout& layout, const std::byte* memory) : layout_(layout), memory_(memory) {}

  WeightMatrix Matrix(const std::string& name, int64_t rows, int64_t cols) const {
    const Placement& place = Place(name);
    return {.dtype = place.dtype,
            .layout = WeightLayout::kRowMajor,
            .rows = rows,
            .cols = cols,
            .data = memory_ + place.data_offset,
            .scales = HasScales(place.dtype) ? memory_ + place.scale_offset : nullptr};
  }
  const float* Vector(const std::string& name) const {
    return reinterpret_cast<const float*>(memory_ + Place(name).data_offset);
  }

 private:
  const Placement& Place(const std::string& name) const {
    const auto it = std::find_if(layout_.placements.begin(), layout_.placements.end(),
                                 [&](const Placement& p) { return p.tensor->spec.name == name; });
    GPTOSS_CHECK(it != layout_.placements.end());  // the checkpoint promised a complete set
    return *it;
  }
  const Layout& layout_;
  const std::byte* memory_;
};

LayerWeights BindLayer(const Binder& bind, const ModelConfig& c, int n) {
  const std::string layer = "layers." + std::to_string(n) + ".";
  LayerWeights w;
  w.attn_norm = bind.Vector(layer + "attn_norm");
  w.qkv = bind.Matrix(layer + "q.weight", c.q_size() + 2 * c.kv_size(), c.hidden_size);
  w.qkv_bias = bind.Vector(layer + "q.bias");
  w.sinks = bind.Vector(layer + "sinks");
  w.out = bind.Matrix(layer + "out.weight", c.hidden_size, c.q_size());
  w.out_bias = bind.Vector(layer + "out.bias");
  w.mlp_norm = bind.Vector(layer + "mlp_norm");
  w.router = bind.Matrix(layer + "router.weight", c.num_experts, c.hidden_size);
  w.router_bias = bind.Vector(layer + "router.bias");
  w.gate_up = bind.Matrix(layer + "gate_up.weight", 2 * c.intermediate_size, c.hidden_size);
  w.gate_up_bias = bind.Vector(layer + "gate_up.bias");
  w.down = bind.Matrix(layer + "down.weight", c.hidden_size, c.intermediate_size);
  w.down_bias = bind.Vector(layer + "down.bias");
  return w;
}

/// q, k and v share one matrix, so they must share one type.
Status CheckUniformQkv(const Layout& layout) {
  for (const Placement& place : layout.placements) {
    const bool convertible = place.dtype == DType::kQ8_0 || place.dtype == DType::kF32;
    if (place.dtype != place.tensor->dtype && !convertible) {
      return Unsupported(place.tensor->spec.name + ": q, k and v of a layer must be stored with the same type");
    }
  }
  return Status();
}

}  // namespace

WeightPlan PlanWeights(const Checkpoint& checkpoint, DensePrecision dense) {
  WeightPlan plan;
  for (const Placement& place : MakeLayout(checkpoint, dense).placements) {
    const TensorSpec& spec = place.tensor->spec;
    const uint64_t bytes = AlignUp(spec.rows() * RowBytes(place.dtype, spec.cols())) +
                           AlignUp(spec.rows() * RowScaleBytes(place.dtype, spec.cols()));
    switch (place.purpose) {
      case Purpose::kExperts:
        plan.experts += bytes;
        break;
      case Purpose::kAttention:
        plan.attention += bytes;
        break;
      case Purpose::kEmbedding:
        plan.embedding += bytes;
        break;
      case Purpose::kUnembedding:
        plan.unembedding += bytes;
        break;
      case Purpose::kSmall:
        plan.small += bytes;
        break;
    }
  }
  return plan;
}

void ModelWeights::ReleaseMappedPages() const {
  if (source == nullptr) return;
  DropResidentPages({embedding.data, static_cast<size_t>(embedding.rows) * RowBytes(embedding.dtype, embedding.cols)});
}

Result<ModelWeights> LoadWeights(std::shared_ptr<const Checkpoint> checkpoint, DensePrecision dense, ThreadPool& pool,
                                 WriteProgress* progress) {
  const Layout layout = MakeLayout(*checkpoint, dense);
  const ModelConfig& c = checkpoint->config();
  GPTOSS_RETURN_IF_ERROR(CheckUniformQkv(layout));
  ModelWeights weights;
  weights.config = c;
  GPTOSS_ASSIGN_OR_RETURN(weights.memory, HostBuffer::Allocate(layout.bytes));
  GPTOSS_RETURN_IF_ERROR(ReadAll(*checkpoint, layout, pool, progress, weights.memory.data()));
  const Binder bind(layout, weights.memory.data());
  if (layout.embedding_mapped) {
    const StoredTensor* embedding = checkpoint->Find("embedding");
    weights.embedding = {.dtype = embedding->dtype,
                         .rows = c.vocab_size,
                         .cols = c.hidden_size,
                         .data = checkpoint->MappedBytes(*embedding)->data()};
    weights.source = checkpoint;
  } else {
    weights.embedding = bind.Matrix("embedding", c.vocab_size, c.hidden_size);
  }
  for (int n = 0; n < c.num_layers; ++n) weights.layers.push_back(BindLayer(bind, c, n));
  weights.final_norm = bind.Vector("final_norm");
  weights.unembedding = bind.Matrix("unembedding", c.vocab_size, c.hidden_size);
  return weights;
}

}  // namespace gptoss
