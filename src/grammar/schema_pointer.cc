#include "grammar/schema_pointer.h"

namespace gptoss {
namespace {

/// -1 for what is no digit.
int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string PointerToken(std::string_view key) {
  std::string out = "/";
  for (char c : key) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

std::string KeyOfPointerToken(std::string_view token) {
  std::string percent, out;
  for (size_t i = 0; i < token.size(); ++i) {
    const int high = i + 2 < token.size() ? HexDigit(token[i + 1]) : -1;
    const int low = i + 2 < token.size() ? HexDigit(token[i + 2]) : -1;
    if (token[i] == '%' && high >= 0 && low >= 0) {
      percent += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      percent += token[i];
    }
  }
  for (size_t i = 0; i < percent.size(); ++i) {
    const bool tilde = percent[i] == '~' && i + 1 < percent.size();
    out += tilde ? (percent[i + 1] == '0' ? '~' : '/') : percent[i];
    i += tilde ? 1 : 0;
  }
  return out;
}

Status InvalidSchema(const std::string& pointer, const std::string& what) {
  return InvalidArgument("schema " + pointer + ": " + what);
}

Status UnsupportedSchema(const std::string& pointer, const std::string& what) {
  return Unsupported("schema " + pointer + ": " + what);
}

}  // namespace gptoss
