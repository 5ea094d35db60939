#include "grammar/ebnf.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

#include "base/utf8.h"
#include "grammar/ebnf_rules.h"

namespace gptoss {
namespace {

bool IsWordByte(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-'; }

/// What the two forms share: places in the text, white space, strings, alternatives.
class Scanner {
 public:
  /// `ends`: the characters that end a sequence, besides a line end.
  Scanner(std::string_view text, const EbnfOptions& options, std::string_view ends)
      : text_(text), options_(options), ends_(ends) {}
  virtual ~Scanner() = default;

 protected:
  virtual bool AtComment(bool newlines) const = 0;
  /// Where a rule or an alternative begins, line ends are passed over at this depth of groups.
  virtual bool BeginsInNextLine(int depth) const = 0;
  /// One part of a sequence; null for what means nothing.
  virtual Result<Ebnf> Item(int depth) = 0;

  size_t Line() const {
    return 1 + static_cast<size_t>(std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(pos_), '\n'));
  }
  Status Error(const std::string& what) const {
    return InvalidArgument("grammar, line " + std::to_string(Line()) + ": " + what);
  }
  Status CheckText() {
    if (text_.size() > options_.max_bytes) {
      return ResourceExhausted("grammar: longer than " + std::to_string(options_.max_bytes) + " bytes");
    }
    pos_ = FirstInvalidUtf8(text_);
    if (pos_ != text_.size()) return Error("is not UTF-8");
    pos_ = 0;
    return {};
  }
  bool AtEnd() const { return pos_ >= text_.size(); }
  char Peek(size_t ahead = 0) const { return pos_ + ahead < text_.size() ? text_[pos_ + ahead] : '\0'; }
  bool Eat(std::string_view word) {
    if (!text_.substr(pos_).starts_with(word)) return false;
    pos_ += word.size();
    return true;
  }
  uint32_t NextChar() {
    const Utf8Char c = DecodeUtf8(text_.substr(pos_));
    pos_ += c.length;
    return c.code_point;
  }
  std::string Word() {
    const size_t start = pos_;
    while (IsWordByte(Peek()) && !AtEnd()) ++pos_;
    return std::string(text_.substr(start, pos_ - start));
  }
  std::optional<uint32_t> Number() {
    uint64_t value = 0;
    const size_t start = pos_;
    for (; Peek() >= '0' && Peek() <= '9'; ++pos_) {
      value = std::min<uint64_t>(value * 10 + static_cast<uint64_t>(Peek() - '0'), 1'000'000'000);
    }
    return pos_ > start ? std::optional<uint32_t>(static_cast<uint32_t>(value)) : std::nullopt;
  }
  /// The character after a backslash.
  Result<uint32_t> Escape() {
    const char c = Peek();
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits > 0) {
      ++pos_;
      uint32_t value = 0;
      for (size_t i = 0; i < digits; ++i, ++pos_) {
        const char d = Peek();
        if (std::isxdigit(static_cast<unsigned char>(d)) == 0) {
          return Error("\\" + std::string(1, c) + " needs " + std::to_string(digits) + " hexadecimal digits");
        }
        value = value << 4 | static_cast<uint32_t>(d <= '9' ? d - '0' : (d | 0x20) - 'a' + 10);
      }
      if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return Error("an escape that is no character");
      return value;
    }
    constexpr std::string_view kLetters = "nrtfv0", kMeanings("\n\r\t\f\v\0", 6);
    const size_t at = kLetters.find(c);
    if (at != std::string_view::npos && !AtEnd()) {
      ++pos_;
      return static_cast<uint32_t>(kMeanings[at]);
    }
    if (AtEnd()) return Error("ends in a backslash");
    return NextChar();
  }
  /// After the opening quote.
  Result<Regex> String(bool ignore_case) {
    std::vector<Regex> parts;
    while (!Eat("\"")) {
      if (AtEnd() || Peek() == '\n') return Error("a string without its closing \"");
      uint32_t c = 0;
      if (Eat("\\")) {
        GPTOSS_ASSIGN_OR_RETURN(c, Escape());
      } else {
        c = NextChar();
      }
      CodePointSet set = CodePointSet::Of({{c, c}});
      parts.push_back(ClassRegex(ignore_case ? set.FoldAsciiCase() : set));
    }
    return ConcatRegex(std::move(parts));
  }

  void Space(bool newlines) {
    while (!AtEnd()) {
      const char c = Peek();
      if (AtComment(newlines)) {
        while (!AtEnd() && Peek() != '\n') ++pos_;
      } else if (c == ' ' || c == '\t' || c == '\r' || (c == '\n' && newlines)) {
        ++pos_;
      } else {
        return;
      }
    }
  }

  Result<Ebnf> Alternatives(int depth) {
    if (depth > options_.max_depth) return Error("groups are nested too deeply");
    std::vector<Ebnf> out;
    do {
      Space(BeginsInNextLine(depth));
      std::vector<Ebnf> parts;
      while (!AtEnd() && Peek() != '\n' && ends_.find(Peek()) == std::string_view::npos) {
        GPTOSS_ASSIGN_OR_RETURN(Ebnf part, Item(depth));
        if (part != nullptr) parts.push_back(std::move(part));
        Space(depth > 0);
      }
      out.push_back(SequenceEbnf(std::move(parts)));
      const size_t back = pos_;
      Space(true);  // an alternative may go on in the next line
      if (Peek() != '|') pos_ = back;
    } while (Eat("|"));
    return AlternativesEbnf(std::move(out));
  }

  /// After the opening character.
  Result<Ebnf> Group(int depth, char open, char close) {
    GPTOSS_ASSIGN_OR_RETURN(Ebnf group, Alternatives(depth + 1));
    Space(true);
    if (!Eat(std::string_view(&close, 1))) return Error(std::string("a ") + open + " without its " + close);
    return group;
  }

  /// The simple quantifiers; null when there is none.
  Ebnf SimplyRepeated(const Ebnf& item) {
    if (Eat("*")) return RepeatEbnf(item, 0, kUnbounded);
    if (Eat("+")) return RepeatEbnf(item, 1, kUnbounded);
    if (Eat("?")) return RepeatEbnf(item, 0, 1);
    return nullptr;
  }

  std::string_view text_;
  const EbnfOptions& options_;
  std::string_view ends_;
  size_t pos_ = 0;
};

class GbnfParser : Scanner {
 public:
  GbnfParser(std::string_view text, const EbnfOptions& options) : Scanner(text, options, "|)") {}

  Result<EbnfGrammar> Parse() {
    GPTOSS_RETURN_IF_ERROR(CheckText());
    EbnfGrammar grammar;
    grammar.start = "root";
    for (Space(true); !AtEnd(); Space(true)) {
      EbnfRule rule;
      rule.line = Line();
      rule.name = Word();
      if (rule.name.empty()) return Error("expected the name of a rule");
      Space(true);
      if (!Eat("::=")) return Error("expected ::= after the name '" + rule.name + "'");
      Space(true);
      GPTOSS_ASSIGN_OR_RETURN(rule.body, Alternatives(0));
      if (!AtEnd() && Peek() != '\n') return Error("unexpected '" + std::string(1, Peek()) + "'");
      grammar.rules.push_back(std::move(rule));
    }
    return grammar;
  }

 private:
  bool AtComment(bool) const override { return Peek() == '#'; }
  bool BeginsInNextLine(int) const override { return true; }

  Result<Ebnf> Item(int depth) override {
    Ebnf item;
    if (Eat("\"")) {
      GPTOSS_ASSIGN_OR_RETURN(Regex text, String(false));
      item = RegexEbnf(std::move(text));
    } else if (Eat("[")) {
      GPTOSS_ASSIGN_OR_RETURN(Regex set, Brackets());
      item = RegexEbnf(std::move(set));
    } else if (Eat("(")) {
      GPTOSS_ASSIGN_OR_RETURN(item, Group(depth, '(', ')'));
    } else if (Eat(".")) {
      item = RegexEbnf(ClassRegex(CodePointSet::All()));
    } else {
      std::string name = Word();
      if (name.empty()) return Error("unexpected '" + std::string(1, Peek()) + "'");
      item = RuleEbnf(std::move(name));
    }
    return Quantified(std::move(item));
  }

  Result<Ebnf> Quantified(Ebnf item) {
    for (int depth = 0;; ++depth) {
      if (depth > 8) return Error("too many quantifiers in a row");
      if (Ebnf repeated = SimplyRepeated(item)) {
        item = std::move(repeated);
      } else if (Eat("{")) {
        const std::optional<uint32_t> min = Number();
        std::optional<uint32_t> max = min;
        if (Eat(",")) max = Number().value_or(kUnbounded);
        if (!Eat("}") || !max || min.value_or(0) > *max) return Error("a repetition must be {m}, {m,} or {m,n}");
        item = RepeatEbnf(item, min.value_or(0), *max);
      } else {
        return item;
      }
    }
  }

  Result<uint32_t> ClassChar() {
    if (AtEnd() || Peek() == '\n') return Error("a [ without its ]");
    if (Eat("\\")) return Escape();
    return NextChar();
  }

  Result<Regex> Brackets() {
    const bool negated = Eat("^");
    std::vector<CodePointRange> ranges;
    while (!Eat("]")) {
      GPTOSS_ASSIGN_OR_RETURN(const uint32_t lo, ClassChar());
      uint32_t hi = lo;
      if (Peek() == '-' && Peek(1) != ']') {
        ++pos_;
        GPTOSS_ASSIGN_OR_RETURN(hi, ClassChar());
        if (hi < lo) return Error("a range in [...] whose ends are out of order");
      }
      ranges.push_back({lo, hi});
    }
    const CodePointSet set = CodePointSet::Of(std::move(ranges));
    return ClassRegex(negated ? set.Complement() : set);
  }
};

struct CommonTerminal {
  std::string_view name, pattern;
};
// lark/grammars/common.lark, as regular expressions.
constexpr CommonTerminal kCommon[] = {
    {"DIGIT", "[0-9]"},
    {"HEXDIGIT", "[0-9A-Fa-f]"},
    {"INT", "[0-9]+"},
    {"SIGNED_INT", "[+-]?[0-9]+"},
    {"DECIMAL", "[0-9]+\\.[0-9]*|\\.[0-9]+"},
    {"FLOAT", "[0-9]+[eE][+-]?[0-9]+|(?:[0-9]+\\.[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?"},
    {"SIGNED_FLOAT", "[+-]?(?:[0-9]+[eE][+-]?[0-9]+|(?:[0-9]+\\.[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"},
    {"NUMBER", "[0-9]+(?:\\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\\.[0-9]+(?:[eE][+-]?[0-9]+)?"},
    {"SIGNED_NUMBER", "[+-]?(?:[0-9]+(?:\\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\\.[0-9]+(?:[eE][+-]?[0-9]+)?)"},
    {"ESCAPED_STRING", "\"(?:[^\"\\\\\\n]|\\\\[^\\n])*\""},
    {"LCASE_LETTER", "[a-z]"},
    {"UCASE_LETTER", "[A-Z]"},
    {"LETTER", "[A-Za-z]"},
    {"WORD", "[A-Za-z]+"},
    {"CNAME", "[_A-Za-z][_A-Za-z0-9]*"},
    {"WS_INLINE", "[ \\t]+"},
    {"WS", "[ \\t\\f\\r\\n]+"},
    {"CR", "\\r"},
    {"LF", "\\n"},
    {"NEWLINE", "(?:\\r?\\n)+"},
};

class LarkParser : Scanner {
 public:
  LarkParser(std::string_view text, const EbnfOptions& options) : Scanner(text, options, "|)]") {}

  Result<EbnfGrammar> Parse() {
    GPTOSS_RETURN_IF_ERROR(CheckText());
    grammar_.start = "start";
    for (Space(true); !AtEnd(); Space(true)) {
      if (Eat("%")) {
        GPTOSS_RETURN_IF_ERROR(Directive());
        continue;
      }
      GPTOSS_RETURN_IF_ERROR(Rule());
    }
    return std::move(grammar_);
  }

 private:
  bool AtComment(bool newlines) const override {
    return (Peek() == '/' && Peek(1) == '/') || (Peek() == '#' && newlines);
  }
  bool BeginsInNextLine(int depth) const override { return depth > 0; }
  static bool IsTerminalName(const std::string& name) {
    const size_t at = name.find_first_not_of('_');
    return at != std::string::npos && std::isupper(static_cast<unsigned char>(name[at])) != 0;
  }

  Status Directive() {
    const std::string word = Word();
    Space(false);
    if (word == "ignore") {
      GPTOSS_ASSIGN_OR_RETURN(Ebnf expr, Alternatives(0));
      grammar_.ignored.push_back(std::move(expr));
      return {};
    }
    if (word != "import")
      return Unsupported("grammar, line " + std::to_string(Line()) + ": %" + word + " is not supported");
    if (!Eat("common."))
      return Unsupported("grammar, line " + std::to_string(Line()) + ": only common.NAME can be imported");
    const std::string name = Word();
    Space(false);
    std::string as = name;
    if (Eat("->")) {
      Space(false);
      as = Word();
    }
    for (const CommonTerminal& common : kCommon) {
      if (common.name != name) continue;
      GPTOSS_ASSIGN_OR_RETURN(Regex regex, ParseRegex(common.pattern));
      grammar_.rules.push_back({as, Line(), RegexEbnf(std::move(regex)), true});
      return {};
    }
    return Error("common has no terminal '" + name + "'");
  }

  Status Rule() {
    EbnfRule rule;
    rule.line = Line();
    while (Peek() == '?' || Peek() == '!') ++pos_;
    rule.name = Word();
    if (rule.name.empty()) return Error("expected a rule, found '" + std::string(1, Peek()) + "'");
    rule.terminal = IsTerminalName(rule.name);
    if (Peek() == '{') return Unsupported("grammar, line " + std::to_string(Line()) + ": templates are not supported");
    if (Eat(".")) {
      Eat("-");
      if (!Number()) return Error("expected a priority after the dot");
    }
    Space(false);
    if (!Eat(":")) return Error("expected ':' after the name '" + rule.name + "'");
    GPTOSS_ASSIGN_OR_RETURN(rule.body, Alternatives(0));
    if (!AtEnd() && Peek() != '\n') return Error("unexpected '" + std::string(1, Peek()) + "'");
    grammar_.rules.push_back(std::move(rule));
    return {};
  }

  Result<Ebnf> Item(int depth) override {
    Ebnf item;
    if (Eat("->")) {  // the name of an alternative
      Space(false);
      Word();
      return item;
    }
    if (Eat("\"")) {
      GPTOSS_ASSIGN_OR_RETURN(item, StringOrRange());
    } else if (Eat("/")) {
      GPTOSS_ASSIGN_OR_RETURN(item, SlashRegex());
    } else if (Eat("(")) {
      GPTOSS_ASSIGN_OR_RETURN(item, Group(depth, '(', ')'));
    } else if (Eat("[")) {
      GPTOSS_ASSIGN_OR_RETURN(item, Group(depth, '[', ']'));
      item = RepeatEbnf(std::move(item), 0, 1);
    } else {
      std::string name = Word();
      if (name.empty()) return Error("unexpected '" + std::string(1, Peek()) + "'");
      if (Peek() == '{')
        return Unsupported("grammar, line " + std::to_string(Line()) + ": templates are not supported");
      item = RuleEbnf(std::move(name));
    }
    if (Ebnf repeated = SimplyRepeated(item)) return repeated;
    Space(false);
    if (!Eat("~")) return item;
    Space(false);
    const std::optional<uint32_t> min = Number();
    std::optional<uint32_t> max = min;
    if (Eat("..")) max = Number();
    if (!min || !max || *min > *max) return Error("a repetition must be ~n or ~n..m");
    return RepeatEbnf(std::move(item), *min, *max);
  }

  Result<Ebnf> StringOrRange() {
    const size_t start = pos_;
    GPTOSS_ASSIGN_OR_RETURN(Regex first, String(false));
    if (Eat("..\"")) {
      GPTOSS_ASSIGN_OR_RETURN(const Regex last, String(false));
      using Kind = RegexNode::Kind;
      if (first->kind != Kind::kClass || last->kind != Kind::kClass) return Error("a range needs two characters");
      const uint32_t lo = first->set.ranges()[0].lo, hi = last->set.ranges()[0].lo;
      if (lo > hi) return Error("a range whose ends are out of order");
      return RegexEbnf(ClassRegex(CodePointSet::Of({{lo, hi}})));
    }
    if (Peek() == 'i' && !IsWordByte(Peek(1))) {
      pos_ = start;
      GPTOSS_ASSIGN_OR_RETURN(first, String(true));
      ++pos_;
    }
    return RegexEbnf(std::move(first));
  }

  Result<Ebnf> SlashRegex() {
    std::string pattern;
    while (!Eat("/")) {
      if (AtEnd() || Peek() == '\n') return Error("a regular expression without its closing /");
      if (Peek() == '\\' && Peek(1) == '/') ++pos_;
      if (Peek() == '\\') pattern += text_[pos_++];
      if (!AtEnd()) pattern += text_[pos_++];
    }
    RegexOptions options;
    for (; std::isalpha(static_cast<unsigned char>(Peek())) != 0; ++pos_) {
      if (Peek() == 'i') options.ignore_case = true;
      if (Peek() == 's') options.dot_all = true;
      if (Peek() != 'i' && Peek() != 's' && Peek() != 'u') return Error("only the flags i, s and u are supported");
    }
    Result<Regex> regex = ParseRegex(pattern, options);
    if (regex.ok()) regex = ResolveAnchors(*regex, true);
    if (!regex.ok()) return regex.status().WithContext("grammar, line " + std::to_string(Line()));
    return RegexEbnf(*regex);
  }

  EbnfGrammar grammar_;
};

}  // namespace

Result<Automaton> CompileGbnf(std::string_view text, const EbnfOptions& options) {
  GPTOSS_ASSIGN_OR_RETURN(const EbnfGrammar grammar, GbnfParser(text, options).Parse());
  return CompileEbnf(grammar, options);
}

Result<Automaton> CompileLark(std::string_view text, const EbnfOptions& options) {
  GPTOSS_ASSIGN_OR_RETURN(const EbnfGrammar grammar, LarkParser(text, options).Parse());
  return CompileEbnf(grammar, options);
}

}  // namespace gptoss
