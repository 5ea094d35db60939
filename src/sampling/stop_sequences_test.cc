#include "sampling/stop_sequences.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "base/utf8.h"

namespace gptoss {
namespace {

struct Outcome {
  std::string text, match;
  bool operator==(const Outcome&) const = default;
};

/// From the definition: at each end position in turn, the longest stop string that ends there.
Outcome Plain(std::string_view text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::string_view longest;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop) && stop.size() > longest.size()) longest = stop;
    }
    if (!longest.empty()) return {std::string(text.substr(0, end - longest.size())), std::string(longest)};
  }
  return {std::string(text), ""};
}

/// Bit i of `cuts` cuts the text after byte i.
Outcome Streamed(std::string_view text, const std::vector<std::string>& stops, uint64_t cuts) {
  auto sequences = StopSequences::Make(stops);
  EXPECT_TRUE(sequences.ok());
  Outcome outcome;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((cuts >> i & 1) == 0) continue;
    outcome.text += sequences->Feed(text.substr(begin, i + 1 - begin));
    begin = i + 1;
  }
  outcome.text += sequences->Feed(text.substr(begin));
  outcome.text += sequences->Finish();
  outcome.match = std::string(sequences->match());
  EXPECT_EQ(sequences->matched(), !outcome.match.empty());
  return outcome;
}

TEST(StopSequences, EverySplitGivesTheSame) {
  const std::vector<std::vector<std::string>> stop_sets = {
      {"END"}, {"aab"}, {"abab", "ba"}, {"a", "aa"}, {"she", "he", "hers"}, {"b", "aab", "ab"}, {"aaaaaaaaaaaaa"}, {}};
  for (const auto& stops : stop_sets) {
    for (std::string_view text : {"the ENDing", "aaaabaab", "ababab", "ushers", "EN END", "", "xaax", "EENDD"}) {
      const Outcome expected = Plain(text, stops);
      const uint64_t splits = text.empty() ? 1 : uint64_t{1} << (text.size() - 1);
      for (uint64_t cuts = 0; cuts < splits; ++cuts) {
        ASSERT_EQ(Streamed(text, stops, cuts), expected) << text << " cut at " << cuts;
      }
    }
  }
}

TEST(StopSequences, RandomTextsOverASmallAlphabet) {
  const RandomStream random(5, "stops");
  uint64_t at = 0;
  const auto word = [&](uint64_t max_length) {
    std::string s;
    for (uint64_t n = 1 + random.Word(at++) % max_length; n > 0; --n) s += "ab"[random.Word(at++) % 2];
    return s;
  };
  int matches = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops;
    for (uint64_t n = 1 + random.Word(at++) % 4; n > 0; --n) stops.push_back(word(8));
    const std::string text = word(40);
    const Outcome expected = Plain(text, stops);
    ASSERT_EQ(Streamed(text, stops, random.Word(at++)), expected) << text;
    matches += !expected.match.empty();
  }
  EXPECT_GT(matches, 300);
  EXPECT_LT(matches, 2999);
}

TEST(StopSequences, HoldsBackNoMoreThanItMust) {
  auto sequences = StopSequences::Make({"\n\nUser:"});
  ASSERT_TRUE(sequences.ok());
  EXPECT_EQ(sequences->Feed("Hello\n"), "Hello");
  EXPECT_EQ(sequences->Feed("\nUs"), "");
  EXPECT_EQ(sequences->Feed("ual"), "\n\nUsual");
  EXPECT_EQ(sequences->Feed("\n\n"), "");
  EXPECT_EQ(sequences->Feed("\n"), "\n");
  EXPECT_FALSE(sequences->matched());
  EXPECT_EQ(sequences->Feed("User: hi"), "");
  EXPECT_TRUE(sequences->matched());
  EXPECT_EQ(sequences->match(), "\n\nUser:");
  EXPECT_EQ(sequences->Feed("more"), "");
  EXPECT_EQ(sequences->Finish(), "");
  sequences->Reset();
  EXPECT_FALSE(sequences->matched());
  EXPECT_EQ(sequences->Feed("more\n"), "more");
  EXPECT_EQ(sequences->Finish(), "\n");
}

TEST(StopSequences, WholeCharactersInWholeCharactersOut) {
  auto sequences = StopSequences::Make({"é\u00ea", "\U0001F600!"});
  ASSERT_TRUE(sequences.ok());
  std::string all;
  for (std::string_view piece : {"caf", "é", "è ", "\U0001F601", "\U0001F600", "?é", "e"}) {
    const std::string safe = sequences->Feed(piece);
    EXPECT_EQ(FirstInvalidUtf8(safe), safe.size()) << safe;
    all += safe;
  }
  all += sequences->Finish();
  EXPECT_EQ(all, "caféè \U0001F601\U0001F600?ée");
}

TEST(StopSequences, RefusesEmptyAndOversizedStrings) {
  EXPECT_EQ(StopSequences::Make({"a", ""}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(StopSequences::Make({std::string(70000, 'x')}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(StopSequences::Make({std::string(60000, 'x')}).ok());
}

}  // namespace
}  // namespace gptoss
