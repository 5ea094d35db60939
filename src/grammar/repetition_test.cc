#include "grammar/repetition.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace gptoss {
namespace {

using Kind = RepetitionDetector::Kind;

TEST(RepetitionTest, ExactLoopsAreFound) {
  for (TokenId period : {1, 2, 7, 60}) {
    RepetitionDetector detector;
    Kind kind = Kind::kNone;
    TokenId i = 0;
    for (; i < 600 && kind == Kind::kNone; ++i) kind = detector.Add(i % period);
    EXPECT_EQ(kind, Kind::kExact) << period;
    EXPECT_GE(i, 256) << period;
    detector.Reset();
    EXPECT_EQ(detector.Add(0), Kind::kNone);
  }
}

TEST(RepetitionTest, NearLoopsAreFound) {
  const RandomStream random(1, "near");
  RepetitionDetector detector;
  Kind kind = Kind::kNone;
  // A sentence of 40 tokens with a number that changes now and then.
  for (int i = 0; i < 8000 && kind == Kind::kNone; ++i) {
    kind = detector.Add(i % 40 == 13 && i % 240 < 40
                            ? 100 + static_cast<TokenId>(random.Word(static_cast<uint64_t>(i)) % 1000)
                            : i % 40);
  }
  EXPECT_EQ(kind, Kind::kNear);
}

TEST(RepetitionTest, OrdinaryTextIsLeftAlone) {
  const RandomStream random(2, "text");
  RepetitionDetector detector;
  // Words of a skewed distribution, and a table with one repeated row every so often.
  for (uint64_t i = 0; i < 20000; ++i) {
    const double u = random.Uniform(i);
    const TokenId word = i % 1000 < 200 ? static_cast<TokenId>(i % 20) : static_cast<TokenId>(500 * u * u * u);
    EXPECT_EQ(detector.Add(word), Kind::kNone) << i;
  }
}

}  // namespace
}  // namespace gptoss
