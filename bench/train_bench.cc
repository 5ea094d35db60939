// One training step's passes over a small model: tokens/s, the floating-point operations that the arithmetic needs, and
// their share of what this machine's multiply-adds reach at most.
//
//   train_bench HIDDEN LAYERS EXPERTS TOP_K INTERMEDIATE VOCABULARY ROWS LENGTH [THREADS] [reference]
//
// ROWS tokens are packed from conversations of LENGTH tokens; every second token has a loss.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "backends/cpu/machine_peak.h"
#include "backends/cpu/training/training_ops.h"
#include "base/rng.h"
#include "model/flat_parameters.h"

namespace gptoss {
namespace {

ModelConfig ConfigOf(char** argv) {
  ModelConfig c;
  c.hidden_size = std::atoi(argv[1]);
  c.num_layers = std::atoi(argv[2]);
  c.num_experts = std::atoi(argv[3]);
  c.experts_per_token = std::atoi(argv[4]);
  c.intermediate_size = std::atoi(argv[5]);
  c.vocab_size = std::atoi(argv[6]);
  c.head_dim = 32;
  c.num_heads = c.hidden_size / c.head_dim;
  c.num_kv_heads = c.num_heads % 4 == 0 ? c.num_heads / 4 : 1;
  return c;
}

TrainingBatch BatchOf(const ModelConfig& c, int rows, int length) {
  const RandomStream random(7, "bench");
  TrainingBatch batch;
  for (int i = 0; i < rows; ++i) {
    const int at = i % length;
    if (at == 0) batch.sequences.push_back({i, std::min(length, rows - i), 0});
    batch.tokens.push_back(static_cast<int32_t>(random.Uniform(static_cast<uint64_t>(i)) * c.vocab_size));
    batch.positions.push_back(at);
    if (i % 2 == 0) {
      batch.target_rows.push_back(i);
      batch.targets.push_back(batch.tokens.back());
      batch.weights.push_back(1.0f);
    }
  }
  return batch;
}

/// Multiply-adds of one forward pass, twice: what the backward pass needs besides is two times that.
double ForwardOperations(const ModelConfig& c, const TrainingBatch& batch) {
  const double h = c.hidden_size, rows = static_cast<double>(batch.rows());
  const double dense = h * (c.q_size() + 2 * c.kv_size()) + h * c.q_size() + h * c.num_experts +
                       3.0 * h * c.intermediate_size * c.experts_per_token;
  double scores = 0;
  for (const SequenceSpan& s : batch.sequences) {
    const double n = s.num_rows, w = std::min<double>(n, c.sliding_window);
    scores += (n * (n + 1) / 2 + w * (w + 1) / 2 + (n - w) * w) / 2;  // half of the layers slide
  }
  const double attention = 2.0 * scores * c.q_size();
  const double head = h * c.vocab_size * static_cast<double>(batch.targets.size());
  return 2.0 * (c.num_layers * (rows * dense + attention) + head);
}

int Run(int argc, char** argv) {
  const ModelConfig c = ConfigOf(argv);
  const TrainingBatch batch = BatchOf(c, std::atoi(argv[7]), std::atoi(argv[8]));
  const int threads = argc > 9 ? std::atoi(argv[9]) : static_cast<int>(std::thread::hardware_concurrency());
  const bool reference = argc > 10;
  const auto chosen = CpuTrainingOps();
  if (!chosen.ok()) return 1;
  const TrainingOps<float>& ops = reference ? ReferenceTrainingOps<float>() : **chosen;
  ThreadPool pool(threads);
  ScratchArena scratch;
  Profiler profiler;
  ExecContext context{pool, scratch, &profiler};
  const auto peak = MeasureCompute(pool);
  if (!peak.ok()) return 1;

  const FlatLayout layout(c);
  const RandomStream random(1, "weights");
  std::vector<float> values(layout.size()), gradient(layout.size(), 0.0f);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(0.05 * (random.Uniform(i) - 0.5));
  const auto parameters = BindParameters<float>(layout, values.data());
  auto gradients = BindGradients<float>(layout, gradient.data(), [](const TensorSpec&) { return true; });
  const GptOssBackward<float> model(c, ops, uint64_t{4} << 30);
  if (!reference) model.Loss(context, parameters, batch, 1e-3, &gradients);  // memory is touched for the first time
  profiler.Reset();
  const int passes = reference ? 1 : 5;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < passes; ++i) model.Loss(context, parameters, batch, 1e-3, &gradients);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / passes;
  const double rate = 3.0 * ForwardOperations(c, batch) / seconds / 1e12;
  std::printf("%s, %d threads: %.2f M weights, %.0f tokens/s, %.3f TFLOP/s of %.3f (%.0f %%)\n",
              std::string(ops.name).c_str(), threads, static_cast<double>(layout.size()) / 1e6,
              static_cast<double>(batch.rows()) / seconds, rate, *peak, 100 * rate / *peak);
  for (const auto& [stage, total] : profiler.seconds()) {
    std::printf("  %-24s %7.1f ms\n", std::string(stage).c_str(), 1e3 * total / passes);
  }
  return 0;
}

}  // namespace
}  // namespace gptoss

int main(int argc, char** argv) {
  if (argc < 9) {
    std::fprintf(stderr,
                 "usage: train_bench HIDDEN LAYERS EXPERTS TOP_K INTERMEDIATE VOCABULARY ROWS LENGTH "
                 "[THREADS] [reference]\n");
    return 2;
  }
  return gptoss::Run(argc, argv);
}
