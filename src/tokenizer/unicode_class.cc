#include "tokenizer/unicode_class.h"

#include <utf8proc.h>

#include <memory>

namespace gptoss {
namespace {

/// Planes 0 to 3 are cached; beyond them only private use, tags and variation selectors are assigned.
constexpr uint32_t kTableEnd = 0x40000;

bool IsWhiteSpace(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

uint8_t Classify(uint32_t c) {
  if (IsWhiteSpace(c)) return c == '\r' || c == '\n' ? kSpace | kNewline : kSpace;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
      return kUpper;
    case UTF8PROC_CATEGORY_LL:
      return kLower;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return kCaseless;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return kMark;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return kNumber;
    default:
      return 0;
  }
}

std::unique_ptr<uint8_t[]> MakeTable() {
  auto table = std::make_unique<uint8_t[]>(kTableEnd);
  for (uint32_t c = 0; c < kTableEnd; ++c) table[c] = Classify(c);
  return table;
}

constexpr std::array<uint8_t, 128> MakeAsciiClass() {
  std::array<uint8_t, 128> table{};
  for (size_t c = 'A'; c <= 'Z'; ++c) table[c] = kUpper;
  for (size_t c = 'a'; c <= 'z'; ++c) table[c] = kLower;
  for (size_t c = '0'; c <= '9'; ++c) table[c] = kNumber;
  for (size_t c = 0x09; c <= 0x0D; ++c) table[c] = kSpace;
  table[' '] = kSpace;
  table['\r'] = table['\n'] = kSpace | kNewline;
  return table;
}

}  // namespace

constinit const std::array<uint8_t, 128> kAsciiClass = MakeAsciiClass();

uint8_t ClassOfCodePoint(uint32_t code_point) {
  static const std::unique_ptr<uint8_t[]> kTable = MakeTable();
  return code_point < kTableEnd ? kTable[code_point] : Classify(code_point);
}

}  // namespace gptoss
