#include "tokenizer/split.h"

#include "tokenizer/unicode_class.h"

namespace gptoss {
namespace {

// The two letter sets of the pattern overlap in caseless letters and marks.
constexpr uint8_t kUpperSet = kUpper | kCaseless | kMark;  // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
constexpr uint8_t kLowerSet = kLower | kCaseless | kMark;  // [\p{Ll}\p{Lm}\p{Lo}\p{M}]
constexpr uint8_t kLetter = kUpper | kLower | kCaseless;   // \p{L}

/// End of the run of characters with a bit of `set` from `pos`.
size_t RunEnd(std::string_view text, size_t pos, uint8_t set) {
  while (pos < text.size()) {
    const ClassifiedChar c = ClassAt(text, pos);
    if ((c.bits & set) == 0) break;
    pos += c.length;
  }
  return pos;
}

/// Ends of the two word forms that can start at one place; 0 where the form does not match.
struct WordEnds {
  size_t first = 0;   // [upper set]*[lower set]+
  size_t second = 0;  // [upper set]+[lower set]*
};

WordEnds FindWord(std::string_view text, size_t begin) {
  size_t pos = begin, after_shared = 0;
  while (pos < text.size()) {
    const ClassifiedChar c = ClassAt(text, pos);
    if ((c.bits & kUpperSet) == 0) {
      if ((c.bits & kLower) != 0) {
        const size_t end = RunEnd(text, pos, kLowerSet);
        return {end, pos > begin ? end : 0};
      }
      break;
    }
    pos += c.length;
    if ((c.bits & kUpper) == 0) after_shared = pos;
  }
  // No lower-case letter follows: the first form backtracks to the last character that is in both sets.
  return {after_shared, pos > begin ? pos : 0};
}

char AsciiLower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

/// Bytes of (?i:'s|'t|'re|'ve|'m|'ll|'d) at `pos`, or 0.
size_t ContractionLength(std::string_view text, size_t pos) {
  if (pos + 1 >= text.size() || text[pos] != '\'') return 0;
  const char first = AsciiLower(text[pos + 1]);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  // U+017F, the long s, is the only other character that folds to one of these letters.
  if (text.substr(pos + 1, 2) == "\xC5\xBF") return 3;
  if (pos + 2 >= text.size()) return 0;
  const char second = AsciiLower(text[pos + 2]);
  return ((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l') ? 3 : 0;
}

size_t NumberEnd(std::string_view text) {
  size_t pos = 0;
  for (int digits = 0; digits < 3 && pos < text.size(); ++digits) {
    const ClassifiedChar c = ClassAt(text, pos);
    if ((c.bits & kNumber) == 0) break;
    pos += c.length;
  }
  return pos;
}

/// ` ?[^\s\p{L}\p{N}]+[\r\n/]*` from `begin`, where the optional space has been passed; 0 when it does not match.
size_t SymbolsEnd(std::string_view text, size_t begin) {
  size_t pos = begin;
  while (pos < text.size()) {
    const ClassifiedChar c = ClassAt(text, pos);
    if ((c.bits & (kSpace | kLetter | kNumber)) != 0) break;
    pos += c.length;
  }
  if (pos == begin) return 0;
  while (pos < text.size() && (text[pos] == '\r' || text[pos] == '\n' || text[pos] == '/')) ++pos;
  return pos;
}

/// The three alternatives for white space; text starts with some.
size_t SpaceEnd(std::string_view text) {
  size_t pos = 0, last = 0, after_newline = 0;
  while (pos < text.size()) {
    const ClassifiedChar c = ClassAt(text, pos);
    if ((c.bits & kSpace) == 0) break;
    last = pos;
    pos += c.length;
    if ((c.bits & kNewline) != 0) after_newline = pos;
  }
  if (after_newline > 0) return after_newline;          // \s*[\r\n]+
  return pos == text.size() || last == 0 ? pos : last;  // \s+(?!\S) gives one character back; alone it is \s+
}

}  // namespace

size_t NextPiece(std::string_view text) {
  const ClassifiedChar c = ClassAt(text, 0);
  const bool may_lead = (c.bits & (kNewline | kLetter | kNumber)) == 0;  // [^\r\n\p{L}\p{N}]?
  const WordEnds after_lead = may_lead ? FindWord(text, c.length) : WordEnds{};
  WordEnds at_start;
  size_t word = after_lead.first;
  if (word == 0 && (c.bits & (kLetter | kMark)) != 0) {
    at_start = FindWord(text, 0);
    word = at_start.first;
  }
  if (word == 0) word = after_lead.second != 0 ? after_lead.second : at_start.second;
  if (word != 0) return word + ContractionLength(text, word);

  if ((c.bits & kNumber) != 0) return NumberEnd(text);
  if (text[0] == ' ') {
    const size_t end = SymbolsEnd(text, 1);
    return end != 0 ? end : SpaceEnd(text);
  }
  return (c.bits & kSpace) != 0 ? SpaceEnd(text) : SymbolsEnd(text, 0);
}

}  // namespace gptoss
