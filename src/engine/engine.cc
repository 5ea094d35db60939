#include "engine/engine.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "engine/active_request.h"
#include "engine/model_fingerprint.h"
#include "engine/prefix_store.h"
#include "engine/scheduler.h"
#include "engine/step_budget.h"

namespace gptoss {
namespace {

using Clock = std::chrono::steady_clock;

std::unique_ptr<PrefixCache> MakeCache(ModelRunner& runner, const EngineOptions& options) {
  if (options.cache_bytes == 0) return nullptr;
  const ModelConfig& config = runner.model().config();
  const KvCapacity capacity = PrefixCacheCapacity(config, runner.options().kv_dtype, options.cache_bytes);
  return std::make_unique<PrefixCache>(&runner.block_pool(KvGroup::kFull), &runner.block_pool(KvGroup::kSliding),
                                       PrefixCacheLimits{.block_size = kKvBlockSize,
                                                         .window = config.sliding_window,
                                                         .max_full_blocks = capacity.full_blocks,
                                                         .max_sliding_blocks = capacity.sliding_blocks});
}

/// Null when no folder is wanted.
Result<std::unique_ptr<PrefixStore>> OpenStore(const ModelRunner& runner, const EngineOptions& options) {
  if (options.cache_dir.empty()) return std::unique_ptr<PrefixStore>();
  if (options.cache_bytes == 0) return InvalidArgument("a cache folder needs cache memory, and that is 0 bytes");
  return PrefixStore::Open({.directory = options.cache_dir,
                            .model = ModelFingerprint(runner.model(), runner.options().kv_dtype),
                            .max_bytes = options.cache_dir_bytes,
                            .window = runner.model().config().sliding_window,
                            .full_block_bytes = runner.BlockBytes(KvGroup::kFull),
                            .sliding_block_bytes = runner.BlockBytes(KvGroup::kSliding)});
}

class EngineImpl : public Engine, private KvSpace {
 public:
  EngineImpl(ModelRunner& runner, const EngineOptions& options, std::unique_ptr<PrefixStore> store)
      : runner_(runner),
        options_(options),
        max_proposed_(std::min({options.max_speculation, runner.options().rewind_tokens,
                                runner.options().chunk_tokens - 1, runner.model().ops().invariant_rows - 1})),
        budget_(std::max(runner.options().chunk_tokens, options.max_running)),
        scheduler_(this, options.max_running),
        cache_(MakeCache(runner, options)),
        store_(std::move(store)) {
    Publish();
    thread_ = std::thread([this] { Loop(); });
  }
  ~EngineImpl() override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      draining_ = stop_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }
  EngineImpl(const EngineImpl&) = delete;
  EngineImpl& operator=(const EngineImpl&) = delete;

  Result<RequestId> Submit(EngineRequest request, std::shared_ptr<EngineListener> listener) override;
  void Cancel(RequestId id) override;
  void Drain(Clock::time_point deadline) override;
  EngineStats stats() const override;
  int max_context() const override { return runner_.options().max_context; }

 private:
  using Requests = std::map<RequestId, std::unique_ptr<ActiveRequest>>;

  // On the engine's thread.
  void Loop();
  /// Waits for something to do. False: the engine stops.
  bool Receive();
  void Step();
  void Compute(const Scheduler::Step& step);
  /// Tells the ends, forgets the requests.
  void Sweep();
  void Publish();

  // KvSpace.
  int Enter(uint64_t id) override;
  bool Reserve(uint64_t id, int count) override;
  void Leave(uint64_t id) override;
  int64_t FreeTokens() const override;
  /// Reads from the store what `sequence` needs in order to go on after `length` tokens. On failure: nothing is
  /// computed of it.
  Status Restore(Sequence& sequence, int length);
  /// What the first `length` tokens are called in the cache: with another adapter the same tokens have other keys and
  /// values, so the first one's number says which it was.
  std::vector<int32_t> CacheKey(const Sequence& sequence, size_t length) const;
  /// Keeps the state after the first `length` tokens of the sequence for later prompts.
  void Keep(const Sequence& sequence, int length);

  Status Validate(const EngineRequest& request) const;

  ModelRunner& runner_;
  const EngineOptions options_;
  const int max_proposed_;  // tokens; what Truncate can take back, and a row alone would compute alike

  mutable std::mutex mutex_;  // guards what follows, up to the next comment
  std::condition_variable wake_, finished_;
  std::vector<std::unique_ptr<ActiveRequest>> arrivals_;
  std::vector<RequestId> cancelled_;
  bool draining_ = false, cancel_all_ = false, stop_ = false;
  RequestId next_id_ = 1;
  int open_ = 0;  // submitted, and the listener not yet done with hearing of the end
  EngineStats stats_;

  // The engine's thread alone.
  Requests requests_;
  StepBudget budget_;
  Scheduler scheduler_;
  std::unique_ptr<PrefixCache> cache_;  // null: nothing is kept
  std::unique_ptr<PrefixStore> store_;  // null: what is kept is in memory only
  EngineStats counts_;

  std::thread thread_;
};

Status EngineImpl::Validate(const EngineRequest& request) const {
  const int vocab = runner_.model().config().vocab_size;
  if (request.prompt.empty()) return InvalidArgument("the prompt is empty");
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    if (request.prompt[i] >= 0 && request.prompt[i] < vocab) continue;
    return InvalidArgument("token " + std::to_string(request.prompt[i]) + " at position " + std::to_string(i) +
                           " of the prompt is outside the model's vocabulary of " + std::to_string(vocab));
  }
  if (request.prompt.size() >= static_cast<size_t>(max_context())) {
    return InvalidArgument("the prompt has " + std::to_string(request.prompt.size()) +
                           " tokens, which leaves no room in the context of " + std::to_string(max_context()));
  }
  const AdapterWeights* adapters = runner_.model().adapter();
  const int owners = adapters == nullptr ? 1 : adapters->owners();
  if (request.adapter < 0 || request.adapter >= owners) {
    return InvalidArgument("adapter " + std::to_string(request.adapter) + ": there are " + std::to_string(owners - 1));
  }
  if (request.max_tokens < 1) return InvalidArgument("max_tokens must be at least 1");
  return ValidateSampling(request.sampling, vocab);
}

Result<RequestId> EngineImpl::Submit(EngineRequest request, std::shared_ptr<EngineListener> listener) {
  GPTOSS_RETURN_IF_ERROR(Validate(request));
  RequestId id;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (draining_) return Cancelled("the engine is shutting down");
    if (open_ >= options_.max_running + options_.max_waiting) {
      return ResourceExhausted("the queue is full: " + std::to_string(open_) + " requests are open");
    }
    id = next_id_++;
    ++open_;
    arrivals_.push_back(std::make_unique<ActiveRequest>(id, std::move(request), std::move(listener), max_context(),
                                                        runner_.model().config().vocab_size));
  }
  wake_.notify_all();
  return id;
}

void EngineImpl::Cancel(RequestId id) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    cancelled_.push_back(id);
  }
  wake_.notify_all();
}

void EngineImpl::Drain(Clock::time_point deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  draining_ = true;
  if (finished_.wait_until(lock, deadline, [&] { return open_ == 0; })) return;
  cancel_all_ = true;
  wake_.notify_all();
  finished_.wait(lock, [&] { return open_ == 0; });
}

EngineStats EngineImpl::stats() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  EngineStats stats = stats_;
  stats.requests = next_id_ - 1;
  stats.waiting = static_cast<int>(stats.requests - stats.finished) - stats.running;
  return stats;
}

void EngineImpl::Loop() {
  while (Receive()) {
    Sweep();
    if (requests_.empty()) continue;
    Step();
    Sweep();
  }
  for (auto& [id, request] : requests_) request->End(FinishReason::kCancelled);
  Sweep();
}

bool EngineImpl::Receive() {
  std::vector<std::unique_ptr<ActiveRequest>> arrivals;
  std::vector<RequestId> cancelled;
  bool cancel_all, stop;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [&] { return stop_ || cancel_all_ || !arrivals_.empty() || !requests_.empty(); });
    arrivals.swap(arrivals_);
    cancelled.swap(cancelled_);
    cancel_all = std::exchange(cancel_all_, false);
    stop = stop_;
  }
  for (auto& request : arrivals) {
    request->Start(runner_.NewSequence(request->adapter()));
    scheduler_.Add(request->id(), request->prompt_tokens());
    requests_.emplace(request->id(), std::move(request));
  }
  for (const RequestId id : cancelled) {
    if (const auto found = requests_.find(id); found != requests_.end()) found->second->End(FinishReason::kCancelled);
  }
  const auto now = Clock::now();
  for (auto& [id, request] : requests_) {
    if (cancel_all) request->End(FinishReason::kCancelled);
    if (request->Expired(now)) request->End(FinishReason::kDeadline);
  }
  return !stop;
}

int EngineImpl::Enter(uint64_t id) {
  ActiveRequest& request = *requests_.at(id);
  Sequence& sequence = request.sequence();
  if (cache_ == nullptr) return 0;
  const std::vector<int32_t> tokens = CacheKey(sequence, sequence.tokens().size());
  const int limit = static_cast<int>(tokens.size()) - 1;
  auto state = cache_->Find(tokens, limit);
  while (store_ != nullptr && sequence.computed() == 0) {
    const int stored = store_->FindLongest(tokens, limit);
    if (stored <= (state.has_value() ? state->length : 0) || !cache_->Fits(stored)) break;
    const Status status = Restore(sequence, stored);
    // Making room may have cost what had been found.
    state = cache_->Find(tokens, limit);
    if (status.code() == StatusCode::kResourceExhausted) break;
    // Any other failure has removed a file: what is left may still be of use.
  }
  if (state.has_value() && sequence.computed() == 0) runner_.Attach(sequence, *state);
  // Where this prompt leaves the way of an earlier one, others will, too.
  const int common = static_cast<int>(cache_->CommonBlocks(tokens).size()) * kKvBlockSize;
  if (common > sequence.computed() && common < request.prompt_tokens()) request.AddCheckpoint(common);
  return sequence.computed();
}

std::vector<int32_t> EngineImpl::CacheKey(const Sequence& sequence, size_t length) const {
  std::vector<int32_t> key(sequence.tokens().begin(), sequence.tokens().begin() + static_cast<int64_t>(length));
  if (!key.empty()) key[0] += sequence.adapter() * runner_.model().config().vocab_size;
  return key;
}

Status EngineImpl::Restore(Sequence& sequence, int length) {
  const std::vector<int32_t> tokens = CacheKey(sequence, static_cast<size_t>(length));
  const int entries = (length + kKvBlockSize - 1) / kKvBlockSize;
  const int first = std::max(0, length - runner_.model().config().sliding_window + 1) / kKvBlockSize;
  std::vector<int32_t> shared;
  for (;;) {
    shared = cache_->CommonBlocks(tokens);
    const int missing = entries - static_cast<int>(shared.size());
    if (runner_.block_pool(KvGroup::kFull).free_blocks() >= missing &&
        runner_.block_pool(KvGroup::kSliding).free_blocks() >= entries - first) {
      break;
    }
    if (!cache_->EvictOne()) return ResourceExhausted("no cache blocks left");
  }
  GPTOSS_RETURN_IF_ERROR(runner_.Restore(sequence, length, shared, [&] {
    return store_->Load(tokens, static_cast<int>(shared.size()),
                        [&](KvGroup group, int entry, std::span<const std::byte> bytes) {
                          runner_.WriteBlock(sequence, group, entry, bytes);
                        });
  }));
  Keep(sequence, length);
  return Status();
}

bool EngineImpl::Reserve(uint64_t id, int count) {
  Sequence& sequence = requests_.at(id)->sequence();
  while (!runner_.Reserve(sequence, count)) {
    if (cache_ == nullptr || !cache_->EvictOne()) return false;
  }
  return true;
}

void EngineImpl::Leave(uint64_t id) {
  Sequence& sequence = requests_.at(id)->sequence();
  Keep(sequence, sequence.computed());
  runner_.Release(sequence);
}

int64_t EngineImpl::FreeTokens() const {
  const int idle = cache_ == nullptr ? 0 : cache_->idle_full_blocks();
  return int64_t{runner_.block_pool(KvGroup::kFull).free_blocks() + idle} * kKvBlockSize;
}

void EngineImpl::Keep(const Sequence& sequence, int length) {
  if (cache_ == nullptr || length == 0) return;
  const std::vector<int32_t> tokens = CacheKey(sequence, static_cast<size_t>(length));
  if (!cache_->Insert(tokens, sequence.blocks(KvGroup::kFull), sequence.blocks(KvGroup::kSliding))) return;
  if (store_ == nullptr) return;
  store_->Save(tokens, [&](KvGroup group, int entry, std::span<std::byte> bytes) {
    runner_.ReadBlock(sequence, group, entry, bytes);
  });
}

void EngineImpl::Step() {
  const Scheduler::Step step = scheduler_.Plan(budget_.MaxRows(), budget_.MaxPrefillRows(scheduler_.decoding()));
  for (const uint64_t id : step.entered) {
    ActiveRequest& request = *requests_.at(id);
    if (!request.OnEnter(request.sequence().computed())) continue;
    ++counts_.prompts;
    if (request.usage().cached_tokens > 0) ++counts_.cached_prompts;
    counts_.prompt_tokens += static_cast<uint64_t>(request.usage().prompt_tokens);
    counts_.cached_tokens += static_cast<uint64_t>(request.usage().cached_tokens);
  }
  counts_.preemptions += step.preempted.size();
  if (step.rows.empty()) {
    // The pool holds at least one sequence of full length, and nobody else was in its way.
    GPTOSS_CHECK(!step.preempted.empty());
    return;
  }
  Compute(step);
  Publish();
}

void EngineImpl::Compute(const Scheduler::Step& step) {
  std::vector<StepItem> items;
  std::vector<ActiveRequest*> requests;
  int rows = 0;
  for (const Scheduler::Rows& r : step.rows) {
    requests.push_back(requests_.at(r.id).get());
    items.push_back({&requests.back()->sequence(), r.count, r.completes ? 1 : 0});
    rows += r.count;
  }
  // Beside others, proposals would cost those time: they are for one who is alone.
  if (max_proposed_ > 0 && rows == 1 && step.rows[0].completes &&
      runner_.Reserve(*items[0].sequence, 1 + max_proposed_)) {
    rows += requests[0]->Propose(max_proposed_);
    items[0].count = items[0].logits = rows;
  }
  const StepCallbacks callbacks{
      .on_logits =
          [&](size_t item, int, LogitRow& logits) {
            counts_.output_tokens += requests[item]->OnLogits(logits);
            return Status();
          },
      .on_computed =
          [&](size_t item) {
            const Sequence& sequence = *items[item].sequence;
            for (const int length : requests[item]->checkpoints()) {
              if (length > sequence.computed() - items[item].count && length <= sequence.computed()) {
                Keep(sequence, length);
              }
            }
          }};
  const auto start = Clock::now();
  const Status status = runner_.Advance(items, callbacks);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  budget_.OnStep(rows, seconds);
  ++counts_.steps;
  for (ActiveRequest* request : requests) {
    if (!status.ok()) request->End(FinishReason::kFailed, status);
    request->OnStepEnd(runner_, seconds);
    scheduler_.Update(request->id(), static_cast<int>(request->sequence().tokens().size()),
                      request->sequence().computed());
  }
}

void EngineImpl::Sweep() {
  std::vector<std::unique_ptr<ActiveRequest>> ended;
  for (auto it = requests_.begin(); it != requests_.end();) {
    if (!it->second->ended()) {
      ++it;
      continue;
    }
    scheduler_.Remove(it->first);
    ended.push_back(std::move(it->second));
    it = requests_.erase(it);
  }
  if (ended.empty()) return;
  counts_.finished += ended.size();
  Publish();
  for (const auto& request : ended) request->TellFinish();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_ -= static_cast<int>(ended.size());
  }
  finished_.notify_all();
}

void EngineImpl::Publish() {
  const BlockPool& pool = runner_.block_pool(KvGroup::kFull);
  counts_.running = scheduler_.running();
  counts_.kv_blocks = pool.size();
  if (cache_ != nullptr) {
    counts_.cache_blocks = cache_->full_blocks();
    counts_.cache_bytes = static_cast<uint64_t>(cache_->full_blocks()) * runner_.BlockBytes(KvGroup::kFull) +
                          static_cast<uint64_t>(cache_->sliding_blocks()) * runner_.BlockBytes(KvGroup::kSliding);
    counts_.cache_checkpoints = cache_->checkpoints();
  }
  counts_.kv_blocks_used = pool.size() - pool.free_blocks();
  if (store_ != nullptr) {
    const PrefixStore::Counts stored = store_->counts();
    counts_.stored_files = stored.files;
    counts_.stored_bytes = stored.bytes;
    counts_.stored_rejected = stored.rejected;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  stats_ = counts_;
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::Create(ModelRunner& runner, const EngineOptions& options) {
  if (options.max_running < 1 || options.max_waiting < 0) {
    return InvalidArgument("an engine needs room for one running sequence at least");
  }
  if (options.max_running > runner.options().max_sequences) {
    return InvalidArgument(std::to_string(options.max_running) + " running sequences: memory was planned for " +
                           std::to_string(runner.options().max_sequences));
  }
  GPTOSS_ASSIGN_OR_RETURN(auto store, OpenStore(runner, options));
  return std::unique_ptr<Engine>(new EngineImpl(runner, options, std::move(store)));
}

}  // namespace gptoss
