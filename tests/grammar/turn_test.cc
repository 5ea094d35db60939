// Turns that a model of random weights would write under the turn grammar, read by harmony's strict parser.
#include <gtest/gtest.h>

#include "base/rng.h"
#include "grammar/json_schema.h"
#include "grammar/turn_grammar.h"
#include "harmony/stream_parser.h"

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

  /// One token that is allowed; markers and ends are preferred so that turns come to an end.
  static TokenId Pick(const TurnMatcher& matcher, const RandomStream& random, uint64_t* at) {
    std::vector<uint64_t> mask(index_->mask_words());
    EXPECT_TRUE(matcher.FillMask(mask).ok());
    std::vector<TokenId> allowed, special;
    for (size_t w = 0; w < mask.size(); ++w) {
      for (uint64_t bits = mask[w]; bits != 0; bits &= bits - 1) {
        const TokenId id = static_cast<TokenId>(w * 64 + static_cast<size_t>(__builtin_ctzll(bits)));
        allowed.push_back(id);
        if (tokenizer_->IsSpecial(id)) special.push_back(id);
      }
    }
    if (!special.empty() && random.Word((*at)++) % 4 == 0) allowed = special;
    return allowed.empty() ? -1 : allowed[random.Word((*at)++) % allowed.size()];
  }

  static std::shared_ptr<const Tokenizer> tokenizer_;
  static std::shared_ptr<const TokenIndex> index_;
};

std::shared_ptr<const Tokenizer> TurnTest::tokenizer_;
std::shared_ptr<const TokenIndex> TurnTest::index_;

TEST_F(TurnTest, RandomTurnsAreWellFormed) {
  const RandomStream random(11, "turns");
  uint64_t at = 0;
  const auto arguments = Schema(
      R"({"type":"object","properties":{"n":{"type":"integer","minimum":0,"maximum":99}},"required":["n"],"additionalProperties":false})");
  const auto answer = Schema(
      R"({"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"],"additionalProperties":false})");
  size_t finished = 0, calls = 0;
  for (int turn = 0; turn < 300; ++turn) {
    TurnOptions options;
    const auto coin = [&] { return random.Word(at++) % 2 == 0; };
    if (coin()) options.tools.push_back({"functions.get_n", arguments});
    if (coin()) options.tools.push_back({"functions.get", arguments});
    if (coin()) options.tools.push_back({"python", nullptr, false, true});
    options.choice = options.tools.empty() ? ToolChoice::kAuto : static_cast<ToolChoice>(random.Word(at++) % 3);
    if (!options.tools.empty() && coin()) options.allowed = {options.tools.back().recipient};
    if (coin()) options.final_answer = answer;
    options.allow_analysis = coin();
    if (coin()) options.reasoning_budget = random.Word(at++) % 12;
    const size_t budget = options.reasoning_budget.value_or(SIZE_MAX);
    const auto grammar = TurnGrammar::Create(index_, options);
    ASSERT_TRUE(grammar.ok()) << grammar.status().message();
    TurnMatcher matcher(*grammar);
    std::vector<TokenId> ids;
    size_t thinking = 0;
    while (!matcher.IsComplete() && ids.size() < 400) {
      const TokenId forced = *matcher.ForcedToken();
      const TokenId id = Pick(matcher, random, &at);
      ASSERT_GE(id, 0) << "a dead end after " << tokenizer_->Decode(ids);
      if (forced >= 0) {
        ASSERT_EQ(forced, id);
      }
      const auto part = matcher.part();
      const Result<bool> accepted = matcher.Accept(id);
      ASSERT_TRUE(accepted.ok() && *accepted) << tokenizer_->TokenBytes(id);
      if (coin()) {  // speculation that is taken back leaves no trace
        matcher.Rollback(1);
        ASSERT_TRUE(*matcher.Accept(id));
      }
      thinking += part == TurnMatcher::Part::kAnalysis || part == TurnMatcher::Part::kPreamble ? 1 : 0;
      ids.push_back(id);
    }
    if (options.reasoning_budget) {
      EXPECT_LE(thinking, budget + 2);
    }
    if (!matcher.IsComplete()) continue;  // endless free text
    ++finished;
    ParserOptions strict;
    strict.role = Role::kAssistant;
    strict.strict = true;
    const auto messages = ParseMessages(tokenizer_, ids, strict);
    ASSERT_TRUE(messages.ok()) << messages.status().message() << "\n" << tokenizer_->Decode(ids);
    const ParsedMessage& last = messages->back();
    if (last.recipient) {
      ++calls;
      EXPECT_NE(options.choice, ToolChoice::kNone);
      if (!options.allowed.empty()) {
        EXPECT_EQ(*last.recipient, options.allowed[0]);
      }
      if (last.recipient->starts_with("functions.")) {
        const Result<Json> json = ParseJson(last.text);
        ASSERT_TRUE(json.ok()) << last.text;
        EXPECT_TRUE((*json)["n"].is_number_integer());
        EXPECT_EQ(last.channel, "commentary");
      }
    } else {
      EXPECT_NE(options.choice, ToolChoice::kRequired);
      EXPECT_EQ(last.channel, "final");
      if (options.final_answer) {
        EXPECT_TRUE(ParseJson(last.text).ok()) << last.text;
      }
    }
    for (size_t i = 0; i + 1 < messages->size(); ++i) {
      EXPECT_TRUE((*messages)[i].channel == "analysis" || (*messages)[i].channel == "commentary");
      if (!options.allow_analysis) {
        EXPECT_NE((*messages)[i].channel, "analysis");
      }
      EXPECT_FALSE((*messages)[i].recipient);
    }
  }
  EXPECT_GT(finished, 150u);
  EXPECT_GT(calls, 20u);
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

}  // namespace
}  // namespace gptoss
