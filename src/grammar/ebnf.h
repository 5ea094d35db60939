// Context-free grammars as text: GBNF (llama.cpp, grammars/README.md) and Lark (lark-parser.readthedocs.io/grammar).
#pragma once

#include <string_view>

#include "base/status.h"
#include "grammar/automaton.h"

namespace gptoss {

struct EbnfOptions {
  AutomatonLimits limits;
  size_t max_bytes = 1u << 20;
  int max_depth = 200;
};

/// GBNF: rules `name ::= ...`, starting at `root`; strings, character classes, `.`, groups, | * + ? {m,n}, comments.
/// Direct left recursion is turned into repetition. On failure: kInvalidArgument naming the line and what is wrong
/// there, or an error of AutomatonBuilder::Build.
Result<Automaton> CompileGbnf(std::string_view text, const EbnfOptions& options = {});

/// Lark: rules and terminals starting at `start`; strings (also "x"i), /regular expressions/ with the flags i and s,
/// "a".."z", groups, [optional], | * + ? ~n ~n..m, %ignore, %import of common terminals; aliases, priorities and the
/// marks ? and ! are read and mean nothing for the language. A terminal matches any of its texts, not just the longest.
/// Templates, %declare, %override and %extend are errors. On failure: as above.
Result<Automaton> CompileLark(std::string_view text, const EbnfOptions& options = {});

}  // namespace gptoss
