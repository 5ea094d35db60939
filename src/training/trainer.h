// The steps of training: float masters of everything that changes, their gradients and AdamW's moments in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "training/adamw.h"
#include "training/batches.h"
#include "training/byte_moments.h"
#include "training/schedule.h"
#include "training/trained_model.h"

namespace gptoss {

struct TrainerOptions {
  AdamWOptions adamw;
  Schedule schedule;
  double max_gradient_norm = 1.0;  // of all trained weights together; 0: no clipping
  int accumulation = 1;            // batches in one step
  int batch_tokens = 2048;         // most tokens of one batch, unless one conversation is longer
  uint64_t seed = 1;               // order of the data
  double balance = 0;              // factor of the loss that keeps all experts in use (ops/balance_loss.h); 0: none
  /// Memory for activations that are kept rather than computed again; a batch that needs more keeps none.
  uint64_t activation_bytes = uint64_t{2} << 30;
  /// Passes see the experts rounded to MXFP4, as they will be exported; gradients go to the float weights as if nothing
  /// had been rounded (the straight-through estimator, Bengio et al., arXiv 1308.3432). Takes one more array.
  bool round_experts = false;
  int64_t round_from = 0;  // updates done before the first such pass: rounding costs time, and matters late
  /// AdamW's moments in eight bits (training/byte_moments.h) instead of float.
  bool byte_moments = false;
  /// Ends of canonical tensor names that are trained, e.g. "router.weight" or "layers.3.down.weight"; empty: all.
  std::vector<std::string> trained;
};

struct StepReport {
  int64_t step = 0;  // counted from 1
  int64_t epoch = 0;
  double loss = 0;          // mean over the step's targets by weight, before the update
  double balance_loss = 0;  // mean over layers and batches, without its factor; 0 where that is 0
  double gradient_norm = 0;
  double learning_rate = 0;
  int64_t tokens = 0;
  int64_t targets = 0;
};

/// Weights of a model that begins at nothing: normal with deviation 0.02, those that write to the residual stream
/// smaller by sqrt(2 layers) (Radford et al. 2019, section 2.3); norms 1, biases and sinks 0. Depends on the seed only.
std::vector<float> InitialParameters(const FlatLayout& layout, uint64_t seed);

/// Mean loss by weight of all conversations. Uses no more than batch_tokens at a time.
double EvaluateLoss(ExecContext& context, const ModelConfig& config, const ModelParameters<float>& parameters,
                    const TrainingOps<float>& ops, const Dataset& dataset, int batch_tokens);
double EvaluateLoss(ExecContext& context, const FlatLayout& layout, std::span<const float> values,
                    const TrainingOps<float>& ops, const Dataset& dataset, int batch_tokens);

/// Not thread-safe.
class Trainer {
 public:
  /// All that changes from step to step.
  struct State {
    int64_t step = 0;  // updates done
    DataPosition position;
    std::vector<float> values;  // [model().size()]
    std::vector<float> m, v;    // likewise; empty with byte_moments
    /// Empty without. Scales are those of one tensor after the other, MomentBlocks(its count) each.
    std::vector<int8_t> m_codes;
    std::vector<uint8_t> v_codes;
    std::vector<float> m_scales, v_scales;

    /// The bytes of all arrays that are in use, in the order above.
    std::vector<std::span<std::byte>> Arrays();
    std::vector<std::span<const std::byte>> Arrays() const;
  };

  /// `dataset` and `ops` must outlive the trainer. On failure: kInvalidArgument naming the option: a dataset without
  /// conversations or with conversations longer than the model's context.
  static Result<Trainer> Create(std::unique_ptr<TrainedModel> model, std::vector<float> values, const Dataset& dataset,
                                const TrainerOptions& options, const TrainingOps<float>& ops);
  /// Of all weights, or those that `options` name. On failure: also what TrainWeights says.
  static Result<Trainer> Create(const ModelConfig& config, std::vector<float> values, const Dataset& dataset,
                                const TrainerOptions& options, const TrainingOps<float>& ops);

  /// Takes the place of all that training has changed. On failure: kInvalidArgument, and nothing has changed.
  Status Restore(State state);
  const State& state() const { return state_; }

  /// One update. On failure: kInvalidArgument when the loss or the gradient is no finite number; the weights are as
  /// before then.
  Result<StepReport> Step(ExecContext& context);

  const TrainedModel& model() const { return *model_; }
  /// Of the whole model, also where an adapter is trained.
  const FlatLayout& layout() const { return model_->layout(); }
  const TrainerOptions& options() const { return options_; }
  /// Mean loss of `dataset` with the present values. On failure: as TrainedModel::Parameters.
  Result<double> Evaluate(ExecContext& context, const Dataset& dataset);

 private:
  Trainer(std::unique_ptr<TrainedModel> model, std::vector<float> values, const Dataset& dataset,
          const TrainerOptions& options, const TrainingOps<float>& ops);
  double GradientNorm(ThreadPool& pool) const;
  void Update(ThreadPool& pool, double learning_rate, double gradient_scale);
  /// Of values [first, first + count) of the array; `first_scale` is where the scales of their tensor's blocks begin.
  void UpdatePart(size_t first, size_t count, size_t first_scale, bool decay, double learning_rate,
                  double gradient_scale);

  std::unique_ptr<TrainedModel> model_;
  TrainerOptions options_;
  const TrainingOps<float>* ops_;
  GptOssBackward<float> passes_;
  BatchStream stream_;
  State state_;
  std::vector<float> gradient_;  // [model().size()]
};

}  // namespace gptoss
