// One step of adapter training on a whole model: seconds of its passes, tokens/s, the share of this machine's
// multiply-add rate, and the most memory that was held.
//
//   adapter_bench CHECKPOINT RANK TOKENS [STEPS]
//
// Adapters on attention and experts; TOKENS random tokens in one sequence, every second with a loss.

#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "backends/cpu/machine_peak.h"
#include "backends/cpu/training/training_ops.h"
#include "base/rng.h"
#include "training/trainer.h"

namespace gptoss {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double PeakGigabytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e9;
}

Dataset OneConversation(const ModelConfig& config, int tokens) {
  const RandomStream random(3, "tokens");
  Example example;
  for (int i = 0; i < tokens; ++i) {
    example.tokens.push_back(static_cast<int32_t>(random.Uniform(static_cast<uint64_t>(i)) * config.vocab_size));
    example.weights.push_back(i % 2 == 0 ? 1.0f : 0.0f);
  }
  Dataset dataset;
  dataset.examples.push_back(std::move(example));
  return dataset;
}

/// Multiply-adds, twice: forward, forward again, gradients of the inputs; those of frozen weights are not needed.
double Operations(const ModelConfig& c, double tokens) {
  const double h = c.hidden_size;
  const double layer = h * (c.q_size() + 2 * c.kv_size()) + h * c.q_size() + h * c.num_experts +
                       3.0 * h * c.intermediate_size * c.experts_per_token;
  return 2.0 * tokens * (3 * c.num_layers * layer + 2 * 0.5 * h * c.vocab_size);
}

Status Run(const std::string& path, int rank, int tokens, int steps) {
  ThreadPool pool(static_cast<int>(std::thread::hardware_concurrency()));
  GPTOSS_ASSIGN_OR_RETURN(const double peak, MeasureCompute(pool));
  GPTOSS_ASSIGN_OR_RETURN(const TrainingOps<float>* ops, CpuTrainingOps());
  GPTOSS_ASSIGN_OR_RETURN(std::shared_ptr<const Checkpoint> checkpoint, OpenCheckpoint(path));
  const ModelConfig& config = checkpoint->config();
  const auto start = Clock::now();
  GPTOSS_ASSIGN_OR_RETURN(const ModelWeights weights, LoadWeights(checkpoint, DensePrecision::kAsStored, pool));
  std::printf("loaded in %.1f s, %.2f GB held\n", SecondsSince(start), PeakGigabytes());
  GPTOSS_ASSIGN_OR_RETURN(const AdapterOptions options, CheckAdapter({.rank = rank, .alpha = 2.0 * rank}));
  const AdapterLayout layout(config, options);
  const Dataset dataset = OneConversation(config, tokens);
  TrainerOptions training;
  training.activation_bytes = 0;
  training.batch_tokens = tokens;
  GPTOSS_ASSIGN_OR_RETURN(Trainer trainer, Trainer::Create(TrainAdapter(weights, options, path),
                                                           InitialAdapter(layout, 1), dataset, training, *ops));
  ScratchArena scratch;
  Profiler profiler;
  ExecContext context{pool, scratch, &profiler};
  for (int i = 0; i < steps; ++i) {
    profiler.Reset();
    const auto begin = Clock::now();
    GPTOSS_ASSIGN_OR_RETURN(const StepReport report, trainer.Step(context));
    const double seconds = SecondsSince(begin), rate = Operations(config, tokens) / seconds / 1e12;
    std::printf("step %d: %.1f s, %.2f tokens/s, %.3f of %.3f TFLOP/s (%.0f %%), loss %.4f, gradient %.3g\n", i + 1,
                seconds, tokens / seconds, rate, peak, 100 * rate / peak, report.loss, report.gradient_norm);
    for (const auto& [stage, total] : profiler.seconds()) {
      std::printf("  %-30s %7.2f s\n", std::string(stage).c_str(), total);
    }
    std::fflush(stdout);
  }
  std::printf("%.1f M adapter values; most memory held %.2f GB\n", static_cast<double>(layout.size()) / 1e6,
              PeakGigabytes());
  return Status();
}

}  // namespace
}  // namespace gptoss

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: adapter_bench CHECKPOINT RANK TOKENS [STEPS]\n");
    return 2;
  }
  const int steps = argc > 4 ? std::atoi(argv[4]) : 1;
  const gptoss::Status status = gptoss::Run(argv[1], std::atoi(argv[2]), std::atoi(argv[3]), steps);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}
