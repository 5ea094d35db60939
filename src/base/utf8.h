// UTF-8 as bytes: validation and code points. Unicode properties are the tokenizer's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace gptoss {

struct Utf8Char {
  uint32_t code_point = 0xFFFD;
  uint8_t length = 1;  // bytes consumed; 1 for a byte that starts no valid sequence
  bool valid = false;
};

/// Decodes the character at the start of `s` (not empty). Overlong forms, surrogates and values past U+10FFFF are
/// invalid.
Utf8Char DecodeUtf8(std::string_view s);

/// Offset of the first byte that is not part of a valid sequence, or s.size().
size_t FirstInvalidUtf8(std::string_view s);

/// `s` with each maximal invalid part (Unicode 15, section 3.9) replaced by U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view s);

void AppendUtf8(uint32_t code_point, std::string* out);

/// Number of leading bytes of `s` that form whole characters, when `s` may end inside one (0 to 3 bytes are held back).
size_t CompleteUtf8Prefix(std::string_view s);

}  // namespace gptoss
