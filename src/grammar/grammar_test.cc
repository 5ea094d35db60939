#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/rng.h"
#include "grammar/char_dfa.h"
#include "grammar/ebnf_rules.h"
#include "grammar/json_schema.h"
#include "grammar/machine.h"
#include "tokenizer/vocabulary.h"

namespace gptoss {
namespace {

Automaton MustCompile(Result<Automaton> automaton) {
  EXPECT_TRUE(automaton.ok()) << automaton.status().message();
  return automaton.ok() ? *std::move(automaton) : *CompileRegex("never");
}

bool Matches(const std::shared_ptr<Machine>& machine, std::string_view text) {
  const Result<Machine::StateId> end = machine->Step(machine->start(), text);
  EXPECT_TRUE(end.ok()) << end.status().message();
  return end.ok() && machine->Accepts(*end);
}

std::shared_ptr<Machine> RegexMachine(std::string_view pattern) {
  return Machine::Create(MustCompile(CompileRegex(pattern)), nullptr);
}

std::shared_ptr<Machine> SchemaMachine(const char* schema) {
  Result<Json> json = ParseJson(schema);
  EXPECT_TRUE(json.ok()) << schema;
  return Machine::Create(MustCompile(CompileJsonSchema(*json)), nullptr);
}

std::string SchemaError(const char* schema) {
  const Result<Json> json = ParseJson(schema);
  EXPECT_TRUE(json.ok()) << schema;
  const Result<Automaton> automaton = CompileJsonSchema(*json);
  EXPECT_FALSE(automaton.ok()) << schema;
  return automaton.status().message();
}

TEST(RegexTest, MatchesWholeTexts) {
  struct Case {
    const char* pattern;
    std::vector<const char*> yes, no;
  };
  const Case cases[] = {
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
  for (const Case& c : cases) {
    const auto machine = RegexMachine(c.pattern);
    for (const char* text : c.yes) EXPECT_TRUE(Matches(machine, text)) << c.pattern << " on " << text;
    for (const char* text : c.no) EXPECT_FALSE(Matches(machine, text)) << c.pattern << " on " << text;
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

TEST(NumberTest, IntegersWithinBoundsAreExact) {
  const RandomStream random(7, "integers");
  for (uint64_t i = 0; i < 60; ++i) {
    int64_t lo = static_cast<int64_t>(random.Word(4 * i) % 2400) - 1200;
    int64_t hi = static_cast<int64_t>(random.Word(4 * i + 1) % 2400) - 1200;
    if (lo > hi) std::swap(lo, hi);
    const bool lo_open = random.Word(4 * i + 2) % 4 == 0;
    const int64_t mod = 1 + static_cast<int64_t>(random.Word(4 * i + 3) % 9);
    const Json schema = {
        {"type", "integer"}, {lo_open ? "exclusiveMinimum" : "minimum", lo}, {"maximum", hi}, {"multipleOf", mod}};
    const Result<Automaton> automaton = CompileJsonSchema(schema);
    std::vector<int64_t> wanted;
    for (int64_t n = -1300; n <= 1300; ++n) {
      if (n <= hi && (lo_open ? n > lo : n >= lo) && n % mod == 0) wanted.push_back(n);
    }
    if (wanted.empty()) {
      EXPECT_FALSE(automaton.ok()) << schema;
      continue;
    }
    const auto machine = Machine::Create(MustCompile(automaton), nullptr);
    for (int64_t n = -1300; n <= 1300; ++n) {
      EXPECT_EQ(Matches(machine, std::to_string(n)), std::binary_search(wanted.begin(), wanted.end(), n))
          << schema << n;
    }
    EXPECT_FALSE(Matches(machine, "-0"));
    EXPECT_FALSE(Matches(machine, "00"));
    EXPECT_FALSE(Matches(machine, "1.5"));
  }
}

TEST(NumberTest, DecimalsWithinBoundsAreExact) {
  const RandomStream random(9, "decimals");
  uint64_t at = 0;
  const auto pick = [&] { return static_cast<int64_t>(random.Word(at++) % 40001) - 20000; };
  const auto text = [](int64_t thousandths) { return Json(static_cast<double>(thousandths) / 1000).dump(); };
  for (int i = 0; i < 60; ++i) {
    int64_t lo = pick(), hi = pick();
    if (lo > hi) std::swap(lo, hi);
    if (i % 4 == 0) hi = lo + static_cast<int64_t>(random.Word(at++) % 30);
    const bool open_lo = i % 3 == 0, open_hi = i % 5 == 0;
    const std::string source = std::string("{\"type\":\"number\",\"") + (open_lo ? "exclusiveMinimum" : "minimum") +
                               "\":" + text(lo) + ",\"" + (open_hi ? "exclusiveMaximum" : "maximum") +
                               "\":" + text(hi) + "}";
    const Result<Json> schema = ParseJson(source);
    const Result<Automaton> automaton = CompileJsonSchema(*schema);
    if (!automaton.ok()) {
      EXPECT_EQ(lo, hi) << source;
      continue;
    }
    const auto machine = Machine::Create(*automaton, nullptr);
    for (int k = 0; k < 300; ++k) {
      const int64_t n = k < 20 ? lo - 10 + k : k < 40 ? hi - 30 + k : pick();
      const bool in = (open_lo ? n > lo : n >= lo) && (open_hi ? n < hi : n <= hi);
      std::string digits = std::to_string(std::abs(n) % 1000);
      digits = std::string(3 - digits.size(), '0') + digits;
      const std::string written = (n < 0 ? "-" : "") + std::to_string(std::abs(n) / 1000) + "." + digits;
      EXPECT_EQ(Matches(machine, written), in) << source << " " << written;
    }
  }
}

TEST(JsonSchemaTest, AcceptsValidAndNothingElse) {
  struct Case {
    const char* schema;
    std::vector<const char*> yes, no;
  };
  const Case cases[] = {
      {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["a"],"additionalProperties":false})",
       {R"({"a":1})", R"({"a": 1, "b": "x"})", R"({"a":-7,"b":""})"},
       {R"({})", R"({"b":"x"})", R"({"b":"x","a":1})", R"({"a":1,})", R"({"a":1,"c":2})", R"({"a":1.5})", R"({ "a":1})",
        R"({"a":  1})"}},
      {R"({"type":"object","properties":{"a":{"type":"integer"}}})",
       {R"({})", R"({"a":1,"x":[1,{"y":null}]})", R"({"x":"a"})", R"({"ab":1})"},
       {R"({"a":"s"})", R"({"x":1,"a":"s"})", R"({"\u0061":"s"})"}},
      {R"({"type":"string","minLength":2,"maxLength":3})",
       {R"("ab")", R"("äöü")", R"("\n\"")", R"("\ud83d\ude00x")", R"("😀x")"},
       {R"("a")", R"("abcd")", R"("\ud83d")", R"("a\x")", "\"a\n\"", "\"a\xC3\"", R"("\udc00\udc00")"}},
      {R"({"type":"string","pattern":"^a.*z$","maxLength":4})",
       {R"("az")", R"("a\"\"z")", R"("abcz")"},
       {R"("abcdz")", R"("za")"}},
      {R"({"type":"string","pattern":"b"})", {R"("b")", R"("abc")"}, {R"("a")", R"("")"}},
      {R"({"type":"array","items":{"type":"boolean"},"minItems":1,"maxItems":3})",
       {"[true]", "[true,false, true]"},
       {"[]", "[true,true,true,true]", "[1]", "[true,]"}},
      {R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"items":false})",
       {"[]", "[1]", R"([1,"x"])"},
       {R"(["x"])", R"([1,"x",2])"}},
      {R"({"type":"array","prefixItems":[{"type":"integer"}],"minItems":2})",
       {"[1,null]", "[1,2,3]"},
       {"[1]", "[null,1]"}},
      {R"({"enum":["a","ab",1,1.5,null,{"k":[1,2]}]})",
       {R"("a")", R"("ab")", "1", "1.5", "null", R"({"k": [1, 2]})"},
       {R"("b")", "2", R"({"k":[1]})", "1.0"}},
      {R"({"const":"x\"y"})", {R"("x\"y")"}, {R"("xy")"}},
      {R"({"anyOf":[{"type":"integer","maximum":5},{"type":"string","maxLength":1}]})",
       {"5", R"("a")"},
       {"6", R"("ab")"}},
      {R"({"oneOf":[{"type":"object","properties":{"t":{"const":"a"},"x":{"type":"integer"}},"required":["t","x"],"additionalProperties":false},
                    {"type":"object","properties":{"t":{"const":"b"}},"required":["t"],"additionalProperties":false}]})",
       {R"({"t":"a","x":1})", R"({"t":"b"})"},
       {R"({"t":"b","x":1})", R"({"t":"a"})"}},
      {R"({"allOf":[{"type":"integer","minimum":3},{"maximum":7}],"multipleOf":2})", {"4", "6"}, {"3", "8", "2"}},
      {R"({"allOf":[{"properties":{"a":{"minimum":2}}},{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],"additionalProperties":false}]})",
       {R"({"a":2})"},
       {R"({"a":1})", R"({"a":"x"})", R"({})"}},
      {R"({"$defs":{"node":{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},"required":["v","next"],"additionalProperties":false}},"$ref":"#/$defs/node"})",
       {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":{"v":3,"next":null}}})"},
       {R"({"v":1})", R"({"v":1,"next":{"v":2}})", R"({"v":1,"next":null}})"}},
      {R"({"type":"object","patternProperties":{"^n_":{"type":"integer"},"s$":{"type":"string"}},"additionalProperties":false})",
       {R"({})", R"({"n_a":1,"xs":"y"})"},
       {R"({"n_a":"x"})", R"({"other":1})", R"({"n_s":1})", R"({"n_s":"x"})"}},
      {R"({"type":"object","additionalProperties":{"type":"integer"}})", {R"({"x":1,"y":2})"}, {R"({"x":"1"})"}},
      {R"({"type":["string","null"]})", {"null", R"("")"}, {"1"}},
      {R"({"type":"string","nullable":true})", {"null", R"("x")"}, {"1"}},
      {R"({"type":"string","format":"date"})",
       {R"("2024-02-29")", R"("1999-12-31")"},
       {R"("2023-02-29")", R"("2024-13-01")", R"("2024-04-31")"}},
      {R"({"type":"string","format":"ipv6"})",
       {R"("::1")", R"("2001:db8::ff00:42:8329")", R"("::ffff:192.168.0.1")"},
       {R"("1::2::3")", R"("12345::")", R"(":")"}},
      {R"({"type":"string","format":"uuid"})",
       {R"("2eb8aa08-aa98-11ea-b4aa-73b441d16380")"},
       {R"("2eb8aa08aa9811eab4aa73b441d16380")"}},
      {R"({"type":"number"})", {"0", "-1.5", "1e10", "2.50E-3"}, {"01", "1.", ".5", "+1", "-", "1e", "NaN", "1e999"}},
      {R"({"minimum":2})", {"2", R"("text")", "null", R"([{}])"}, {"1", "1.9"}},
      {R"(true)", {"1", R"({"a":[true]})"}, {"", "[1"}},
  };
  for (const Case& c : cases) {
    const auto machine = SchemaMachine(c.schema);
    for (const char* text : c.yes) EXPECT_TRUE(Matches(machine, text)) << c.schema << " on " << text;
    for (const char* text : c.no) EXPECT_FALSE(Matches(machine, text)) << c.schema << " on " << text;
  }
}

TEST(JsonSchemaTest, RefusalsNameKeywordAndPlace) {
  struct Case {
    const char *schema, *part;
  };
  const Case cases[] = {
      {R"({"properties":{"a":{"uniqueItems":true}}})", "#/properties/a/uniqueItems: the keyword uniqueItems"},
      {R"({"not":{"type":"string"}})", "#/not"},
      {R"({"if":true,"then":false})", "#/if"},
      {R"({"type":"array","contains":{"type":"integer"}})", "#/contains"},
      {R"({"items":{"format":"iri"}})", "#/items/format"},
      {R"({"$ref":"https://example.org/x"})", "#/$ref"},
      {R"({"$ref":"#/nowhere"})", "does not exist"},
      {R"({"type":"strnig"})", "#/type"},
      {R"({"maxLenght":3})", "#/maxLenght"},
      {R"j({"pattern":"(?=x)"})j", "#/pattern"},
      {R"({"multipleOf":0.1})", "#/multipleOf"},
      {R"({"oneOf":[{"type":"integer"},{"minimum":2}]})", "branches 0 and 1 of oneOf"},
      {R"({"minProperties":2,"properties":{"a/b":{}}})", "#/minProperties"},
      {R"(false)", "no text at all"},
      {R"({"type":"integer","minimum":3,"maximum":2})", "no text at all"},
      {R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})", "no text at all"},
  };
  for (const Case& c : cases) {
    EXPECT_NE(SchemaError(c.schema).find(c.part), std::string::npos) << c.schema << ": " << SchemaError(c.schema);
  }
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

/// All ends of matches of `expr` that begin at `pos`: plain search without automata.
class SlowRecogniser {
 public:
  SlowRecogniser(const EbnfGrammar& grammar, std::string text) : text_(std::move(text)) {
    for (const EbnfRule& rule : grammar.rules) rules_[rule.name] = rule.body;
  }
  bool Matches(const std::string& start) { return Ends(rules_.at(start), 0, start).contains(text_.size()); }

 private:
  std::set<size_t> Ends(const Ebnf& expr, size_t pos, const std::string& name = "") {
    if (!name.empty()) {
      const auto [it, added] = memo_.try_emplace({name, pos});
      if (added) {
        const std::set<size_t> ends = Ends(expr, pos);
        memo_[{name, pos}] = ends;
      }
      return memo_[{name, pos}];
    }
    switch (expr->kind) {
      case EbnfExpr::Kind::kRegex:
        if (pos < text_.size() && expr->regex->set.Contains(static_cast<uint8_t>(text_[pos]))) return {pos + 1};
        return {};
      case EbnfExpr::Kind::kRule:
        return Ends(rules_.at(expr->rule), pos, expr->rule);
      case EbnfExpr::Kind::kSequence: {
        std::set<size_t> at = {pos};
        for (const Ebnf& part : expr->parts) at = Step(part, at);
        return at;
      }
      case EbnfExpr::Kind::kAlternatives: {
        std::set<size_t> all;
        for (const Ebnf& part : expr->parts) all.merge(Ends(part, pos));
        return all;
      }
      case EbnfExpr::Kind::kRepeat: {
        std::set<size_t> at = {pos}, all;
        for (uint32_t n = 0; !at.empty() && n <= std::min<uint32_t>(expr->max, 64); ++n) {
          if (n >= expr->min) all.insert(at.begin(), at.end());
          if (n < expr->max) at = Step(expr->parts[0], at);
        }
        return all;
      }
    }
    return {};
  }
  std::set<size_t> Step(const Ebnf& part, const std::set<size_t>& from) {
    std::set<size_t> out;
    for (size_t p : from) out.merge(Ends(part, p));
    return out;
  }

  std::string text_;
  std::map<std::string, Ebnf> rules_;
  std::map<std::pair<std::string, size_t>, std::set<size_t>> memo_;
};

class RandomGrammar {
 public:
  explicit RandomGrammar(uint64_t seed) : random_(seed, "grammar") {}
  uint64_t Below(uint64_t n) { return random_.Word(at_++) % n; }

  EbnfGrammar Make() {
    EbnfGrammar grammar;
    grammar.start = "r0";
    const size_t rules = 1 + Below(4);
    for (size_t r = 0; r < rules; ++r) grammar.rules.push_back({"r" + std::to_string(r), r, Expr(3, r, rules), false});
    return grammar;
  }

 private:
  Ebnf Letters() {
    std::vector<CodePointRange> ranges;
    for (uint32_t c = 'a'; c <= 'c'; ++c) {
      if (Below(2) == 0) ranges.push_back({c, c});
    }
    if (ranges.empty()) ranges.push_back({'a', 'a'});
    return RegexEbnf(ClassRegex(CodePointSet::Of(std::move(ranges))));
  }
  /// Calls of the rule itself or of earlier ones stand behind a letter, so nothing is left-recursive.
  Ebnf Expr(int depth, size_t rule, size_t rules) {
    switch (depth == 0 ? Below(2) : Below(7)) {
      case 0:
      case 1:
        return Letters();
      case 2: {
        std::vector<Ebnf> parts(Below(4));
        for (Ebnf& p : parts) p = Expr(depth - 1, rule, rules);
        return SequenceEbnf(std::move(parts));
      }
      case 3: {
        std::vector<Ebnf> parts(2 + Below(2));
        for (Ebnf& p : parts) p = Expr(depth - 1, rule, rules);
        return AlternativesEbnf(std::move(parts));
      }
      case 4: {
        const uint32_t min = static_cast<uint32_t>(Below(3));
        return RepeatEbnf(Expr(depth - 1, rule, rules), min,
                          Below(2) == 0 ? kUnbounded : min + static_cast<uint32_t>(Below(4)));
      }
      case 5:
        if (rule + 1 < rules) return RuleEbnf("r" + std::to_string(rule + 1 + Below(rules - rule - 1)));
        return Letters();
      default: {
        // Optional, so that some text without recursion exists more often.
        Ebnf call = SequenceEbnf({Letters(), RuleEbnf("r" + std::to_string(Below(rules))), Letters()});
        return RepeatEbnf(std::move(call), 0, 1);
      }
    }
  }
  RandomStream random_;
  uint64_t at_ = 0;
};

std::shared_ptr<const TokenIndex> SmallIndex() {
  Vocabulary vocabulary;
  std::vector<std::string> tokens;
  for (int c = 0; c < 256; ++c) tokens.push_back(std::string(1, static_cast<char>(c)));
  for (const char* t :
       {"ab", "ba", "aab", "abc", "bc", "cc", "ccc", "abcabc", "\",", "a\"", "a\":", "é", "{\"", "12", "b\","}) {
    tokens.push_back(t);
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_TRUE(vocabulary.Add(static_cast<TokenId>(i), tokens[i], Vocabulary::Kind::kOrdinary).ok());
  }
  EXPECT_TRUE(vocabulary.Add(static_cast<TokenId>(tokens.size()), "a<|end|>", Vocabulary::Kind::kSpecial).ok());
  auto tokenizer = Tokenizer::FromVocabulary(std::move(vocabulary));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return *TokenIndex::Create(*tokenizer);
}

/// The mask must say of every token what stepping over its bytes says. The states after allowed tokens go to `next`.
/// False past the machine's limits, which a very ambiguous grammar may reach.
bool CheckMask(const std::shared_ptr<Machine>& machine, Machine::StateId state, std::vector<Machine::StateId>* next) {
  const Tokenizer& tokenizer = machine->tokens().tokenizer();
  std::vector<uint64_t> mask(machine->tokens().mask_words());
  const Status filled = machine->FillMask(state, mask);
  if (filled.code() == StatusCode::kResourceExhausted) return false;
  EXPECT_TRUE(filled.ok());
  next->clear();
  for (TokenId id = 0; id < tokenizer.size(); ++id) {
    const bool bit = (mask[static_cast<size_t>(id) / 64] >> (id % 64) & 1) != 0;
    if (tokenizer.IsSpecial(id)) {
      EXPECT_FALSE(bit);
      continue;
    }
    const Result<Machine::StateId> to = machine->Step(state, tokenizer.TokenBytes(id));
    if (!to.ok()) return false;
    EXPECT_EQ(bit, *to != Machine::kDead) << tokenizer.TokenBytes(id);
    if (*to != Machine::kDead) next->push_back(*to);
  }
  return true;
}

TEST(DifferentialTest, RandomGrammarsAgreeWithTheSlowRecogniser) {
  const auto index = SmallIndex();
  size_t compiled = 0, accepted = 0, masks = 0, limited = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    RandomGrammar random(seed);
    const EbnfGrammar grammar = random.Make();
    Result<Automaton> automaton = CompileEbnf(grammar, {});
    if (!automaton.ok()) continue;
    ++compiled;
    const auto machine = Machine::Create(*std::move(automaton), index);
    for (int i = 0; i < 60; ++i) {
      std::string text;
      for (size_t n = random.Below(8); text.size() < n;) text += static_cast<char>('a' + random.Below(3));
      const bool wanted = SlowRecogniser(grammar, text).Matches("r0");
      const Result<Machine::StateId> end = machine->Step(machine->start(), text);
      if (!end.ok()) {
        // Past the limit on ways at once, which is an error and never a wrong answer.
        ASSERT_EQ(end.status().code(), StatusCode::kResourceExhausted);
        ++limited;
        break;
      }
      ASSERT_EQ(machine->Accepts(*end), wanted) << "seed " << seed << " text " << text;
      accepted += wanted ? 1 : 0;
    }
    // Walks over allowed tokens: masks are right, and there is always a way on until the text is complete.
    Machine::StateId state = machine->start();
    std::vector<Machine::StateId> next;
    for (int step = 0; step < 12; ++step, ++masks) {
      if (!CheckMask(machine, state, &next)) {
        ++limited;
        break;
      }
      ASSERT_TRUE(machine->Accepts(state) || machine->CanContinue(state));
      if (next.empty()) break;
      state = next[random.Below(next.size())];
    }
  }
  EXPECT_GT(compiled, 200u);
  EXPECT_GT(accepted, 1000u);
  EXPECT_GT(masks, 1000u);
  EXPECT_LT(limited * 10, compiled);
}

TEST(DifferentialTest, MasksOfSchemasAreExact) {
  const auto index = SmallIndex();
  const char* schemas[] = {R"({"type":"string","maxLength":4})",
                           R"({"type":"string","minLength":3,"maxLength":7})",
                           R"({"type":"string"})",
                           R"({"type":"string","pattern":"^[a-c]*b[^a]$"})",
                           R"({"type":"object","properties":{"a":{"type":"string"},"ab":{"type":"integer"}}})",
                           R"({"type":"array","items":{"type":"string","maxLength":2},"maxItems":3})"};
  const RandomStream random(3, "masks");
  uint64_t at = 0;
  for (const char* schema : schemas) {
    const auto machine = Machine::Create(*CompileJsonSchema(*ParseJson(schema)), index);
    for (int walk = 0; walk < 20; ++walk) {
      Machine::StateId state = machine->start();
      for (int step = 0; step < 15; ++step) {
        std::vector<Machine::StateId> next;
        ASSERT_TRUE(CheckMask(machine, state, &next));
        if (next.empty()) break;
        state = next[random.Word(at++) % next.size()];
      }
    }
  }
}

TEST(MatcherTest, RollbackAndForcedTokens) {
  const auto tokenizer = Tokenizer::Embedded();
  ASSERT_TRUE(tokenizer.ok());
  const auto index = TokenIndex::Create(*tokenizer);
  ASSERT_TRUE(index.ok());
  JsonSchemaOptions options;
  options.optional_spaces = false;
  const Json schema = *ParseJson(
      R"({"type":"object","properties":{"temperature":{"type":"integer"}},"required":["temperature"],"additionalProperties":false})");
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
