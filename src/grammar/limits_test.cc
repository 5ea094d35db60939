// Grammars made to take for ever or to fill the memory: each is either compiled, and then walked within the machine's
// limits, or refused with an error that says why.
#include <gtest/gtest.h>

#include <string>

#include "grammar/ebnf.h"
#include "grammar/grammar_testing.h"
#include "grammar/json_schema.h"

namespace gptoss {
namespace {

std::string Times(std::string_view text, size_t n) {
  std::string out;
  out.reserve(text.size() * n);
  for (size_t i = 0; i < n; ++i) out += text;
  return out;
}

enum class Outcome : uint8_t { kCompiles, kRefused };

/// `texts` are walked as far as they go; a machine at its limits says so.
void Check(const std::string& name, Result<Automaton> automaton, Outcome expected,
           const std::vector<std::string>& texts = {}) {
  SCOPED_TRACE(name);
  EXPECT_EQ(automaton.ok(), expected == Outcome::kCompiles) << automaton.status().message();
  if (!automaton.ok()) {
    EXPECT_TRUE(automaton.status().code() == StatusCode::kResourceExhausted ||
                automaton.status().code() == StatusCode::kInvalidArgument ||
                automaton.status().code() == StatusCode::kUnsupported);
    EXPECT_GT(automaton.status().message().size(), 10u);
    EXPECT_LT(automaton.status().message().size(), 1000u);
    EXPECT_EQ(automaton.status().message().find('\n'), std::string::npos);
    return;
  }
  MachineLimits limits;
  limits.max_states = 20'000;
  limits.max_frames = 40'000;
  const auto machine = Machine::Create(*std::move(automaton), nullptr, limits);
  machine->Need(machine->start());
  for (const std::string& text : texts) {
    const auto end = machine->Step(machine->start(), text);
    if (end.ok()) continue;
    EXPECT_EQ(end.status().code(), StatusCode::kResourceExhausted);
    EXPECT_NE(end.status().message().find("simplify"), std::string::npos);
  }
}

TEST(LimitsTest, Schemas) {
  const auto compile = [](const Json& schema) { return CompileJsonSchema(schema); };
  Json values = Json::array();
  for (int i = 0; i < 20'000; ++i) values.push_back("value " + std::to_string(i));
  Check("an enum of 20,000", compile(Json{{"enum", values}}), Outcome::kCompiles, {"\"value 19999\""});
  for (int i = 0; i < 100'000; ++i)
    values.push_back("another value, longer than the others, " + std::to_string(i * 7919));
  Check("an enum of 120,000", compile(Json{{"enum", values}}), Outcome::kRefused);

  Json deep = true;
  for (int i = 0; i < 100; ++i) deep = Json{{"type", "array"}, {"items", deep}};
  Check("nested 100 deep", compile(deep), Outcome::kCompiles, {Times("[", 90) + "1" + Times("]", 90)});
  for (int i = 0; i < 3000; ++i) deep = Json{{"type", "array"}, {"items", deep}};
  Check("nested 3100 deep", compile(deep), Outcome::kRefused);

  const auto parse = [&](const std::string& text) { return compile(*ParseJson(text)); };
  Check("minLength", parse(R"({"type":"string","minLength":1000000000,"maxLength":2000000000})"), Outcome::kCompiles,
        {"\"" + Times("a", 20'000)});
  Check("minItems", parse(R"({"type":"array","items":{"type":"null"},"minItems":1000000000,"maxItems":2000000000})"),
        Outcome::kCompiles, {"[" + Times("null,", 20'000)});
  Check("nested minItems", parse(R"({"type":"array","minItems":1000000,"items":{"type":"array","minItems":1000000,
        "items":{"type":"array","minItems":1000000,"items":{"type":"string","minLength":1000000}}}})"),
        Outcome::kCompiles, {"[[[\"a"});
  Check("lengths beyond 32 bits", parse(R"({"type":"string","maxLength":99999999999999999999})"), Outcome::kCompiles);
  Check("a pattern and a length", parse(R"({"type":"string","pattern":"^(ab|c)*$","maxLength":1000000})"),
        Outcome::kRefused);
  Check("patterns that multiply", parse(R"({"allOf":[{"pattern":"^(a|b)*a(a|b){12}$"},{"pattern":"^(a|b)*b(a|b){13}$"}],
        "type":"string"})"),
        Outcome::kRefused);
  Check("multipleOf", parse(R"({"type":"integer","multipleOf":999983,"minimum":-1e15,"maximum":1e15})"),
        Outcome::kRefused);
  // Such references demand nothing.
  Check("a reference to itself", parse(R"({"$ref":"#"})"), Outcome::kCompiles);
  Check("a circle of references", parse(R"({"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},
        "$ref":"#/$defs/a"})"),
        Outcome::kCompiles);

  Json combined = Json::array();
  for (int i = 0; i < 30; ++i) {
    Json branches = Json::array();
    for (int k = 0; k < 8; ++k)
      branches.push_back({{"minLength", i + k}, {"pattern", std::string(1, static_cast<char>('a' + k))}});
    combined.push_back({{"anyOf", branches}});
  }
  Check("8^30 combinations", compile(Json{{"type", "string"}, {"allOf", combined}}), Outcome::kRefused);

  Json defs = Json::object();
  for (int i = 0; i < 60; ++i) {
    const Json next = {{"$ref", "#/$defs/d" + std::to_string(i + 1)}};
    defs["d" + std::to_string(i)] = {{"type", "array"}, {"prefixItems", Json::array({next, next})}, {"items", false}};
  }
  defs["d60"] = {{"type", "null"}};
  Check("2^60 places by reference", compile(Json{{"$ref", "#/$defs/d0"}, {"$defs", defs}}), Outcome::kCompiles,
        {Times("[", 60) + "null,null]"});
}

TEST(LimitsTest, RegularExpressions) {
  const std::vector<std::string> texts = {Times("a", 5000), Times("ab", 2500), Times("a", 5000) + "!"};
  for (const char* pattern :
       {"(a+)+$", "(a|a)*", "(a*)*b", "(a|aa)+", "(.*)(.*)(.*)(.*)x", "((a{0,100}){0,100}){0,100}", "a{1000000}",
        "(a?){500}a{500}", "(a|b)*a(a|b){30}", "(x+x+)+y"}) {
    Check(pattern, CompileRegex(pattern), Outcome::kCompiles, texts);
  }
  Check("long", CompileRegex(Times("a", 100'000)), Outcome::kRefused);
  Check("deep", CompileRegex(Times("(", 10'000) + Times(")", 10'000)), Outcome::kRefused);
  Check("many classes", CompileRegex(Times("[\\p{L}\\p{N}]", 2'000)), Outcome::kCompiles, {"abc"});
  Check("very many classes", CompileRegex(Times("(\\p{L}|\\p{N}x)", 4'000)), Outcome::kCompiles, {"abc"});
}

TEST(LimitsTest, Grammars) {
  Check("deep", CompileGbnf("root ::= " + Times("(", 10'000) + "\"a\"" + Times(")", 10'000)), Outcome::kRefused);
  Check("deep Lark", CompileLark("start: " + Times("[", 10'000) + "\"a\"" + Times("]", 10'000)), Outcome::kRefused);
  Check("hidden left recursion", CompileGbnf("root ::= e\ne ::= n e \"a\" | \"b\"\nn ::= \"x\"?"), Outcome::kRefused);
  Check("long", CompileGbnf("root ::= \"" + Times("a", 2'000'000) + "\""), Outcome::kRefused);
  std::string doubling = "root ::= r0\n";
  for (int i = 0; i < 60; ++i) {
    const std::string next = "r" + std::to_string(i + 1);
    doubling += "r" + std::to_string(i) + " ::= " + next + " " + next + "\n";
  }
  Check("2^60 letters", CompileGbnf(doubling + "r60 ::= \"a\"\n"), Outcome::kCompiles, {Times("a", 5000)});
  // Every letter may belong to any of many rules, and each may go on: the ways multiply until the machine refuses.
  Check("ambiguous", CompileGbnf("root ::= s\ns ::= \"a\" s s s | \"a\" s s | \"a\" s | \"a\"\n"), Outcome::kCompiles,
        {Times("a", 500)});
  Check("many ways at once",
        CompileGbnf("root ::= (x | y | z)*\nx ::= \"a\" x? \"b\"?\ny ::= \"a\" y? \"c\"?\nz ::= \"a\" z? \"d\"?\n"),
        Outcome::kCompiles, {Times("a", 3000)});
  std::string rules = "root ::= a0\n";
  for (int i = 0; i < 30'000; ++i) rules += "a" + std::to_string(i) + " ::= \"x\" a" + std::to_string(i + 1) + "\n";
  Check("30,000 rules", CompileGbnf(rules + "a30000 ::= \"y\"\n"), Outcome::kCompiles, {Times("x", 1000)});
}

}  // namespace
}  // namespace gptoss
