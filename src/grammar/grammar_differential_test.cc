// Automata and masks against plain searches that share no code with them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "grammar/ebnf_rules.h"
#include "grammar/json_schema.h"
#include "grammar/machine.h"
#include "tokenizer/vocabulary.h"

namespace gptoss {
namespace {

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

/// The mask must say of every token what stepping over its bytes says, and whether a text can end soon after it where
/// that is asked too. The states after allowed tokens go to `next`.
/// False past the machine's limits, which a very ambiguous grammar may reach.
bool CheckMask(const std::shared_ptr<Machine>& machine, Machine::StateId state, std::vector<Machine::StateId>* next) {
  const Tokenizer& tokenizer = machine->tokens().tokenizer();
  std::vector<uint64_t> mask(machine->tokens().mask_words()), near(mask.size());
  const uint32_t most_need = machine->Need(state) + 1;
  const bool near_first = state % 2 == 0;  // what one of them caches is there for the other
  bool narrowed = false;
  Status filled = near_first ? Status() : machine->FillMask(state, mask);
  if (filled.ok()) filled = machine->FillMaskWithin(state, near, most_need, &narrowed);
  if (filled.ok() && near_first) filled = machine->FillMask(state, mask);
  if (filled.code() == StatusCode::kResourceExhausted) return false;
  EXPECT_TRUE(filled.ok());
  EXPECT_EQ(narrowed, mask != near);
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
    const bool near_bit = (near[static_cast<size_t>(id) / 64] >> (id % 64) & 1) != 0;
    EXPECT_EQ(near_bit, bit && machine->Need(*to) <= most_need) << tokenizer.TokenBytes(id);
    if (*to != Machine::kDead) next->push_back(*to);
  }
  return true;
}

/// Grammars to try, and the seed of the first: more than a test's run has time for by "COUNT FIRST" in the environment.
std::pair<uint64_t, uint64_t> Seeds() {
  const char* text = std::getenv("GPTOSS_DIFFERENTIAL_SEEDS");
  uint64_t count = 400, first = 0;
  if (text != nullptr) std::istringstream(text) >> count >> first;
  return {count, first};
}

/// For a small vocabulary: the ways around walks are taken wherever they exist, or nowhere.
MachineLimits Shortcuts(bool all) {
  MachineLimits limits;
  limits.min_for_table = all ? 1 : kUnbounded;
  limits.min_for_difference = all ? 1 : kUnbounded;
  return limits;
}

TEST(DifferentialTest, RandomGrammarsAgreeWithTheSlowRecogniser) {
  const auto index = SmallIndex();
  size_t compiled = 0, accepted = 0, masks = 0, limited = 0;
  const auto [count, first] = Seeds();
  for (uint64_t seed = first; seed < first + count; ++seed) {
    RandomGrammar random(seed);
    const EbnfGrammar grammar = random.Make();
    Result<Automaton> automaton = CompileEbnf(grammar, {});
    if (!automaton.ok()) continue;
    ++compiled;
    const auto machine = Machine::Create(*std::move(automaton), index, Shortcuts(seed % 2 == 0));
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
  EXPECT_GT(compiled, count / 2);
  EXPECT_GT(accepted, count * 5 / 2);
  EXPECT_GT(masks, count * 5 / 2);
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
    for (int walk = 0; walk < 20; ++walk) {
      const auto machine = Machine::Create(*CompileJsonSchema(*ParseJson(schema)), index, Shortcuts(walk % 2 == 0));
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

}  // namespace
}  // namespace gptoss
