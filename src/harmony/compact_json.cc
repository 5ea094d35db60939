// serde_json's text of a value. Its floats come from the ryu crate (pretty::format64), whose layout differs from C's.
#include <charconv>
#include <cmath>
#include <string>

#include "harmony/tool_schema.h"

namespace gptoss {
namespace {

std::string FloatText(double value) {
  if (!std::isfinite(value)) return "null";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t e = text.find('e');
  std::string digits;
  for (char c : text.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  int exponent = 0;  // of the first digit
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), text.data() + text.size(), exponent);
  const std::string sign = std::signbit(value) ? "-" : "";
  if (digits == "0") return sign + "0.0";
  const int length = static_cast<int>(digits.size());
  const int point = exponent + 1;  // digits before the decimal point
  if (length <= point && point <= 16)
    return sign + digits + std::string(static_cast<size_t>(point - length), '0') + ".0";
  if (0 < point && point <= 16) {
    return sign + digits.substr(0, static_cast<size_t>(point)) + "." + digits.substr(static_cast<size_t>(point));
  }
  if (-5 < point && point <= 0) return sign + "0." + std::string(static_cast<size_t>(-point), '0') + digits;
  const std::string tail = "e" + std::to_string(exponent);
  return sign + (length == 1 ? digits : digits.substr(0, 1) + "." + digits.substr(1)) + tail;
}

void Append(const Json& json, std::string* out) {
  if (json.is_object()) {
    *out += '{';
    bool first = true;
    for (const auto& [key, value] : json.items()) {
      if (!first) *out += ',';
      first = false;
      *out += WriteJson(Json(key)) + ":";
      Append(value, out);
    }
    *out += '}';
  } else if (json.is_array()) {
    *out += '[';
    for (size_t i = 0; i < json.size(); ++i) {
      if (i > 0) *out += ',';
      Append(json[i], out);
    }
    *out += ']';
  } else {
    *out += json.is_number_float() ? FloatText(json.get<double>()) : WriteJson(json);
  }
}

}  // namespace

std::string CompactJson(const Json& json) {
  std::string out;
  Append(json, &out);
  return out;
}

}  // namespace gptoss
