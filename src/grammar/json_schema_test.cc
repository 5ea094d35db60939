#include "grammar/json_schema.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/rng.h"
#include "grammar/grammar_testing.h"

namespace gptoss {
namespace {

void CheckSchemas(const std::vector<LanguageCase>& cases) {
  for (const LanguageCase& c : cases) {
    const Result<Json> json = ParseJson(c.source);
    ASSERT_TRUE(json.ok()) << c.source;
    CheckLanguage(Machine::Create(MustCompile(CompileJsonSchema(*json)), nullptr), c);
  }
}

std::string SchemaError(const char* schema) {
  const Result<Json> json = ParseJson(schema);
  EXPECT_TRUE(json.ok()) << schema;
  const Result<Automaton> automaton = CompileJsonSchema(*json);
  EXPECT_FALSE(automaton.ok()) << schema;
  return automaton.status().message();
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

TEST(JsonSchemaTest, Objects) {
  CheckSchemas({
      {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["a"],
          "additionalProperties":false})",
       {R"({"a":1})", R"({"a": 1, "b": "x"})", R"({"a":-7,"b":""})"},
       {R"({})", R"({"b":"x"})", R"({"b":"x","a":1})", R"({"a":1,})", R"({"a":1,"c":2})", R"({"a":1.5})", R"({ "a":1})",
        R"({"a":  1})"}},
      {R"({"type":"object","properties":{"a":{"type":"integer"}}})",
       {R"({})", R"({"a":1,"x":[1,{"y":null}]})", R"({"x":"a"})", R"({"ab":1})"},
       {R"({"a":"s"})", R"({"x":1,"a":"s"})", R"({"\u0061":"s"})"}},
      {R"({"type":"object","patternProperties":{"^n_":{"type":"integer"},"s$":{"type":"string"}},
          "additionalProperties":false})",
       {R"({})", R"({"n_a":1,"xs":"y"})"},
       {R"({"n_a":"x"})", R"({"other":1})", R"({"n_s":1})", R"({"n_s":"x"})"}},
      {R"({"type":"object","additionalProperties":{"type":"integer"}})", {R"({"x":1,"y":2})"}, {R"({"x":"1"})"}},
  });
}

TEST(JsonSchemaTest, Strings) {
  CheckSchemas({
      {R"({"type":"string","minLength":2,"maxLength":3})",
       {R"("ab")", R"("äöü")", R"("\n\"")", R"("\ud83d\ude00x")", R"("😀x")"},
       {R"("a")", R"("abcd")", R"("\ud83d")", R"("a\x")", "\"a\n\"", "\"a\xC3\"", R"("\udc00\udc00")"}},
      {R"({"type":"string","pattern":"^a.*z$","maxLength":4})",
       {R"("az")", R"("a\"\"z")", R"("abcz")"},
       {R"("abcdz")", R"("za")"}},
      {R"({"type":"string","pattern":"b"})", {R"("b")", R"("abc")"}, {R"("a")", R"("")"}},
      {R"({"type":"string","format":"date"})",
       {R"("2024-02-29")", R"("1999-12-31")"},
       {R"("2023-02-29")", R"("2024-13-01")", R"("2024-04-31")"}},
      {R"({"type":"string","format":"ipv6"})",
       {R"("::1")", R"("2001:db8::ff00:42:8329")", R"("::ffff:192.168.0.1")"},
       {R"("1::2::3")", R"("12345::")", R"(":")"}},
      {R"({"type":"string","format":"uuid"})",
       {R"("2eb8aa08-aa98-11ea-b4aa-73b441d16380")"},
       {R"("2eb8aa08aa9811eab4aa73b441d16380")"}},
  });
}

TEST(JsonSchemaTest, Arrays) {
  CheckSchemas({
      {R"({"type":"array","items":{"type":"boolean"},"minItems":1,"maxItems":3})",
       {"[true]", "[true,false, true]"},
       {"[]", "[true,true,true,true]", "[1]", "[true,]"}},
      {R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"items":false})",
       {"[]", "[1]", R"([1,"x"])"},
       {R"(["x"])", R"([1,"x",2])"}},
      {R"({"type":"array","prefixItems":[{"type":"integer"}],"minItems":2})",
       {"[1,null]", "[1,2,3]"},
       {"[1]", "[null,1]"}},
  });
}

TEST(JsonSchemaTest, Numbers) {
  CheckSchemas({
      {R"({"type":"number"})", {"0", "-1.5", "1e10", "2.50E-3"}, {"01", "1.", ".5", "+1", "-", "1e", "NaN", "1e999"}},
      {R"({"minimum":2})", {"2", R"("text")", "null", R"([{}])"}, {"1", "1.9"}},
  });
}

TEST(JsonSchemaTest, ValuesAndTypes) {
  CheckSchemas({
      {R"({"enum":["a","ab",1,1.5,null,{"k":[1,2]}]})",
       {R"("a")", R"("ab")", "1", "1.5", "null", R"({"k": [1, 2]})"},
       {R"("b")", "2", R"({"k":[1]})", "1.0"}},
      {R"({"const":"x\"y"})", {R"("x\"y")"}, {R"("xy")"}},
      {R"({"type":["string","null"]})", {"null", R"("")"}, {"1"}},
      {R"({"type":"string","nullable":true})", {"null", R"("x")"}, {"1"}},
      {R"(true)", {"1", R"({"a":[true]})"}, {"", "[1"}},
  });
}

TEST(JsonSchemaTest, Combinations) {
  CheckSchemas({
      {R"({"anyOf":[{"type":"integer","maximum":5},{"type":"string","maxLength":1}]})",
       {"5", R"("a")"},
       {"6", R"("ab")"}},
      {R"({"oneOf":[{"type":"object","properties":{"t":{"const":"a"},"x":{"type":"integer"}},"required":["t","x"],
          "additionalProperties":false},
          {"type":"object","properties":{"t":{"const":"b"}},"required":["t"],"additionalProperties":false}]})",
       {R"({"t":"a","x":1})", R"({"t":"b"})"},
       {R"({"t":"b","x":1})", R"({"t":"a"})"}},
      {R"({"allOf":[{"type":"integer","minimum":3},{"maximum":7}],"multipleOf":2})", {"4", "6"}, {"3", "8", "2"}},
      {R"({"allOf":[{"properties":{"a":{"minimum":2}}},
          {"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],
          "additionalProperties":false}]})",
       {R"({"a":2})"},
       {R"({"a":1})", R"({"a":"x"})", R"({})"}},
      {R"({"$defs":{"node":{"type":"object","properties":{"v":{"type":"integer"},
          "next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},"required":["v","next"],
          "additionalProperties":false}},"$ref":"#/$defs/node"})",
       {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":{"v":3,"next":null}}})"},
       {R"({"v":1})", R"({"v":1,"next":{"v":2}})", R"({"v":1,"next":null}})"}},
  });
}

TEST(JsonSchemaTest, DocumentsOfOthersAreWrittenAsTheAutomatonReadsThem) {
  struct Case {
    const char *schema, *document, *canonical;
  };
  const Case cases[] = {
      {R"({"properties":{"b":{},"a":{}},"required":["c"]})", R"({"x":1,"c":2,"a":3,"b":4})",
       R"({"b":4,"a":3,"c":2,"x":1})"},
      {R"({"$ref":"#/$defs/d","$defs":{"d":{"properties":{"b":{},"a":{"properties":{"z":{},"y":{}}}}}}})",
       R"({"a":{"y":1,"z":2},"b":0})", R"({"b":0,"a":{"z":2,"y":1}})"},
      {R"({"const":{"b":1,"a":[{"d":2,"c":3}]}})", R"({"a":[{"c":3.0,"d":2}],"b":1})",
       R"({"b":1,"a":[{"d":2,"c":3}]})"},
      {R"({"items":{"enum":[{"b":1,"a":2},9007199254740992]}})", R"([{"a":2,"b":1},9007199254740992.0])",
       R"([{"b":1,"a":2},9007199254740992])"},
      {R"({"type":"integer"})", "12e20", "1200000000000000000000"},
      {R"({"type":"number"})", "-0.0", "0"},
      {R"({"type":"number"})", "25e-3", "0.025"},
      {R"({"type":"string"})", R"("\u0041\/\u00e9")", R"("A/é")"},
  };
  for (const Case& c : cases) {
    const Json schema = *ParseJson(c.schema);
    EXPECT_EQ(CanonicalJson(*ParseJson(c.document), schema), c.canonical);
    EXPECT_TRUE(Matches(Machine::Create(*CompileJsonSchema(schema), nullptr), c.canonical)) << c.canonical;
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
      {R"({"$schema":"https://example.org/my-words","minimum":1})", "#/$schema: the dialect"},
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

}  // namespace
}  // namespace gptoss
