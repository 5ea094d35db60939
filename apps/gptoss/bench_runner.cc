#include "bench_runner.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>

#include "base/rng.h"
#include "tensor/float_convert.h"

namespace gptoss::cli {
namespace {

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Steps before those that are timed, so that caches and threads are warm.
constexpr int kWarmSteps = 2;

constexpr uint64_t kContextStream = 1, kPromptStream = 2, kStepStream = 3, kNoiseStream = 4;

/// Bytes of a cache of `dtype`, kF32 or kBF16, whose values lie between -1 and 1.
std::vector<std::byte> Noise(uint64_t size, DType dtype) {
  const RandomStream random(20, kNoiseStream);
  std::vector<std::byte> bytes(size);
  const uint64_t width = RowBytes(dtype, 1);
  for (uint64_t at = 0; at < size; at += width) {
    const auto value = static_cast<float>(2.0 * random.Uniform(at) - 1.0);
    const uint16_t half = F32ToBf16(value);
    std::memcpy(bytes.data() + at, dtype == DType::kF32 ? static_cast<const void*>(&value) : &half, width);
  }
  return bytes;
}

double Sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

}  // namespace

int BenchPlan::longest() const { return std::ranges::max(prompts) + std::ranges::max(contexts) + gen + kWarmSteps; }

int BenchPlan::most_sequences() const { return std::ranges::max(batches); }

Result<std::unique_ptr<BenchRunner>> BenchRunner::Create(ModelSession& session, const BenchPlan& plan) {
  RunnerOptions options = session.runner->options();
  options.rewind_tokens = std::ranges::max(plan.prompts) + plan.gen + kWarmSteps;
  session.runner.reset();
  GPTOSS_ASSIGN_OR_RETURN(session.runner, ModelRunner::Create(*session.model, *session.pool, options));
  return std::unique_ptr<BenchRunner>(new BenchRunner(session, plan));
}

Result<std::vector<BenchRun>> BenchRunner::MeasureAll(const std::function<void()>& on_repetition) {
  std::vector<BenchRun> runs;
  for (const int prompt : plan_.prompts) {
    for (const int context : plan_.contexts) {
      for (const int batch : plan_.batches) {
        runs.emplace_back();
        runs.back().prompt = prompt;
        runs.back().context = context;
        runs.back().batch = batch;
      }
    }
  }
  // By rising context, each computed once: what a short one holds is the beginning of a long one.
  std::vector<BenchRun*> order;
  for (BenchRun& run : runs) order.push_back(&run);
  std::ranges::stable_sort(order, {}, &BenchRun::context);
  for (int s = 0; s < plan_.most_sequences(); ++s) sequences_.push_back(session_.runner->NewSequence());
  for (BenchRun* run : order) {
    GPTOSS_RETURN_IF_ERROR(FillContext(run->context));
    GPTOSS_RETURN_IF_ERROR(Measure(run, on_repetition));
  }
  sequences_.clear();
  return runs;
}

void BenchRunner::AppendRandom(Sequence& sequence, int count, uint64_t stream) {
  const RandomStream random(20, stream);
  const auto vocab = static_cast<uint64_t>(session_.model->config().vocab_size);
  for (int i = 0; i < count; ++i) {
    sequence.Append(static_cast<int32_t>(random.Word(static_cast<uint64_t>(i)) % vocab));
  }
}

Status BenchRunner::FillContext(int context) {
  for (size_t s = 0; s < sequences_.size(); ++s) {
    if (plan_.noise_context) sequences_[s] = session_.runner->NewSequence();
    Sequence& sequence = *sequences_[s];
    const auto held = static_cast<int>(sequence.tokens().size());
    if (held < context) AppendRandom(sequence, context - held, kContextStream << 32 | s << 16 | (context & 0xffff));
    if (plan_.noise_context) GPTOSS_RETURN_IF_ERROR(FillWithNoise(sequence, context));
    GPTOSS_RETURN_IF_ERROR(session_.runner->Compute(sequence, context, nullptr));
  }
  return Status();
}

Status BenchRunner::FillWithNoise(Sequence& sequence, int context) {
  ModelRunner& runner = *session_.runner;
  return runner.Restore(sequence, context, {}, [&] {
    for (const KvGroup group : {KvGroup::kSliding, KvGroup::kFull}) {
      const std::vector<std::byte> block = Noise(runner.BlockBytes(group), runner.options().kv_dtype);
      const std::span<const int32_t> blocks = sequence.blocks(group);
      for (size_t entry = 0; entry < blocks.size(); ++entry) {
        if (blocks[entry] != BlockTable::kReleased) runner.WriteBlock(sequence, group, static_cast<int>(entry), block);
      }
    }
    return Status();
  });
}

Status BenchRunner::Measure(BenchRun* run, const std::function<void()>& on_repetition) {
  Profiler prefill, decode;
  for (Profiler* profiler : {&prefill, &decode}) profiler->set_waits(plan_.profile);
  for (int i = 0; i < plan_.repeat; ++i) {
    GPTOSS_RETURN_IF_ERROR(PrefillAll(run, static_cast<uint64_t>(i), &prefill));
    GPTOSS_RETURN_IF_ERROR(DecodeAll(run, static_cast<uint64_t>(i), &decode));
    for (auto& sequence : sequences_) session_.runner->Truncate(*sequence, run->context);
    on_repetition();
  }
  const DType kv_dtype = session_.runner->options().kv_dtype;
  run->prefill = ReportStages(prefill, session_.weights, kv_dtype, Sum(run->prefill_s));
  run->decode = ReportStages(decode, session_.weights, kv_dtype, Sum(run->step_s));
  return Status();
}

Status BenchRunner::PrefillAll(BenchRun* run, uint64_t round, Profiler* profiler) {
  double total = 0;
  for (int s = 0; s < run->batch; ++s) {
    Sequence& sequence = *sequences_[s];
    AppendRandom(sequence, run->prompt, kPromptStream << 32 | round << 16 | static_cast<uint64_t>(s));
    const auto start = Clock::now();
    session_.runner->set_profiler(profiler);
    const Status status = session_.runner->Compute(sequence, static_cast<int>(sequence.tokens().size()) - 1,
                                                   [](int, LogitRow& row) { return row.Largest().status(); });
    session_.runner->set_profiler(nullptr);
    GPTOSS_RETURN_IF_ERROR(status);
    const double seconds = SecondsSince(start);
    total += seconds;
    if (s == 0) run->ttft_s.push_back(seconds);
  }
  run->prefill_s.push_back(total);
  return Status();
}

Status BenchRunner::DecodeAll(BenchRun* run, uint64_t round, Profiler* profiler) {
  const auto batch = static_cast<size_t>(run->batch);
  std::vector<StepItem> together;
  for (size_t s = 0; s < batch; ++s) together.push_back({sequences_[s].get(), 1, 1});
  const auto choose = [](size_t, int, LogitRow& row) { return row.Largest().status(); };
  double total = 0;
  for (int step = 0; step < kWarmSteps + plan_.gen; ++step) {
    for (size_t s = 0; s < batch; ++s) {
      AppendRandom(*together[s].sequence, 1,
                   kStepStream << 32 | (round * 1024 + static_cast<uint64_t>(step)) << 10 | s);
    }
    const bool timed = step >= kWarmSteps;
    session_.runner->set_profiler(timed ? profiler : nullptr);
    const auto start = Clock::now();
    const Status status = session_.runner->Advance(together, {.on_logits = choose, .on_computed = nullptr});
    const double seconds = SecondsSince(start);
    session_.runner->set_profiler(nullptr);
    GPTOSS_RETURN_IF_ERROR(status);
    if (!timed) continue;
    run->step_s.push_back(seconds);
    total += seconds;
  }
  run->decode_s.push_back(total / plan_.gen);
  return Status();
}

}  // namespace gptoss::cli
