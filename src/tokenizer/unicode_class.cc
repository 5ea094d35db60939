#include "tokenizer/unicode_class.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <memory>

namespace gptoss {
namespace {

/// Planes 0 to 3 are cached; beyond them only private use, tags and variation selectors are assigned.
constexpr uint32_t kTableEnd = 0x40000;

/// Letters, marks and numbers of Unicode 15.1 and 16, in order: Debian 12's utf8proc ends at 15.0, the official
/// tokenizer's regular expressions at 16. tests/oracles/tokenizer.mjs --code-points checks all of it.
struct Assigned {
  uint32_t first, last;
  CharClass bits;
};
constexpr Assigned kAssignedLater[] = {
    {0x897, 0x897, kMark},         {0x1C89, 0x1C89, kUpper},      {0x1C8A, 0x1C8A, kLower},
    {0xA7CB, 0xA7CC, kUpper},      {0xA7CD, 0xA7CD, kLower},      {0xA7DA, 0xA7DA, kUpper},
    {0xA7DB, 0xA7DB, kLower},      {0xA7DC, 0xA7DC, kUpper},      {0x105C0, 0x105F3, kCaseless},
    {0x10D40, 0x10D49, kNumber},   {0x10D4A, 0x10D4F, kCaseless}, {0x10D50, 0x10D65, kUpper},
    {0x10D69, 0x10D6D, kMark},     {0x10D6F, 0x10D6F, kCaseless}, {0x10D70, 0x10D85, kLower},
    {0x10EC2, 0x10EC4, kCaseless}, {0x10EFC, 0x10EFC, kMark},     {0x11380, 0x11389, kCaseless},
    {0x1138B, 0x1138B, kCaseless}, {0x1138E, 0x1138E, kCaseless}, {0x11390, 0x113B5, kCaseless},
    {0x113B7, 0x113B7, kCaseless}, {0x113B8, 0x113C0, kMark},     {0x113C2, 0x113C2, kMark},
    {0x113C5, 0x113C5, kMark},     {0x113C7, 0x113CA, kMark},     {0x113CC, 0x113D0, kMark},
    {0x113D1, 0x113D1, kCaseless}, {0x113D2, 0x113D2, kMark},     {0x113D3, 0x113D3, kCaseless},
    {0x113E1, 0x113E2, kMark},     {0x116D0, 0x116E3, kNumber},   {0x11BC0, 0x11BE0, kCaseless},
    {0x11BF0, 0x11BF9, kNumber},   {0x11F5A, 0x11F5A, kMark},     {0x13460, 0x143FA, kCaseless},
    {0x16100, 0x1611D, kCaseless}, {0x1611E, 0x1612F, kMark},     {0x16130, 0x16139, kNumber},
    {0x16D40, 0x16D6C, kCaseless}, {0x16D70, 0x16D79, kNumber},   {0x18CFF, 0x18CFF, kCaseless},
    {0x1CCF0, 0x1CCF9, kNumber},   {0x1E5D0, 0x1E5ED, kCaseless}, {0x1E5EE, 0x1E5EF, kMark},
    {0x1E5F0, 0x1E5F0, kCaseless}, {0x1E5F1, 0x1E5FA, kNumber},   {0x2EBF0, 0x2EE5D, kCaseless}};

uint8_t ClassOfUnassigned(uint32_t c) {
  const auto it = std::lower_bound(std::begin(kAssignedLater), std::end(kAssignedLater), c,
                                   [](const Assigned& range, uint32_t value) { return range.last < value; });
  if (it == std::end(kAssignedLater) || c < it->first) return 0;
  return it->bits;
}

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
    case UTF8PROC_CATEGORY_CN:
      return ClassOfUnassigned(c);
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
