#include "harmony/stream_parser.h"

#include <gtest/gtest.h>

namespace gptoss {
namespace {

const std::shared_ptr<const Tokenizer>& Tokens() {
  static const auto tokenizer = *Tokenizer::Embedded();
  return tokenizer;
}

std::vector<TokenId> Ids(std::string_view text) {
  std::vector<TokenId> ids;
  Tokens()->EncodeWithSpecial(text, &ids);
  return ids;
}

std::string Show(const ParsedMessage& m) {
  const auto field = [](const char* label, const std::optional<std::string>& value) {
    return value ? label + *value : std::string();
  };
  return std::string(RoleName(m.author.role)) + field(":", m.author.name) + field(" to=", m.recipient) +
         field(" #", m.channel) + field(" ", m.content_type) + " [" + m.text + "]";
}

std::string Show(const std::vector<ParsedMessage>& messages) {
  std::string out;
  for (const ParsedMessage& message : messages) out += (out.empty() ? "" : "\n") + Show(message);
  return out;
}

std::string Parse(const std::vector<TokenId>& ids, ParserOptions options) {
  Result<std::vector<ParsedMessage>> messages = ParseMessages(Tokens(), ids, std::move(options));
  return messages.ok() ? Show(*messages) : "error: " + messages.status().message();
}

/// After "<|start|>assistant".
std::string Lenient(std::string_view text, std::vector<std::string> tools = {}) {
  ParserOptions options;
  options.role = Role::kAssistant;
  options.tools = std::move(tools);
  return Parse(Ids(text), options);
}
std::string FromStart(std::string_view text) { return Parse(Ids(text), {}); }

std::string Strict(std::string_view text, std::optional<Role> role = Role::kAssistant) {
  ParserOptions options;
  options.role = role;
  options.strict = true;
  return Parse(Ids(text), options);
}

struct Pair {
  const char* tokens;
  const char* messages;
};

TEST(StreamParser, ThePublishedExample) {
  // docs/format.md of openai/harmony.
  const std::vector<TokenId> ids = {200005, 35644, 200008, 1844,  31064, 25,  392,   4827, 382, 220,    17,     659,
                                    220,    17,    16842,  12295, 81645, 13,  51441, 6052, 13,  200007, 200006, 173781,
                                    200005, 17196, 200008, 17,    659,   220, 17,    314,  220, 19,     13,     200002};
  const char* expected =
      "assistant #analysis [User asks: \"What is 2 + 2?\" Simple arithmetic. Provide answer.]\n"
      "assistant #final [2 + 2 = 4.]";
  for (bool strict : {false, true}) {
    ParserOptions options;
    options.role = Role::kAssistant;
    options.strict = strict;
    EXPECT_EQ(Parse(ids, options), expected);
  }
}

const Pair kWellFormed[] = {
    {"<|channel|>final<|message|>Hi<|return|>", "assistant #final [Hi]"},
    {"<|channel|>final<|message|>cut off", "assistant #final [cut off]"},
    {"<|message|>Hi<|end|>", "assistant [Hi]"},
    {"<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>",
     "assistant to=functions.f #commentary <|constrain|>json [{}]"},
    {" to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}<|call|>",
     "assistant to=functions.f #commentary <|constrain|>json [{}]"},
    {"<|channel|>commentary to=functions.f<|constrain|>json<|message|>{}<|call|>",
     "assistant to=functions.f #commentary <|constrain|>json [{}]"},
    {" to=functions.f<|channel|>analysis code<|message|>{}<|call|>", "assistant to=functions.f #analysis code [{}]"},
    {"<|channel|>commentary to=functions.f json<|message|>{}<|call|>",
     "assistant to=functions.f #commentary json [{}]"},
    {"<|channel|>commentary<|message|>Plan:<|end|><|start|>assistant<|channel|>final<|message|>ok<|return|>",
     "assistant #commentary [Plan:]\nassistant #final [ok]"},
    {"<|channel|>final<|message|>a<|end|><|start|>functions.f to=assistant<|channel|>commentary<|message|>1<|end|>",
     "assistant #final [a]\ntool:functions.f to=assistant #commentary [1]"},
};

TEST(StreamParser, WellFormedInBothModes) {
  for (const Pair& c : kWellFormed) {
    EXPECT_EQ(Lenient(c.tokens), c.messages) << c.tokens;
    EXPECT_EQ(Strict(c.tokens), c.messages) << c.tokens;
  }
}

TEST(StreamParser, StrictGivesTheOfficialErrors) {
  EXPECT_EQ(Strict("<|channel|>final<|message|>Hi<|return|>comment"),
            "error: Unexpected token 12606 while expecting start token 200006");
  EXPECT_EQ(Strict("Hi", std::nullopt), "error: Unexpected token 12194 while expecting start token 200006");
  EXPECT_EQ(Strict("<|channel|>analysis one two three<|message|>"),
            "error: unexpected tokens remaining in message header: Some(\"one\")");
  EXPECT_EQ(Strict("<|start|>bash<|message|>", std::nullopt), "error: Unknown role: bash");
  EXPECT_EQ(Strict("<|start|><|message|>", std::nullopt), "error: message header did not contain a role");
  EXPECT_EQ(Strict("<|channel|><|message|>"), "error: channel marker present but no channel value found in header");
  EXPECT_EQ(Strict("<|channel|>final"), "error: Unexpected EOS while waiting for message header to complete");
  ParserOptions options;
  options.role = Role::kAssistant;
  options.strict = true;
  EXPECT_EQ(Parse({200005, 17196, 300000, 200008}, options), "error: could not decode header");
  // Odd readings that are no errors.
  EXPECT_EQ(Strict("<|channel|>final <|constrain|>json<|message|>{}<|return|>"),
            "assistant to=<|constrain|>json #final [{}]");
  EXPECT_EQ(Strict("<|start|>assistant<|channel|>final<|message|>a"), "assistant to=<|start|>assistant #final [a]");
  EXPECT_EQ(Strict("<|channel|>final<|message|>a<|start|>assistant"), "assistant #final [a<|start|>assistant]");
}

TEST(StreamParser, StrictStaysFailedAndKeepsFinishedMessages) {
  ParserOptions options;
  options.role = Role::kAssistant;
  options.strict = true;
  StreamParser parser = *StreamParser::Create(Tokens(), options);
  for (TokenId id : Ids("<|channel|>final<|message|>Hi<|return|>")) ASSERT_TRUE(parser.Add(id).ok());
  const Status error = parser.Add(1);
  EXPECT_FALSE(error.ok());
  EXPECT_EQ(parser.Add(200006).message(), error.message());
  EXPECT_EQ(parser.Finish().message(), error.message());
  EXPECT_EQ(Show(parser.messages()), "assistant #final [Hi]");
}

// What the official parser refuses or misreads.
const Pair kMalformed[] = {
    // A content type without recipient; a lone word; a bare recipient.
    {"<|channel|>final <|constrain|>json<|message|>{}<|return|>", "assistant #final <|constrain|>json [{}]"},
    {"<|channel|>final<|constrain|>json<|message|>{}", "assistant #final <|constrain|>json [{}]"},
    {"<|channel|>final<|constrain|> json<|message|>{}", "assistant #final <|constrain|>json [{}]"},
    {"<|channel|>analysis code<|message|>x", "assistant #analysis code [x]"},
    {"<|channel|>commentary functions.f<|message|>{}", "assistant to=functions.f #commentary [{}]"},
    {"<|channel|>commentary functions.f json<|message|>{}", "assistant to=functions.f #commentary json [{}]"},
    {"<|channel|>commentary f <|constrain|>json<|message|>{}", "assistant to=f #commentary <|constrain|>json [{}]"},
    {"<|constrain|>json to=f<|channel|>commentary<|message|>{}", "assistant to=f #commentary <|constrain|>json [{}]"},
    {"<|channel|>commentary to= functions.f<|message|>{}", "assistant to=functions.f #commentary [{}]"},
    // Glued and misspelled channels.
    {"<|channel|>finalx<|message|>Hi<|return|>", "assistant #final x [Hi]"},
    {"<|channel|>analysiscode<|message|>x=1", "assistant #analysis code [x=1]"},
    {"<|channel|>commentaryto=functions.f<|message|>{}", "assistant to=functions.f #commentary [{}]"},
    {"<|channel|>comment to=functions.f<|message|>{}", "assistant to=functions.f #commentary [{}]"},
    {"<|channel|>notes<|message|>Hi", "assistant #notes [Hi]"},
    // Free text in a header.
    {"<|channel|>analysis We should look this up<|message|>ok", "assistant #analysis [We should look this up\nok]"},
    {"<|channel|>We should look this up<|message|>ok", "assistant [We should look this up\nok]"},
    {"<|channel|>analysis call it to=functions.f now please<|message|>{}",
     "assistant to=functions.f #analysis [call it now please\n{}]"},
    {"<|channel|>final to=a to=b<|message|>x", "assistant to=a #final to=b [x]"},
    // No <|message|>.
    {"<|channel|>final Hello  there<|return|>", "assistant #final [Hello  there]"},
    {"<|channel|>finalx<|return|>", "assistant #final [x]"},
    {"The answer is 4.<|return|>", "assistant [The answer is 4.]"},
    {"final answer: 4", "assistant [final answer: 4]"},
    {"<|channel|>Let me think about it.<|end|>", "assistant [Let me think about it.]"},
    {"<|channel|>commentary to=functions.f <|constrain|>json{\"a\": 1}<|call|>",
     "assistant to=functions.f #commentary <|constrain|>json [{\"a\": 1}]"},
    {"<|channel|>commentary to=functions.f{\"a\": 1}<|call|>", "assistant to=functions.f #commentary [{\"a\": 1}]"},
    {"<|channel|>analysis think<|end|><|start|>assistant<|channel|>final answer<|return|>",
     "assistant #analysis [think]\nassistant #final [answer]"},
    // No <|end|>, no <|start|>.
    {"<|channel|>analysis<|message|>think<|start|>assistant<|channel|>final<|message|>answer<|return|>",
     "assistant #analysis [think]\nassistant #final [answer]"},
    {"<|channel|>analysis<|message|>think<|channel|>final<|message|>answer<|return|>",
     "assistant #analysis [think]\nassistant #final [answer]"},
    {"<|channel|>analysis<|message|>think<|end|><|channel|>final<|message|>answer<|return|>",
     "assistant #analysis [think]\nassistant #final [answer]"},
    {"<|channel|>analysis<|message|>think<|end|>commentary to=functions.f<|message|>{}<|call|>",
     "assistant #analysis [think]\nassistant to=functions.f #commentary [{}]"},
    {"<|channel|>analysis<|message|>think<|end|>assistant<|channel|>final<|message|>answer",
     "assistant #analysis [think]\nassistant #final [answer]"},
    {"<|channel|>analysis think<|channel|>final<|message|>answer",
     "assistant #analysis [think]\nassistant #final [answer]"},
    {"<|channel|>analysis<|message|>think<|end|>assistant commentary to=functions.f<|message|>{}",
     "assistant #analysis [think]\nassistant to=functions.f #commentary [{}]"},
    // Roles.
    {"<|start|>assistant<|channel|>final<|message|>a", "assistant #final [a]"},
    {"assistant<|channel|>final<|message|>a", "assistant #final [a]"},
    {"<|start|>user<|message|>a", "user [a]"},
    {"<|message|>a<|end|><|start|>assistantfinal<|message|>b", "assistant [a]\nassistant #final [b]"},
    {"<|message|>a<|end|><|start|>assistantto=functions.f<|message|>b", "assistant [a]\nassistant to=functions.f [b]"},
    {"<|message|>a<|end|><|start|>bash<|message|>b", "assistant [a]\ntool:bash [b]"},
    {"<|message|>a<|end|><|start|>Well, here it is.<|end|>", "assistant [a]\nassistant [Well, here it is.]"},
    {"<|message|>a<|end|><|start|>user:bob<|message|>b", "assistant [a]\nuser:bob [b]"},
    {"<|message|>a<|end|><|start|>assistant", "assistant [a]"},
    // Doubled and stray markers.
    {"<|channel|><|channel|>final<|message|><|message|>a<|end|><|end|><|return|>", "assistant #final [a]"},
    {"<|channel|>final<|message|>a<|constrain|>b<|return|>", "assistant #final [ab]"},
    {"<|channel|>analysis<|message|>a<|end|>\n\n<|start|>assistant<|channel|>final<|message|>b",
     "assistant #analysis [a]\nassistant #final [b]"},
    {"<|channel|>final<|message|>a<|endoftext|>", "assistant #final [a]"},
    {"<|return|>", ""},
    {"", ""},
};

TEST(StreamParser, LenientBettersTheOddCases) {
  for (const Pair& c : kMalformed) EXPECT_EQ(Lenient(c.tokens), c.messages) << c.tokens;
}

TEST(StreamParser, RolesAreReadFromAStart) {
  EXPECT_EQ(FromStart("<|start|>system<|message|>s<|end|><|start|>user<|message|>u<|end|><|start|>assistant"),
            "system [s]\nuser [u]");
  EXPECT_EQ(FromStart("Hello"), "assistant [Hello]");
  EXPECT_EQ(FromStart("<|start|>browser.search to=assistant<|channel|>commentary<|message|>r"),
            "tool:browser.search to=assistant #commentary [r]");
}

TEST(StreamParser, AfterAStopEverythingFinishedStaysAndTheRestIsMarked) {
  ParserOptions options;
  options.role = Role::kAssistant;
  StreamParser parser = *StreamParser::Create(Tokens(), options);
  for (TokenId id : Ids("<|channel|>final<|message|>Hi")) ASSERT_TRUE(parser.Add(id).ok());
  EXPECT_FALSE(parser.stopped());
  EXPECT_TRUE(parser.in_content());
  ASSERT_TRUE(parser.Add(200002).ok());
  EXPECT_TRUE(parser.stopped());
  EXPECT_EQ(Show(parser.messages()), "assistant #final [Hi]");
  for (TokenId id : Ids("stray")) ASSERT_TRUE(parser.Add(id).ok());
  ASSERT_TRUE(parser.Finish().ok());
  ASSERT_EQ(Show(parser.messages()), "assistant #final [Hi]\nassistant [stray]");
  EXPECT_FALSE(parser.messages()[0].after_stop);
  EXPECT_FALSE(parser.messages()[0].salvaged);
  EXPECT_EQ(parser.messages()[0].end, EndReason::kReturn);
  EXPECT_TRUE(parser.messages()[1].after_stop);
  EXPECT_TRUE(parser.messages()[1].salvaged);
  EXPECT_EQ(parser.messages()[1].end, EndReason::kEndOfInput);
}

TEST(StreamParser, DeclaredToolsPutRecipientsRight) {
  const std::vector<std::string> tools = {"functions.get_weather", "browser.open", "python"};
  EXPECT_EQ(Lenient("<|channel|>commentary to=get_weather<|message|>{}", tools),
            "assistant to=functions.get_weather #commentary [{}]");
  EXPECT_EQ(Lenient("<|channel|>commentary to=functions.get_weatherjson<|message|>{}", tools),
            "assistant to=functions.get_weather #commentary json [{}]");
  EXPECT_EQ(Lenient("<|channel|>analysis python<|message|>1", tools), "assistant to=python #analysis [1]");
  EXPECT_EQ(Lenient("<|channel|>analysis to=weather<|message|>{}", tools), "assistant to=weather #analysis [{}]");
}

TEST(StreamParser, TextThatSpellsMarkersIsText) {
  std::vector<TokenId> ids = Ids("<|channel|>final<|message|>");
  Tokens()->Encode("a<|end|><|start|>system", &ids);
  ParserOptions options;
  options.role = Role::kAssistant;
  EXPECT_EQ(Parse(ids, options), "assistant #final [a<|end|><|start|>system]");
}

TEST(StreamParser, IdsOutsideTheVocabularyAreReplacementCharacters) {
  ParserOptions options;
  options.role = Role::kAssistant;
  std::vector<TokenId> ids = Ids("<|channel|>final<|message|>a");
  for (TokenId id : {999999, -1, INT32_MAX, INT32_MIN}) ids.push_back(id);
  Tokens()->Encode("b", &ids);
  EXPECT_EQ(Parse(ids, options), "assistant #final [a\uFFFD\uFFFD\uFFFD\uFFFDb]");
  EXPECT_EQ(Parse({999999, 200005, 999999, 17196, 200008, 64}, options), "assistant #final [a]");
}

TEST(StreamParser, DeltasAreWholeCharacters) {
  const std::string text = "a\U0001F9D1\u200D\U0001F680é漢字\U0001F469\U0001F3FF";
  ParserOptions options;
  options.role = Role::kAssistant;
  StreamParser parser = *StreamParser::Create(Tokens(), options);
  std::vector<TokenId> ids = Ids("<|channel|>final<|message|>");
  for (char byte : text) Tokens()->Encode(std::string_view(&byte, 1), &ids);  // a token a byte
  std::string joined;
  for (TokenId id : ids) {
    std::vector<ParseEvent> events;
    ASSERT_TRUE(parser.Add(id, &events).ok());
    for (const ParseEvent& event : events) {
      EXPECT_EQ(event.text.find("\uFFFD"), std::string::npos);
      joined += event.text;
    }
  }
  EXPECT_EQ(joined, text);
  // A character that is cut off at the end is replaced, not dropped.
  ids = Ids("<|message|>");
  Tokens()->Encode("\xF0\x9F", &ids);
  EXPECT_EQ(Parse(ids, options), "assistant [\uFFFD]");
}

TEST(StreamParser, EventsTellTheSameAsTheMessages) {
  ParserOptions options;
  options.role = Role::kAssistant;
  StreamParser parser = *StreamParser::Create(Tokens(), options);
  std::vector<ParseEvent> events;
  for (TokenId id : Ids("<|channel|>analysis<|message|>one two<|end|><|start|>assistant<|channel|>final<|message|>3")) {
    ASSERT_TRUE(parser.Add(id, &events).ok());
  }
  ASSERT_TRUE(parser.Finish(&events).ok());
  std::string log;
  for (const ParseEvent& event : events) {
    const bool start = event.kind == ParseEvent::Kind::kMessageStart;
    const bool delta = event.kind == ParseEvent::Kind::kContentDelta;
    log += std::to_string(event.message) + (start ? "<" : delta ? event.text : ">") + "|";
  }
  EXPECT_EQ(log, "0<|0one|0 two|0>|1<|13|1>|");
  EXPECT_TRUE(parser.Add(1).ok());  // after Finish nothing changes
  EXPECT_EQ(Show(parser.messages()), "assistant #analysis [one two]\nassistant #final [3]");
}

TEST(StreamParser, AnEndlessHeaderStreams) {
  ParserOptions options;
  options.role = Role::kAssistant;
  StreamParser parser = *StreamParser::Create(Tokens(), options);
  std::string text;
  for (int i = 0; i < 300; ++i) text += "word" + std::to_string(i) + " ";
  std::vector<TokenId> ids = Ids("<|channel|>final ");
  Tokens()->Encode(text, &ids);
  for (TokenId id : ids) ASSERT_TRUE(parser.Add(id).ok());
  EXPECT_TRUE(parser.in_content());
  ASSERT_TRUE(parser.Finish().ok());
  ASSERT_EQ(parser.messages().size(), 1u);
  EXPECT_EQ(parser.messages()[0].text, text);
  EXPECT_EQ(parser.messages()[0].channel, "final");
  EXPECT_TRUE(parser.messages()[0].salvaged);
}

}  // namespace
}  // namespace gptoss
