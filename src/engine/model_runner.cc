#include "engine/model_runner.h"

#include <algorithm>
#include <string>

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
  // The n = window - 1 + rewind + chunk positions in use touch at most (n - 2) / block + 2 blocks, whatever the border.
  const int sliding_positions =
      std::min(options.max_context, config.sliding_window + options.chunk_tokens + options.rewind_tokens);
  plan.capacity.sliding_blocks = options.max_sequences * (CeilDiv(sliding_positions, kKvBlockSize) + 1);
  plan.capacity.full_blocks = options.max_sequences * CeilDiv(options.max_context, kKvBlockSize);
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

Result<std::unique_ptr<ModelRunner>> ModelRunner::Create(const GptOss& model, ThreadPool& pool,
                                                         const RunnerOptions& options) {
  if (options.max_context < 1 || options.max_context > model.config().max_context) {
    return InvalidArgument("context of " + std::to_string(options.max_context) + " tokens: this model has 1 to " +
                           std::to_string(model.config().max_context));
  }
  const RunnerPlan plan = PlanRunner(model.config(), options);
  GPTOSS_ASSIGN_OR_RETURN(KvMemory kv, KvMemory::Allocate(model.config(), options.kv_dtype, plan.capacity));
  return std::unique_ptr<ModelRunner>(new ModelRunner(model, pool, options, plan, std::move(kv)));
}

ModelRunner::ModelRunner(const GptOss& model, ThreadPool& pool, const RunnerOptions& options, const RunnerPlan& plan,
                         KvMemory kv)
    : model_(model),
      options_(options),
      sliding_pool_(plan.capacity.sliding_blocks),
      full_pool_(plan.capacity.full_blocks),
      kv_(std::move(kv)),
      context_{pool, scratch_} {}

std::unique_ptr<Sequence> ModelRunner::NewSequence() {
  return std::unique_ptr<Sequence>(new Sequence(&sliding_pool_, &full_pool_));
}

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

Status ModelRunner::AddToBatch(Sequence& sequence, int count, ForwardBatch* batch) {
  const int first = sequence.computed_, end = first + count;
  batch->sequences.push_back({batch->rows(), count, first});
  for (int position = first; position < end; ++position) {
    batch->tokens.push_back(sequence.tokens_[position]);
    batch->positions.push_back(position);
  }
  for (int g = 0; g < kNumKvGroups; ++g) {
    BlockTable& table = sequence.tables_[g];
    if (!table.Reserve(first, end)) {
      return ResourceExhausted("no cache blocks left: " + std::to_string(options_.max_sequences) +
                               " sequences of this context were planned for");
    }
    for (int position = first; position < end; ++position) batch->kv[g].slots.push_back(table.Slot(position));
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

void ModelRunner::FinishChunk(Sequence& sequence, int count) {
  sequence.computed_ += count;
  tokens_since_release_ += count;
  if (tokens_since_release_ >= kReleaseInterval) {
    model_.weights().ReleaseMappedPages();
    tokens_since_release_ = 0;
  }
  const int first_needed = sequence.computed_ - options_.rewind_tokens - model_.config().sliding_window + 1;
  sequence.tables_[static_cast<int>(KvGroup::kSliding)].ReleaseBefore(std::max(0, first_needed));
}

Status ModelRunner::Compute(Sequence& sequence, int first_logits, const LogitSink& sink, ActivationHook* hook,
                            const std::function<bool()>& go_on) {
  const int end = static_cast<int>(sequence.tokens_.size());
  const int hidden_size = model_.config().hidden_size, vocab = model_.config().vocab_size;
  GPTOSS_RETURN_IF_ERROR(CheckTokens(sequence, end));
  while (sequence.computed_ < end) {
    if (go_on != nullptr && !go_on()) return Cancelled("cancelled");
    const int first = sequence.computed_, count = std::min(options_.chunk_tokens, end - first);
    ForwardBatch batch;
    GPTOSS_RETURN_IF_ERROR(AddToBatch(sequence, count, &batch));
    for (int g = 0; g < kNumKvGroups; ++g) {
      const std::span<const int32_t> table = sequence.tables_[g].blocks();
      FillBlockTables({&table, 1}, &batch.kv[g]);
    }
    for (int position = std::max(first, first_logits); position < first + count; ++position) {
      batch.logit_rows.push_back(position - first);
    }
    const auto rows = static_cast<int>(batch.logit_rows.size());
    ScratchFrame frame(scratch_);
    float* hidden = scratch_.Allocate<float>(static_cast<size_t>(rows) * hidden_size);
    model_.Forward(context_, batch, kv_, hidden, hook);
    FinishChunk(sequence, count);
    float* logits = scratch_.Allocate<float>(static_cast<size_t>(std::min(rows, kLogitRows)) * vocab);
    for (int row = 0; row < rows; row += kLogitRows) {
      const int n = std::min(kLogitRows, rows - row);
      model_.Unembed(context_, hidden + static_cast<int64_t>(row) * hidden_size, n, logits);
      for (int i = 0; i < n; ++i) {
        GPTOSS_RETURN_IF_ERROR(sink(first + batch.logit_rows[row + i],
                                    {logits + static_cast<int64_t>(i) * vocab, static_cast<size_t>(vocab)}));
      }
    }
  }
  return Status();
}

Status ModelRunner::Step(std::span<Sequence* const> sequences, std::span<float> logits) {
  ForwardBatch batch;
  std::array<std::vector<std::span<const int32_t>>, kNumKvGroups> tables;
  for (Sequence* sequence : sequences) {
    const int end = static_cast<int>(sequence->tokens_.size());
    if (end != sequence->computed_ + 1) return InvalidArgument("a step takes sequences with one token to compute");
    GPTOSS_RETURN_IF_ERROR(CheckTokens(*sequence, end));
    GPTOSS_RETURN_IF_ERROR(AddToBatch(*sequence, 1, &batch));
    batch.logit_rows.push_back(batch.rows() - 1);
    for (int g = 0; g < kNumKvGroups; ++g) tables[g].push_back(sequence->tables_[g].blocks());
  }
  for (int g = 0; g < kNumKvGroups; ++g) FillBlockTables(tables[g], &batch.kv[g]);
  ScratchFrame frame(scratch_);
  float* hidden = scratch_.Allocate<float>(sequences.size() * model_.config().hidden_size);
  model_.Forward(context_, batch, kv_, hidden);
  for (Sequence* sequence : sequences) FinishChunk(*sequence, 1);
  model_.Unembed(context_, hidden, static_cast<int64_t>(sequences.size()), logits.data());
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
