#include "model/flat_parameters.h"

#include <algorithm>
#include <string>

#include "base/check.h"
#include "checkpoint/row_convert.h"

namespace gptoss {
namespace {

WeightMatrix MakeMatrix(const float* data, int64_t rows, int64_t cols) {
  return {.dtype = DType::kF32, .rows = rows, .cols = cols, .data = reinterpret_cast<const std::byte*>(data)};
}
DoubleMatrix MakeMatrix(const double* data, int64_t rows, int64_t cols) { return {rows, cols, data}; }

std::string LayerPrefix(int n) { return "layers." + std::to_string(n) + "."; }

}  // namespace

FlatLayout::FlatLayout(const ModelConfig& config) : config_(config) {
  for (TensorSpec& spec : CanonicalTensors(config)) {
    const auto count = static_cast<size_t>(spec.rows() * spec.cols());
    tensors_.push_back({std::move(spec), size_, count});
    size_ += count;
  }
}

const FlatTensor& FlatLayout::Find(std::string_view name) const {
  const auto it =
      std::find_if(tensors_.begin(), tensors_.end(), [&](const FlatTensor& t) { return t.spec.name == name; });
  GPTOSS_CHECK(it != tensors_.end());
  return *it;
}

template <typename T>
ModelParameters<T> BindParameters(const FlatLayout& layout, const T* values) {
  const ModelConfig& c = layout.config();
  ModelParameters<T> p;
  const auto at = [&](const std::string& name) { return values + layout.Find(name).offset; };
  p.embedding = MakeMatrix(at("embedding"), c.vocab_size, c.hidden_size);
  p.unembedding = MakeMatrix(at("unembedding"), c.vocab_size, c.hidden_size);
  p.final_norm = at("final_norm");
  for (int n = 0; n < c.num_layers; ++n) {
    const std::string layer = LayerPrefix(n);
    LayerParameters<T> w;
    w.attn_norm = at(layer + "attn_norm");
    w.qkv = MakeMatrix(at(layer + "q.weight"), c.q_size() + 2 * c.kv_size(), c.hidden_size);
    w.qkv_bias = at(layer + "q.bias");
    w.sinks = at(layer + "sinks");
    w.out = MakeMatrix(at(layer + "out.weight"), c.hidden_size, c.q_size());
    w.out_bias = at(layer + "out.bias");
    w.mlp_norm = at(layer + "mlp_norm");
    w.router = MakeMatrix(at(layer + "router.weight"), c.num_experts, c.hidden_size);
    w.router_bias = at(layer + "router.bias");
    w.gate_up = MakeMatrix(at(layer + "gate_up.weight"), 2 * c.intermediate_size, c.hidden_size);
    w.gate_up_bias = at(layer + "gate_up.bias");
    w.down = MakeMatrix(at(layer + "down.weight"), c.hidden_size, c.intermediate_size);
    w.down_bias = at(layer + "down.bias");
    p.layers.push_back(w);
  }
  return p;
}

template <typename T>
ModelGradients<T> BindGradients(const FlatLayout& layout, T* values,
                                const std::function<bool(const TensorSpec&)>& wanted) {
  ModelGradients<T> g;
  const auto at = [&](const std::string& name) -> T* {
    const FlatTensor& tensor = layout.Find(name);
    return wanted(tensor.spec) ? values + tensor.offset : nullptr;
  };
  const auto fused = [&](const std::string& layer, const std::string& kind) -> T* {
    for (const char* part : {"q.", "k.", "v."}) {
      if (wanted(layout.Find(layer + part + kind).spec)) return values + layout.Find(layer + "q." + kind).offset;
    }
    return nullptr;
  };
  g.embedding = at("embedding");
  g.final_norm = at("final_norm");
  g.unembedding = at("unembedding");
  for (int n = 0; n < layout.config().num_layers; ++n) {
    const std::string layer = LayerPrefix(n);
    g.layers.push_back({.attn_norm = at(layer + "attn_norm"),
                        .qkv = fused(layer, "weight"),
                        .qkv_bias = fused(layer, "bias"),
                        .sinks = at(layer + "sinks"),
                        .out = at(layer + "out.weight"),
                        .out_bias = at(layer + "out.bias"),
                        .mlp_norm = at(layer + "mlp_norm"),
                        .router = at(layer + "router.weight"),
                        .router_bias = at(layer + "router.bias"),
                        .gate_up = at(layer + "gate_up.weight"),
                        .gate_up_bias = at(layer + "gate_up.bias"),
                        .down = at(layer + "down.weight"),
                        .down_bias = at(layer + "down.bias")});
  }
  return g;
}

template ModelParameters<float> BindParameters(const FlatLayout&, const float*);
template ModelParameters<double> BindParameters(const FlatLayout&, const double*);
template ModelGradients<float> BindGradients(const FlatLayout&, float*, const std::function<bool(const TensorSpec&)>&);
template ModelGradients<double> BindGradients(const FlatLayout&, double*,
                                              const std::function<bool(const TensorSpec&)>&);

Result<std::vector<float>> ReadFlatParameters(const Checkpoint& checkpoint, const FlatLayout& layout) {
  std::vector<float> values(layout.size());
  for (size_t i = 0; i < layout.tensors().size(); ++i) {
    const FlatTensor& flat = layout.tensors()[i];
    const StoredTensor& stored = checkpoint.tensors()[i];
    const uint64_t cols = stored.spec.cols();
    std::vector<std::byte> data(RowBytes(stored.dtype, cols)), scales(RowScaleBytes(stored.dtype, cols));
    RowConverter convert(stored.dtype, DType::kF32, cols, /*allow_lossy=*/true);  // float holds every stored type
    for (uint64_t row = 0; row < stored.spec.rows(); ++row) {
      GPTOSS_RETURN_IF_ERROR(checkpoint.ReadRows(stored, row, 1, data, scales));
      const std::span<float> out(values.data() + flat.offset + row * cols, cols);
      GPTOSS_RETURN_IF_ERROR(convert.Row(data, scales, std::as_writable_bytes(out), {}));
    }
  }
  return values;
}

}  // namespace gptoss
