#include "tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "base/utf8.h"

namespace gptoss {
namespace {

constexpr int kAlphabetEnd = 256 + 68;  // 188 bytes stand for themselves, 68 are moved to U+0100 and up

constexpr bool StandsForItself(int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; }

struct Tables {
  std::array<uint16_t, 256> code_point{};
  std::array<int16_t, kAlphabetEnd> byte{};
};

constexpr Tables MakeTables() {
  Tables t;
  for (auto& b : t.byte) b = -1;
  int moved = 256;
  for (int b = 0; b < 256; ++b) {
    const int c = StandsForItself(b) ? b : moved++;
    t.code_point[static_cast<size_t>(b)] = static_cast<uint16_t>(c);
    t.byte[static_cast<size_t>(c)] = static_cast<int16_t>(b);
  }
  return t;
}
constexpr Tables kTables = MakeTables();

}  // namespace

bool BytesFromAlphabet(std::string_view text, std::string* bytes) {
  while (!text.empty()) {
    const Utf8Char c = DecodeUtf8(text);
    if (!c.valid || c.code_point >= kAlphabetEnd || kTables.byte[c.code_point] < 0) return false;
    bytes->push_back(static_cast<char>(kTables.byte[c.code_point]));
    text.remove_prefix(c.length);
  }
  return true;
}

void BytesToAlphabet(std::string_view bytes, std::string* text) {
  for (const char b : bytes) AppendUtf8(kTables.code_point[static_cast<uint8_t>(b)], text);
}

}  // namespace gptoss
