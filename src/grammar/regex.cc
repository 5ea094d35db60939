#include "grammar/regex.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <tuple>
#include <utility>

#include "base/utf8.h"

namespace gptoss {
namespace {

using Kind = RegexNode::Kind;

Regex Make(Kind kind, std::vector<Regex> parts) {
  auto node = std::make_shared<RegexNode>();
  node->kind = kind;
  node->parts = std::move(parts);
  return node;
}

class RegexParser {
 public:
  RegexParser(std::string_view text, const RegexOptions& options) : text_(text), options_(options) {}

  Result<Regex> Parse() {
    if (text_.size() > options_.max_bytes) {
      return ResourceExhausted("regular expression: longer than " + std::to_string(options_.max_bytes) + " bytes");
    }
    const size_t bad = FirstInvalidUtf8(text_);
    if (bad != text_.size()) return ErrorAt(bad, "is not UTF-8");
    GPTOSS_ASSIGN_OR_RETURN(Regex regex, ParseAlternatives(0));
    if (pos_ < text_.size()) return Error("a ) without its (");
    return regex;
  }

 private:
  Status ErrorAt(size_t pos, const std::string& what, StatusCode code = StatusCode::kInvalidArgument) const {
    return Status(code, "regular expression, byte " + std::to_string(pos) + ": " + what);
  }
  Status Error(const std::string& what) const { return ErrorAt(pos_, what); }
  Status NotRegular(const std::string& what) const { return ErrorAt(pos_, what, StatusCode::kUnsupported); }
  bool Eat(std::string_view word) {
    if (!text_.substr(pos_).starts_with(word)) return false;
    pos_ += word.size();
    return true;
  }
  bool AtEnd() const { return pos_ >= text_.size(); }
  uint32_t Next() {
    const Utf8Char c = DecodeUtf8(text_.substr(pos_));
    pos_ += c.length;
    return c.code_point;
  }
  Regex Class(const CodePointSet& set) const { return ClassRegex(options_.ignore_case ? set.FoldAsciiCase() : set); }

  Result<Regex> ParseAlternatives(int depth) {
    if (depth > options_.max_depth) return Error("groups are nested too deeply");
    std::vector<Regex> alternatives;
    do {
      std::vector<Regex> parts;
      while (!AtEnd() && text_[pos_] != '|' && text_[pos_] != ')') {
        GPTOSS_ASSIGN_OR_RETURN(Regex atom, ParseAtom(depth));
        GPTOSS_ASSIGN_OR_RETURN(atom, ParseQuantifier(std::move(atom)));
        parts.push_back(std::move(atom));
      }
      alternatives.push_back(ConcatRegex(std::move(parts)));
    } while (Eat("|"));
    return AlternateRegex(std::move(alternatives));
  }

  Result<Regex> ParseAtom(int depth) {
    const char c = text_[pos_];
    if (c == '(') return ParseGroup(depth);
    if (c == '[') return ParseBrackets();
    if (c == '\\') return ParseEscape();
    if (c == '*' || c == '+' || c == '?') return Error("a quantifier with nothing before it");
    if (c == '^' || c == '$') {
      ++pos_;
      return Make(c == '^' ? Kind::kLineStart : Kind::kLineEnd, {});
    }
    if (c == '.') {
      ++pos_;
      return ClassRegex(options_.dot_all ? CodePointSet::All() : DotClass());
    }
    return Class(One(Next()));
  }

  Result<Regex> ParseGroup(int depth) {
    const RegexOptions outer = options_;
    ++pos_;
    if (Eat("?")) {
      if (Eat("=") || Eat("!") || Eat("<=") || Eat("<!")) return NotRegular("look-around is not supported");
      if (Eat("P<") || Eat("<")) {
        const size_t end = text_.find('>', pos_);
        if (end == std::string_view::npos) return Error("the name of the group does not end");
        pos_ = end + 1;
      } else {
        while (!AtEnd() && text_[pos_] != ':') {
          const char flag = text_[pos_++];
          if (flag == 'i') {
            options_.ignore_case = true;
          } else if (flag == 's') {
            options_.dot_all = true;
          } else {
            return NotRegular("this kind of group is not supported; use (?:...)");
          }
        }
        if (!Eat(":")) return Error("the group does not end");
      }
    }
    GPTOSS_ASSIGN_OR_RETURN(Regex inner, ParseAlternatives(depth + 1));
    if (!Eat(")")) return Error("a ( without its )");
    options_ = outer;
    return inner;
  }

  /// "{n}", "{n,}", "{n,m}" at the position; nothing is taken when it is none of them.
  std::optional<std::pair<uint32_t, uint32_t>> EatBounds() {
    const size_t start = pos_;
    const auto number = [&]() -> std::optional<uint32_t> {
      uint64_t value = 0;
      size_t digits = 0;
      for (; !AtEnd() && text_[pos_] >= '0' && text_[pos_] <= '9'; ++pos_, ++digits) {
        value = std::min<uint64_t>(value * 10 + static_cast<uint64_t>(text_[pos_] - '0'), kUnbounded - 1);
      }
      return digits > 0 ? std::optional<uint32_t>(static_cast<uint32_t>(value)) : std::nullopt;
    };
    if (Eat("{")) {
      if (const std::optional<uint32_t> min = number()) {
        std::optional<uint32_t> max = min;
        if (Eat(",")) max = number().value_or(kUnbounded);
        if (Eat("}")) return std::make_pair(*min, *max);
      }
    }
    pos_ = start;
    return std::nullopt;
  }

  Result<Regex> ParseQuantifier(Regex atom) {
    uint32_t min = 1, max = 1;
    if (Eat("*")) {
      min = 0, max = kUnbounded;
    } else if (Eat("+")) {
      max = kUnbounded;
    } else if (Eat("?")) {
      min = 0;
    } else if (const auto bounds = EatBounds()) {
      std::tie(min, max) = *bounds;
      if (min > max) return Error("a repetition whose minimum is larger than its maximum");
    } else {
      return atom;
    }
    if (atom->kind == Kind::kLineStart || atom->kind == Kind::kLineEnd) return Error("an anchor cannot be repeated");
    if (!Eat("?") && !AtEnd() && text_[pos_] == '+') return NotRegular("possessive quantifiers are not supported");
    if (!AtEnd() && (text_[pos_] == '*' || text_[pos_] == '?' || text_[pos_] == '+')) {
      return Error("two quantifiers in a row");
    }
    return RepeatRegex(std::move(atom), min, max);
  }

  Result<uint32_t> Hex(size_t digits) {
    uint32_t value = 0;
    for (size_t i = 0; i < digits; ++i, ++pos_) {
      const char c = AtEnd() ? '\0' : text_[pos_];
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) return Error("needs " + std::to_string(digits) + " hexadecimal digits");
      value = value * 16 + static_cast<uint32_t>(digit);
    }
    return value;
  }

  Result<uint32_t> UnicodeEscape() {
    if (Eat("{")) {
      uint32_t value = 0;
      size_t digits = 0;
      while (!Eat("}")) {
        GPTOSS_ASSIGN_OR_RETURN(const uint32_t digit, Hex(1));
        value = value * 16 + digit;
        if (++digits > 6 || value > 0x10FFFF) return Error("is no code point");
      }
      if (digits == 0) return Error("is no code point");
      return value;
    }
    GPTOSS_ASSIGN_OR_RETURN(uint32_t value, Hex(4));
    if (value >= 0xD800 && value < 0xDC00 && text_.substr(pos_).starts_with("\\u")) {
      const size_t back = pos_;
      pos_ += 2;
      GPTOSS_ASSIGN_OR_RETURN(const uint32_t low, Hex(4));
      if (low >= 0xDC00 && low < 0xE000) return 0x10000 + ((value - 0xD800) << 10) + (low - 0xDC00);
      pos_ = back;
    }
    return value;
  }

  /// What a single letter after a backslash stands for.
  static std::optional<CodePointSet> NamedSet(char letter) {
    switch (letter) {
      case 'd':
        return DigitClass();
      case 'D':
        return DigitClass().Complement();
      case 'w':
        return WordClass();
      case 'W':
        return WordClass().Complement();
      case 's':
        return SpaceClass();
      case 'S':
        return SpaceClass().Complement();
      default:
        break;
    }
    constexpr std::string_view kLetters = "tnvfr", kMeanings = "\t\n\v\f\r";
    const size_t at = kLetters.find(letter);
    if (at == std::string_view::npos) return std::nullopt;
    return One(static_cast<uint8_t>(kMeanings[at]));
  }
  static CodePointSet One(uint32_t code) { return CodePointSet::Of({{code, code}}); }

  /// What follows a backslash: a set of characters. `in_brackets`: \b is a backspace there, and - may be escaped.
  Result<CodePointSet> EscapedSet(bool in_brackets) {
    if (AtEnd()) return Error("ends in a backslash");
    const char c = text_[pos_];
    if (std::optional<CodePointSet> named = NamedSet(c)) {
      ++pos_;
      return *std::move(named);
    }
    if (c == 'p' || c == 'P') return Property();
    if (c == 'x') {
      ++pos_;
      GPTOSS_ASSIGN_OR_RETURN(const uint32_t code, Hex(2));
      return One(code);
    }
    if (c == 'u') {
      ++pos_;
      GPTOSS_ASSIGN_OR_RETURN(const uint32_t code, UnicodeEscape());
      return One(code);
    }
    if (c == 'c') {
      if (pos_ + 1 >= text_.size() || !std::isalpha(static_cast<unsigned char>(text_[pos_ + 1]))) {
        return Error("\\c needs a letter");
      }
      pos_ += 2;
      return One(static_cast<uint32_t>(text_[pos_ - 1]) % 32);
    }
    if (c == '0' && !(pos_ + 1 < text_.size() && std::isdigit(static_cast<unsigned char>(text_[pos_ + 1])))) {
      ++pos_;
      return One(0);
    }
    if (c == 'b' && in_brackets) {
      ++pos_;
      return One('\b');
    }
    if (c == 'b' || c == 'B') return NotRegular("word boundaries are not supported");
    if (std::isdigit(static_cast<unsigned char>(c)) || c == 'k') return NotRegular("back references are not supported");
    if (std::isalpha(static_cast<unsigned char>(c))) return Error(std::string("\\") + c + " is no escape");
    return One(Next());
  }

  Result<CodePointSet> Property() {
    const bool negated = text_[pos_] == 'P';
    ++pos_;
    if (!Eat("{")) return Error("\\p needs {name}");
    const size_t end = text_.find('}', pos_);
    if (end == std::string_view::npos) return Error("\\p{ does not end");
    Result<CodePointSet> set = PropertyClass(text_.substr(pos_, end - pos_));
    if (!set.ok()) return ErrorAt(pos_, set.status().message(), StatusCode::kUnsupported);
    pos_ = end + 1;
    return negated ? set->Complement() : *set;
  }

  Result<Regex> ParseEscape() {
    ++pos_;
    GPTOSS_ASSIGN_OR_RETURN(const CodePointSet set, EscapedSet(false));
    return Class(set);
  }

  /// One member of [...]: `*single` when it is one character, which may begin a range.
  Result<CodePointSet> Member(std::optional<uint32_t>* single) {
    CodePointSet set;
    if (Eat("\\")) {
      GPTOSS_ASSIGN_OR_RETURN(set, EscapedSet(true));
    } else {
      set = One(Next());
    }
    single->reset();
    if (set.ranges().size() == 1 && set.ranges()[0].lo == set.ranges()[0].hi) *single = set.ranges()[0].lo;
    return set;
  }

  Result<Regex> ParseBrackets() {
    const size_t start = pos_++;
    const bool negated = Eat("^");
    CodePointSet all;
    while (true) {
      if (AtEnd()) return ErrorAt(start, "a [ without its ]");
      if (Eat("]")) break;
      std::optional<uint32_t> lo, hi;
      GPTOSS_ASSIGN_OR_RETURN(CodePointSet set, Member(&lo));
      const bool range = pos_ + 1 < text_.size() && text_[pos_] == '-' && text_[pos_ + 1] != ']';
      if (range && lo) {
        ++pos_;
        GPTOSS_ASSIGN_OR_RETURN(const CodePointSet last, Member(&hi));
        if (!hi || *hi < *lo) return Error("a range in [...] whose ends are out of order or no characters");
        set = CodePointSet::Of({{*lo, *hi}});
      }
      all = all.Union(set);
    }
    if (options_.ignore_case) all = all.FoldAsciiCase();
    return ClassRegex(negated ? all.Complement() : all);
  }

  std::string_view text_;
  RegexOptions options_;
  size_t pos_ = 0;
};

/// One alternative with what its anchors say.
struct Branch {
  bool start = false, end = false;
  Regex regex;
};

constexpr size_t kMaxBranches = 256;

bool HasAnchor(const Regex& regex) {
  if (regex->kind == Kind::kLineStart || regex->kind == Kind::kLineEnd) return true;
  return std::any_of(regex->parts.begin(), regex->parts.end(), HasAnchor);
}

Status AnchorError() {
  return Unsupported(
      "regular expression: ^ and $ are supported at the ends of the expression or of an alternative only");
}

/// Splits `regex` into alternatives whose anchors stand at their ends and are taken off.
Status SplitBranches(const Regex& regex, std::vector<Branch>* out) {
  if (!HasAnchor(regex)) {
    out->push_back({false, false, regex});
  } else if (regex->kind == Kind::kLineStart || regex->kind == Kind::kLineEnd) {
    out->push_back({regex->kind == Kind::kLineStart, regex->kind == Kind::kLineEnd, EmptyRegex()});
  } else if (regex->kind == Kind::kAlternate) {
    for (const Regex& part : regex->parts) GPTOSS_RETURN_IF_ERROR(SplitBranches(part, out));
  } else if (regex->kind == Kind::kConcat) {
    std::vector<Branch> sum = {{false, false, EmptyRegex()}};
    bool first = true;
    for (const Regex& part : regex->parts) {
      std::vector<Branch> branches, next;
      GPTOSS_RETURN_IF_ERROR(SplitBranches(part, &branches));
      for (const Branch& a : sum) {
        for (const Branch& b : branches) {
          const bool empty_before = first || a.regex->kind == Kind::kEmpty;
          const bool b_empty = b.regex->kind == Kind::kEmpty;
          if ((b.start && !empty_before) || (a.end && !b_empty)) return AnchorError();
          next.push_back({a.start || b.start, a.end || b.end, ConcatRegex({a.regex, b.regex})});
        }
      }
      if (next.size() > kMaxBranches) return AnchorError();
      sum = std::move(next);
      first = false;
    }
    out->insert(out->end(), sum.begin(), sum.end());
  } else {
    return AnchorError();
  }
  return out->size() > kMaxBranches ? AnchorError() : Status();
}

}  // namespace

Regex EmptyRegex() {
  static const Regex kEmpty = Make(Kind::kEmpty, {});
  return kEmpty;
}

Regex ClassRegex(CodePointSet set) {
  auto node = std::make_shared<RegexNode>();
  node->kind = Kind::kClass;
  node->set = std::move(set);
  return node;
}

Regex TextRegex(std::string_view utf8) {
  std::vector<Regex> parts;
  while (!utf8.empty()) {
    const Utf8Char c = DecodeUtf8(utf8);
    utf8.remove_prefix(c.length);
    parts.push_back(ClassRegex(CodePointSet::Of({{c.code_point, c.code_point}})));
  }
  return ConcatRegex(std::move(parts));
}

Regex ConcatRegex(std::vector<Regex> parts) {
  std::vector<Regex> flat;
  for (Regex& part : parts) {
    if (part->kind == Kind::kEmpty) continue;
    if (part->kind == Kind::kConcat) {
      flat.insert(flat.end(), part->parts.begin(), part->parts.end());
    } else {
      flat.push_back(std::move(part));
    }
  }
  if (flat.empty()) return EmptyRegex();
  return flat.size() == 1 ? flat[0] : Make(Kind::kConcat, std::move(flat));
}

Regex AlternateRegex(std::vector<Regex> parts) {
  return parts.size() == 1 ? parts[0] : Make(Kind::kAlternate, std::move(parts));
}

Regex RepeatRegex(Regex part, uint32_t min, uint32_t max) {
  if (max == 0 || part->kind == Kind::kEmpty) return EmptyRegex();
  if (min == 1 && max == 1) return part;
  auto node = std::make_shared<RegexNode>();
  node->kind = Kind::kRepeat;
  node->parts = {std::move(part)};
  node->min = min;
  node->max = max;
  return node;
}

Result<Regex> ParseRegex(std::string_view pattern, const RegexOptions& options) {
  return RegexParser(pattern, options).Parse();
}

Result<Regex> ResolveAnchors(const Regex& regex, bool anchored) {
  if (anchored && !HasAnchor(regex)) return regex;
  std::vector<Branch> branches;
  GPTOSS_RETURN_IF_ERROR(SplitBranches(regex, &branches));
  const Regex any = RepeatRegex(ClassRegex(CodePointSet::All()), 0, kUnbounded);
  std::vector<Regex> out;
  for (const Branch& b : branches) {
    out.push_back(
        ConcatRegex({b.start || anchored ? EmptyRegex() : any, b.regex, b.end || anchored ? EmptyRegex() : any}));
  }
  return AlternateRegex(std::move(out));
}

}  // namespace gptoss
