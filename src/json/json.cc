#include "json/json.h"

#include <cmath>

namespace gptoss {
namespace {

/// Nesting is limited before the library sees the text, since its parser and destructor recurse on the document's
/// depth.
int MaxDepth(std::string_view text, int limit) {
  int depth = 0, deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size() && deepest <= limit; ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

Result<Json> ParseJson(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return ResourceExhausted("JSON of " + std::to_string(text.size()) + " bytes is over the limit of " +
                             std::to_string(limits.max_bytes));
  }
  if (MaxDepth(text, limits.max_depth) > limits.max_depth) {
    return ResourceExhausted("JSON is nested deeper than " + std::to_string(limits.max_depth) + " levels");
  }
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const Json::parse_error& e) {
    return CorruptData("not valid JSON at byte " + std::to_string(e.byte));
  } catch (const Json::exception& e) {
    return CorruptData(std::string("not valid JSON: ") + e.what());
  }
}

std::string WriteJson(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

const Json* FindField(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(std::string(key));
  return it == object.end() ? nullptr : &*it;
}

const std::string* FindString(const Json& object, std::string_view key) {
  const Json* field = FindField(object, key);
  return field == nullptr ? nullptr : field->get_ptr<const std::string*>();
}

Result<int64_t> GetInt(const Json& object, std::string_view key) {
  const Json* field = FindField(object, key);
  if (field == nullptr) return CorruptData("\"" + std::string(key) + "\" is missing");
  if (field->is_number_unsigned()) {
    const uint64_t v = field->get<uint64_t>();
    if (v <= static_cast<uint64_t>(INT64_MAX)) return static_cast<int64_t>(v);
  } else if (field->is_number_integer()) {
    return field->get<int64_t>();
  } else if (field->is_number_float()) {
    const double v = field->get<double>();
    if (std::abs(v) < 0x1.0p53 && v == std::floor(v)) return static_cast<int64_t>(v);
  }
  return CorruptData("\"" + std::string(key) + "\" is not an integer");
}

Result<double> GetDouble(const Json& object, std::string_view key) {
  const Json* field = FindField(object, key);
  if (field == nullptr) return CorruptData("\"" + std::string(key) + "\" is missing");
  if (!field->is_number()) return CorruptData("\"" + std::string(key) + "\" is not a number");
  return field->get<double>();
}

}  // namespace gptoss
