// What both forms of grammar are read into.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "grammar/ebnf.h"
#include "grammar/regex.h"

namespace gptoss {

struct EbnfExpr;
using Ebnf = std::shared_ptr<const EbnfExpr>;

struct EbnfExpr {
  enum class Kind : uint8_t { kRegex, kRule, kSequence, kAlternatives, kRepeat };
  Kind kind = Kind::kSequence;
  Regex regex;              // kRegex
  std::string rule;         // kRule
  std::vector<Ebnf> parts;  // kSequence (none: the empty text), kAlternatives, one of kRepeat
  uint32_t min = 0, max = 0;
};

Ebnf RegexEbnf(Regex regex);
Ebnf RuleEbnf(std::string name);
Ebnf SequenceEbnf(std::vector<Ebnf> parts);
Ebnf AlternativesEbnf(std::vector<Ebnf> parts);
Ebnf RepeatEbnf(Ebnf part, uint32_t min, uint32_t max);

struct EbnfRule {
  std::string name;
  size_t line = 0;
  Ebnf body;
  bool terminal = false;  // nothing is ignored inside it
};

struct EbnfGrammar {
  std::vector<EbnfRule> rules;
  std::string start;
  std::vector<Ebnf> ignored;  // texts that may stand between terminals
};

/// On failure: kInvalidArgument naming a rule that does not exist or exists twice, or an error of Build.
Result<Automaton> CompileEbnf(const EbnfGrammar& grammar, const EbnfOptions& options);

}  // namespace gptoss
