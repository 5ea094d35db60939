#include "training/trainer.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "base/rng.h"

namespace gptoss {
namespace {

/// Values that one task updates, or squares and sums.
constexpr int64_t kPiece = 65536;
static_assert(kPiece % kMomentBlock == 0, "a block of moments belongs to one task");

/// Decay pulls matrices towards zero; norms, biases and sinks have no reason to be small.
bool Decays(const TensorSpec& spec) { return spec.shape.size() > 1 && !spec.name.ends_with(".bias"); }

/// One of two independent normal numbers made of two uniform ones (Box and Muller 1958).
double Normal(const RandomStream& random, uint64_t i) {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - random.Uniform(2 * i)));
  return radius * std::cos(2.0 * std::numbers::pi * random.Uniform(2 * i + 1));
}

template <typename Byte, typename State>
std::vector<std::span<Byte>> ArraysOf(State& state) {
  std::vector<std::span<Byte>> arrays;
  const auto add = [&](auto& array) {
    if (!array.empty()) arrays.push_back({reinterpret_cast<Byte*>(array.data()), array.size() * sizeof(array[0])});
  };
  add(state.values), add(state.m), add(state.v);
  add(state.m_codes), add(state.v_codes), add(state.m_scales), add(state.v_scales);
  return arrays;
}

double WeightOf(const TrainingBatch& batch) {
  double sum = 0;
  for (const float weight : batch.weights) sum += static_cast<double>(weight);
  return sum;
}

}  // namespace

std::vector<float> InitialParameters(const FlatLayout& layout, uint64_t seed) {
  std::vector<float> values(layout.size(), 0.0f);
  for (const FlatTensor& tensor : layout.tensors()) {
    float* own = values.data() + tensor.offset;
    const std::string& name = tensor.spec.name;
    if (name.ends_with("norm")) std::fill_n(own, tensor.count, 1.0f);
    if (!Decays(tensor.spec)) continue;
    const bool to_stream = name.ends_with("out.weight") || name.ends_with("down.weight");
    const double deviation = to_stream ? 0.02 / std::sqrt(2.0 * layout.config().num_layers) : 0.02;
    const RandomStream random(seed, name);
    for (size_t i = 0; i < tensor.count; ++i) own[i] = static_cast<float>(deviation * Normal(random, i));
  }
  return values;
}

double EvaluateLoss(ExecContext& context, const ModelConfig& config, const ModelParameters<float>& parameters,
                    const TrainingOps<float>& ops, const Dataset& dataset, int batch_tokens) {
  const GptOssBackward<float> model(config, ops);
  BatchStream stream(dataset, batch_tokens, 0);
  double loss = 0, weight = 0;
  while (stream.position().epoch == 0) {
    const TrainingBatch batch = stream.Next();
    loss += model.Loss(context, parameters, batch, 1.0, nullptr);
    weight += WeightOf(batch);
  }
  return loss / weight;
}

double EvaluateLoss(ExecContext& context, const FlatLayout& layout, std::span<const float> values,
                    const TrainingOps<float>& ops, const Dataset& dataset, int batch_tokens) {
  return EvaluateLoss(context, layout.config(), BindParameters<float>(layout, values.data()), ops, dataset,
                      batch_tokens);
}

Result<Trainer> Trainer::Create(const ModelConfig& config, std::vector<float> values, const Dataset& dataset,
                                const TrainerOptions& options, const TrainingOps<float>& ops) {
  GPTOSS_ASSIGN_OR_RETURN(auto model, TrainWeights(config, options.trained, options.round_experts, options.round_from));
  return Create(std::move(model), std::move(values), dataset, options, ops);
}

Result<Trainer> Trainer::Create(std::unique_ptr<TrainedModel> model, std::vector<float> values, const Dataset& dataset,
                                const TrainerOptions& options, const TrainingOps<float>& ops) {
  const ModelConfig& config = model->config();
  if (dataset.examples.empty()) return InvalidArgument("the training data has no conversations");
  for (const Example& example : dataset.examples) {
    if (example.tokens.size() > static_cast<size_t>(config.max_context)) {
      return InvalidArgument("line " + std::to_string(example.line) + ": " + std::to_string(example.tokens.size()) +
                             " tokens are more than the model's context of " + std::to_string(config.max_context));
    }
  }
  if (options.accumulation < 1) return InvalidArgument("accumulation: must be at least 1");
  if (options.batch_tokens < 1) return InvalidArgument("batch_tokens: must be at least 1");
  if (values.size() != model->size()) {
    return InvalidArgument("the weights have " + std::to_string(values.size()) + " values, the model " +
                           std::to_string(model->size()));
  }
  return Trainer(std::move(model), std::move(values), dataset, options, ops);
}

Trainer::Trainer(std::unique_ptr<TrainedModel> model, std::vector<float> values, const Dataset& dataset,
                 const TrainerOptions& options, const TrainingOps<float>& ops)
    : model_(std::move(model)),
      options_(options),
      ops_(&ops),
      passes_(model_->config(), ops, options.activation_bytes),
      stream_(dataset, options.batch_tokens, options.seed),
      gradient_(model_->size(), 0.0f) {
  state_.values = std::move(values);
  if (!options.byte_moments) {
    state_.m.assign(model_->size(), 0.0f);
    state_.v.assign(model_->size(), 0.0f);
    return;
  }
  size_t blocks = 0;
  for (const FlatTensor& tensor : model_->tensors()) blocks += MomentBlocks(tensor.count);
  state_.m_codes.assign(model_->size(), 0);
  state_.v_codes.assign(model_->size(), 0);
  state_.m_scales.assign(blocks, 0.0f);
  state_.v_scales.assign(blocks, 0.0f);
}

std::vector<std::span<std::byte>> Trainer::State::Arrays() { return ArraysOf<std::byte>(*this); }
std::vector<std::span<const std::byte>> Trainer::State::Arrays() const { return ArraysOf<const std::byte>(*this); }

Status Trainer::Restore(State state) {
  const auto given = state.Arrays(), own = state_.Arrays();
  const auto same_size = [](const auto& a, const auto& b) { return a.size() == b.size(); };
  if (!std::equal(given.begin(), given.end(), own.begin(), own.end(), same_size)) {
    return InvalidArgument("the saved state is of a model of another size");
  }
  if (state.step < 0) return InvalidArgument("the saved state has a negative step");
  GPTOSS_RETURN_IF_ERROR(stream_.Seek(state.position));
  state_ = std::move(state);
  return Status();
}

Result<double> Trainer::Evaluate(ExecContext& context, const Dataset& dataset) {
  GPTOSS_ASSIGN_OR_RETURN(const ModelParameters<float> parameters, model_->Parameters(state_.values, state_.step));
  return EvaluateLoss(context, model_->config(), parameters, *ops_, dataset, options_.batch_tokens);
}

/// Sums of kPiece squares first, so that the threads take no part in the order.
double Trainer::GradientNorm(ThreadPool& pool) const {
  double sum = 0;
  std::vector<double> sums;
  for (const FlatTensor& tensor : model_->tensors()) {
    if (!model_->IsTrained(tensor.spec)) continue;
    sums.assign((tensor.count + kPiece - 1) / kPiece, 0.0);
    pool.ParallelFor(static_cast<int64_t>(tensor.count), kPiece, [&](int64_t begin, int64_t end, int) {
      double own = 0;
      for (int64_t i = begin; i < end; ++i) {
        const auto g = static_cast<double>(gradient_[tensor.offset + static_cast<size_t>(i)]);
        own += g * g;
      }
      sums[static_cast<size_t>(begin / kPiece)] = own;
    });
    for (const double part : sums) sum += part;
  }
  return std::sqrt(sum);
}

void Trainer::Update(ThreadPool& pool, double learning_rate, double gradient_scale) {
  size_t first_scale = 0;
  for (const FlatTensor& tensor : model_->tensors()) {
    if (model_->IsTrained(tensor.spec)) {
      pool.ParallelFor(static_cast<int64_t>(tensor.count), kPiece, [&](int64_t begin, int64_t end, int) {
        const auto first = static_cast<size_t>(begin);
        UpdatePart(tensor.offset + first, static_cast<size_t>(end - begin), first_scale + first / kMomentBlock,
                   Decays(tensor.spec), learning_rate, gradient_scale);
      });
    }
    first_scale += MomentBlocks(tensor.count);
  }
}

void Trainer::UpdatePart(size_t first, size_t count, size_t first_scale, bool decay, double learning_rate,
                         double gradient_scale) {
  const auto part = [&](auto& all) { return std::span(all).subspan(first, count); };
  const std::span<const float> gradient = part(gradient_);
  if (!options_.byte_moments) {
    AdamWUpdate(options_.adamw, state_.step, learning_rate, gradient_scale, decay, gradient, part(state_.m),
                part(state_.v), part(state_.values));
    return;
  }
  const auto scales = [&](auto& all) { return std::span(all).subspan(first_scale, MomentBlocks(count)); };
  const ByteMoments moments{part(state_.m_codes), part(state_.v_codes), scales(state_.m_scales),
                            scales(state_.v_scales)};
  AdamWUpdate(options_.adamw, state_.step, learning_rate, gradient_scale, decay, gradient, moments,
              part(state_.values));
}

Result<StepReport> Trainer::Step(ExecContext& context) {
  StepReport report{.step = state_.step + 1, .epoch = stream_.position().epoch};
  // All batches of the step first: each target counts by its share of their common weight.
  std::vector<TrainingBatch> batches;
  double weight = 0;
  for (int i = 0; i < options_.accumulation; ++i) {
    batches.push_back(stream_.Next());
    weight += WeightOf(batches.back());
    report.tokens += batches.back().rows();
    report.targets += static_cast<int64_t>(batches.back().targets.size());
  }
  std::fill(gradient_.begin(), gradient_.end(), 0.0f);
  GPTOSS_ASSIGN_OR_RETURN(const ModelParameters<float> parameters, model_->Parameters(state_.values, state_.step));
  ModelGradients<float> gradients = model_->Gradients(gradient_.data());
  for (const TrainingBatch& batch : batches) {
    BalanceTerm balance{.factor = options_.balance / static_cast<double>(batches.size())};
    report.loss +=
        passes_.Loss(context, parameters, batch, 1.0 / weight, &gradients, options_.balance > 0 ? &balance : nullptr);
    report.balance_loss += balance.loss / static_cast<double>(batches.size());
  }
  model_->Collect(gradient_.data());
  report.gradient_norm = GradientNorm(context.pool);
  if (!std::isfinite(report.loss) || !std::isfinite(report.gradient_norm)) {
    return InvalidArgument("step " + std::to_string(report.step) +
                           ": the loss or its gradient is not a finite number; lower the learning rate");
  }
  report.learning_rate = LearningRate(options_.schedule, state_.step);
  const bool clipped = options_.max_gradient_norm > 0 && report.gradient_norm > options_.max_gradient_norm;
  ++state_.step;
  Update(context.pool, report.learning_rate, clipped ? options_.max_gradient_norm / report.gradient_norm : 1.0);
  state_.position = stream_.position();
  return report;
}

}  // namespace gptoss
