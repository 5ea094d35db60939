#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "grammar/char_dfa.h"
#include "grammar/ebnf.h"
#include "grammar/grammar_testing.h"
#include "grammar/json_schema.h"
#include "grammar/machine.h"

namespace gptoss {
namespace {

TEST(RegexTest, MatchesWholeTexts) {
  const LanguageCase cases[] = {
      {"a*b+c?", {"b", "aabbc", "bc"}, {"", "a", "ac", "bcc"}},
      {"^[a-c]{2,3}$", {"ab", "abc"}, {"a", "abca", "ad"}},
      {"(?:x|yz)*", {"", "xyzx"}, {"y", "xz"}},
      {"\\d+\\.\\d{2}", {"1.00", "42.50"}, {"1.0", ".00"}},
      {"[^a]", {"b", "é", "\xF0\x9F\x98\x80"}, {"a", "bb", "\xC3", "\xED\xA0\x80"}},
      {"\\u00e9|\\u{1F600}|\\uD83D\\uDE01", {"é", "😀", "😁"}, {"e"}},
      {"(?i:ab)c", {"ABc", "aBc"}, {"ABC"}},
      {"\\p{Lu}\\p{L}*", {"Ärger", "A"}, {"ärger", "A1"}},
      {"a{0}b", {"b"}, {"ab"}},
      {"(a?){3}", {"", "aaa"}, {"aaaa"}},
      {"(a*)*b", {"b", "aab"}, {"a"}},
      {".", {"x"}, {"\n", "xy"}},
  };
  for (const LanguageCase& c : cases) {
    CheckLanguage(Machine::Create(MustCompile(CompileRegex(c.source)), nullptr), c);
  }
}

TEST(RegexTest, RefusesWhatIsNotRegular) {
  for (const char* pattern : {"(?=a)", "(a)\\1", "\\bword", "a++", "(?<!x)y", "a^b", "(a", "a)", "[a", "*a", "[b-a]"}) {
    const Result<Automaton> automaton = CompileRegex(pattern);
    EXPECT_FALSE(automaton.ok()) << pattern;
  }
}

TEST(CharDfaTest, SetOperations) {
  const auto dfa = [](const char* pattern) { return *CharDfa::FromRegex(*ParseRegex(pattern)); };
  const CharDfa both = *dfa("[ab]*").Intersection(dfa(".{3}"));
  EXPECT_TRUE(both.Matches("aba"));
  EXPECT_FALSE(both.Matches("ab"));
  EXPECT_FALSE(both.Matches("abc"));
  const CharDfa not_names = CharDfa::FromTexts({"a", "ab"}).Complement();
  EXPECT_FALSE(not_names.Matches("ab"));
  EXPECT_TRUE(not_names.Matches("abc"));
  EXPECT_TRUE(not_names.Matches(""));
  EXPECT_TRUE(not_names.Complement().Matches("a"));
  EXPECT_TRUE(dfa("a+").Intersection(dfa("b+"))->empty());
  EXPECT_FALSE(CharDfa::FromRegex(*ParseRegex("(a|b)*a(a|b){30}")).ok());
}

TEST(EbnfTest, GbnfArithmetic) {
  const auto machine = Machine::Create(MustCompile(CompileGbnf(R"g(
# sums with brackets
root ::= expr
expr ::= expr [+-] term | term   # left recursion
term ::= num | "(" expr ")"
num  ::= [1-9] [0-9]{0,2}
)g")),
                                       nullptr);
  for (const char* text : {"1", "1+2-3", "((12)-(3+4))"}) EXPECT_TRUE(Matches(machine, text)) << text;
  for (const char* text : {"", "1+", "(1", "1234", "1)"}) EXPECT_FALSE(Matches(machine, text)) << text;
}

TEST(EbnfTest, LarkWithIgnoredSpace) {
  const auto machine = Machine::Create(MustCompile(CompileLark(R"g(
?start: select ";"?      -> statement
select: "select"i NAME ("," NAME)* "from"i NAME [where]
where.2: "where" NAME /=|<>/ (NUMBER | "a".."c")
NAME: /[a-z_]+/
%import common.INT -> NUMBER
%import common.WS
%ignore WS
)g")),
                                       nullptr);
  for (const char* text : {"SELECT a,b from t", "select a , b\nFROM t where x<>12 ;", "select a from t where b = c"}) {
    EXPECT_TRUE(Matches(machine, text)) << text;
  }
  for (const char* text : {"select from t", "select a from t where b = d", "select a b from t;;"}) {
    EXPECT_FALSE(Matches(machine, text)) << text;
  }
}

TEST(EbnfTest, ErrorsNameTheLine) {
  const auto message = [](const char* text) { return CompileGbnf(text).status().message(); };
  EXPECT_NE(message("root ::= \"a\"\nroot ::= \"b\"").find("line 2"), std::string::npos);
  EXPECT_NE(message("root ::= missing").find("'missing' is not defined"), std::string::npos);
  EXPECT_NE(message("x ::= \"a\"").find("'root'"), std::string::npos);
  EXPECT_NE(message("root ::= [a").find("line 1"), std::string::npos);
  EXPECT_NE(message("root ::= a\na ::= b \"x\" | \"y\"\nb ::= a").find("left recursion"), std::string::npos);
  EXPECT_NE(message("root ::= \"a\" root").find("no text at all"), std::string::npos);
}

TEST(MatcherTest, RollbackAndForcedTokens) {
  const auto tokenizer = Tokenizer::Embedded();
  ASSERT_TRUE(tokenizer.ok());
  const auto index = TokenIndex::Create(*tokenizer);
  ASSERT_TRUE(index.ok());
  JsonSchemaOptions options;
  options.optional_spaces = false;
  const Json schema = *ParseJson(
      R"({"type":"object","properties":{"temperature":{"type":"integer"}},"required":["temperature"],
          "additionalProperties":false})");
  Matcher matcher(Machine::Create(*CompileJsonSchema(schema, options), *index));
  std::vector<uint64_t> before((*index)->mask_words()), after(before);
  ASSERT_TRUE(matcher.FillMask(before).ok());
  const Result<std::vector<TokenId>> forced = matcher.ForcedTokens();
  ASSERT_TRUE(forced.ok());
  EXPECT_EQ((*tokenizer)->Decode(*forced), "{\"temperature");
  for (TokenId id : *forced) EXPECT_TRUE(*matcher.Accept(id));
  EXPECT_FALSE(*matcher.Accept(200007));
  EXPECT_FALSE(matcher.IsComplete());
  for (TokenId id : (*tokenizer)->Encode("\":21}")) EXPECT_TRUE(*matcher.Accept(id));
  EXPECT_TRUE(matcher.IsComplete());
  EXPECT_FALSE(matcher.CanContinue());
  matcher.Rollback(matcher.steps());
  EXPECT_FALSE(matcher.IsComplete());
  ASSERT_TRUE(matcher.FillMask(after).ok());
  EXPECT_EQ(before, after);
}

TEST(LimitsTest, AreClearErrors) {
  AutomatonLimits small;
  small.max_nodes = 50;
  EXPECT_EQ(CompileRegex("abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz", small)
                .status()
                .code(),
            StatusCode::kResourceExhausted);
  MachineLimits limits;
  limits.max_states = 20;
  const auto machine = Machine::Create(*CompileRegex("[a-z]{100}"), nullptr, limits);
  const Result<Machine::StateId> end = machine->Step(machine->start(), std::string(60, 'a'));
  EXPECT_EQ(end.status().code(), StatusCode::kResourceExhausted);
  // The machine still works within its limit.
  EXPECT_TRUE(machine->Step(machine->start(), "aaa").ok());
}

}  // namespace
}  // namespace gptoss
