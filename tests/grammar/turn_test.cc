// Turns that a model of random weights would write under the turn grammar, read by harmony's strict parser.
#include <gtest/gtest.h>

#include "base/mmap_file.h"
#include "base/rng.h"
#include "grammar/json_schema.h"
#include "grammar/schema_reader.h"
#include "grammar/turn_grammar.h"
#include "harmony/render.h"
#include "random_outputs.h"

namespace gptoss {
namespace {

class TurnTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    tokenizer_ = *Tokenizer::Embedded();
    index_ = *TokenIndex::Create(tokenizer_);
  }

  static std::shared_ptr<Machine> Schema(const char* text) {
    return Machine::Create(*CompileJsonSchema(*ParseJson(text)), index_);
  }
  static std::shared_ptr<const TurnGrammar> Grammar(TurnOptions options) {
    auto grammar = TurnGrammar::Create(index_, std::move(options));
    EXPECT_TRUE(grammar.ok()) << grammar.status().message();
    return *std::move(grammar);
  }
  static size_t Allowed(const TurnMatcher& matcher) {
    std::vector<uint64_t> mask(index_->mask_words());
    EXPECT_TRUE(matcher.FillMask(mask).ok());
    size_t n = 0;
    for (const uint64_t word : mask) n += static_cast<size_t>(__builtin_popcountll(word));
    return n;
  }

  static std::shared_ptr<const Tokenizer> tokenizer_;
  static std::shared_ptr<const TokenIndex> index_;
};

std::shared_ptr<const Tokenizer> TurnTest::tokenizer_;
std::shared_ptr<const TokenIndex> TurnTest::index_;

// The short form of what random_outputs.mjs does with 10,000 turns and another validator.
TEST_F(TurnTest, RandomTurnsAreWellFormed) {
  std::vector<Json> schemas;
  const Json file = *ParseJson(*ReadTextFile(std::string(GPTOSS_TEST_DATA) + "/schemas/openai.json"));
  for (const Json& schema : file) schemas.push_back(schema);
  const RandomLogits logits(*tokenizer_, 11);
  size_t finished = 0, judged = 0, limited = 0;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const TurnCase turn = RandomTurn(schemas, seed, index_);
    const size_t most = turn.options.max_tokens > 0 ? turn.options.max_tokens : 300;
    const RandomOutput output = DrawTurn(Grammar(turn.options), logits, seed, most, seed % 4 > 0);
    std::vector<Document> documents;
    ASSERT_EQ(WhatIsWrong(turn, output, tokenizer_, &documents), "") << seed << "\n" << tokenizer_->Decode(output.ids);
    for (const Document& d : documents) {
      auto reader = SchemaReader::Create(d.schema, SchemaDialect::kAuto);
      ASSERT_TRUE(reader.ok());
      const Result<bool> valid = reader->Validates(*ParseJson(d.text), MakeSchemaSet({reader->root()}));
      // It refuses to read numbers of a hundred digits, which ajv then judges.
      EXPECT_TRUE(!valid.ok() || *valid) << WriteJson(d.schema) << "\n" << d.text;
      judged += valid.ok() ? 1 : 0;
    }
    finished += output.finished ? 1 : 0;
    limited += turn.options.max_tokens > 0 ? 1 : 0;
  }
  EXPECT_GT(finished, 15u);
  EXPECT_GT(judged, 3u);
  EXPECT_GT(limited, 20u);
}

TEST_F(TurnTest, HeadersAreThoseOfTheRenderer) {
  TurnOptions options;
  options.tools = {
      {"functions.get_weather", nullptr}, {"functions.get", nullptr, false}, {"python", nullptr, false, true}};
  const auto renderer = Renderer::Create(tokenizer_);
  ASSERT_TRUE(renderer.ok());
  struct Case {
    const char *recipient, *channel, *type, *text;
  };
  for (const Case& c :
       {Case{nullptr, "analysis", nullptr, "Hm."}, Case{nullptr, "commentary", nullptr, "I look."},
        Case{"functions.get_weather", "commentary", "<|constrain|>json", "{}"},
        Case{"functions.get", "commentary", "code", "x y"}, Case{"python", "analysis", "code", "1+1"}}) {
    Message message = TextMessage(Role::kAssistant, c.text);
    message.channel = c.channel;
    if (c.recipient != nullptr) message.recipient = c.recipient;
    if (c.type != nullptr) message.content_type = c.type;
    std::vector<TokenId> ids;
    ASSERT_TRUE(renderer->RenderMessage(message, false, true, &ids).ok());
    TurnMatcher matcher(Grammar(options));
    constexpr size_t kOpening = 2;  // <|start|>assistant
    for (size_t i = kOpening; i < ids.size(); ++i) {
      const Result<bool> accepted = matcher.Accept(ids[i]);
      ASSERT_TRUE(accepted.ok() && *accepted) << tokenizer_->Decode(ids) << " at " << i;
    }
    EXPECT_EQ(matcher.IsComplete(), c.recipient != nullptr);
  }
}

TEST_F(TurnTest, AClosedAnalysisForcesTheWayToTheAnswer) {
  TurnOptions options;
  options.allow_analysis = options.allow_preamble = false;
  TurnMatcher matcher(Grammar(options));
  std::vector<TokenId> forced;
  for (TokenId id = *matcher.ForcedToken(); id >= 0; id = *matcher.ForcedToken()) {
    ASSERT_TRUE(*matcher.Accept(id));
    forced.push_back(id);
  }
  EXPECT_EQ(tokenizer_->Decode(forced), "<|channel|>final<|message|>");
}

TEST_F(TurnTest, AnExhaustedBudgetForcesTheWayToTheAnswer) {
  TurnOptions options;
  options.reasoning_budget = 2;
  TurnMatcher matcher(Grammar(options));
  std::vector<TokenId> ids;
  tokenizer_->EncodeWithSpecial("<|channel|>analysis<|message|>a b", &ids);
  for (const TokenId id : ids) ASSERT_TRUE(*matcher.Accept(id)) << tokenizer_->TokenBytes(id);
  std::vector<TokenId> forced;
  for (TokenId id = *matcher.ForcedToken(); id >= 0; id = *matcher.ForcedToken()) {
    ASSERT_TRUE(*matcher.Accept(id));
    forced.push_back(id);
  }
  EXPECT_EQ(tokenizer_->Decode(forced), "<|end|><|start|>assistant<|channel|>final<|message|>");
}

TEST_F(TurnTest, ALimitLeadsContentToItsEnd) {
  TurnOptions options;
  options.allow_analysis = options.allow_preamble = false;
  options.final_answer = Schema(R"({"type":"array","items":{"type":"string"},"minItems":1})");
  options.max_tokens = 10;
  TurnMatcher matcher(Grammar(options));
  std::vector<TokenId> ids;
  tokenizer_->EncodeWithSpecial("<|channel|>final<|message|>", &ids);
  for (const TokenId id : ids) ASSERT_TRUE(*matcher.Accept(id));
  // Seven tokens are left, the end among them: '["' begins a string, and four bytes of it may follow before '"]'.
  EXPECT_EQ(options.final_answer->Need(options.final_answer->start()), 4u);
  for (const char* text : {"[", "\"", "a", "b"}) ASSERT_TRUE(*matcher.Accept(tokenizer_->Encode(text)[0])) << text;
  EXPECT_FALSE(matcher.CutShort());
  EXPECT_FALSE(*matcher.Accept(tokenizer_->Encode("\\")[0])) << "an escape needs one byte more than there is";
  EXPECT_FALSE(*matcher.Accept(tokenizer_->Encode("c")[0]));
  EXPECT_GE(Allowed(matcher), 2u) << "the quote, alone or with the bracket";
  ASSERT_TRUE(*matcher.Accept(tokenizer_->Encode("\"")[0]));
  EXPECT_EQ(Allowed(matcher), 1u);
  ASSERT_TRUE(*matcher.Accept(tokenizer_->Encode("]")[0]));
  EXPECT_EQ(Allowed(matcher), 1u);
  EXPECT_FALSE(matcher.IsComplete());
  EXPECT_TRUE(*matcher.Accept(tokenizer_->SpecialId("<|return|>")));
  EXPECT_TRUE(matcher.IsComplete());
  EXPECT_TRUE(matcher.CutShort());
}

TEST_F(TurnTest, MasksNearALimitAreTheTokensThatCanBeAccepted) {
  TurnOptions options;
  options.allow_analysis = options.allow_preamble = false;
  options.final_answer = Schema(R"({"type":"object","properties":{"a":{"type":"string","maxLength":9},
    "b":{"type":"array","items":{"type":"integer"}}},"required":["a"],"additionalProperties":false})");
  const RandomLogits logits(*tokenizer_, 3);
  size_t tight = 0;
  for (const size_t limit : {15, 20, 28}) {
    options.max_tokens = limit;
    const auto grammar = Grammar(options);
    const RandomOutput output = DrawTurn(grammar, logits, limit, limit, limit % 2 == 0);
    ASSERT_TRUE(output.finished);
    TurnMatcher matcher(grammar);
    std::vector<uint64_t> mask(index_->mask_words());
    for (size_t i = 0; i < output.ids.size(); ++i) {
      if (i % 3 == 0) {
        ASSERT_TRUE(matcher.FillMask(mask).ok());
        for (TokenId id = 0; id < tokenizer_->size(); id += 1 + id % 7) {
          const bool bit = (mask[static_cast<size_t>(id) / 64] >> (id % 64) & 1) != 0;
          const bool accepted = *matcher.Accept(id);
          if (accepted) matcher.Rollback(1);
          ASSERT_EQ(bit, accepted) << tokenizer_->TokenBytes(id) << " after " << i << " of " << limit;
        }
      }
      ASSERT_TRUE(*matcher.Accept(output.ids[i]));
      tight += matcher.CutShort() ? 1 : 0;
    }
  }
  EXPECT_GT(tight, 3u);
}

TEST_F(TurnTest, WrongOptionsAreErrors) {
  const auto message = [](TurnOptions options) {
    return TurnGrammar::Create(index_, std::move(options)).status().message();
  };
  TurnOptions options;
  options.choice = ToolChoice::kRequired;
  EXPECT_NE(message(options).find("no tool is declared"), std::string::npos);
  options.tools = {{"functions.f", nullptr}, {"functions.f", nullptr}};
  EXPECT_NE(message(options).find("declared twice"), std::string::npos);
  options.tools = {{"functions.f g", nullptr}};
  EXPECT_NE(message(options).find("functions.f g"), std::string::npos);
  options.tools = {{"functions.f", nullptr}};
  options.allowed = {"functions.x"};
  EXPECT_NE(message(options).find("functions.x"), std::string::npos);
}

TEST_F(TurnTest, ToolsAreReadInBothForms) {
  const auto read = [](const char* text) { return ToolSpecFromJson(*ParseJson(text)); };
  const auto nested =
      read(R"({"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object"}}})");
  const auto flat = read(R"({"type":"function","name":"f","strict":true,"parameters":{"type":"object"}})");
  ASSERT_TRUE(nested.ok() && flat.ok());
  for (const auto& tool : {*nested, *flat})
    EXPECT_TRUE(tool.strict && tool.parameters && tool.Recipient() == "functions.f");
  const auto custom = read(R"({"type":"custom","custom":{"name":"c","format":{"type":"grammar",
    "grammar":{"syntax":"regex","definition":"a+"}}}})");
  ASSERT_TRUE(custom.ok());
  EXPECT_EQ(custom->input, ToolSpec::Input::kRegex);
  EXPECT_EQ(
      read(R"({"type":"custom","name":"c","format":{"type":"grammar","syntax":"lark","definition":"start: \"a\""}})")
          ->input,
      ToolSpec::Input::kLark);
  for (const auto& [text, word] :
       {std::pair{R"({"type":"function"})", "no name"},
        {R"({"type":"web"})", "type"},
        {R"({"type":"function","name":"a b"})", "name"},
        {R"({"type":"function","name":"f","parameters":[]})", "parameters"},
        {R"({"type":"function","name":"f","strict":1})", "strict"},
        {R"({"type":"custom","name":"c","format":{"type":"grammar","syntax":"x"}})", "syntax"}}) {
    const auto tool = read(text);
    ASSERT_FALSE(tool.ok()) << text;
    EXPECT_NE(tool.status().message().find(word), std::string::npos) << tool.status().message();
  }
  ToolSpec bad{.name = "f",
               .description = "",
               .parameters = *ParseJson(R"({"uniqueItems":true})"),
               .strict = true,
               .definition = ""};
  EXPECT_NE(CompileTool(bad, index_).status().message().find("tool 'f': schema #/uniqueItems"), std::string::npos);
}

TEST_F(TurnTest, ArgumentsAreObjects) {
  struct Case {
    const char* schema;  // null: no parameters
    bool strict;
    std::vector<const char*> in, out;
  };
  const Case cases[] = {
      {nullptr, false, {"{}"}, {"{\"a\":1}", "[]", "null"}},
      {nullptr, true, {"{}"}, {"{\"a\":1}"}},
      {R"({"type":"string"})", false, {"{}", "{\"a\":[1]}"}, {"\"a\"", "1"}},
      {R"({"type":["object","null"],"properties":{"a":{"type":"null"}}})", true, {"{\"a\":null}"}, {"null"}},
      {R"({"anyOf":[{"type":"integer"},{"required":["a"],"properties":{"a":{"const":1}}}]})",
       true,
       {"{\"a\":1}"},
       {"1", "{}"}},
      {R"({"$ref":"#/$defs/x","$defs":{"x":{"properties":{"next":{"$ref":"#"}}}}})", true, {"{\"next\":1}"}, {"1"}},
      {R"({"$schema":"http://json-schema.org/draft-07/schema#","$ref":"#/definitions/x","definitions":{"x":{}}})",
       true,
       {"{}"},
       {"1"}},
  };
  for (const Case& c : cases) {
    ToolSpec tool;
    tool.name = "f";
    tool.strict = c.strict;
    if (c.schema != nullptr) tool.parameters = *ParseJson(c.schema);
    const Result<TurnTool> compiled = CompileTool(tool, index_);
    ASSERT_TRUE(compiled.ok()) << compiled.status().message();
    Machine& machine = *compiled->arguments;
    const auto matches = [&](const char* text) { return machine.Accepts(*machine.Step(machine.start(), text)); };
    for (const char* text : c.in) EXPECT_TRUE(matches(text)) << text;
    for (const char* text : c.out) EXPECT_FALSE(matches(text)) << text;
  }
  ToolSpec text;
  text.strict = true;
  text.parameters = *ParseJson(R"({"type":"string"})");
  EXPECT_FALSE(CompileTool(text, index_).ok());  // nothing is both
  ToolSpec other = text;
  other.name = "g";
  EXPECT_EQ(InputKey(text), InputKey(other));
  other.strict = false;
  EXPECT_NE(InputKey(text), InputKey(other));
}

}  // namespace
}  // namespace gptoss
