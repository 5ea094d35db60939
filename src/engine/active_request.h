// A request while it is in the engine: what it may say next, what it has said, and why it ends.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/speculation.h"
#include "grammar/repetition.h"

namespace gptoss {

class ActiveRequest {
 public:
  using Clock = std::chrono::steady_clock;

  ActiveRequest(RequestId id, EngineRequest request, std::shared_ptr<EngineListener> listener, int max_context,
                int vocab);

  RequestId id() const { return id_; }
  int prompt_tokens() const { return usage_.prompt_tokens; }
  int adapter() const { return request_.adapter; }
  bool ended() const { return finish_.has_value(); }
  bool Expired(Clock::time_point now) const { return request_.deadline.has_value() && now >= *request_.deadline; }

  /// Gives the request the empty `sequence`, to which it appends the prompt. Called before all that follow.
  void Start(std::unique_ptr<Sequence> sequence);
  Sequence& sequence() { return *sequence_; }
  /// Lengths after which the state is worth keeping, ascending.
  const std::vector<int>& checkpoints() const { return request_.checkpoints; }
  /// One more of them; less than the prompt has tokens.
  void AddCheckpoint(int length);

  /// The request begins to run; `cached` leading tokens need not be computed. Only the first call counts, which says
  /// true.
  bool OnEnter(int cached);
  /// Appends to the sequence, of which one token is to be computed, up to `most` tokens that are likely to follow it.
  /// Returns how many.
  int Propose(int most);
  /// Takes the logits of the position after all known tokens, then, as long as what was proposed holds, of those after
  /// them: samples a token and tells the listener. Sets the reason to end, if there is one now. Returns how many tokens
  /// the output has more than before.
  unsigned OnLogits(LogitRow& logits);
  /// After a step of `seconds`, successful or not: the sequence loses what was proposed and did not hold, and gets what
  /// was sampled.
  void OnStepEnd(ModelRunner& runner, double seconds);
  /// Ends the request, unless something ended it before.
  void End(FinishReason reason, Status status = Status());
  /// Tells the listener the end, once. The request must have ended.
  void TellFinish();
  const EngineUsage& usage() const { return usage_; }

 private:
  Result<SampledToken> Sample(LogitRow& logits);
  bool ConstraintEnded() const { return request_.constraint != nullptr && request_.constraint->Ended(); }
  void Deliver(const SampledToken& token);

  const RequestId id_;
  EngineRequest request_;
  const std::shared_ptr<EngineListener> listener_;
  const int max_output_;  // that the context leaves
  const int vocab_;
  Sampler sampler_;
  std::optional<RepetitionDetector> repetition_;
  std::unique_ptr<Sequence> sequence_;
  std::vector<uint64_t> mask_;  // of the constraint
  Clock::time_point submitted_, entered_, decoding_;
  std::optional<SpeculationController> controller_;  // once something is to be proposed
  Proposal proposal_;                                // in the sequence, not yet known to hold
  std::vector<int32_t> sampled_;                     // in this step
  bool has_entered_ = false;
  EngineUsage usage_;
  std::optional<EngineFinish> finish_;
  bool told_ = false;
};

}  // namespace gptoss
