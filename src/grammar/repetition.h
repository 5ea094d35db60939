// Notices that a sequence of tokens has fallen into a loop, exact or nearly so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace gptoss {

struct RepetitionLimits {
  /// An exact loop: the last tokens are one period again and again, at least this often and this long in all. Short
  /// periods need many tokens, since rulers and tables repeat them rightly.
  size_t min_rounds = 8;
  size_t min_tokens = 256;
  size_t max_period = 512;
  /// A near loop: of the last `window` tokens less than this share begin an n-gram that is new within the window.
  size_t window = 2048;
  size_t gram = 8;
  double min_new_share = 0.04;
};

/// Constant memory; a token costs about `max_period` comparisons, some microseconds. Not for several threads at once.
class RepetitionDetector {
 public:
  enum class Kind : uint8_t { kNone, kExact, kNear };

  explicit RepetitionDetector(const RepetitionLimits& limits = {});
  /// Takes the next token; kExact or kNear once the sequence is a loop.
  Kind Add(TokenId token);
  void Reset();

 private:
  TokenId At(size_t back) const { return ring_[(count_ - back) % ring_.size()]; }
  uint64_t GramHash() const;

  RepetitionLimits limits_;
  std::vector<TokenId> ring_;    // the last tokens
  size_t count_ = 0;             // tokens so far
  std::vector<uint32_t> equal_;  // by period: how many of the last tokens equal the one a period before
  std::vector<uint64_t> grams_;  // hashes of the window's n-grams, by place in the ring
  std::vector<uint32_t> seen_;   // counts of n-grams in the window, by hash
  size_t fresh_ = 0;             // n-grams of the window whose hash was not there when they came
  std::vector<bool> was_fresh_;
};

}  // namespace gptoss
