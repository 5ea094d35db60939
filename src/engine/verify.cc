#include "engine/verify.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/rng.h"
#include "tensor/float_convert.h"

namespace gptoss {
namespace {

constexpr double kMaxKl = 1e-3;     // DESIGN's gate for a trained model; kernels alone stay far below it
constexpr double kMaxRelL2 = 1e-2;  // of a residual stream, and of router logits
/// Other tokens are tried where runs parted before any row was through: with this many at least one row gets through.
constexpr int kMaxTries = 5;

/// Keeps, per layer, the residual stream after the layer, the router's logits and its choice.
class Recorder : public ActivationHook {
 public:
  void OnActivation(int layer, Stage stage, std::span<const float> values) override {
    if (stage == Stage::kAfterMlp) residual[layer].assign(values.begin(), values.end());
    if (stage == Stage::kRouterLogits) logits[layer].assign(values.begin(), values.end());
  }
  void OnRouting(int layer, const Routing& routing) override {
    experts[layer].assign(routing.expert.begin(), routing.expert.end());
  }
  std::map<int, std::vector<float>> residual, logits;
  std::map<int, std::vector<int32_t>> experts;
};

struct ProbeRun {
  Recorder recorder;
  std::vector<float> logits;  // [tokens, V]
};

/// One sequence whose tokens stand at `position` …; every block of the table is its own.
ForwardBatch MakeBatch(const ModelConfig& config, int position, const VerifyOptions& options) {
  const RandomStream random(options.seed, "verify tokens");
  ForwardBatch batch;
  batch.sequences = {{0, options.tokens, position}};
  for (int i = 0; i < options.tokens; ++i) {
    batch.tokens.push_back(static_cast<int32_t>(random.Word(position + i) % static_cast<uint64_t>(config.vocab_size)));
    batch.positions.push_back(position + i);
    batch.logit_rows.push_back(i);
  }
  const int blocks = (position + options.tokens + kKvBlockSize - 1) / kKvBlockSize;
  for (KvGroupBatch& group : batch.kv) {
    group.blocks_per_sequence = blocks;
    for (int b = 0; b < blocks; ++b) group.block_tables.push_back(blocks - 1 - b);  // not in order, as in real use
    for (int p = position; p < position + options.tokens; ++p) {
      group.slots.push_back(group.block_tables[p / kKvBlockSize] * kKvBlockSize + p % kKvBlockSize);
    }
  }
  return batch;
}

/// Random keys and values with about the spread of real ones.
void FillCache(const KvMemory& kv, const ModelConfig& config, int blocks, const VerifyOptions& options,
               ThreadPool& pool) {
  const int64_t count = static_cast<int64_t>(blocks) * kKvBlockSize * config.kv_size();
  pool.Run(2ll * config.num_layers, [&](int64_t task, int) {
    const KvLayer& layer = kv.layer(static_cast<int>(task / 2));
    std::byte* out = task % 2 == 0 ? layer.k : layer.v;
    const RandomStream random(options.seed ^ 0xCAFE, static_cast<uint64_t>(task));
    for (int64_t i = 0; i < count; ++i) {
      const auto value = static_cast<float>(random.Uniform(static_cast<uint64_t>(i)) * 2 - 1);
      if (options.kv_dtype == DType::kF32) {
        reinterpret_cast<float*>(out)[i] = value;
      } else {
        reinterpret_cast<uint16_t*>(out)[i] = F32ToBf16(value);
      }
    }
  });
}

/// A copy of `kv` where the weights' device can read it.
Result<KvMemory> CopyToDevice(const KvMemory& kv, const ModelConfig& config, int blocks, DType dtype, Device& device) {
  GPTOSS_ASSIGN_OR_RETURN(KvMemory copy, KvMemory::Allocate(config, dtype, {blocks, blocks}, device));
  for (const KvGroup group : {KvGroup::kSliding, KvGroup::kFull}) {
    std::vector<std::byte> bytes(kv.GroupBlockBytes(group));
    for (int b = 0; b < blocks; ++b) {
      kv.ReadBlock(group, b, bytes);
      copy.WriteBlock(group, b, bytes);
    }
  }
  return copy;
}

Result<ProbeRun> RunProbe(const ModelWeights& weights, const Ops& ops, const ForwardBatch& batch, const KvMemory& kv,
                          ThreadPool& pool) {
  ProbeRun run;
  const GptOss model(weights, ops);
  Device& device = *weights.device;
  ScratchArena scratch(device);
  ScratchArena host_scratch;
  ExecContext context{pool, scratch, nullptr, &host_scratch};
  const size_t rows = batch.logit_rows.size(), vocab = static_cast<size_t>(weights.config.vocab_size);
  auto* hidden = scratch.Allocate<float>(rows * static_cast<size_t>(weights.config.hidden_size));
  auto* logits = scratch.Allocate<float>(rows * vocab);
  model.Forward(context, batch, kv, hidden, &run.recorder);
  model.Unembed(context, hidden, static_cast<int64_t>(rows), logits);
  run.logits.resize(rows * vocab);
  device.Download(run.logits.data(), logits, run.logits.size() * sizeof(float));
  GPTOSS_RETURN_IF_ERROR(device.Wait());
  return run;
}

std::vector<int32_t> SortedChoice(const std::vector<int32_t>& experts, size_t row, size_t k) {
  std::vector<int32_t> set(experts.begin() + static_cast<int64_t>(row * k),
                           experts.begin() + static_cast<int64_t>((row + 1) * k));
  std::sort(set.begin(), set.end());
  return set;
}

double RowRelL2(const std::vector<float>& want, const std::vector<float>& got, size_t row, size_t width) {
  double difference = 0, norm = 0;
  for (size_t i = row * width; i < (row + 1) * width; ++i) {
    const double d = double{want[i]} - got[i];
    difference += d * d;
    norm += double{want[i]} * want[i];
  }
  return norm == 0 ? (difference == 0 ? 0 : 1) : std::sqrt(difference / norm);
}

/// True when the run's own router logits explain its choice of experts for this row, and are close to the reference's:
/// experts change places only where the reference's margin is at most what two logits differ by.
bool LogitsExplainChoice(const std::vector<float>& want, const std::vector<float>& got, size_t row, size_t num_experts,
                         size_t k) {
  if (k >= num_experts) return false;
  const std::span<const float> a = std::span(want).subspan(row * num_experts, num_experts);
  const std::span<const float> b = std::span(got).subspan(row * num_experts, num_experts);
  float difference = 0;
  for (size_t e = 0; e < num_experts; ++e) difference = std::max(difference, std::abs(a[e] - b[e]));
  std::vector<float> sorted(a.begin(), a.end());
  std::sort(sorted.rbegin(), sorted.rend());
  return sorted[k - 1] - sorted[k] <= 2 * difference && RowRelL2(want, got, row, num_experts) <= kMaxRelL2;
}

/// A row is compared up to the layer where the two runs went to different experts for a reason that the logits show.
VerifyProbe CompareRuns(const ModelConfig& c, int position, int tokens, ProbeRun& want, ProbeRun& got) {
  VerifyProbe probe;
  probe.position = position;
  const auto k = static_cast<size_t>(c.experts_per_token), experts = static_cast<size_t>(c.num_experts);
  const auto hidden = static_cast<size_t>(c.hidden_size), vocab = static_cast<size_t>(c.vocab_size);
  bool parted = false;  // later rows see the parted row's keys, so comparing stops for all of them
  for (size_t row = 0; row < static_cast<size_t>(tokens) && !parted; ++row) {
    for (int n = 0; n < c.num_layers && !parted; ++n) {
      if (SortedChoice(want.recorder.experts[n], row, k) != SortedChoice(got.recorder.experts[n], row, k)) {
        ++probe.router_flips;
        if (LogitsExplainChoice(want.recorder.logits[n], got.recorder.logits[n], row, experts, k)) {
          ++probe.near_ties;
          parted = true;
          break;
        }
      }
      const double error = RowRelL2(want.recorder.residual[n], got.recorder.residual[n], row, hidden);
      if (!(error <= probe.worst_rel_l2)) {  // also true for NaN
        probe.worst_rel_l2 = error;
        probe.worst_layer = n;
      }
    }
    if (parted) break;
    probe.logits.Add(std::span(want.logits).subspan(row * vocab, vocab),
                     std::span(got.logits).subspan(row * vocab, vocab));
  }
  return probe;
}

std::string Judge(const VerifyProbe& probe) {
  const std::string at = "at position " + std::to_string(probe.position) + ": ";
  if (probe.logits.nonfinite() > 0) return at + "logits that are not finite";
  if (probe.router_flips > probe.near_ties) return at + "other experts were chosen than by the reference";
  if (!(probe.worst_rel_l2 <= kMaxRelL2)) {
    return at + "layer " + std::to_string(probe.worst_layer) + " differs by " + std::to_string(probe.worst_rel_l2);
  }
  if (!(probe.logits.kl_mean() <= kMaxKl)) return at + "mean KL " + std::to_string(probe.logits.kl_mean());
  return "";
}

/// One probe, with the tokens and the cache of options.seed.
Result<VerifyProbe> Probe(const ModelWeights& weights, const Ops& ops, const ModelWeights& reference_weights,
                          const Ops& reference, ThreadPool& pool, const VerifyOptions& options, int position) {
  const ModelConfig& config = weights.config;
  const ForwardBatch batch = MakeBatch(config, position, options);
  const int blocks = batch.kv[0].blocks_per_sequence;
  GPTOSS_ASSIGN_OR_RETURN(const KvMemory kv, KvMemory::Allocate(config, options.kv_dtype, {blocks, blocks}));
  FillCache(kv, config, blocks, options, pool);
  KvMemory copy;
  if (!weights.device->is_host()) {
    GPTOSS_ASSIGN_OR_RETURN(copy, CopyToDevice(kv, config, blocks, options.kv_dtype, *weights.device));
  }
  // Both runs write the same slots, and before reading them; nothing else in the cache changes.
  GPTOSS_ASSIGN_OR_RETURN(ProbeRun want, RunProbe(reference_weights, reference, batch, kv, pool));
  GPTOSS_ASSIGN_OR_RETURN(ProbeRun got, RunProbe(weights, ops, batch, weights.device->is_host() ? kv : copy, pool));
  return CompareRuns(config, position, options.tokens, want, got);
}

}  // namespace

Result<VerifyReport> VerifyOps(const ModelWeights& weights, const Ops& ops, const Ops& reference, ThreadPool& pool,
                               const VerifyOptions& options, const std::function<bool(int, int)>& progress,
                               const ModelWeights* reference_weights) {
  if (reference_weights == nullptr) reference_weights = &weights;
  const ModelConfig& config = weights.config;
  VerifyReport report;
  std::vector<int> positions;
  for (int p : options.positions) {
    if (p + options.tokens <= config.max_context) positions.push_back(p);
  }
  const auto total = static_cast<int>(positions.size());
  for (int i = 0; i < total; ++i) {
    if (progress != nullptr && !progress(i, total)) return Cancelled("verification cancelled");
    VerifyProbe probe;
    VerifyOptions tried = options;
    for (int attempt = 0; attempt < kMaxTries; ++attempt, ++tried.seed) {
      GPTOSS_ASSIGN_OR_RETURN(probe, Probe(weights, ops, *reference_weights, reference, pool, tried, positions[i]));
      if (probe.logits.rows() > 0 || !Judge(probe).empty()) break;
    }
    report.probes.push_back(probe);
    if (report.failure.empty()) report.failure = Judge(report.probes.back());
  }
  if (progress != nullptr) progress(total, total);
  report.passed = report.failure.empty();
  return report;
}

}  // namespace gptoss
