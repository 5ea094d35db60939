// Regular expressions: parsed to a tree, and written into an automaton as UTF-8 or as the inside of a JSON string.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "grammar/automaton.h"
#include "grammar/code_point_set.h"

namespace gptoss {

struct RegexNode;
using Regex = std::shared_ptr<const RegexNode>;

struct RegexNode {
  enum class Kind : uint8_t { kEmpty, kClass, kConcat, kAlternate, kRepeat, kLineStart, kLineEnd };
  Kind kind = Kind::kEmpty;
  CodePointSet set;           // kClass
  std::vector<Regex> parts;   // kConcat, kAlternate; one for kRepeat
  uint32_t min = 0, max = 0;  // kRepeat
};

// Makers that simplify where it costs nothing.
Regex EmptyRegex();
Regex ClassRegex(CodePointSet set);
Regex TextRegex(std::string_view utf8);
Regex ConcatRegex(std::vector<Regex> parts);
Regex AlternateRegex(std::vector<Regex> parts);
Regex RepeatRegex(Regex part, uint32_t min, uint32_t max);

struct RegexOptions {
  bool ignore_case = false;  // of ASCII letters
  bool dot_all = false;      // the dot matches line terminators too
  size_t max_bytes = 64u << 10;
  int max_depth = 200;
};

/// The syntax of ECMA-262 with the u flag, as far as it describes regular languages; also (?P<name>...), (?i:...) and
/// (?s:...). Lazy quantifiers mean the same as greedy ones. Unescaped ] and } stand for themselves.
/// On failure: kInvalidArgument or kUnsupported (back references, look-around, \b, \B) with the byte offset.
Result<Regex> ParseRegex(std::string_view pattern, const RegexOptions& options = {});

/// The texts that `regex` matches as a whole (`anchored`), or in which it matches somewhere; the result has no anchors.
/// On failure: kUnsupported for an anchor elsewhere than at an end of the expression or of an alternative.
Result<Regex> ResolveAnchors(const Regex& regex, bool anchored);

/// How characters become bytes.
enum class TextForm : uint8_t {
  kUtf8,
  kJson,  // inside a JSON string, every character in its shortest form ("\n", not "\u000a")
};

/// Adds to `builder` what leads from `from` to `to` over one character of `set`, deterministically.
void EmitClass(const CodePointSet& set, TextForm form, NodeId from, NodeId to, AutomatonBuilder* builder);
/// A shared rule for one character of `set`.
RuleId ClassRule(const CodePointSet& set, TextForm form, AutomatonBuilder* builder);
/// The same for a resolved expression. On failure: kUnsupported when an anchor is left in it.
Status EmitRegex(const Regex& regex, TextForm form, NodeId from, NodeId to, AutomatonBuilder* builder);

/// An automaton for the texts that `pattern` matches as a whole. On failure: as ParseRegex and Build.
Result<Automaton> CompileRegex(std::string_view pattern, const AutomatonLimits& limits = {});

}  // namespace gptoss
