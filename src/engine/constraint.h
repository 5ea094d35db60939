// What an output may be, token by token: the generator's view of a grammar.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "grammar/machine.h"
#include "grammar/turn_grammar.h"
#include "sampling/sampler.h"

namespace gptoss {

/// One sequence's place in what it may say.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;

  /// Words of a mask: a bit for every token of the tokenizer.
  virtual size_t mask_words() const = 0;
  /// Sets the bits of the tokens that may follow, clears all others. On failure: kResourceExhausted past a limit.
  virtual Status FillMask(std::span<uint64_t> mask) const = 0;
  /// False, and nothing happens, when `token` cannot follow. On failure: as FillMask.
  virtual Result<bool> Accept(int32_t token) = 0;
  /// Takes the last `n` accepted tokens back.
  virtual void Rollback(size_t n) = 0;
  /// The output is whole, and nothing may follow.
  virtual bool Ended() const = 0;
  /// A limit on tokens may have ended it rather than the model.
  virtual bool CutShort() const { return false; }
  /// Tokens worth trying, for they spell what must come next; empty where there is a choice. They need not come.
  virtual std::vector<int32_t> Forced() = 0;
};

/// The whole output is one text of a grammar. Where it may end, the stop tokens are allowed besides.
class GrammarConstraint : public TokenConstraint {
 public:
  GrammarConstraint(std::shared_ptr<Machine> machine, std::vector<int32_t> stop_tokens)
      : matcher_(std::move(machine)), stop_tokens_(std::move(stop_tokens)) {}

  size_t mask_words() const override { return matcher_.machine()->tokens().mask_words(); }
  Status FillMask(std::span<uint64_t> mask) const override;
  Result<bool> Accept(int32_t token) override;
  void Rollback(size_t n) override;
  bool Ended() const override { return stopped_ || (matcher_.IsComplete() && !matcher_.CanContinue()); }
  std::vector<int32_t> Forced() override;
  /// What was accepted is a whole text of the grammar.
  bool IsComplete() const { return matcher_.IsComplete(); }

 private:
  bool IsStop(int32_t token) const;

  Matcher matcher_;
  std::vector<int32_t> stop_tokens_;
  bool stopped_ = false;  // by a stop token, which the matcher knows nothing of
};

/// The output is a turn of the assistant.
class TurnConstraint : public TokenConstraint {
 public:
  TurnConstraint(std::shared_ptr<const TokenIndex> tokens, std::shared_ptr<const TurnGrammar> grammar)
      : tokens_(std::move(tokens)), matcher_(std::move(grammar)) {}

  size_t mask_words() const override { return tokens_->mask_words(); }
  Status FillMask(std::span<uint64_t> mask) const override { return matcher_.FillMask(mask); }
  Result<bool> Accept(int32_t token) override { return matcher_.Accept(token); }
  void Rollback(size_t n) override { matcher_.Rollback(n); }
  bool Ended() const override { return matcher_.IsComplete(); }
  bool CutShort() const override { return matcher_.CutShort(); }
  std::vector<int32_t> Forced() override;

 private:
  std::shared_ptr<const TokenIndex> tokens_;
  TurnMatcher matcher_;
};

/// Samples the token for output position `position` and moves sampler and constraint past it. A null constraint: any
/// token. known_tokens: of the sequence so far, for the message. `mask` is the caller's memory for a mask.
/// On failure: kCorruptData when no logit is finite, kUnsupported when the model has none of the tokens that may
/// follow, or as FillMask and the row.
Result<SampledToken> SampleNext(Sampler& sampler, TokenConstraint* constraint, uint64_t position, size_t known_tokens,
                                LogitRow& logits, std::vector<uint64_t>* mask);

}  // namespace gptoss
