#include "tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/rng.h"
#include "base/utf8.h"
#include "json/json.h"
#include "tokenizer/bpe.h"
#include "tokenizer/split.h"
#include "tokenizer/unicode_class.h"
#include "tokenizer/vocabulary.h"

namespace gptoss {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const Tokenizer& Embedded() {
  static const auto kTokenizer = Tokenizer::Embedded();
  GPTOSS_CHECK(kTokenizer.ok());
  return **kTokenizer;
}

std::vector<std::string> Pieces(std::string_view text) {
  std::vector<std::string> pieces;
  while (!text.empty()) {
    const size_t length = NextPiece(text);
    pieces.emplace_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return pieces;
}

std::string RandomBytes(uint64_t seed, size_t size) {
  const RandomStream random(seed, "bytes");
  std::string bytes;
  for (size_t i = 0; i < size; ++i) bytes.push_back(static_cast<char>(random.Word(i)));
  return bytes;
}

/// Valid characters of every length mixed with single random bytes.
std::string RandomText(uint64_t seed, size_t chars) {
  const RandomStream random(seed, "text");
  std::string text;
  for (size_t i = 0; i < chars; ++i) {
    const uint64_t r = random.Word(i);
    constexpr uint32_t kEnds[] = {0x80, 0x800, 0x3000, 0x20000};
    const uint32_t c = static_cast<uint32_t>(r >> 8) % kEnds[r & 3];
    if ((r >> 40) % 8 == 0) {
      text.push_back(static_cast<char>(r >> 48));
    } else if (c < 0xD800 || c > 0xDFFF) {
      AppendUtf8(c, &text);
    }
  }
  return text;
}

TEST(TokenizerTest, PublishedCases) {
  std::ifstream file(GPTOSS_TEST_DATA "/tokenizer/cases.jsonl");
  int cases = 0;
  for (std::string line; std::getline(file, line); ++cases) {
    const auto parsed = ParseJson(line);
    ASSERT_TRUE(parsed.ok()) << line;
    const std::string text = parsed->at("text").get<std::string>();
    EXPECT_EQ(Embedded().Encode(text), parsed->at("ids").get<std::vector<TokenId>>()) << line;
    EXPECT_EQ(Embedded().Decode(Embedded().Encode(text)), text);
  }
  EXPECT_EQ(cases, 60);
}

TEST(TokenizerTest, EveryOrdinaryTokenIsFoundAsAWhole) {
  // Not through Encode: many tokens are cut by the split pattern or are part of a character.
  TokenMap map;
  ASSERT_TRUE(map.Build(Embedded().vocabulary()).ok());
  for (TokenId id = 0; id < kO200kOrdinaryTokens; ++id) ASSERT_EQ(map.Find(Embedded().TokenBytes(id)), id);
  EXPECT_EQ(map.Find("<|start|>"), -1);
}

TEST(TokenizerTest, SpecialTokens) {
  const Tokenizer& t = Embedded();
  EXPECT_EQ(t.size(), kHarmonyLastSpecial + 1);
  for (TokenId id = kO200kOrdinaryTokens; id <= kHarmonyLastSpecial; ++id) {
    const std::string spelling = HarmonySpecialSpelling(id);
    EXPECT_EQ(t.TokenBytes(id), spelling);
    EXPECT_EQ(t.SpecialId(spelling), id);
    EXPECT_TRUE(t.IsSpecial(id));
    std::vector<TokenId> ids;
    t.EncodeWithSpecial(spelling, &ids);
    EXPECT_THAT(ids, ElementsAre(id));
    const std::vector<TokenId> ordinary = t.Encode(spelling);
    EXPECT_GT(ordinary.size(), 1u);
    for (const TokenId part : ordinary) EXPECT_FALSE(t.IsSpecial(part));
    EXPECT_EQ(t.Decode(ordinary), spelling);
  }
  EXPECT_EQ(t.SpecialId("<|start|>"), 200006);
  EXPECT_EQ(t.SpecialId("<|call|>"), 200012);
  EXPECT_EQ(t.SpecialId("<|endofprompt|>"), 200018);
  EXPECT_EQ(t.SpecialId("start"), -1);
  EXPECT_FALSE(t.IsSpecial(199997));
}

TEST(TokenizerTest, SpecialTokensInsideText) {
  const Tokenizer& t = Embedded();
  std::vector<TokenId> ids;
  t.EncodeWithSpecial("<|start|>user<|message|>Hello, world!<|end|><|en<", &ids);
  std::vector<TokenId> expected = {200006};
  t.Encode("user", &expected);
  expected.push_back(200008);
  t.Encode("Hello, world!", &expected);
  expected.push_back(200007);
  t.Encode("<|en<", &expected);
  EXPECT_EQ(ids, expected);
}

TEST(TokenizerTest, UnknownIdsDecodeToNothing) {
  const std::vector<TokenId> ids = {-1, 13225, kHarmonyLastSpecial + 1, 1 << 30};
  EXPECT_EQ(Embedded().Decode(ids), "Hello");
  EXPECT_EQ(Embedded().TokenBytes(-5), "");
}

TEST(TokenizerTest, AnyBytesSurviveTheRoundTrip) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const std::string bytes = RandomBytes(seed, 2000);
    EXPECT_EQ(Embedded().Decode(Embedded().Encode(bytes)), bytes);
    const std::string text = RandomText(seed, 1000);
    EXPECT_EQ(Embedded().Decode(Embedded().Encode(text)), text);
  }
  EXPECT_THAT(Embedded().Encode(""), IsEmpty());
}

TEST(TokenizerTest, IncrementalDecodingEqualsWholeDecoding) {
  const Tokenizer& t = Embedded();
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const RandomStream random(seed, "ids");
    std::vector<TokenId> ids;
    if (seed % 2 == 0) ids = t.Encode(RandomText(seed, 200));
    // Single bytes and tokens of all kinds in any order: characters are cut and left unfinished everywhere.
    for (uint64_t i = 0; i < 300; ++i) {
      const uint64_t r = random.Word(i);
      ids.push_back(r % 4 == 0 ? static_cast<TokenId>((r >> 8) % static_cast<uint64_t>(t.size()))
                               : static_cast<TokenId>((r >> 8) % 256));
    }
    IncrementalDecoder decoder(t);
    std::string text;
    for (const TokenId id : ids) {
      const std::string part = decoder.Add(id);
      EXPECT_EQ(FirstInvalidUtf8(part), part.size());
      text += part;
    }
    text += decoder.Finish();
    EXPECT_EQ(text, ReplaceInvalidUtf8(t.Decode(ids)));
  }
}

TEST(TokenizerTest, HalfACharacterIsHeldBack) {
  const Tokenizer& t = Embedded();
  IncrementalDecoder decoder(t);
  std::string text;
  for (const char byte : std::string_view("\xF0\x9F\x98")) {
    TokenMap map;
    ASSERT_TRUE(map.Build(t.vocabulary()).ok());
    EXPECT_EQ(decoder.Add(map.FindByte(static_cast<uint8_t>(byte))), "");
  }
  EXPECT_EQ(decoder.Finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder.Finish(), "");
}

/// The rule as it is written, in quadratic time: what both ways of merging must do.
std::vector<TokenId> MergeByTheBook(const TokenMap& map, std::string_view piece) {
  std::vector<std::string> parts;
  for (const char c : piece) parts.emplace_back(1, c);
  while (true) {
    size_t best = parts.size();
    TokenId best_rank = -1;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const TokenId rank = map.Find(parts[i] + parts[i + 1]);
      if (rank >= 0 && (best_rank < 0 || rank < best_rank)) best = i, best_rank = rank;
    }
    if (best_rank < 0) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  std::vector<TokenId> ids;
  for (const std::string& part : parts) ids.push_back(map.Find(part));
  return ids;
}

TEST(BpeTest, MergesAsTheRuleSays) {
  TokenMap map;
  ASSERT_TRUE(map.Build(Embedded().vocabulary()).ok());
  const RandomStream random(7, "pieces");
  for (uint64_t n = 0; n < 300; ++n) {
    const size_t length = 1 + random.Word(2 * n) % 200;  // on both sides of the border between the two ways
    const uint64_t letters = 1 + random.Word(2 * n + 1) % 26;
    std::string piece;
    const RandomStream chars(n, "chars");
    for (size_t i = 0; i < length; ++i) {
      piece.push_back(n % 5 == 0 ? static_cast<char>(chars.Word(i)) : static_cast<char>('a' + chars.Word(i) % letters));
    }
    std::vector<TokenId> ids;
    MergePiece(map, piece, -1, &ids);
    EXPECT_EQ(ids, MergeByTheBook(map, piece)) << piece;
  }
}

TEST(BpeTest, OneLongPiece) {
  // A quadratic merge of this piece would take minutes, which the test's time limit would show.
  const std::string text(1'000'000, 'a');
  const std::vector<TokenId> ids = Embedded().Encode(text);
  EXPECT_EQ(Embedded().Decode(ids), text);
  EXPECT_LT(ids.size(), text.size() / 4);
  const std::string mixed = RandomBytes(3, 100'000);
  std::string word;
  for (const char c : mixed) word.push_back(static_cast<char>('a' + static_cast<uint8_t>(c) % 26));
  EXPECT_EQ(Embedded().Decode(Embedded().Encode(word)), word);
}

TEST(SplitTest, FollowsThePattern) {
  EXPECT_THAT(Pieces("Hello wOrLD's end"), ElementsAre("Hello", " w", "Or", "LD's", " end"));
  EXPECT_THAT(Pieces("I'LL they'll x'ſt it'x"), ElementsAre("I'LL", " they'll", " x'ſ", "t", " it", "'x"));
  EXPECT_THAT(Pieces("1234567"), ElementsAre("123", "456", "7"));
  EXPECT_THAT(Pieces("a  b   \n\n  c  "), ElementsAre("a", " ", " b", "   \n\n", " ", " c", "  "));
  EXPECT_THAT(Pieces("//\n/\r\n!x"), ElementsAre("//\n/\r\n", "!x"));
  EXPECT_THAT(Pieces(" $5 ...\n"), ElementsAre(" $", "5", " ...\n"));
  EXPECT_THAT(Pieces("\tword\r\n"), ElementsAre("\tword", "\r\n"));
  // The first form backtracks to the last character of both letter sets.
  EXPECT_THAT(Pieces("A\u3042B"), ElementsAre("A\u3042", "B"));
  EXPECT_THAT(Pieces("\u0301ABC"), ElementsAre("\u0301", "ABC"));
  EXPECT_THAT(Pieces("!\u0301!!\u0301ABC"), ElementsAre("!\u0301", "!!\u0301", "ABC"));
  EXPECT_THAT(Pieces("a\u00A0\u00A0b"), ElementsAre("a", "\u00A0", "\u00A0b"));
  EXPECT_THAT(Pieces("\u00A0$"), ElementsAre("\u00A0", "$"));
  EXPECT_THAT(Pieces("x\xFF\xC3y"), ElementsAre("x", "\xFF\xC3", "y"));
}

TEST(UnicodeClassTest, KnownCharacters) {
  EXPECT_EQ(ClassOfCodePoint('A'), kUpper);
  EXPECT_EQ(ClassOfCodePoint(0x01C5), kUpper);      // Lt
  EXPECT_EQ(ClassOfCodePoint(0x00DF), kLower);      // ß
  EXPECT_EQ(ClassOfCodePoint(0x02B0), kCaseless);   // Lm
  EXPECT_EQ(ClassOfCodePoint(0x4E2D), kCaseless);   // Lo
  EXPECT_EQ(ClassOfCodePoint(0x20E3), kMark);       // Me
  EXPECT_EQ(ClassOfCodePoint(0xE0100), kMark);      // beyond the cached planes
  EXPECT_EQ(ClassOfCodePoint(0x2163), kNumber);     // Nl
  EXPECT_EQ(ClassOfCodePoint(0x105C4), kCaseless);  // Unicode 16
  EXPECT_EQ(ClassOfCodePoint(0x2EE5D), kCaseless);  // Unicode 15.1, last of its block
  EXPECT_EQ(ClassOfCodePoint(0x2EE5E), 0);
  EXPECT_EQ(ClassOfCodePoint(0x0085), kSpace);  // Cc, but White_Space
  EXPECT_EQ(ClassOfCodePoint(0x200B), 0);       // zero width space is none
  EXPECT_EQ(ClassOfCodePoint(0xFEFF), 0);
  EXPECT_EQ(ClassOfCodePoint('\n'), kSpace | kNewline);
  for (uint32_t c = 0; c < 128; ++c) EXPECT_EQ(kAsciiClass[c], ClassOfCodePoint(c)) << c;
}

}  // namespace
}  // namespace gptoss
