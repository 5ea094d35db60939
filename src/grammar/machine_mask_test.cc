// Masks over the whole vocabulary, against the step of every token.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "grammar/ebnf.h"
#include "grammar/grammar_testing.h"
#include "grammar/json_schema.h"
#include "grammar/machine.h"

namespace gptoss {
namespace {

class MaskTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { index_ = *TokenIndex::Create(*Tokenizer::Embedded()); }
  static void TearDownTestSuite() { index_.reset(); }

  /// A mask is taken from `used`, which has seen other states; the steps from a machine of their own.
  static void Check(Machine& used, Machine& steps, const std::string& prefix, uint32_t most_need) {
    SCOPED_TRACE(prefix + ", need at most " + std::to_string(most_need));
    const Tokenizer& tokenizer = index_->tokenizer();
    std::vector<uint64_t> mask(index_->mask_words());
    bool narrowed = false, left_out = false;
    ASSERT_TRUE(used.FillMaskWithin(*used.Step(used.start(), prefix), mask, most_need, &narrowed).ok());
    const Machine::StateId state = *steps.Step(steps.start(), prefix);
    ASSERT_NE(state, Machine::kDead);
    size_t wrong = 0, allowed = 0;
    for (TokenId id = 0; id < tokenizer.size(); ++id) {
      const bool bit = (mask[static_cast<size_t>(id) / 64] >> (id % 64) & 1) != 0;
      Machine::StateId to = Machine::kDead;
      if (!tokenizer.IsSpecial(id) && !tokenizer.TokenBytes(id).empty())
        to = *steps.Step(state, tokenizer.TokenBytes(id));
      const bool fits = to != Machine::kDead && (most_need == kUnbounded || steps.Need(to) <= most_need);
      left_out = left_out || (to != Machine::kDead && !fits);
      allowed += bit ? 1 : 0;
      if (bit != fits && ++wrong < 10) ADD_FAILURE() << "token '" << tokenizer.TokenBytes(id) << "', mask " << bit;
    }
    EXPECT_EQ(wrong, 0u);
    EXPECT_EQ(narrowed, left_out);
    EXPECT_TRUE(allowed > 0 || most_need != kUnbounded || steps.Accepts(state));
  }

  static std::shared_ptr<const TokenIndex> index_;
};
std::shared_ptr<const TokenIndex> MaskTest::index_;

TEST_F(MaskTest, AreExact) {
  struct Case {
    const char* schema;
    std::vector<const char*> prefixes;
  };
  const Case cases[] = {
      // Keys that must differ from named ones: corrected from the mask of any key.
      {R"({"type":"object","properties":{"name":{"type":"integer"},"nation":{"type":"null"},"ü":{"type":"null"}},
           "additionalProperties":{"type":"string"}})",
       {"", "{\"", "{\"na", "{\"name\": 1, \"", "{\"x\\", "{\"\xC3"}},
      {R"({"type":"object","patternProperties":{"^[a-z]+$":{"type":"integer"},"^é":{}},"additionalProperties":false})",
       {"{\"", "{\"a"}},
      {R"({"type":"string","pattern":"^[^a-c].*[^x]$","minLength":2})", {"\"", "\"d"}},
      {R"({"type":"string","minLength":3,"maxLength":5})", {"\"", "\"ab", "\"abcd"}},
      {R"({"type":"string","format":"email"})", {"\"", "\"joe.b", "\"joe@a-b"}},
  };
  for (const Case& c : cases) {
    const Json schema = *ParseJson(c.schema);
    const auto used = Machine::Create(*CompileJsonSchema(schema), index_);
    const auto steps = Machine::Create(*CompileJsonSchema(schema), index_);
    for (const char* prefix : c.prefixes) Check(*used, *steps, prefix, kUnbounded);
  }
}

TEST_F(MaskTest, OfWhatCanStillEndAreExact) {
  const Json schema = *ParseJson(R"({"type":"object","properties":{"name":{"type":"string"}},"required":["name"],
                                     "additionalProperties":{"type":"array","items":{"type":"string","minLength":4}}})");
  const auto used = Machine::Create(*CompileJsonSchema(schema), index_);
  const auto steps = Machine::Create(*CompileJsonSchema(schema), index_);
  for (const char* prefix : {"{\"name\":\"a\",\"", "{\"name\": \"a", "{\"name\":\"\",\"x\":[\"ab"}) {
    for (const uint32_t most_need : {3u, 8u, 20u, 1000u}) Check(*used, *steps, prefix, most_need);
  }
}

TEST_F(MaskTest, OfGrammarsAreExact) {
  const char* gbnf = "root ::= [^0-9] ([a-z] | \"-\"){2,6} rest\nrest ::= \"(\" root \")\" | [^()]* \"!\"\n";
  const auto used = Machine::Create(MustCompile(CompileGbnf(gbnf)), index_);
  const auto steps = Machine::Create(MustCompile(CompileGbnf(gbnf)), index_);
  for (const char* prefix : {"", "xab", "xabcdef(", "xab é"}) Check(*used, *steps, prefix, kUnbounded);
}

}  // namespace
}  // namespace gptoss
