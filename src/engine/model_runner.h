// Runs sequences through the model: keeps their block tables, builds forward batches, cuts prompts into chunks.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/device_logits.h"
#include "kv_cache/block_pool.h"
#include "kv_cache/prefix_cache.h"
#include "model/gpt_oss.h"
#include "parallel/exec_context.h"

namespace gptoss {

struct RunnerOptions {
  int max_context = 131072;  // positions of one sequence
  int max_sequences = 1;     // in one step
  int chunk_tokens = 512;    // most tokens of one forward pass
  DType kv_dtype = DType::kBF16;
  int rewind_tokens = kKvBlockSize;  // that Truncate can take back without anything being computed anew
  int64_t total_context = 0;         // positions of all sequences together; 0: all may be at full length
  uint64_t cache_bytes = 0;          // for prefixes of earlier sequences, besides
};

/// What a runner will take, besides the weights, when all sequences are full.
struct RunnerPlan {
  KvCapacity capacity;
  uint64_t kv_bytes = 0;
  uint64_t activation_bytes = 0;
};
RunnerPlan PlanRunner(const ModelConfig& config, const RunnerOptions& options);

/// Bytes of scratch memory that a runner reserves on a device for its largest step, the plan's activations among them,
/// where ops say what they take (Ops::scratch_bytes). `brought_bytes`: of experts that passes bring from the host.
uint64_t ReservedBytes(const ModelConfig& config, const RunnerOptions& options,
                       uint64_t (*scratch_bytes)(const StepShape&), int64_t adapter_rank = 0,
                       uint64_t brought_bytes = 0);

/// The blocks of a prefix cache of `bytes`: two thirds for full layers, one for windows, so that there is room for a
/// checkpoint every 300 tokens.
KvCapacity PrefixCacheCapacity(const ModelConfig& config, DType kv_dtype, uint64_t bytes);

/// Tokens and where their keys and values are. Made by ModelRunner::NewSequence.
class Sequence {
 public:
  const std::vector<int32_t>& tokens() const { return tokens_; }
  /// Leading tokens whose keys and values are in the cache.
  int computed() const { return computed_; }
  /// Owner (AdapterWeights) that takes part beside owner 0; 0: nobody else.
  int adapter() const { return adapter_; }
  std::span<const int32_t> blocks(KvGroup group) const { return tables_[static_cast<size_t>(group)].blocks(); }
  void Append(int32_t token) { tokens_.push_back(token); }
  void Append(std::span<const int32_t> tokens) { tokens_.insert(tokens_.end(), tokens.begin(), tokens.end()); }

 private:
  friend class ModelRunner;
  Sequence(BlockPool* sliding, BlockPool* full, int adapter)
      : adapter_(adapter), tables_{BlockTable(sliding, kKvBlockSize), BlockTable(full, kKvBlockSize)} {}
  const int adapter_;
  std::vector<int32_t> tokens_;
  int computed_ = 0;
  std::array<BlockTable, kNumKvGroups> tables_;
};

/// Receives logits [V] of one position, in ascending order of position. The row is the receiver's to change, and is
/// valid during the call.
using LogitSink = std::function<Status(int position, LogitRow& logits)>;

/// What a sequence does in a step: its next `count` tokens are computed, and the logits of the last `logits` of them
/// are wanted.
struct StepItem {
  Sequence* sequence = nullptr;
  int count = 0;
  int logits = 0;
};

struct StepCallbacks {
  /// Logits [V] of a position of items[item], in the order of items and positions; as LogitSink.
  std::function<Status(size_t item, int position, LogitRow& logits)> on_logits;
  /// items[item] has been computed, and what no later token of it can see is still in the cache, but not for long.
  std::function<void(size_t item)> on_computed;
};

/// Not thread-safe: one caller at a time, which is also the one that uses the pool.
class ModelRunner {
 public:
  /// `model` and `pool` must outlive the runner. On failure: kResourceExhausted.
  static Result<std::unique_ptr<ModelRunner>> Create(const GptOss& model, ThreadPool& pool,
                                                     const RunnerOptions& options);

  /// `adapter` below AdapterWeights::kMaxOwners: Sequence::adapter.
  std::unique_ptr<Sequence> NewSequence(int adapter = 0);

  /// Computes all tokens of `sequence` that are not computed yet, in chunks, and gives the logits of the positions from
  /// `first_logits` on (those not computed before) to `sink`. On failure: kInvalidArgument for a token outside the
  /// vocabulary or a sequence longer than the context, kResourceExhausted when no cache blocks are left, or what the
  /// sink returned; chunks done before stay computed.
  /// `go_on`, when given, is asked before every chunk; false ends with kCancelled.
  Status Compute(Sequence& sequence, int first_logits, const LogitSink& sink, ActivationHook* hook = nullptr,
                 const std::function<bool()>& go_on = nullptr);

  /// One forward pass for several sequences together, prompts and single tokens alike. No sequence occurs twice. Fails
  /// like Compute; when no blocks were left, nothing has been computed.
  Status Advance(std::span<const StepItem> items, const StepCallbacks& callbacks, ActivationHook* hook = nullptr);

  /// Blocks for the next `count` tokens. False, and nothing changed, when there are not enough.
  bool Reserve(Sequence& sequence, int count);
  /// `sequence`, of which nothing is computed, goes on from what another has computed for the same first tokens.
  void Attach(Sequence& sequence, const PrefixCache::State& state);
  /// The same from bytes: the first full blocks are `shared`, the others and the window up to `length` are for `fill`
  /// to write. On failure: kResourceExhausted without enough blocks, or what `fill` returned; then nothing is computed.
  Status Restore(Sequence& sequence, int length, std::span<const int32_t> shared, const std::function<Status()>& fill);
  /// The bytes of a block that `sequence` holds, in all layers of the group (KvMemory::ReadBlock).
  void ReadBlock(const Sequence& sequence, KvGroup group, int entry, std::span<std::byte> bytes) const {
    kv_.ReadBlock(group, sequence.blocks(group)[static_cast<size_t>(entry)], bytes);
  }
  void WriteBlock(Sequence& sequence, KvGroup group, int entry, std::span<const std::byte> bytes) {
    kv_.WriteBlock(group, sequence.blocks(group)[static_cast<size_t>(entry)], bytes);
  }
  uint64_t kv_bytes() const { return kv_.bytes(); }
  /// Bytes held for steps.
  size_t scratch_bytes() const { return scratch_.capacity(); }
  uint64_t BlockBytes(KvGroup group) const { return kv_.GroupBlockBytes(group); }
  /// Gives all blocks back; the tokens stay, and all of them have to be computed anew.
  void Release(Sequence& sequence);

  /// Forgets the tokens from `length` on. Going back by at most options().rewind_tokens loses nothing else; positions
  /// whose window has been released are recomputed by the next Compute.
  void Truncate(Sequence& sequence, int length);

  const GptOss& model() const { return model_; }
  const RunnerOptions& options() const { return options_; }
  /// Times and counts what follows, until null is given. It must outlive that.
  void set_profiler(Profiler* profiler) {
    context_.profiler = profiler;
    context_.pool.set_wait_clock(profiler == nullptr ? nullptr : profiler->wait_clock());
  }
  ThreadPool& pool() { return context_.pool; }
  BlockPool& block_pool(KvGroup group) { return group == KvGroup::kFull ? full_pool_ : sliding_pool_; }

 private:
  ModelRunner(const GptOss& model, ThreadPool& pool, const RunnerOptions& options, const RunnerPlan& plan, KvMemory kv);
  /// Takes what the largest step can need where that comes from a device that may have nothing left later.
  Status ReserveScratch();
  /// Adds the next rows of a sequence to `batch`. On failure: as Compute.
  Status AddToBatch(const StepItem& item, ForwardBatch* batch);
  /// Logits of the rows batch.logit_rows, whose final-normed states are `hidden`.
  Status GiveLogits(std::span<const StepItem> items, const float* hidden, const StepCallbacks& callbacks);
  void FinishItem(const StepItem& item, size_t index, const StepCallbacks& callbacks);
  Status CheckTokens(const Sequence& sequence, int end) const;

  const GptOss& model_;
  RunnerOptions options_;
  BlockPool sliding_pool_, full_pool_;
  KvMemory kv_;
  ScratchArena scratch_, host_scratch_;
  DeviceLogits::HostMemory sampling_memory_;
  ExecContext context_;
  int tokens_since_release_ = 0;
};

}  // namespace gptoss
