#include "engine/model_runner.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

namespace gptoss {
namespace {

/// Rows whose logits are computed at once when all positions are wanted: 32 rows of the released models are 26 MB.
constexpr int kLogitRows = 32;

/// Tokens after which embedding pages of the mapped file are let go: each may have brought in 64 kB around its row.
constexpr int kReleaseInterval = 256;

int CeilDiv(int a, int b) { return (a + b - 1) / b; }

}  // namespace

RunnerPlan PlanRunner(const ModelConfig& config, const RunnerOptions& options) {
  RunnerPlan plan;
  // n consecutive positions in use touch at most (n - 2) / block + 2 blocks, whatever the border. Of a sequence these
  // are the window - 1 and rewind positions behind it and its rows of the step, and all sequences share the step's
  // rows.
  const int behind = std::min(options.max_context, config.sliding_window + options.rewind_tokens);
  const int step = std::min(options.max_context, std::max(options.chunk_tokens, options.max_sequences));
  plan.capacity.sliding_blocks =
      options.max_sequences * (CeilDiv(behind, kKvBlockSize) + 1) + CeilDiv(step, kKvBlockSize);
  const int longest = CeilDiv(options.max_context, kKvBlockSize);
  plan.capacity.full_blocks = options.max_sequences * longest;
  if (options.total_context > 0) {
    const auto wanted = (options.total_context + kKvBlockSize - 1) / kKvBlockSize;
    plan.capacity.full_blocks =
        static_cast<int>(std::clamp<int64_t>(wanted, longest, int64_t{plan.capacity.full_blocks}));
  }
  const KvCapacity cache = PrefixCacheCapacity(config, options.kv_dtype, options.cache_bytes);
  plan.capacity.full_blocks += cache.full_blocks;
  plan.capacity.sliding_blocks += cache.sliding_blocks;
  plan.kv_bytes = KvMemory::TotalBytes(config, options.kv_dtype, plan.capacity);
  const auto n =
      static_cast<uint64_t>(std::max(std::min(options.chunk_tokens, options.max_context), options.max_sequences));
  const auto h = static_cast<uint64_t>(config.hidden_size), i = static_cast<uint64_t>(config.intermediate_size);
  const auto k = static_cast<uint64_t>(config.experts_per_token), q = static_cast<uint64_t>(config.q_size());
  // Floats: residual stream, normed rows, q, attention, expert rows and their products before they are combined.
  const uint64_t floats = 3 * h + 3 * q + 2 * static_cast<uint64_t>(config.kv_size()) +
                          static_cast<uint64_t>(config.num_experts) + 2 * static_cast<uint64_t>(config.head_dim) +
                          k * (i + h + 8);
  // Activations of the widest op again as 16-bit integers with a scale per 32.
  const uint64_t per_token = 4 * floats + k * std::max(h, i) * 5 / 2;
  const auto logit_rows = static_cast<uint64_t>(options.max_sequences);
  plan.activation_bytes = n * per_token + 4 * logit_rows * static_cast<uint64_t>(config.vocab_size);
  return plan;
}

KvCapacity PrefixCacheCapacity(const ModelConfig& config, DType kv_dtype, uint64_t bytes) {
  const uint64_t full = KvMemory::TotalBytes(config, kv_dtype, {.sliding_blocks = 0, .full_blocks = 1});
  const uint64_t sliding = KvMemory::TotalBytes(config, kv_dtype, {.sliding_blocks = 1, .full_blocks = 0});
  KvCapacity capacity;
  if (full > 0) capacity.full_blocks = static_cast<int>(bytes / 3 * 2 / full);
  if (sliding > 0) capacity.sliding_blocks = static_cast<int>(bytes / 3 / sliding);
  return capacity;
}

Result<std::unique_ptr<ModelRunner>> ModelRunner::Create(const GptOss& model, ThreadPool& pool,
                                                         const RunnerOptions& options) {
  if (options.max_context < 1 || options.max_context > model.config().max_context) {
    return InvalidArgument("context of " + std::to_string(options.max_context) + " tokens: this model has 1 to " +
                           std::to_string(model.config().max_context));
  }
  const RunnerPlan plan = PlanRunner(model.config(), options);
  GPTOSS_ASSIGN_OR_RETURN(KvMemory kv,
                          KvMemory::Allocate(model.config(), options.kv_dtype, plan.capacity, *model.weights().device));
  auto runner = std::unique_ptr<ModelRunner>(new ModelRunner(model, pool, options, plan, std::move(kv)));
  GPTOSS_RETURN_IF_ERROR(runner->ReserveScratch());
  return runner;
}

uint64_t ReservedBytes(const ModelConfig& c, const RunnerOptions& options, uint64_t (*scratch_bytes)(const StepShape&),
                       int64_t adapter_rank, uint64_t brought_bytes) {
  const StepShape shape{.rows = std::max(std::min(options.chunk_tokens, options.max_context), options.max_sequences),
                        .sequences = options.max_sequences,
                        .positions = options.max_context,
                        .num_heads = c.num_heads,
                        .num_kv_heads = c.num_kv_heads,
                        .head_dim = c.head_dim,
                        .hidden_size = c.hidden_size,
                        .intermediate_size = c.intermediate_size,
                        .experts_per_token = c.experts_per_token,
                        .adapter_rank = adapter_rank,
                        .brings_weights = brought_bytes > 0};
  const uint64_t logits = uint64_t{kLogitRows} * static_cast<uint64_t>(c.vocab_size) * sizeof(float) +
                          DeviceLogits::ScratchBytes(c.vocab_size);
  const uint64_t counts = static_cast<uint64_t>(c.num_layers) * (static_cast<uint64_t>(c.num_experts) + 1) * 4;
  constexpr uint64_t kAlignment = 4096;  // of all allocations together
  return PlanRunner(c, options).activation_bytes + scratch_bytes(shape) + brought_bytes + logits + counts + kAlignment;
}

Status ModelRunner::ReserveScratch() {
  const auto scratch_bytes = model_.ops().scratch_bytes;
  if (scratch_bytes == nullptr) return Status();
  const int64_t rank = model_.adapter() == nullptr ? 0 : model_.adapter()->largest_rank();
  return scratch_.Reserve(ReservedBytes(model_.config(), options_, scratch_bytes, rank, model_.brought_bytes()))
      .WithContext("memory for a step");
}

ModelRunner::ModelRunner(const GptOss& model, ThreadPool& pool, const RunnerOptions& options, const RunnerPlan& plan,
                         KvMemory kv)
    : model_(model),
      options_(options),
      sliding_pool_(plan.capacity.sliding_blocks),
      full_pool_(plan.capacity.full_blocks),
      kv_(std::move(kv)),
      scratch_(*model.weights().device),
      context_{pool, scratch_, nullptr, &host_scratch_} {}

std::unique_ptr<Sequence> ModelRunner::NewSequence(int adapter) {
  GPTOSS_CHECK(adapter >= 0 && adapter < AdapterWeights::kMaxOwners);
  return std::unique_ptr<Sequence>(new Sequence(&sliding_pool_, &full_pool_, adapter));
}

namespace {

/// The owners of adapters that take part in the rows of a sequence.
uint32_t ActiveOwners(const Sequence& sequence) { return uint32_t{1} | uint32_t{1} << sequence.adapter(); }

}  // namespace

Status ModelRunner::CheckTokens(const Sequence& sequence, int end) const {
  if (end > options_.max_context) {
    return InvalidArgument("the sequence has " + std::to_string(end) + " tokens, more than the context of " +
                           std::to_string(options_.max_context));
  }
  for (int i = sequence.computed_; i < end; ++i) {
    if (sequence.tokens_[i] < 0 || sequence.tokens_[i] >= model_.config().vocab_size) {
      return InvalidArgument("token " + std::to_string(sequence.tokens_[i]) + " at position " + std::to_string(i) +
                             " is outside the model's vocabulary of " + std::to_string(model_.config().vocab_size));
    }
  }
  return Status();
}

bool ModelRunner::Reserve(Sequence& sequence, int count) {
  const int first = sequence.computed_, end = first + count;
  for (const KvGroup group : {KvGroup::kFull, KvGroup::kSliding}) {
    std::optional<BlockCopy> copy;
    if (!sequence.tables_[static_cast<size_t>(group)].Reserve(first, end, &copy)) {
      sequence.tables_[static_cast<size_t>(KvGroup::kFull)].Truncate(first);
      return false;
    }
    if (copy.has_value()) kv_.CopyBlock(group, copy->from, copy->to);
  }
  return true;
}

void ModelRunner::Attach(Sequence& sequence, const PrefixCache::State& state) {
  GPTOSS_CHECK(sequence.computed_ == 0);
  sequence.tables_[static_cast<size_t>(KvGroup::kFull)].Share(0, state.full);
  sequence.tables_[static_cast<size_t>(KvGroup::kSliding)].Share(state.first_sliding, state.sliding);
  sequence.computed_ = state.length;
}

Status ModelRunner::Restore(Sequence& sequence, int length, std::span<const int32_t> shared,
                            const std::function<Status()>& fill) {
  GPTOSS_CHECK(sequence.computed_ == 0);
  BlockTable& full = sequence.tables_[static_cast<size_t>(KvGroup::kFull)];
  BlockTable& sliding = sequence.tables_[static_cast<size_t>(KvGroup::kSliding)];
  full.Share(0, shared);
  const int first = std::max(0, length - model_.config().sliding_window + 1);
  Status status;
  if (full.Reserve(static_cast<int>(shared.size()) * kKvBlockSize, length) && sliding.Reserve(first, length)) {
    status = fill();
  } else {
    status = ResourceExhausted("no cache blocks left");
  }
  if (status.ok()) {
    sequence.computed_ = length;
  } else {
    Release(sequence);
  }
  return status;
}

void ModelRunner::Release(Sequence& sequence) {
  for (BlockTable& table : sequence.tables_) table.Clear();
  sequence.computed_ = 0;
}

Status ModelRunner::AddToBatch(const StepItem& item, ForwardBatch* batch) {
  Sequence& sequence = *item.sequence;
  const int first = sequence.computed_, end = first + item.count;
  GPTOSS_CHECK(item.count > 0 && item.logits <= item.count && end <= static_cast<int>(sequence.tokens_.size()));
  GPTOSS_RETURN_IF_ERROR(CheckTokens(sequence, end));
  if (!Reserve(sequence, item.count)) {
    return ResourceExhausted("no cache blocks left: " + std::to_string(options_.max_sequences) +
                             " sequences of this context were planned for");
  }
  batch->sequences.push_back({batch->rows(), item.count, first});
  for (int position = first; position < end; ++position) {
    if (position >= end - item.logits) batch->logit_rows.push_back(batch->rows());
    batch->tokens.push_back(sequence.tokens_[position]);
    batch->positions.push_back(position);
    if (model_.has_adapter_choice()) batch->adapters.push_back(ActiveOwners(sequence));
  }
  for (int g = 0; g < kNumKvGroups; ++g) {
    for (int position = first; position < end; ++position) {
      batch->kv[g].slots.push_back(sequence.tables_[g].Slot(position));
    }
  }
  return Status();
}

namespace {

/// Writes the block tables of all sequences as one matrix.
void FillBlockTables(std::span<const std::span<const int32_t>> tables, KvGroupBatch* group) {
  size_t widest = 1;
  for (const auto& table : tables) widest = std::max(widest, table.size());
  group->blocks_per_sequence = static_cast<int>(widest);
  group->block_tables.assign(tables.size() * widest, BlockTable::kReleased);
  for (size_t s = 0; s < tables.size(); ++s) {
    std::copy(tables[s].begin(), tables[s].end(), group->block_tables.begin() + static_cast<int64_t>(s * widest));
  }
}

}  // namespace

Status ModelRunner::Advance(std::span<const StepItem> items, const StepCallbacks& callbacks, ActivationHook* hook) {
  ForwardBatch batch;
  std::array<std::vector<std::span<const int32_t>>, kNumKvGroups> tables;
  for (const StepItem& item : items) {
    GPTOSS_RETURN_IF_ERROR(AddToBatch(item, &batch));
    for (int g = 0; g < kNumKvGroups; ++g) tables[g].push_back(item.sequence->tables_[g].blocks());
  }
  for (int g = 0; g < kNumKvGroups; ++g) FillBlockTables(tables[g], &batch.kv[g]);
  ScratchFrame frame(scratch_);
  float* hidden = scratch_.Allocate<float>(batch.logit_rows.size() * static_cast<size_t>(model_.config().hidden_size));
  model_.Forward(context_, batch, kv_, hidden, hook);
  for (size_t i = 0; i < items.size(); ++i) FinishItem(items[i], i, callbacks);
  return GiveLogits(items, hidden, callbacks);
}

void ModelRunner::FinishItem(const StepItem& item, size_t index, const StepCallbacks& callbacks) {
  Sequence& sequence = *item.sequence;
  sequence.computed_ += item.count;
  if (callbacks.on_computed != nullptr) callbacks.on_computed(index);
  tokens_since_release_ += item.count;
  if (tokens_since_release_ >= kReleaseInterval) {
    model_.weights().ReleaseMappedPages();
    tokens_since_release_ = 0;
  }
  const int first_needed = sequence.computed_ - options_.rewind_tokens - model_.config().sliding_window + 1;
  sequence.tables_[static_cast<int>(KvGroup::kSliding)].ReleaseBefore(std::max(0, first_needed));
}

Status ModelRunner::GiveLogits(std::span<const StepItem> items, const float* hidden, const StepCallbacks& callbacks) {
  const auto width = static_cast<size_t>(model_.config().hidden_size);
  const auto vocab = static_cast<size_t>(model_.config().vocab_size);
  std::vector<std::pair<size_t, int>> wanted;  // item and position
  for (size_t i = 0; i < items.size(); ++i) {
    const int end = items[i].sequence->computed_;
    for (int position = end - items[i].logits; position < end; ++position) wanted.emplace_back(i, position);
  }
  float* logits = scratch_.Allocate<float>(std::min<size_t>(wanted.size(), kLogitRows) * vocab);
  for (size_t first = 0; first < wanted.size(); first += kLogitRows) {
    const size_t n = std::min<size_t>(kLogitRows, wanted.size() - first);
    std::vector<uint32_t> adapters;
    for (size_t i = first; model_.has_adapter_choice() && i < first + n; ++i) {
      adapters.push_back(ActiveOwners(*items[wanted[i].first].sequence));
    }
    model_.Unembed(context_, hidden + first * width, static_cast<int64_t>(n), logits, adapters);
    for (size_t i = 0; i < n; ++i) {
      const auto [item, position] = wanted[first + i];
      if (model_.ops().logits == nullptr) {
        HostLogits row({logits + i * vocab, vocab}, &sampling_memory_.weights);
        GPTOSS_RETURN_IF_ERROR(callbacks.on_logits(item, position, row));
      } else {
        DeviceLogits row(context_, *model_.ops().logits, logits + i * vocab, vocab, &sampling_memory_);
        GPTOSS_RETURN_IF_ERROR(callbacks.on_logits(item, position, row));
      }
    }
  }
  return Status();
}

Status ModelRunner::Compute(Sequence& sequence, int first_logits, const LogitSink& sink, ActivationHook* hook,
                            const std::function<bool()>& go_on) {
  const int end = static_cast<int>(sequence.tokens_.size());
  GPTOSS_RETURN_IF_ERROR(CheckTokens(sequence, end));
  const StepCallbacks callbacks{
      .on_logits = [&](size_t, int position, LogitRow& logits) { return sink(position, logits); },
      .on_computed = nullptr};
  while (sequence.computed_ < end) {
    if (go_on != nullptr && !go_on()) return Cancelled("cancelled");
    const int first = sequence.computed_, count = std::min(options_.chunk_tokens, end - first);
    const StepItem item{&sequence, count, std::clamp(first + count - first_logits, 0, count)};
    GPTOSS_RETURN_IF_ERROR(Advance({&item, 1}, callbacks, hook));
  }
  return Status();
}

void ModelRunner::Truncate(Sequence& sequence, int length) {
  sequence.tokens_.resize(std::min<size_t>(sequence.tokens_.size(), static_cast<size_t>(length)));
  if (length >= sequence.computed_) return;
  sequence.computed_ = length;
  BlockTable& sliding = sequence.tables_[static_cast<int>(KvGroup::kSliding)];
  // The next token sees the last window - 1 positions; if a block of them is gone, all must be computed anew.
  if (!sliding.Covers(std::max(0, length - model_.config().sliding_window + 1), length)) sequence.computed_ = 0;
  for (BlockTable& table : sequence.tables_) table.Truncate(sequence.computed_);
}

}  // namespace gptoss
