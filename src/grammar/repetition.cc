#include "grammar/repetition.h"

#include <algorithm>

#include "base/rng.h"

namespace gptoss {
namespace {

// Two different n-grams of a window of 2048 share a slot with a chance of 3 %, which only makes a text look a little
// more repetitive than it is: far from the share that ends a turn.
constexpr size_t kSlots = 1 << 16;

}  // namespace

RepetitionDetector::RepetitionDetector(const RepetitionLimits& limits)
    : limits_(limits),
      ring_(std::max(limits.window, limits.max_period) + limits.gram + 1, -1),
      equal_(limits.max_period + 1, 0),
      grams_(limits.window, 0),
      seen_(kSlots, 0),
      was_fresh_(limits.window, false) {}

void RepetitionDetector::Reset() { *this = RepetitionDetector(limits_); }

uint64_t RepetitionDetector::GramHash() const {
  uint64_t hash = kGoldenGamma;
  for (size_t i = limits_.gram; i >= 1; --i) hash = Mix64(hash ^ static_cast<uint64_t>(At(i)));
  return hash;
}

RepetitionDetector::Kind RepetitionDetector::Add(TokenId token) {
  ring_[count_ % ring_.size()] = token;
  ++count_;
  Kind found = Kind::kNone;
  for (size_t period = 1; period <= limits_.max_period && period < count_; ++period) {
    equal_[period] = At(period + 1) == token ? equal_[period] + 1 : 0;
    const size_t run = equal_[period] + period;
    if (run >= limits_.min_tokens && run >= limits_.min_rounds * period) found = Kind::kExact;
  }
  if (count_ < limits_.gram) return found;
  const size_t place = count_ % limits_.window;
  if (count_ >= limits_.window + limits_.gram) {
    --seen_[grams_[place] % kSlots];
    fresh_ -= was_fresh_[place] ? 1 : 0;
  }
  grams_[place] = GramHash();
  uint32_t& seen = seen_[grams_[place] % kSlots];
  was_fresh_[place] = seen++ == 0;
  fresh_ += was_fresh_[place] ? 1 : 0;
  const bool full = count_ >= limits_.window + limits_.gram;
  const bool stale = static_cast<double>(fresh_) < limits_.min_new_share * static_cast<double>(limits_.window);
  if (found == Kind::kNone && full && stale) return Kind::kNear;
  return found;
}

}  // namespace gptoss
