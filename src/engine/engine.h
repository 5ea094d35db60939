// Many requests on one model: a thread of its own owns the runner, decides at every step which sequences advance
// (scheduler.h), computes them in one forward pass, samples, and tells each request's listener.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/constraint.h"
#include "engine/model_runner.h"
#include "sampling/sampler.h"

namespace gptoss {

using RequestId = uint64_t;

struct EngineRequest {
  std::vector<int32_t> prompt;  // at least one token
  SamplingParams sampling;
  int max_tokens = 1 << 30;                     // clamped to what the context leaves
  std::vector<int32_t> stop_tokens;             // end the output; the stop token itself is part of it
  std::unique_ptr<TokenConstraint> constraint;  // null: anything
  int adapter = 0;                              // Sequence::adapter
  std::optional<std::chrono::steady_clock::time_point> deadline;
  /// Lengths of the prompt, ascending, at which later prompts are likely to branch off (the ends of user turns and of
  /// finals): there the state of the sliding layers is kept for them.
  std::vector<int> checkpoints;
  bool detect_repetition = true;
};

enum class FinishReason : uint8_t {
  kStopToken,
  kConstraintEnd,  // the output is whole, and nothing may follow
  kMaxTokens,      // also where the constraint ended the output so as to keep within a limit
  kContextFull,
  kRepetition,  // the output had fallen into a loop
  kListener,    // OnToken said so
  kCancelled,
  kDeadline,
  kFailed,  // `status` says why
};

struct EngineUsage {
  int prompt_tokens = 0;
  int cached_tokens = 0;  // of them, not computed anew
  int output_tokens = 0;
  double queue_s = 0, prefill_s = 0, decode_s = 0;
};

struct EngineFinish {
  FinishReason reason = FinishReason::kFailed;
  Status status;
  EngineUsage usage;
};

/// Called on the engine's thread, in order, OnFinish exactly once and last; must not block and must not call the
/// engine, except Cancel.
class EngineListener {
 public:
  virtual ~EngineListener() = default;
  /// False ends the request with kListener; the token counts as output.
  virtual bool OnToken(const SampledToken& token) = 0;
  virtual void OnFinish(const EngineFinish& finish) = 0;
};

struct EngineOptions {
  int max_running = 16;     // sequences in one step
  int max_waiting = 2048;   // beyond them Submit refuses
  int max_speculation = 0;  // tokens proposed for a sequence that runs alone (speculation.h); 0: off
  /// For prefixes of earlier requests; 0: nothing is kept. RunnerOptions::cache_bytes plans the memory.
  uint64_t cache_bytes = 0;
  /// Folder in which the prefixes outlast the process, with what it may grow to; empty: none. Needs cache_bytes.
  std::string cache_dir{};
  uint64_t cache_dir_bytes = 8ull << 30;
};

struct EngineStats {
  int running = 0, waiting = 0;
  uint64_t requests = 0, finished = 0, preemptions = 0;
  uint64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0, steps = 0;
  uint64_t prompts = 0, cached_prompts = 0;                          // entered; of them, those that began with a prefix
  int kv_blocks = 0, kv_blocks_used = 0;                             // of the full layers; those of the cache are used
  int cache_blocks = 0;                                              // of them, those of the cache
  uint64_t cache_bytes = 0;                                          // of memory, windows included
  int cache_checkpoints = 0;                                         // places where a later prompt can go on
  uint64_t stored_files = 0, stored_bytes = 0, stored_rejected = 0;  // of cache_dir; rejected: damaged, so removed
};

/// All methods may be called from any thread.
class Engine {
 public:
  /// `runner` must outlive the engine and is the engine's alone meanwhile. On failure: kInvalidArgument, or kIo naming
  /// the cache folder.
  static Result<std::unique_ptr<Engine>> Create(ModelRunner& runner, const EngineOptions& options);
  virtual ~Engine() = default;  // cancels what is left; listeners hear of it

  /// On failure: kInvalidArgument (an empty prompt, a token outside the vocabulary, an adapter that is not there, a
  /// sampling parameter, a prompt that leaves no room in the context), kResourceExhausted when the queue is full,
  /// kCancelled when the engine is draining; the listener is then never called.
  virtual Result<RequestId> Submit(EngineRequest request, std::shared_ptr<EngineListener> listener) = 0;
  /// Ends the request with kCancelled at the next step; nothing when it is over.
  virtual void Cancel(RequestId id) = 0;
  /// Refuses new requests from now on and waits, at most until `deadline`, for the others; what is left is cancelled.
  virtual void Drain(std::chrono::steady_clock::time_point deadline) = 0;
  virtual EngineStats stats() const = 0;
  virtual int max_context() const = 0;
};

}  // namespace gptoss
