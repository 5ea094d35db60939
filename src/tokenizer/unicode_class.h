// What the split pattern of o200k asks about a character.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/utf8.h"

namespace gptoss {

/// Bits, one at most of the first five; a newline is also a space. None: punctuation, symbols, controls, invalid bytes.
enum CharClass : uint8_t {
  kUpper = 1,     // Lu, Lt
  kLower = 2,     // Ll
  kCaseless = 4,  // Lm, Lo
  kMark = 8,      // M
  kNumber = 16,   // N
  kSpace = 32,    // White_Space
  kNewline = 64,  // \r and \n
};

/// Class bits of a code point, by Unicode 16: utf8proc's tables and what was assigned after them.
uint8_t ClassOfCodePoint(uint32_t code_point);

extern const std::array<uint8_t, 128> kAsciiClass;

struct ClassifiedChar {
  uint8_t bits;
  uint8_t length;  // bytes
};

/// Class of the character at `pos` < text.size(). A byte that begins no valid sequence is a character without bits.
inline ClassifiedChar ClassAt(std::string_view text, size_t pos) {
  const uint8_t b = static_cast<uint8_t>(text[pos]);
  if (b < 0x80) return {kAsciiClass[b], 1};
  const Utf8Char c = DecodeUtf8(text.substr(pos));
  return {c.valid ? ClassOfCodePoint(c.code_point) : uint8_t{0}, c.length};
}

}  // namespace gptoss
