#include "base/utf8.h"

namespace gptoss {
namespace {

constexpr uint8_t Byte(char c) { return static_cast<uint8_t>(c); }

/// Allowed range of the second byte after lead byte `b` (Unicode 15, table 3-7).
struct Range {
  uint8_t low, high;
};
Range SecondByteRange(uint8_t b) {
  switch (b) {
    case 0xE0:
      return {0xA0, 0xBF};
    case 0xED:
      return {0x80, 0x9F};
    case 0xF0:
      return {0x90, 0xBF};
    case 0xF4:
      return {0x80, 0x8F};
    default:
      return {0x80, 0xBF};
  }
}

int SequenceLength(uint8_t b) {
  if (b < 0x80) return 1;
  if (b >= 0xC2 && b <= 0xDF) return 2;
  if (b >= 0xE0 && b <= 0xEF) return 3;
  if (b >= 0xF0 && b <= 0xF4) return 4;
  return 0;
}

/// Bytes of the longest prefix of `s` that begins a valid sequence, at most one sequence; `complete` says if it is
/// whole.
size_t ValidPart(std::string_view s, bool* complete) {
  *complete = false;
  const uint8_t lead = Byte(s[0]);
  const int length = SequenceLength(lead);
  if (length <= 1) {
    *complete = length == 1;
    return length == 1 ? 1 : 0;
  }
  Range range = SecondByteRange(lead);
  int i = 1;
  for (; i < length && static_cast<size_t>(i) < s.size(); ++i, range = {0x80, 0xBF}) {
    if (Byte(s[i]) < range.low || Byte(s[i]) > range.high) break;
  }
  *complete = i == length;
  return static_cast<size_t>(i);
}

}  // namespace

Utf8Char DecodeUtf8(std::string_view s) {
  bool complete;
  const size_t n = ValidPart(s, &complete);
  if (!complete) return {};
  const uint8_t lead = Byte(s[0]);
  uint32_t c = n == 1 ? lead : n == 2 ? lead & 0x1F : n == 3 ? lead & 0x0F : lead & 0x07;
  for (size_t i = 1; i < n; ++i) c = c << 6 | (Byte(s[i]) & 0x3F);
  return {c, static_cast<uint8_t>(n), true};
}

size_t FirstInvalidUtf8(std::string_view s) {
  size_t i = 0;
  while (i < s.size()) {
    if (Byte(s[i]) < 0x80) {
      ++i;
      continue;
    }
    const Utf8Char c = DecodeUtf8(s.substr(i));
    if (!c.valid) return i;
    i += c.length;
  }
  return s.size();
}

std::string ReplaceInvalidUtf8(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  while (!s.empty()) {
    bool complete;
    const size_t n = ValidPart(s, &complete);
    if (complete) {
      out.append(s.substr(0, n));
    } else {
      out.append("\xEF\xBF\xBD");
    }
    s.remove_prefix(n == 0 ? 1 : n);
  }
  return out;
}

void AppendUtf8(uint32_t c, std::string* out) {
  const auto push = [out](uint32_t b) { out->push_back(static_cast<char>(b)); };
  if (c < 0x80) {
    push(c);
  } else if (c < 0x800) {
    push(0xC0 | c >> 6);
    push(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    push(0xE0 | c >> 12);
    push(0x80 | (c >> 6 & 0x3F));
    push(0x80 | (c & 0x3F));
  } else {
    push(0xF0 | c >> 18);
    push(0x80 | (c >> 12 & 0x3F));
    push(0x80 | (c >> 6 & 0x3F));
    push(0x80 | (c & 0x3F));
  }
}

size_t CompleteUtf8Prefix(std::string_view s) {
  for (size_t back = 1; back <= 3 && back <= s.size(); ++back) {
    const std::string_view tail = s.substr(s.size() - back);
    if (SequenceLength(Byte(tail[0])) > 1) {
      bool complete;
      const size_t n = ValidPart(tail, &complete);
      return !complete && n == back ? s.size() - back : s.size();
    }
    if (Byte(tail[0]) < 0x80) break;
  }
  return s.size();
}

}  // namespace gptoss
