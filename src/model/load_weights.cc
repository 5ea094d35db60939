#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "base/check.h"
#include "base/mmap_file.h"
#include "checkpoint/packed.h"
#include "model/map_packed.h"
#include "model/weight_map.h"
#include "model/weights.h"

namespace gptoss {
namespace {

/// Threads that load, per thread of the pool: some wait for the disk while others convert.
constexpr int kLoadersPerThread = 3;

struct Chunk {
  const HeldTensor* tensor;
  uint64_t first, count;
};

std::vector<Chunk> CutIntoChunks(const WeightMap& map) {
  std::vector<Chunk> chunks;
  for (const HeldTensor& tensor : map.tensors) {
    const uint64_t step = tensor.chunk_rows();
    for (uint64_t first = 0; first < tensor.rows(); first += step) {
      chunks.push_back({&tensor, first, std::min(step, tensor.rows() - first)});
    }
  }
  return chunks;
}

/// Reads chunks to their places. Chunks may be read side by side.
class ChunkReader {
 public:
  ChunkReader(const Checkpoint& checkpoint, ModelWeights& weights)
      : checkpoint_(checkpoint),
        device_(*weights.device),
        memory_(weights.memory.data()),
        host_memory_(weights.host_memory.data()) {}

  std::byte* BlockOf(const HeldTensor& tensor) const { return tensor.stays_on_host ? host_memory_ : memory_; }

  /// `staging` is the caller's own.
  Status Read(const Chunk& chunk, std::vector<std::byte>* staging) {
    const HeldTensor& t = *chunk.tensor;
    const uint64_t data_bytes = chunk.count * t.row_bytes(), scale_bytes = chunk.count * t.row_scale_bytes();
    std::byte* data = BlockOf(t) + t.data_offset + chunk.first * t.row_bytes();
    std::byte* scales = BlockOf(t) + t.scale_offset + chunk.first * t.row_scale_bytes();
    FetchHeldRows(checkpoint_, t, chunk.first, chunk.count);
    if (device_.is_host() || t.stays_on_host) {
      return ReadHeldRows(checkpoint_, t, chunk.first, chunk.count, {data, data_bytes}, {scales, scale_bytes});
    }
    staging->resize(data_bytes + scale_bytes);
    std::byte* staged = staging->data();
    GPTOSS_RETURN_IF_ERROR(ReadHeldRows(checkpoint_, t, chunk.first, chunk.count, {staged, data_bytes},
                                        {staged + data_bytes, scale_bytes}));
    const std::lock_guard lock(mutex_);
    device_.Upload(data, staged, data_bytes);
    if (scale_bytes > 0) device_.Upload(scales, staged + data_bytes, scale_bytes);
    return Status();
  }

 private:
  const Checkpoint& checkpoint_;
  Device& device_;
  std::byte* memory_;
  std::byte* host_memory_;
  std::mutex mutex_;  // a device takes one call at a time
};

/// Reads and converts in the order of the map, which is that of most files.
Status ReadAll(ChunkReader& reader, const WeightMap& map, int threads, WriteProgress* progress) {
  const std::vector<Chunk> chunks = CutIntoChunks(map);
  std::mutex mutex;  // guards the two below, and progress
  Status error;
  uint64_t done = 0;
  std::atomic<size_t> next{0};
  const auto work = [&] {
    std::vector<std::byte> staging;
    for (size_t i = next.fetch_add(1); i < chunks.size(); i = next.fetch_add(1)) {
      const Chunk& chunk = chunks[i];
      const Status status = reader.Read(chunk, &staging);
      const std::lock_guard lock(mutex);
      done += chunk.count * (chunk.tensor->row_bytes() + chunk.tensor->row_scale_bytes());
      if (!status.ok() && error.ok()) error = status;
      if (error.ok() && progress != nullptr && !progress->Update(done, map.bytes + map.host_bytes)) {
        error = Cancelled("loading cancelled");
      }
      if (!error.ok()) next.store(chunks.size());
    }
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  for (std::thread& thread : others) thread.join();
  return error;
}

/// Where each tensor lies in memory, by name.
class Binder {
 public:
  void Add(const std::string& name, DType dtype, WeightLayout layout, const std::byte* data, const std::byte* scales) {
    bound_[name] = {.dtype = dtype, .layout = layout, .data = data, .scales = HasScales(dtype) ? scales : nullptr};
  }
  WeightMatrix Matrix(const std::string& name, int64_t rows, int64_t cols) const {
    WeightMatrix matrix = At(name);
    matrix.rows = rows;
    matrix.cols = cols;
    return matrix;
  }
  const float* Vector(const std::string& name) const { return reinterpret_cast<const float*>(At(name).data); }

 private:
  const WeightMatrix& At(const std::string& name) const {
    const auto found = bound_.find(name);
    GPTOSS_CHECK(found != bound_.end());  // the checkpoint promised a complete set
    return found->second;
  }
  std::map<std::string, WeightMatrix> bound_;
};

LayerWeights BindLayer(const Binder& bind, const ModelConfig& c, int n) {
  const std::string layer = "layers." + std::to_string(n) + ".";
  LayerWeights w;
  w.attn_norm = bind.Vector(layer + "attn_norm");
  w.qkv = bind.Matrix(layer + "qkv.weight", c.q_size() + 2 * c.kv_size(), c.hidden_size);
  w.qkv_bias = bind.Vector(layer + "qkv.bias");
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

void BindAll(const Binder& bind, ModelWeights* weights) {
  const ModelConfig& c = weights->config;
  weights->embedding = bind.Matrix("embedding", c.vocab_size, c.hidden_size);
  for (int n = 0; n < c.num_layers; ++n) weights->layers.push_back(BindLayer(bind, c, n));
  weights->final_norm = bind.Vector("final_norm");
  weights->unembedding = bind.Matrix("unembedding", c.vocab_size, c.hidden_size);
}

Result<ModelWeights> MapPackedWeights(std::shared_ptr<const Checkpoint> checkpoint, DensePrecision dense,
                                      ThreadPool& pool, WriteProgress* progress) {
  const auto& packed = static_cast<const PackedCheckpoint&>(*checkpoint);
  GPTOSS_RETURN_IF_ERROR(CheckPackedPrecision(packed, dense));
  Binder bind;
  for (const PackedTensor& tensor : packed.header().tensors) {
    GPTOSS_ASSIGN_OR_RETURN(const WeightLayout layout, PackedLayout(packed, tensor));
    bind.Add(tensor.held.spec.name, tensor.dtype, layout, packed.Bytes(tensor.data).data(),
             packed.Bytes(tensor.scales).data());
  }
  GPTOSS_RETURN_IF_ERROR(FetchPackedPages(packed, pool, progress));
  ModelWeights weights;
  weights.config = packed.config();
  BindAll(bind, &weights);
  weights.source = std::move(checkpoint);
  return weights;
}

void AddTo(WeightPlan* plan, WeightPurpose purpose, uint64_t bytes) {
  switch (purpose) {
    case WeightPurpose::kExperts:
      plan->experts += bytes;
      break;
    case WeightPurpose::kAttention:
      plan->attention += bytes;
      break;
    case WeightPurpose::kEmbedding:
      plan->embedding += bytes;
      break;
    case WeightPurpose::kUnembedding:
      plan->unembedding += bytes;
      break;
    case WeightPurpose::kSmall:
      plan->small += bytes;
      break;
  }
}

}  // namespace

WeightPlan PlanWeights(const Checkpoint& checkpoint, DensePrecision dense) {
  WeightPlan plan;
  if (checkpoint.format() == CheckpointFormat::kPacked) {
    for (const PackedTensor& t : static_cast<const PackedCheckpoint&>(checkpoint).header().tensors) {
      const WeightPurpose purpose = PurposeOf(t.held.spec);
      const uint64_t bytes = t.data.bytes + t.scales.bytes;
      if (IsMlpOfFirstLayers(t.held.spec, 1)) plan.layer_mlp += bytes;
      if (purpose == WeightPurpose::kEmbedding) {
        plan.mapped_embedding += bytes;
      } else {
        AddTo(&plan, purpose, bytes);
      }
    }
    return plan;
  }
  const WeightMap map = MapWeights(checkpoint, dense, /*embedding_too=*/false);
  for (const HeldTensor& t : map.tensors) {
    AddTo(&plan, t.purpose, t.data_bytes() + t.scale_bytes());
    if (IsMlpOfFirstLayers(t.held.spec, 1)) plan.layer_mlp += t.data_bytes() + t.scale_bytes();
  }
  plan.mapped_embedding = map.mapped_embedding_bytes;
  return plan;
}

void ModelWeights::ReleaseMappedPages() const {
  if (source == nullptr) return;
  const auto rows = static_cast<size_t>(embedding.rows);
  const auto cols = static_cast<size_t>(embedding.cols);
  DropResidentPages({embedding.data, rows * RowBytes(embedding.dtype, cols)});
  if (embedding.scales != nullptr) DropResidentPages({embedding.scales, rows * RowScaleBytes(embedding.dtype, cols)});
}

Result<ModelWeights> LoadWeights(std::shared_ptr<const Checkpoint> checkpoint, DensePrecision dense, ThreadPool& pool,
                                 WriteProgress* progress, const WeightPlacement& placement) {
  Device& device = *placement.device;
  GPTOSS_CHECK(placement.host_layers == 0 || !device.is_host());
  if (checkpoint->format() == CheckpointFormat::kPacked) {
    if (device.is_host()) return MapPackedWeights(std::move(checkpoint), dense, pool, progress);
    GPTOSS_RETURN_IF_ERROR(CheckPackedPrecision(static_cast<const PackedCheckpoint&>(*checkpoint), dense));
  }
  const WeightMap map = MapWeights(*checkpoint, dense, /*embedding_too=*/!device.is_host(), placement);
  GPTOSS_RETURN_IF_ERROR(CheckUniformParts(map));
  ModelWeights weights;
  weights.config = checkpoint->config();
  weights.device = &device;
  weights.host_layers = placement.host_layers;
  GPTOSS_ASSIGN_OR_RETURN(weights.memory, DeviceBuffer::Allocate(device, map.bytes));
  GPTOSS_ASSIGN_OR_RETURN(weights.host_memory, DeviceBuffer::Allocate(HostDevice(), map.host_bytes));
  ChunkReader reader(*checkpoint, weights);
  GPTOSS_RETURN_IF_ERROR(ReadAll(reader, map, kLoadersPerThread * pool.num_threads(), progress));
  GPTOSS_RETURN_IF_ERROR(device.Wait());
  Binder bind;
  for (const HeldTensor& t : map.tensors) {
    const std::byte* block = reader.BlockOf(t);
    bind.Add(t.held.spec.name, t.dtype, t.layout, block + t.data_offset, block + t.scale_offset);
  }
  if (map.mapped_embedding_bytes > 0) {
    const StoredTensor& embedding = *checkpoint->Find("embedding");
    bind.Add("embedding", embedding.dtype, WeightLayout::kRowMajor, checkpoint->MappedBytes(embedding)->data(),
             nullptr);
    weights.source = std::move(checkpoint);
  }
  BindAll(bind, &weights);
  return weights;
}

}  // namespace gptoss
