#include "harmony/tool_schema.h"

#include <gtest/gtest.h>

#include "harmony/builtin_tools.h"

namespace gptoss {
namespace {

std::string Print(std::string_view schema, SchemaStyle style) {
  Result<Json> json = ParseJson(schema);
  EXPECT_TRUE(json.ok()) << schema;
  Result<std::string> text = SchemaToTypeScript(*json, style);
  return text.ok() ? *text : "error: " + text.status().message();
}
std::string Official(std::string_view schema) { return Print(schema, SchemaStyle::kOfficial); }
std::string Faithful(std::string_view schema) { return Print(schema, SchemaStyle::kFaithful); }

std::string Nested(int levels, const char* open, const char* inner, const char* close) {
  std::string out;
  for (int i = 0; i < levels; ++i) out += open;
  out += inner;
  for (int i = 0; i < levels; ++i) out += close;
  return out;
}

struct Pair {
  const char* schema;
  const char* text;
};

// Read off the official code, branch by branch; the faithful style must not change any of it.
TEST(ToolSchema, OfficialTextInBothStyles) {
  const Pair cases[] = {
      {R"({"type":"string"})", "string"},
      {R"({"type":"integer"})", "number"},
      {R"({"type":"boolean"})", "boolean"},
      {R"({"type":["integer","null"]})", "number | null"},
      {R"({"type":"array"})", "Array<any>"},
      {R"({"type":"array","items":{"type":"string","enum":["a","b"]}})", "\"a\" | \"b\"[]"},
      {R"({"type":"array","items":{"type":["string","number"]}})", "string | number[]"},
      {R"({"type":"array","items":{"type":"array","items":{"type":"integer"}}})", "number[][]"},
      {R"({"type":"object"})", "{\n}"},
      {R"({"type":"object","properties":{"b":{"type":"string"},"a":{"type":"number"}},"required":["a"]})",
       "{\nb?: string,\na: number,\n}"},
      {R"({"type":"object","properties":{"x":{"type":"number","default":1.0}}})", "{\nx?: number, // default: 1.0\n}"},
      {R"({"type":"object","properties":{"x":{"type":"number","default":1e16}}})",
       "{\nx?: number, // default: 1e16\n}"},
      {R"({"type":"object","properties":{"x":{"type":"array","default":[1,"a",null]}}})",
       "{\nx?: Array<any>, // default: [1,\"a\",null]\n}"},
      {R"({"type":"object","properties":{"x":{"type":"string","enum":["a"],"default":"a"}}})",
       "{\nx?: \"a\", // default: a\n}"},
      {R"({"type":"object","properties":{"x":{"type":"string","title":"X","description":"D","examples":["e"]}}})",
       "{\n// X\n//\n// D\n// Examples:\n// - \"e\"\nx?: string,\n}"},
      {R"({"type":"object","properties":{"x":{"type":"string","description":"two\nlines"}}})",
       "{\n// two\nlines\nx?: string,\n}"},
      {R"({"type":"object","properties":{"o":{"type":"object","description":"D","properties":{"i":{"type":"string"}}}}})",
       "{\n// D\no?:     // D\n{\n    i?: string,\n    },\n}"},
      {R"({"type":"object","properties":{"s":{"type":"string","nullable":true}}})", "{\ns?: string | null,\n}"},
      {R"({"type":"object","properties":{"u":{"description":"D","default":"x","oneOf":[
           {"type":"string","description":"first"},{"type":"string","enum":["a"],"default":"a","description":"second"}]}}})",
       "{\n// D\n// default: \"x\"\nu?:\n | string\n | \"a\" // second default: a\n,\n}"},
      {R"({"oneOf":[{"type":"string","enum":["a"],"default":"a"},{"type":"number","nullable":true}]})",
       "\n | \"a\" // default: \"a\"\n | number | null"},
  };
  for (const Pair& c : cases) {
    EXPECT_EQ(Official(c.schema), c.text) << c.schema;
    EXPECT_EQ(Faithful(c.schema), c.text) << c.schema;
  }
}

TEST(ToolSchema, OfficialLosses) {
  EXPECT_EQ(Official(R"({"anyOf":[{"type":"string"}]})"), "any");
  EXPECT_EQ(Official(R"({"$ref":"#/$defs/A"})"), "any");
  EXPECT_EQ(Official(R"({"const":1})"), "any");
  EXPECT_EQ(Official(R"({"type":"null"})"), "any");
  EXPECT_EQ(Official(R"({"type":"string","const":"a"})"), "string");
  EXPECT_EQ(Official(R"({"type":"integer","enum":[1,2]})"), "number");
  EXPECT_EQ(Official("true"), "any");
  // "null" in a property's name stands in the way of the real one.
  EXPECT_EQ(Official(R"({"type":"object","properties":{"o":{"type":"object","nullable":true,
                         "properties":{"nulls":{"type":"string"}}}}})"),
            "{\no?: {\n    nulls?: string,\n    },\n}");
}

TEST(ToolSchema, FaithfulExtensions) {
  const Pair cases[] = {
      {R"({"anyOf":[{"type":"string"},{"type":"integer"},{"type":"number"}]})", "string | number"},
      {R"({"anyOf":[{"type":"string"},{"type":"null"}]})", "string"},  // null is added where a value may stand
      {R"({"const":"a"})", "\"a\""},
      {R"({"const":{"a":[1.5]}})", "{\"a\":[1.5]}"},
      {R"({"type":"integer","enum":[1,2]})", "1 | 2"},
      {R"({"type":["string","null"],"enum":["a",null]})", "\"a\" | null"},
      {R"({"type":"null"})", "null"},
      {"true", "any"},
      {"false", "never"},
      {R"({"not":{"type":"string"}})", "Exclude<any, string>"},
      {R"({"type":["array","null"],"items":{"type":"string"}})", "string[] | null"},
      {R"({"type":"array","items":{"anyOf":[{"type":"string"},{"type":"number"}]}})", "(string | number)[]"},
      {R"({"type":"array","items":{"type":"string","nullable":true}})", "(string | null)[]"},
      {R"({"type":"array","prefixItems":[{"type":"string"},{"type":"number"}]})", "[string, number]"},
      {R"({"properties":{"a":{"type":"string"}}})", "{\na?: string,\n}"},
      {R"({"type":"object","additionalProperties":{"type":"integer"}})", "{\n[key: string]: number,\n}"},
      {R"({"type":"object","patternProperties":{"^x":{"type":"string"}}})",
       "{\n// keys that match ^x\n[key: string]: string,\n}"},
      {R"({"type":"object","additionalProperties":false})", "{\n}"},
      {R"({"allOf":[{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]},
                    {"type":"object","properties":{"b":{"type":"number"}}}]})",
       "{\na: string,\nb?: number,\n}"},
      {R"({"allOf":[{"type":"string"},{"type":"number"}]})", "string & number"},
      {R"({"type":"object","properties":{"a":{"type":"string"}},"anyOf":[{"required":["a"]},{"required":["b","c"]}]})",
       "// required: a | b, c\n{\na?: string,\n}"},
      {R"({"type":"object","properties":{"o":{"nullable":true,"type":"object",
           "properties":{"nulls":{"type":"string"}}}}})",
       "{\no?: {\n    nulls?: string,\n    } | null,\n}"},
      // A union with null reads like the official nullable; comments come from beside it.
      {R"({"type":"object","properties":{"s":{"anyOf":[{"type":"string"},{"type":"null"}],"default":null,
           "description":"D"}}})",
       "{\n// D\ns?: string | null, // default: null\n}"},
      // Members that need lines of their own: a block, as for oneOf.
      {R"({"type":"object","properties":{"u":{"anyOf":[{"type":"object","properties":{"a":{"type":"string"}}},
           {"type":"string","description":"text"}]}},"required":["u"]})",
       "{\nu:\n | {\n   a?: string,\n   }\n | string // text\n,\n}"},
  };
  for (const Pair& c : cases) EXPECT_EQ(Faithful(c.schema), c.text) << c.schema;
}

TEST(ToolSchema, References) {
  EXPECT_EQ(Faithful(R"({"type":"object","properties":{"p":{"$ref":"#/$defs/Point","description":"where"}},
                         "$defs":{"Point":{"type":"object","description":"a point",
                                           "properties":{"x":{"$ref":"#/$defs/N"}}},"N":{"type":"number"}}})"),
            "{\n// where\np?:     // where\n{\n    x?: number,\n    },\n}");
  EXPECT_EQ(Faithful(R"({"allOf":[{"$ref":"#/definitions/a~1b"}],"definitions":{"a/b":{"type":"string"}}})"), "string");
  EXPECT_EQ(Faithful(R"({"type":"array","items":[{"$ref":"#/items/1"},{"type":"string"}]})"), "[string, string]");
  for (const char* broken :
       {R"({"$ref":"#/$defs/none"})", R"({"$ref":"http://example.com/a.json"})", R"({"$ref":"#/$ref"})"}) {
    EXPECT_TRUE(Faithful(broken).starts_with("error: \"$ref\": ")) << Faithful(broken);
  }
}

TEST(ToolSchema, TypesThatContainThemselvesAreNamed) {
  EXPECT_EQ(Faithful(R"({"type":"object","properties":{"tree":{"$ref":"#/$defs/Node"}},
    "$defs":{"Node":{"type":"object","properties":{"children":{"type":"array","items":{"$ref":"#/$defs/Node"}},
                                                   "next":{"anyOf":[{"$ref":"#/$defs/Node"},{"type":"null"}]}}}}})"),
            "{\n// type Node\ntree?: {\n    children?: Node[],\n    next?: Node | null,\n    },\n}");
  EXPECT_EQ(Faithful(R"({"type":"object","properties":{"self":{"$ref":"#"}}})"), "// type Root\n{\nself?: Root,\n}");
  EXPECT_EQ(Faithful(R"({"$ref":"#/$defs/A","$defs":{"A":{"$ref":"#/$defs/A"}}})"), "// type A\nA");
}

TEST(ToolSchema, LimitsAreErrors) {
  const std::string deep = Nested(100, R"({"type":"array","items":)", "{}", "}");
  EXPECT_NE(Official(deep).find("nested deeper than 100 levels"), std::string::npos);
  // Each definition holds the next one twice: 2^40 types.
  std::string bomb = R"({"$ref":"#/$defs/d0","$defs":{)";
  for (int i = 0; i < 40; ++i) {
    const std::string next = R"({"$ref":"#/$defs/d)" + std::to_string(i + 1) + R"("})";
    bomb += "\"d" + std::to_string(i) + R"(":{"type":"object","properties":{"a":)" + next + ",\"b\":" + next + "}},";
  }
  bomb += R"("d40":{"type":"string"}}})";
  EXPECT_TRUE(Faithful(bomb).starts_with("error: ")) << Faithful(bomb).size();
  EXPECT_NE(Official("{\"description\":\"" + std::string(kMaxSchemaBytes, 'x') + "\"}").find("the limit is"),
            std::string::npos);
}

TEST(ToolSchema, SectionsSortByKeyAndKeepLines) {
  ToolNamespaces tools;
  tools["python"] = PythonTool();
  tools["b"] = {"shown", "one\r\ntwo\n", {{"f", "first\nsecond", std::nullopt}}};
  Result<std::string> text = RenderToolsSection(tools, SchemaStyle::kOfficial);
  ASSERT_TRUE(text.ok());
  EXPECT_TRUE(
      text->starts_with("# Tools\n\n## shown\n\n// one\n// two\nnamespace shown {\n\n// first\n// second\n"
                        "type f = () => any;\n\n} // namespace shown\n\n## python\n\nUse this tool to execute"))
      << *text;
  EXPECT_TRUE(
      text->ends_with("files).\n\nWhen you send a message containing Python code to python, it will be "
                      "executed in a stateful Jupyter notebook environment. python will respond with the "
                      "output of the execution or time out after 120.0 seconds. The drive at '/mnt/data' can "
                      "be used to save and persist user files. Internet access for this session is UNKNOWN. "
                      "Depends on the cluster."));
  tools["b"].tools[0].parameters = Json{{"$ref", "#/nowhere"}};
  EXPECT_TRUE(RenderToolsSection(tools, SchemaStyle::kFaithful).status().message().starts_with("tool \"shown.f\": "));
}

TEST(ToolSchema, BrowserAsTheModelsKnowIt) {
  Result<std::string> text = RenderToolsSection({{"browser", BrowserTool()}}, SchemaStyle::kFaithful);
  ASSERT_TRUE(text.ok());
  EXPECT_TRUE(text->starts_with("# Tools\n\n## browser\n\n// Tool for browsing.\n// The `cursor` appears in"));
  EXPECT_NE(text->find("\n// sources=web (default: web)\nnamespace browser {\n\n// Searches for information related to "
                       "`query` and displays `topn` results.\ntype search = (_: {\nquery: string,\ntopn?: number, "
                       "// default: 10\nsource?: string,\n}) => any;\n\n"),
            std::string::npos);
  EXPECT_NE(
      text->find("type open = (_: {\nid?: number | string, // default: -1\ncursor?: number, // default: -1\nloc?: "
                 "number, // default: -1\nnum_lines?: number, // default: -1\nview_source?: boolean, // default: "
                 "false\nsource?: string,\n}) => any;\n\n"),
      std::string::npos);
  EXPECT_TRUE(
      text->ends_with("type find = (_: {\npattern: string,\ncursor?: number, // default: -1\n}) => any;\n\n"
                      "} // namespace browser"));
}

TEST(CompactJson, FloatsAsSerde) {
  const Pair cases[] = {{"1.0", "1.0"},
                        {"1e15", "1000000000000000.0"},
                        {"1e16", "1e16"},
                        {"1.5e300", "1.5e300"},
                        {"0.0001", "0.0001"},
                        {"0.00001", "0.00001"},
                        {"0.000001", "1e-6"},
                        {"-0.0", "-0.0"},
                        {"1.25e-7", "1.25e-7"},
                        {"123.5", "123.5"},
                        {"18446744073709551616", "1.8446744073709552e19"}};
  for (const Pair& c : cases) EXPECT_EQ(CompactJson(*ParseJson(c.schema)), c.text) << c.schema;
  EXPECT_EQ(CompactJson(*ParseJson("{\"b\" : [1, {\"a\": \"\\u00e9\\n\"}]}")), "{\"b\":[1,{\"a\":\"é\\n\"}]}");
}

}  // namespace
}  // namespace gptoss
