#include "engine/active_request.h"

#include <algorithm>
#include <string>

namespace gptoss {
namespace {

double Seconds(std::chrono::steady_clock::duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

ActiveRequest::ActiveRequest(RequestId id, EngineRequest request, std::shared_ptr<EngineListener> listener,
                             int max_context, int vocab)
    : id_(id),
      request_(std::move(request)),
      listener_(std::move(listener)),
      max_output_(max_context - static_cast<int>(request_.prompt.size())),
      vocab_(vocab),
      sampler_(request_.sampling),
      submitted_(Clock::now()) {
  usage_.prompt_tokens = static_cast<int>(request_.prompt.size());
}

void ActiveRequest::Start(std::unique_ptr<Sequence> sequence) {
  sequence_ = std::move(sequence);
  sequence_->Append(request_.prompt);
  request_.prompt = {};
  std::erase_if(request_.checkpoints, [&](int length) { return length < 1 || length >= prompt_tokens(); });
  // The same prompt may come again, and one token of it must be computed then.
  if (prompt_tokens() > 1) AddCheckpoint(prompt_tokens() - 1);
}

void ActiveRequest::AddCheckpoint(int length) {
  std::vector<int>& lengths = request_.checkpoints;
  const auto place = std::ranges::lower_bound(lengths, length);
  if (place == lengths.end() || *place != length) lengths.insert(place, length);
}

bool ActiveRequest::OnEnter(int cached) {
  if (has_entered_) return false;
  has_entered_ = true;
  entered_ = Clock::now();
  usage_.queue_s = Seconds(entered_ - submitted_);
  usage_.cached_tokens = cached;
  if (request_.sampling.repetition_penalty != 1.0) sampler_.SetPrompt(sequence_->tokens());
  if (request_.detect_repetition) repetition_.emplace();
  return true;
}

Result<SampledToken> ActiveRequest::Sample(LogitRow& logits) {
  return SampleNext(sampler_, request_.constraint.get(), static_cast<uint64_t>(usage_.output_tokens),
                    sequence_->tokens().size(), logits, &mask_);
}

int ActiveRequest::Propose(int most) {
  if (!controller_.has_value()) controller_.emplace(most);
  // A pass gives one token more than were proposed.
  most = std::min({most, request_.max_tokens - usage_.output_tokens - 1, max_output_ - usage_.output_tokens - 1});
  if (most <= 0) return 0;
  // What must come next is worth the trust that the longest match has.
  if (request_.constraint != nullptr) proposal_ = {.tokens = request_.constraint->Forced(), .matched = 4};
  if (proposal_.tokens.empty()) proposal_ = ProposeFromHistory(sequence_->tokens(), most);
  const auto count = static_cast<size_t>(std::min(controller_->Choose(proposal_.matched), most));
  if (proposal_.tokens.size() > count) proposal_.tokens.resize(count);
  const auto bad = std::ranges::find_if(proposal_.tokens, [&](int32_t id) { return id < 0 || id >= vocab_; });
  proposal_.tokens.erase(bad, proposal_.tokens.end());
  sequence_->Append(proposal_.tokens);
  return static_cast<int>(proposal_.tokens.size());
}

unsigned ActiveRequest::OnLogits(LogitRow& logits) {
  const size_t before = sampled_.size();
  // What was proposed in place of an earlier token of this step was wrong, or nothing more is wanted.
  if (ended() || (before > 0 && sampled_.back() != proposal_.tokens[before - 1])) return 0;
  if (usage_.output_tokens == 0) {
    decoding_ = Clock::now();
    usage_.prefill_s = Seconds(decoding_ - entered_);
    if (ConstraintEnded()) {
      End(FinishReason::kConstraintEnd);
      return 0;
    }
  }
  const Result<SampledToken> token = Sample(logits);
  if (!token.ok()) {
    End(FinishReason::kFailed, token.status());
    return 0;
  }
  sampled_.push_back(token->id);
  Deliver(*token);
  return 1;
}

void ActiveRequest::OnStepEnd(ModelRunner& runner, double seconds) {
  const size_t proposed = proposal_.tokens.size(), held = sampled_.empty() ? 0 : sampled_.size() - 1;
  if (controller_.has_value() && !sampled_.empty()) {
    if (proposed == 0) {
      controller_->OnPlainStep(seconds);
    } else {
      controller_->OnSpeculativePass(proposal_.matched, static_cast<int>(proposed), static_cast<int>(held), seconds);
    }
  }
  if (proposed > 0) runner.Truncate(*sequence_, static_cast<int>(sequence_->tokens().size() - proposed + held));
  if (!sampled_.empty()) sequence_->Append(sampled_.back());
  proposal_ = {};
  sampled_.clear();
}

void ActiveRequest::Deliver(const SampledToken& token) {
  ++usage_.output_tokens;
  usage_.decode_s = Seconds(Clock::now() - decoding_);
  const bool loops = repetition_.has_value() && repetition_->Add(token.id) != RepetitionDetector::Kind::kNone;
  const bool go_on = listener_->OnToken(token);
  const bool cut = request_.constraint != nullptr && request_.constraint->CutShort();
  if (std::ranges::find(request_.stop_tokens, token.id) != request_.stop_tokens.end()) {
    End(cut ? FinishReason::kMaxTokens : FinishReason::kStopToken);
  } else if (!go_on) {
    End(FinishReason::kListener);
  } else if (ConstraintEnded()) {
    End(cut ? FinishReason::kMaxTokens : FinishReason::kConstraintEnd);
  } else if (usage_.output_tokens >= request_.max_tokens) {
    End(FinishReason::kMaxTokens);
  } else if (usage_.output_tokens >= max_output_) {
    End(FinishReason::kContextFull);
  } else if (loops) {
    End(FinishReason::kRepetition);
  }
}

void ActiveRequest::End(FinishReason reason, Status status) {
  if (!finish_.has_value()) finish_ = EngineFinish{.reason = reason, .status = std::move(status), .usage = {}};
}

void ActiveRequest::TellFinish() {
  GPTOSS_CHECK(finish_.has_value() && !told_);
  told_ = true;
  if (!has_entered_) usage_.queue_s = Seconds(Clock::now() - submitted_);
  finish_->usage = usage_;
  listener_->OnFinish(*finish_);
}

}  // namespace gptoss
