#include "engine/constraint.h"

#include <algorithm>
#include <string>

#include "base/check.h"

namespace gptoss {
namespace {

/// The mask of the model's vocabulary.
Status FillVocabularyMask(const TokenConstraint& constraint, size_t vocab, std::vector<uint64_t>* mask) {
  mask->assign(std::max((vocab + 63) / 64, constraint.mask_words()), 0);
  GPTOSS_RETURN_IF_ERROR(constraint.FillMask(std::span(*mask).first(constraint.mask_words())));
  // The tokenizer may know tokens that the model does not.
  mask->resize((vocab + 63) / 64);
  if (vocab % 64 != 0) mask->back() &= (uint64_t{1} << (vocab % 64)) - 1;
  if (std::ranges::any_of(*mask, [](uint64_t word) { return word != 0; })) return Status();
  return Unsupported("no token of the model's vocabulary (" + std::to_string(vocab) +
                     " tokens) can continue what the grammar asks for: the tokenizer does not belong to the model");
}

}  // namespace

bool GrammarConstraint::IsStop(int32_t token) const {
  return std::ranges::find(stop_tokens_, token) != stop_tokens_.end();
}

Status GrammarConstraint::FillMask(std::span<uint64_t> mask) const {
  GPTOSS_RETURN_IF_ERROR(matcher_.FillMask(mask));
  const bool may_end = matcher_.IsComplete();
  for (const int32_t token : stop_tokens_) {
    const auto word = static_cast<size_t>(token) / 64;
    if (token < 0 || word >= mask.size()) continue;
    const uint64_t bit = uint64_t{1} << (token % 64);
    // A stop token that is text as well would end the output in the middle.
    mask[word] = may_end ? mask[word] | bit : mask[word] & ~bit;
  }
  return Status();
}

Result<bool> GrammarConstraint::Accept(int32_t token) {
  if (stopped_) return false;
  if (!IsStop(token)) return matcher_.Accept(token);
  stopped_ = matcher_.IsComplete();
  return stopped_;
}

void GrammarConstraint::Rollback(size_t n) {
  if (n > 0 && stopped_) {
    stopped_ = false;
    --n;
  }
  matcher_.Rollback(n);
}

std::vector<int32_t> GrammarConstraint::Forced() {
  // An error will come again, and be told, when the mask is asked for.
  auto tokens = matcher_.ForcedTokens();
  return tokens.ok() ? *std::move(tokens) : std::vector<int32_t>();
}

std::vector<int32_t> TurnConstraint::Forced() {
  constexpr size_t kMost = 16;  // the longest way between two contents is shorter
  std::vector<int32_t> tokens;
  while (tokens.size() < kMost && !matcher_.IsComplete()) {
    const Result<TokenId> token = matcher_.ForcedToken();
    if (!token.ok() || *token < 0) break;
    const Result<bool> accepted = matcher_.Accept(*token);
    if (!accepted.ok() || !*accepted) break;
    tokens.push_back(*token);
  }
  matcher_.Rollback(tokens.size());
  return tokens;
}

Result<SampledToken> SampleNext(Sampler& sampler, TokenConstraint* constraint, uint64_t position, size_t known_tokens,
                                LogitRow& logits, std::vector<uint64_t>* mask) {
  if (constraint != nullptr) GPTOSS_RETURN_IF_ERROR(FillVocabularyMask(*constraint, logits.size(), mask));
  GPTOSS_ASSIGN_OR_RETURN(SampledToken token, sampler.Sample(logits, position, *mask));
  if (!token.finite) {
    return CorruptData("the model gave no finite logit after " + std::to_string(known_tokens) +
                       " tokens: its weights are damaged (gptoss verify, or fetch them again)");
  }
  sampler.Accept(token.id);
  if (constraint != nullptr) {
    GPTOSS_ASSIGN_OR_RETURN(const bool legal, constraint->Accept(token.id));
    GPTOSS_CHECK(legal);
  }
  return token;
}

}  // namespace gptoss
