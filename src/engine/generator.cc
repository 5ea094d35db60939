#include "engine/generator.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "grammar/repetition.h"

namespace gptoss {
namespace {

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

std::string_view StopReasonName(StopReason reason) {
  switch (reason) {
    case StopReason::kStopToken:
      return "stop_token";
    case StopReason::kMaxTokens:
      return "max_tokens";
    case StopReason::kContextFull:
      return "context_full";
    case StopReason::kCallback:
      return "cancelled";
    case StopReason::kConstraintEnd:
      return "grammar_end";
    case StopReason::kRepetition:
      return "repetition";
  }
  return "?";
}

namespace {

/// One call of Generate.
class Generation {
 public:
  Generation(ModelRunner& runner, Sequence& sequence, const GenerateRequest& request, const TokenCallback& callback)
      : runner_(runner),
        sequence_(sequence),
        request_(request),
        callback_(callback),
        sampler_(request.sampling),
        max_proposed_(std::min({std::max(0, request.speculation.max_tokens), runner.options().rewind_tokens,
                                runner.options().chunk_tokens - 1, runner.model().ops().invariant_rows - 1})),
        prompt_tokens_(static_cast<int>(sequence.tokens().size())),
        controller_(max_proposed_),
        known_(prompt_tokens_) {}

  ~Generation() {
    if (request_.profile != nullptr) runner_.set_profiler(nullptr);
  }
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  Result<GenerateResult> Run();

 private:
  Status Prefill();
  Status Decode();
  /// Tokens to try after those of the sequence, all within vocabulary, context and what the request still wants.
  Proposal Propose();
  /// One forward pass; sets `sampled_` to the tokens that come next, at least one.
  Status PlainPass();
  Status SpeculativePass(const Proposal& proposal);
  /// Adds the next token to `sampled_`.
  Status Sample(LogitRow& logits);
  bool WantsTokens() const { return request_.max_tokens > 0 && !ConstraintEnded(); }
  bool ConstraintEnded() const { return request_.constraint != nullptr && request_.constraint->Ended(); }
  /// Gives out `sampled_` until one of them ends the output, and leaves in the sequence what was given out.
  void Deliver();
  /// False: the output ends with `token`.
  bool Emit(const SampledToken& token);

  ModelRunner& runner_;
  Sequence& sequence_;
  const GenerateRequest& request_;
  const TokenCallback& callback_;
  Sampler sampler_;
  const int max_proposed_, prompt_tokens_;
  SpeculationController controller_;
  std::vector<uint64_t> mask_;         // of the constraint
  int known_;                          // tokens of the sequence before the pass
  std::vector<SampledToken> sampled_;  // that come after those
  std::optional<RepetitionDetector> repetition_;
  Clock::time_point decode_start_;
  bool ended_ = false;
  GenerateResult result_;
};

Result<GenerateResult> Generation::Run() {
  if (request_.detect_repetition) repetition_.emplace();
  sampler_.SetPrompt(sequence_.tokens());
  if (request_.profile != nullptr) runner_.set_profiler(&request_.profile->prefill);
  GPTOSS_RETURN_IF_ERROR(Prefill());
  if (ended_) return std::move(result_);
  if (request_.profile != nullptr) runner_.set_profiler(&request_.profile->decode);
  GPTOSS_RETURN_IF_ERROR(Decode());
  return std::move(result_);
}

Status Generation::Prefill() {
  result_.timings.prompt_tokens = prompt_tokens_ - sequence_.computed();
  const auto start = Clock::now();
  const Status status = runner_.Compute(
      sequence_, prompt_tokens_ - 1, [&](int, LogitRow& row) { return WantsTokens() ? Sample(row) : Status(); },
      nullptr, [&] { return callback_ == nullptr || callback_(nullptr); });
  result_.timings.prefill_s = SecondsSince(start);
  if (status.code() != StatusCode::kCancelled) return status;
  result_.reason = StopReason::kCallback;
  ended_ = true;
  return Status();
}

Status Generation::Decode() {
  decode_start_ = Clock::now();
  if (sampled_.empty()) {
    if (request_.max_tokens > 0) result_.reason = StopReason::kConstraintEnd;
    return Status();
  }
  for (;;) {
    Deliver();
    if (ended_) return Status();
    const Proposal proposal = Propose();
    const auto start = Clock::now();
    if (proposal.tokens.empty()) {
      GPTOSS_RETURN_IF_ERROR(PlainPass());
      controller_.OnPlainStep(SecondsSince(start));
    } else {
      GPTOSS_RETURN_IF_ERROR(SpeculativePass(proposal));
      controller_.OnSpeculativePass(proposal.matched, static_cast<int>(proposal.tokens.size()),
                                    static_cast<int>(sampled_.size()) - 1, SecondsSince(start));
    }
    ++result_.timings.passes;
  }
}

Proposal Generation::Propose() {
  // A pass gives one token more than were proposed.
  const int wanted = request_.max_tokens - result_.timings.output_tokens - 1;
  const int room = runner_.options().max_context - known_;
  const int most = std::min({max_proposed_, wanted, room});
  if (most <= 0) return {};
  Proposal proposal;
  // What must come next is worth the trust that the longest match has.
  if (request_.constraint != nullptr) proposal = {.tokens = request_.constraint->Forced(), .matched = 4};
  if (proposal.tokens.empty()) proposal = request_.speculation.propose(sequence_.tokens(), most);
  const int count = request_.speculation.adaptive ? controller_.Choose(proposal.matched) : most;
  if (proposal.tokens.size() > static_cast<size_t>(std::min(count, most))) {
    proposal.tokens.resize(static_cast<size_t>(std::min(count, most)));
  }
  const int vocab = runner_.model().config().vocab_size;
  const auto bad = std::ranges::find_if(proposal.tokens, [&](int32_t id) { return id < 0 || id >= vocab; });
  proposal.tokens.erase(bad, proposal.tokens.end());
  return proposal;
}

Status Generation::PlainPass() {
  return runner_.Compute(sequence_, known_ - 1, [&](int, LogitRow& row) { return Sample(row); });
}

/// The row of each proposed token gives the logits of the token after it, which count as long as all before it held.
Status Generation::SpeculativePass(const Proposal& proposal) {
  const size_t proposed = proposal.tokens.size();
  sequence_.Append(proposal.tokens);
  bool holds = true;
  const Status status = runner_.Compute(sequence_, known_ - 1, [&](int, LogitRow& row) {
    if (!holds) return Status();
    GPTOSS_RETURN_IF_ERROR(Sample(row));
    const size_t n = sampled_.size();
    holds = n <= proposed && sampled_.back().id == proposal.tokens[n - 1] && !ConstraintEnded();
    return Status();
  });
  result_.timings.proposed_tokens += static_cast<int>(proposed);
  if (status.ok()) {
    result_.timings.accepted_tokens += static_cast<int>(sampled_.size()) - 1;
  } else {
    runner_.Truncate(sequence_, known_);
  }
  return status;
}

Status Generation::Sample(LogitRow& logits) {
  GPTOSS_ASSIGN_OR_RETURN(SampledToken token,
                          SampleNext(sampler_, request_.constraint, result_.tokens.size() + sampled_.size(),
                                     static_cast<size_t>(known_) + sampled_.size(), logits, &mask_));
  sampled_.push_back(std::move(token));
  return Status();
}

void Generation::Deliver() {
  int emitted = 0;
  while (!ended_ && emitted < static_cast<int>(sampled_.size())) {
    ended_ = !Emit(sampled_[emitted]);
    ++emitted;
  }
  // The constraint stands after the last sampled token, which the caller may not have wanted.
  const size_t unwanted = sampled_.size() - static_cast<size_t>(emitted);
  if (request_.constraint != nullptr && unwanted > 0) request_.constraint->Rollback(unwanted);
  // As after a plain step: the last token is not computed yet. What was proposed and held stays computed.
  runner_.Truncate(sequence_, known_ + emitted - 1);
  sequence_.Append(sampled_[emitted - 1].id);
  sampled_.clear();
  known_ += emitted;
}

bool Generation::Emit(const SampledToken& token) {
  result_.tokens.push_back(token.id);
  const int output = ++result_.timings.output_tokens;
  result_.timings.decode_s = SecondsSince(decode_start_);
  const bool go_on = callback_ == nullptr || callback_(&token);
  const bool last = &token == &sampled_.back();  // where the constraint stands
  const bool loops = repetition_ && repetition_->Add(token.id) != RepetitionDetector::Kind::kNone;
  if (std::ranges::find(request_.stop_tokens, token.id) != request_.stop_tokens.end()) {
    const bool cut = last && request_.constraint != nullptr && request_.constraint->CutShort();
    result_.reason = cut ? StopReason::kMaxTokens : StopReason::kStopToken;
  } else if (!go_on) {
    result_.reason = StopReason::kCallback;
  } else if (last && ConstraintEnded()) {
    result_.reason = request_.constraint->CutShort() ? StopReason::kMaxTokens : StopReason::kConstraintEnd;
  } else if (loops) {
    result_.reason = StopReason::kRepetition;
  } else if (output >= request_.max_tokens) {
    result_.reason = StopReason::kMaxTokens;
  } else if (prompt_tokens_ + output > runner_.options().max_context) {
    result_.reason = StopReason::kContextFull;
  } else {
    return true;
  }
  return false;
}

}  // namespace

Result<GenerateResult> Generate(ModelRunner& runner, Sequence& sequence, const GenerateRequest& request,
                                const TokenCallback& callback) {
  GPTOSS_RETURN_IF_ERROR(ValidateSampling(request.sampling, runner.model().config().vocab_size));
  if (sequence.computed() >= static_cast<int>(sequence.tokens().size())) return InvalidArgument("the prompt is empty");
  return Generation(runner, sequence, request, callback).Run();
}

}  // namespace gptoss
