#include "tokenizer/vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "json/json.h"
#include "tokenizer/bpe.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/gguf_vocabulary.h"
#include "tokenizer/tokenizer.h"

namespace gptoss {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::string_view kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::string Alphabet(std::string_view bytes) {
  std::string text;
  BytesToAlphabet(bytes, &text);
  return text;
}

/// All bytes, then "ab", "bc" and "abc".
std::vector<std::string> SmallTokens() {
  std::vector<std::string> tokens;
  for (int b = 0; b < 256; ++b) tokens.push_back(std::string(1, static_cast<char>(b)));
  tokens.insert(tokens.end(), {"ab", "bc", "abc"});
  return tokens;
}

Json SmallTokenizerJson() {
  Json vocab = Json::object();
  TokenId id = 0;
  for (const std::string& token : SmallTokens()) vocab[Alphabet(token)] = id++;
  Json split = {{"type", "Split"}, {"pattern", {{"Regex", kPattern}}}};
  return {{"version", "1.0"},
          {"added_tokens", Json::array({{{"id", 300}, {"content", "<|stop|>"}, {"special", true}}})},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", Json::array({split})}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array({"a b"})}}}};
}

std::string Base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t j = 0; j < 3; ++j) bits = bits << 8 | (i + j < bytes.size() ? static_cast<uint8_t>(bytes[i + j]) : 0u);
    for (size_t j = 0; j < 4; ++j) text.push_back(i + j <= bytes.size() ? kDigits[bits >> (18 - 6 * j) & 63] : '=');
  }
  return text;
}

std::string SmallTiktoken() {
  std::string text;
  TokenId rank = 0;
  for (const std::string& token : SmallTokens()) text += Base64(token) + " " + std::to_string(rank++) + "\n";
  return text;
}

/// The error that opening `text` gives, whichever step finds it; empty when it opens.
std::string ErrorOf(const std::string& text) {
  Result<Vocabulary> vocabulary =
      text.starts_with('{') ? Vocabulary::FromTokenizerJson(text) : Vocabulary::FromTiktoken(text);
  if (!vocabulary.ok()) return vocabulary.status().message();
  return Tokenizer::FromVocabulary(*std::move(vocabulary)).status().message();
}

std::string ErrorOf(const Json& json) { return ErrorOf(WriteJson(json)); }

TEST(ByteAlphabetTest, AllBytesThereAndBack) {
  std::string bytes, back;
  for (int b = 0; b < 256; ++b) bytes.push_back(static_cast<char>(b));
  ASSERT_TRUE(BytesFromAlphabet(Alphabet(bytes), &back));
  EXPECT_EQ(back, bytes);
  EXPECT_EQ(Alphabet(" a\n"), "\u0120a\u010A");
  EXPECT_FALSE(BytesFromAlphabet(" ", &back));
  EXPECT_FALSE(BytesFromAlphabet("\u0144", &back));
  EXPECT_FALSE(BytesFromAlphabet("\xFF", &back));
}

TEST(VocabularyTest, ReadsTokenizerJson) {
  auto vocabulary = Vocabulary::FromTokenizerJson(WriteJson(SmallTokenizerJson()));
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status().message();
  EXPECT_EQ(vocabulary->size(), 301);
  const auto tokenizer = Tokenizer::FromVocabulary(*std::move(vocabulary));
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_THAT((*tokenizer)->Encode("abcab"), ElementsAre(258, 256));
  EXPECT_THAT((*tokenizer)->Encode("abc"), ElementsAre(258));
  EXPECT_EQ((*tokenizer)->SpecialId("<|stop|>"), 300);
  EXPECT_EQ((*tokenizer)->TokenBytes(299), "");
}

TEST(VocabularyTest, ReadsTiktoken) {
  const auto vocabulary = Vocabulary::FromTiktoken(SmallTiktoken());
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status().message();
  EXPECT_EQ(vocabulary->size(), 259);
  EXPECT_EQ(vocabulary->Token(258), "abc");
  EXPECT_EQ(ErrorOf(SmallTiktoken()), "");
}

TEST(VocabularyTest, TheWholeVocabularyThroughEveryForm) {
  const auto embedded = Vocabulary::Embedded();
  ASSERT_TRUE(embedded.ok());
  std::string tiktoken;
  Json json = SmallTokenizerJson();
  json["added_tokens"] = Json::array({{{"id", 200018}, {"content", "<|endofprompt|>"}}});
  std::string vocab = "{";
  for (TokenId id = 0; id < kO200kOrdinaryTokens; ++id) {
    tiktoken += Base64(embedded->Token(id)) + " " + std::to_string(id) + "\n";
    vocab += (id == 0 ? "" : ",") + Json(Alphabet(embedded->Token(id))).dump() + ":" + std::to_string(id);
  }
  json["model"]["vocab"] = "HERE";
  std::string text = WriteJson(json);
  text.replace(text.find("\"HERE\""), 6, vocab + "}");
  const auto from_tiktoken = Vocabulary::FromTiktoken(tiktoken);
  ASSERT_TRUE(from_tiktoken.ok());
  auto from_json = Vocabulary::FromTokenizerJson(text);
  ASSERT_TRUE(from_json.ok()) << from_json.status().message();
  EXPECT_EQ(from_tiktoken->size(), embedded->size());
  EXPECT_EQ(from_json->size(), embedded->size());
  for (TokenId id = 0; id < embedded->size(); ++id) {
    ASSERT_EQ(from_tiktoken->Token(id), embedded->Token(id));
    ASSERT_EQ(from_json->Token(id), id == 200018 ? "<|endofprompt|>" : embedded->Token(id));
    ASSERT_EQ(from_json->KindOf(id), embedded->KindOf(id));
  }
  const auto tokenizer = Tokenizer::FromVocabulary(*std::move(from_json));
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ((*tokenizer)->SpecialId("<|endofprompt|>"), 200018);
  EXPECT_EQ((*tokenizer)->SpecialId("<|reserved_200018|>"), 200018);
}

TEST(VocabularyTest, GgufThereAndBack) {
  const auto embedded = Vocabulary::Embedded();
  ASSERT_TRUE(embedded.ok());
  const GgufVocabulary gguf = ExportForGguf(*embedded, 201088);
  ASSERT_EQ(gguf.tokens.size(), 201088u);
  ASSERT_EQ(gguf.types.size(), 201088u);
  EXPECT_EQ(gguf.tokens[200006], "<|start|>");
  EXPECT_EQ(gguf.types[200006], kGgufTokenControl);
  EXPECT_EQ(gguf.merges[0], "\u0120 \u0120");  // the first merge of o200k: two spaces
  const auto back = Vocabulary::FromGgufTokens(gguf.tokens, gguf.types);
  ASSERT_TRUE(back.ok()) << back.status().message();
  for (TokenId id = 0; id < embedded->size(); ++id) {
    ASSERT_EQ(back->Token(id), embedded->Token(id));
    ASSERT_EQ(back->KindOf(id), embedded->KindOf(id));
  }
}

TEST(VocabularyTest, GgufMergesAreTheLastStepsInRankOrder) {
  auto vocabulary = Vocabulary::FromTiktoken(SmallTiktoken());
  ASSERT_TRUE(vocabulary.ok());
  const GgufVocabulary gguf = ExportForGguf(*vocabulary, 262);
  EXPECT_THAT(gguf.merges, ElementsAre("a b", "b c", "ab c"));
  EXPECT_EQ(gguf.tokens[261], "[PAD261]");
  EXPECT_EQ(gguf.types[261], kGgufTokenUnused);
  EXPECT_EQ(ExportForGguf(*vocabulary, 10).tokens.size(), 10u);
}

TEST(VocabularyTest, GgufErrors) {
  const auto error = [](std::vector<std::string> tokens, std::vector<int32_t> types) {
    return Vocabulary::FromGgufTokens(tokens, types).status().message();
  };
  EXPECT_THAT(error({"a"}, {}), HasSubstr("token_type has 0 entries"));
  EXPECT_THAT(error({"a", " b"}, {1, 1}), HasSubstr("tokens[1]"));
  EXPECT_THAT(error({"a"}, {6}), HasSubstr("token_type[0] is 6"));
  EXPECT_THAT(error({""}, {1}), HasSubstr("empty token"));
}

TEST(VocabularyTest, TiktokenErrors) {
  const std::string good = SmallTiktoken();
  EXPECT_EQ(ErrorOf(good), "");
  EXPECT_THAT(ErrorOf(good + "!!!! 259\n"), HasSubstr("line 260: the token is not valid base64"));
  EXPECT_THAT(ErrorOf(good + "YWI 259\n"), HasSubstr("line 260"));
  EXPECT_THAT(ErrorOf(good + "YWJj\n"), HasSubstr("line 260: needs"));
  EXPECT_THAT(ErrorOf(good + "YWJjZA== 258\n"), HasSubstr("token id 258 is given twice"));
  EXPECT_THAT(ErrorOf(good + "YWJjZA== 261\n"), HasSubstr("no line has rank 259"));
  EXPECT_THAT(ErrorOf(good + "YWI= 259\n"), HasSubstr("256 and 259 stand for the same bytes"));
  EXPECT_THAT(ErrorOf(good + "YWJjZA== -1\n"), HasSubstr("line 260: the rank"));
  EXPECT_THAT(ErrorOf(good + "YWJjZA== 99999999999\n"), HasSubstr("line 260: the rank"));
  EXPECT_THAT(ErrorOf(good + "YWJjZA== 2000000\n"), HasSubstr("outside of 0 to"));
  EXPECT_THAT(ErrorOf(good.substr(0, 1000)), HasSubstr("line "));
  EXPECT_THAT(ErrorOf(std::string("YQ== 0\n")), HasSubstr("single byte"));
}

TEST(VocabularyTest, TokenizerJsonErrors) {
  const Json good = SmallTokenizerJson();
  ASSERT_EQ(ErrorOf(good), "");
  const auto changed = [&good](const char* pointer, const Json& value) {
    Json json = good;
    json[Json::json_pointer(pointer)] = value;
    return ErrorOf(json);
  };
  EXPECT_THAT(changed("/model/type", "Unigram"), HasSubstr("only \"BPE\""));
  EXPECT_THAT(changed("/model/vocab/a", 98), HasSubstr("token id 98 is given twice"));
  EXPECT_THAT(changed("/model/vocab/a", "x"), HasSubstr("id of \"a\""));
  EXPECT_THAT(changed("/model/vocab/a", 1 << 20), HasSubstr("outside of 0 to"));
  EXPECT_THAT(changed("/model/vocab/a", -1), HasSubstr("outside of 0 to"));
  EXPECT_THAT(changed("/model/vocab/ b", 270), HasSubstr("byte alphabet"));
  EXPECT_THAT(changed("/model/vocab", 3), HasSubstr("model.vocab"));
  EXPECT_THAT(changed("/normalizer", Json{{"type", "NFC"}}), HasSubstr("normalizer must be null"));
  EXPECT_THAT(changed("/pre_tokenizer", nullptr), HasSubstr("pre_tokenizer"));
  EXPECT_THAT(changed("/pre_tokenizer/pretokenizers/0/pattern/Regex", "\\w+"), HasSubstr("not that of o200k"));
  EXPECT_THAT(changed("/added_tokens/0/id", 97), HasSubstr("token id 97 is given twice"));
  EXPECT_THAT(changed("/added_tokens/0/content", ""), HasSubstr("added_tokens"));
  Json missing = good;
  missing["model"]["vocab"].erase("a");
  EXPECT_THAT(ErrorOf(missing), HasSubstr("no token stands for the single byte 97"));
  missing["model"].erase("vocab");
  EXPECT_THAT(ErrorOf(missing), HasSubstr("model.vocab is missing"));
}

TEST(VocabularyTest, BrokenJsonNeverOpens) {
  const std::string good = WriteJson(SmallTokenizerJson());
  for (size_t size = 1; size < good.size(); size += 7) EXPECT_NE(ErrorOf(good.substr(0, size)), "") << size;
  EXPECT_NE(ErrorOf(good + "x"), "");
  std::string not_utf8 = good;
  not_utf8[good.find("BPE")] = '\xFF';
  EXPECT_NE(ErrorOf(not_utf8), "");
}

TEST(VocabularyTest, FileErrorsNameThePath) {
  EXPECT_THAT(Vocabulary::FromFile("/nonexistent/tokenizer.json").status().message(),
              HasSubstr("/nonexistent/tokenizer.json"));
}

}  // namespace
}  // namespace gptoss
