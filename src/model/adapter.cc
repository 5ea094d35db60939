#include "model/adapter.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/rng.h"

namespace gptoss {
namespace {

constexpr std::array<std::string_view, 8> kTargets = {"q", "k", "v", "out", "router", "gate_up", "down", "unembedding"};
constexpr std::array<std::string_view, 3> kFused = {"q", "k", "v"};

std::vector<std::string_view> Expand(std::string_view name) {
  if (name == "attention") return {"q", "k", "v", "out"};
  if (name == "experts") return {"gate_up", "down"};
  if (name == "all") return {kTargets.begin(), kTargets.end()};
  if (name == "lm_head") return {"unembedding"};
  if (name == "o" || name == "o_proj") return {"out"};
  if (name.ends_with("_proj")) name.remove_suffix(5);
  return {name};
}

/// Sizes of a target's matrix, and of how many there are in a layer.
struct Shape {
  int64_t matrices, rows, cols;
};

Shape ShapeOf(const ModelConfig& c, std::string_view target) {
  if (target == "q") return {1, c.q_size(), c.hidden_size};
  if (target == "k" || target == "v") return {1, c.kv_size(), c.hidden_size};
  if (target == "out") return {1, c.hidden_size, c.q_size()};
  if (target == "router") return {1, c.num_experts, c.hidden_size};
  if (target == "gate_up") return {c.num_experts, 2 * c.intermediate_size, c.hidden_size};
  if (target == "down") return {c.num_experts, c.hidden_size, c.intermediate_size};
  return {1, c.vocab_size, c.hidden_size};
}

bool IsExpert(std::string_view target) { return target == "gate_up" || target == "down"; }

std::vector<uint64_t> TensorShape(const Shape& shape, bool expert, int64_t rows, int64_t cols) {
  std::vector<uint64_t> result;
  if (expert) result.push_back(static_cast<uint64_t>(shape.matrices));
  result.push_back(static_cast<uint64_t>(rows));
  result.push_back(static_cast<uint64_t>(cols));
  return result;
}

std::string LayerName(int n, std::string_view target) {
  return "layers." + std::to_string(n) + "." + std::string(target);
}

}  // namespace

Result<AdapterOptions> CheckAdapter(AdapterOptions options) {
  if (options.rank < 1 || options.rank > 1024) return InvalidArgument("the adapter's rank must be from 1 to 1024");
  if (!(options.alpha > 0) || !std::isfinite(options.alpha))
    return InvalidArgument("the adapter's alpha must be above 0");
  std::vector<std::string_view> wanted;
  for (const std::string& name : options.targets) {
    for (const std::string_view target : Expand(name)) {
      if (std::find(kTargets.begin(), kTargets.end(), target) == kTargets.end()) {
        return InvalidArgument(
            "\"" + name +
            "\" is no target of an adapter; use q, k, v, out, router, gate_up, down, unembedding, or "
            "attention, experts, all");
      }
      wanted.push_back(target);
    }
  }
  if (wanted.empty()) return InvalidArgument("the adapter has no targets");
  std::vector<std::string> targets;
  for (const std::string_view target : kTargets) {
    if (std::find(wanted.begin(), wanted.end(), target) != wanted.end()) targets.emplace_back(target);
  }
  options.targets = std::move(targets);
  return options;
}

AdapterLayout::AdapterLayout(const ModelConfig& config, const AdapterOptions& options)
    : config_(config), options_(options) {
  const auto add = [&](const std::string& prefix, std::string_view target, bool a) {
    const Shape s = ShapeOf(config_, target);
    const int64_t rows = a ? options_.rank : s.rows, cols = a ? s.cols : options_.rank;
    Add(prefix + (a ? ".lora_a" : ".lora_b"), TensorShape(s, IsExpert(target), rows, cols));
  };
  for (int n = 0; n < config_.num_layers; ++n) {
    // The three lora_a that share an input lie side by side: together they are one matrix.
    for (const bool a : {true, false}) {
      for (const std::string_view target : kFused) {
        if (Has(target)) add(LayerName(n, target), target, a);
      }
    }
    for (const std::string_view target : {"out", "router", "gate_up", "down"}) {
      for (const bool a : {true, false}) {
        if (Has(target)) add(LayerName(n, target), target, a);
      }
    }
  }
  for (const bool a : {true, false}) {
    if (Has("unembedding")) add("unembedding", "unembedding", a);
  }
}

void AdapterLayout::Add(const std::string& name, std::vector<uint64_t> shape) {
  TensorSpec spec{.name = name, .shape = std::move(shape)};
  const auto count = static_cast<size_t>(spec.rows() * spec.cols());
  tensors_.push_back({std::move(spec), size_, count});
  size_ += count;
}

bool AdapterLayout::Has(std::string_view target) const {
  return std::find(options_.targets.begin(), options_.targets.end(), target) != options_.targets.end();
}

const FlatTensor* AdapterLayout::Find(std::string_view name) const {
  for (const FlatTensor& tensor : tensors_) {
    if (tensor.spec.name == name) return &tensor;
  }
  return nullptr;
}

std::vector<float> InitialAdapter(const AdapterLayout& layout, uint64_t seed) {
  std::vector<float> values(layout.size(), 0.0f);
  for (const FlatTensor& tensor : layout.tensors()) {
    if (!tensor.spec.name.ends_with(".lora_a")) continue;
    const double bound = 1.0 / std::sqrt(static_cast<double>(tensor.spec.cols()));
    const RandomStream random(seed, tensor.spec.name);
    for (size_t i = 0; i < tensor.count; ++i) {
      values[tensor.offset + i] = static_cast<float>(bound * (2 * random.Uniform(i) - 1));
    }
  }
  return values;
}

template <typename T>
AdapterBinding<T>::AdapterBinding(const AdapterLayout& layout) : layout_(layout) {
  const ModelConfig& c = layout_.config();
  parts_.resize(static_cast<size_t>(c.num_layers));
  for (int n = 0; n < c.num_layers; ++n) {
    int64_t row = 0, col = 0;
    for (const std::string_view target : kFused) {
      const int64_t rows = ShapeOf(c, target).rows;
      if (const FlatTensor* b = layout_.Find(LayerName(n, target) + ".lora_b"); b != nullptr) {
        parts_[static_cast<size_t>(n)].push_back({b->offset, row, rows, col});
        col += layout_.options().rank;
      }
      row += rows;
    }
    fused_rank_ = col;
  }
  const auto size = static_cast<size_t>(c.num_layers * (c.q_size() + 2 * c.kv_size()) * fused_rank_);
  fused_b_.assign(size, T(0));
}

template <typename T>
LowRank<T> AdapterBinding<T>::Of(const T* values, const std::string& name) const {
  const FlatTensor* a = layout_.Find(name + ".lora_a");
  if (a == nullptr) return {};
  const FlatTensor* b = layout_.Find(name + ".lora_b");
  return {layout_.options().rank, static_cast<T>(layout_.options().scale()), values + a->offset, values + b->offset};
}

template <typename T>
LowRankGradient<T> AdapterBinding<T>::GradientOf(T* gradient, const std::string& name) const {
  const FlatTensor* a = layout_.Find(name + ".lora_a");
  if (a == nullptr) return {};
  return {gradient + a->offset, gradient + layout_.Find(name + ".lora_b")->offset};
}

template <typename T>
void AdapterBinding<T>::Bind(const T* values, ModelParameters<T>* parameters) {
  const ModelConfig& c = layout_.config();
  const int64_t rank = layout_.options().rank, fused = (c.q_size() + 2 * c.kv_size()) * fused_rank_;
  for (int n = 0; n < c.num_layers; ++n) {
    LayerParameters<T>& layer = parameters->layers[static_cast<size_t>(n)];
    T* b = fused_b_.data() + n * fused;
    for (const Part& part : parts_[static_cast<size_t>(n)]) {
      for (int64_t r = 0; r < part.rows; ++r) {
        std::copy_n(values + part.offset + r * rank, rank, b + (part.first_row + r) * fused_rank_ + part.first_col);
      }
    }
    if (fused_rank_ > 0) {
      layer.qkv_adapter = {fused_rank_, static_cast<T>(layout_.options().scale()), values + FusedA(n), b};
    }
    layer.out_adapter = Of(values, LayerName(n, "out"));
    layer.router_adapter = Of(values, LayerName(n, "router"));
    layer.gate_up_adapter = Of(values, LayerName(n, "gate_up"));
    layer.down_adapter = Of(values, LayerName(n, "down"));
  }
  parameters->unembedding_adapter = Of(values, "unembedding");
}

template <typename T>
size_t AdapterBinding<T>::FusedA(int n) const {
  const auto first = std::find_if(kFused.begin(), kFused.end(), [&](std::string_view t) { return layout_.Has(t); });
  return layout_.Find(LayerName(n, *first) + ".lora_a")->offset;
}

template <typename T>
void AdapterBinding<T>::BindGradients(T* gradient, ModelGradients<T>* gradients) {
  const ModelConfig& c = layout_.config();
  const int64_t fused = (c.q_size() + 2 * c.kv_size()) * fused_rank_;
  fused_db_.assign(fused_b_.size(), T(0));
  gradients->layers.resize(static_cast<size_t>(c.num_layers));
  for (int n = 0; n < c.num_layers; ++n) {
    LayerGradients<T>& layer = gradients->layers[static_cast<size_t>(n)];
    if (fused_rank_ > 0) {
      layer.qkv_adapter = {gradient + FusedA(n), fused_db_.data() + n * fused};
    }
    layer.out_adapter = GradientOf(gradient, LayerName(n, "out"));
    layer.router_adapter = GradientOf(gradient, LayerName(n, "router"));
    layer.gate_up_adapter = GradientOf(gradient, LayerName(n, "gate_up"));
    layer.down_adapter = GradientOf(gradient, LayerName(n, "down"));
  }
  gradients->unembedding_adapter = GradientOf(gradient, "unembedding");
}

template <typename T>
void AdapterBinding<T>::CollectGradients(T* gradient) {
  const ModelConfig& c = layout_.config();
  const int64_t rank = layout_.options().rank, fused = (c.q_size() + 2 * c.kv_size()) * fused_rank_;
  for (size_t n = 0; n < parts_.size(); ++n) {
    const T* db = fused_db_.data() + static_cast<int64_t>(n) * fused;
    for (const Part& part : parts_[n]) {
      for (int64_t r = 0; r < part.rows; ++r) {
        std::copy_n(db + (part.first_row + r) * fused_rank_ + part.first_col, rank, gradient + part.offset + r * rank);
      }
    }
  }
}

template class AdapterBinding<float>;
template class AdapterBinding<double>;

namespace {

/// One matrix of an adapted stage, whose adapters stand side by side.
struct Stage {
  std::vector<std::string_view> targets;
  Shape shape;  // of the whole matrix
};

/// One adapter's pair for one target within its stage.
struct Piece {
  const float *a, *b;
  int64_t rank, rows, first_row;
  float scale;
  uint8_t owner;
  int64_t first_rank = 0;  // in the stage's matrices
};

int64_t RoundedUp(int64_t rank) { return (rank + kRankStep - 1) / kRankStep * kRankStep; }

class UpdateBuilder {
 public:
  UpdateBuilder(std::span<const AdapterLayout> layouts, std::span<const std::vector<float>> values,
                std::span<const uint8_t> owners)
      : layouts_(layouts), values_(values), owners_(owners) {}

  /// Values that the stage's pair needs: 0 when no adapter has a part in it.
  size_t Count(const std::string& prefix, const Stage& stage) const {
    const int64_t rank = PaddedRank(Pieces(prefix, stage));
    return static_cast<size_t>(stage.shape.matrices * rank * (stage.shape.rows + stage.shape.cols));
  }

  /// Fills `memory`, which is zero, and `owner`, to which the result points.
  LowRankUpdate Build(const std::string& prefix, const Stage& stage, float* memory, std::vector<uint8_t>* owner) const {
    const std::vector<Piece> pieces = Pieces(prefix, stage);
    if (pieces.empty()) return {};
    const int64_t rank = PaddedRank(pieces), cols = stage.shape.cols, rows = stage.shape.rows;
    float* b_memory = memory + stage.shape.matrices * rank * cols;
    for (int64_t e = 0; e < stage.shape.matrices; ++e) {
      for (const Piece& p : pieces) {
        std::copy_n(p.a + e * p.rank * cols, p.rank * cols, memory + (e * rank + p.first_rank) * cols);
        for (int64_t r = 0; r < p.rows; ++r) {
          float* to = b_memory + (e * rows + p.first_row + r) * rank + p.first_rank;
          for (int64_t i = 0; i < p.rank; ++i) to[i] = p.scale * p.b[(e * p.rows + r) * p.rank + i];
        }
      }
    }
    owner->resize(static_cast<size_t>(rank / kRankStep));
    for (const Piece& p : pieces) {
      for (int64_t i = p.first_rank / kRankStep; i * kRankStep < p.first_rank + p.rank; ++i) {
        (*owner)[static_cast<size_t>(i)] = p.owner;
      }
    }
    const auto matrix = [](const float* data, int64_t height, int64_t width) {
      return WeightMatrix{
          .dtype = DType::kF32, .rows = height, .cols = width, .data = reinterpret_cast<const std::byte*>(data)};
    };
    return {matrix(memory, rank, cols), matrix(b_memory, rows, rank), owner->data(), {}};
  }

 private:
  static int64_t PaddedRank(const std::vector<Piece>& pieces) {
    return pieces.empty() ? 0 : RoundedUp(pieces.back().first_rank + pieces.back().rank);
  }

  std::vector<Piece> Pieces(const std::string& prefix, const Stage& stage) const {
    std::vector<Piece> pieces;
    for (size_t i = 0; i < layouts_.size(); ++i) {
      int64_t row = 0;
      for (const std::string_view target : stage.targets) {
        const int64_t rows = ShapeOf(layouts_[i].config(), target).rows;
        const std::string name = prefix + std::string(target);
        if (const FlatTensor* a = layouts_[i].Find(name + ".lora_a"); a != nullptr) {
          const FlatTensor* b = layouts_[i].Find(name + ".lora_b");
          Piece piece{values_[i].data() + a->offset,
                      values_[i].data() + b->offset,
                      layouts_[i].options().rank,
                      rows,
                      row,
                      static_cast<float>(layouts_[i].options().scale()),
                      owners_.empty() ? uint8_t{0} : owners_[i]};
          if (!pieces.empty()) {
            const Piece& last = pieces.back();
            const int64_t end = last.first_rank + last.rank;
            piece.first_rank = last.owner == piece.owner ? end : RoundedUp(end);
          }
          pieces.push_back(piece);
        }
        row += rows;
      }
    }
    return pieces;
  }

  std::span<const AdapterLayout> layouts_;
  std::span<const std::vector<float>> values_;
  std::span<const uint8_t> owners_;
};

LowRankUpdate Activated(LowRankUpdate update, std::span<const uint32_t> active) {
  update.active = active;
  return update;
}

}  // namespace

std::unique_ptr<AdapterWeights> AdapterWeights::Make(std::span<const AdapterLayout> layouts,
                                                     std::span<const std::vector<float>> values,
                                                     std::span<const uint8_t> owners) {
  const ModelConfig& c = layouts.front().config();
  GPTOSS_CHECK(owners.empty() ||
               (owners.size() == layouts.size() && std::ranges::is_sorted(owners) && owners.back() < kMaxOwners));
  const UpdateBuilder builder(layouts, values, owners);
  const auto single = [&](std::string_view target) { return Stage{{target}, ShapeOf(c, target)}; };
  const std::array<Stage, 5> stages = {Stage{{"q", "k", "v"}, {1, c.q_size() + 2 * c.kv_size(), c.hidden_size}},
                                       single("out"), single("router"), single("gate_up"), single("down")};
  size_t count = builder.Count("", single("unembedding"));
  for (int n = 0; n < c.num_layers; ++n) {
    for (const Stage& stage : stages) count += builder.Count(LayerName(n, ""), stage);
  }
  auto weights = std::make_unique<AdapterWeights>();
  weights->memory_.assign(count, 0.0f);
  if (!owners.empty()) weights->num_owners_ = owners.back() + 1;
  float* at = weights->memory_.data();
  const auto build = [&](const std::string& prefix, const Stage& stage) {
    const LowRankUpdate update = builder.Build(prefix, stage, at, &weights->owners_.emplace_back());
    at += builder.Count(prefix, stage);
    return update;
  };
  for (int n = 0; n < c.num_layers; ++n) {
    Layer layer;
    LowRankUpdate* const updates[] = {&layer.qkv, &layer.out, &layer.router, &layer.gate_up, &layer.down};
    for (size_t i = 0; i < stages.size(); ++i) *updates[i] = build(LayerName(n, ""), stages[i]);
    weights->layers_.push_back(layer);
  }
  weights->unembedding_ = build("", single("unembedding"));
  return weights;
}

Status AdapterWeights::MoveTo(Device& device, int host_layers) {
  size_t size = bytes();
  for (const std::vector<uint8_t>& owners : owners_) size += owners.size();
  GPTOSS_ASSIGN_OR_RETURN(on_device_, DeviceBuffer::Allocate(device, size));
  device.Upload(on_device_.data(), memory_.data(), bytes());
  const auto* host = reinterpret_cast<const std::byte*>(memory_.data());
  std::byte* end = on_device_.data() + bytes();
  const auto move = [&](LowRankUpdate* update) {
    if (!update->any()) return;
    for (WeightMatrix* matrix : {&update->a, &update->b}) matrix->data = on_device_.data() + (matrix->data - host);
    const auto count = static_cast<size_t>(update->a.rows / kRankStep);
    device.Upload(end, update->owner, count);
    update->owner = reinterpret_cast<const uint8_t*>(end);
    end += count;
  };
  for (size_t n = 0; n < layers_.size(); ++n) {
    Layer& layer = layers_[n];
    for (LowRankUpdate* update : {&layer.qkv, &layer.out}) move(update);
    if (n < static_cast<size_t>(host_layers)) continue;
    for (LowRankUpdate* update : {&layer.router, &layer.gate_up, &layer.down}) move(update);
  }
  move(&unembedding_);
  return device.Wait();
}

int64_t AdapterWeights::largest_rank() const {
  int64_t largest = unembedding_.a.rows;
  for (const Layer& l : layers_) {
    largest = std::max({largest, l.qkv.a.rows, l.out.a.rows, l.router.a.rows, l.gate_up.a.rows, l.down.a.rows});
  }
  return largest;
}

AdapterWeights::Layer AdapterWeights::layer(int n, std::span<const uint32_t> active) const {
  const Layer& all = layers_[static_cast<size_t>(n)];
  return {Activated(all.qkv, active), Activated(all.out, active), Activated(all.router, active),
          Activated(all.gate_up, active), Activated(all.down, active)};
}

LowRankUpdate AdapterWeights::unembedding(std::span<const uint32_t> active) const {
  return Activated(unembedding_, active);
}

}  // namespace gptoss
