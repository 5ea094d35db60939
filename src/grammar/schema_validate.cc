// Whether a value is valid: for enum and const, whose values are decided when the schema is compiled.
#include <algorithm>
#include <cmath>

#include "grammar/char_dfa.h"
#include "grammar/schema_keywords.h"
#include "grammar/schema_reader.h"

namespace gptoss {
namespace {

constexpr int kMaxValueDepth = 64;

uint8_t TypeOf(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return kNullType;
    case Json::value_t::boolean:
      return kBooleanType;
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return kIntegerType;
    case Json::value_t::number_float:
      return std::floor(value.get<double>()) == value.get<double>() ? kIntegerType : kFractionType;
    case Json::value_t::string:
      return kStringType;
    case Json::value_t::array:
      return kArrayType;
    case Json::value_t::object:
      return kObjectType;
    default:
      return 0;
  }
}

size_t CodePoints(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

Result<bool> SchemaReader::Validates(const Json& value, const SchemaSet& set, int depth) {
  if (depth > kMaxValueDepth) return ResourceExhausted("schema: an enum or const is nested too deeply");
  GPTOSS_ASSIGN_OR_RETURN(const std::vector<Shape> shapes, Expand(set));
  for (const Shape& shape : shapes) {
    GPTOSS_ASSIGN_OR_RETURN(const bool valid, Validates(value, shape, depth));
    if (valid) return true;
  }
  return false;
}

Result<bool> SchemaReader::Validates(const Json& value, const Shape& shape, int depth) {
  const uint8_t type = TypeOf(value);
  if (shape.impossible || (shape.types & type) == 0) return false;
  if (shape.values &&
      std::none_of(shape.values->begin(), shape.values->end(), [&](const Json& v) { return JsonEquals(v, value); })) {
    return false;
  }
  if (value.is_number()) {
    GPTOSS_ASSIGN_OR_RETURN(const Decimal number, ReadNumber(value, "enum"));
    return shape.range.Contains(number);
  }
  if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    const size_t length = CodePoints(text);
    if (length < shape.min_length || length > shape.max_length) return false;
    for (const Regex& pattern : shape.patterns) {
      GPTOSS_ASSIGN_OR_RETURN(const CharDfa dfa, CharDfa::FromRegex(pattern));
      if (!dfa.Matches(text)) return false;
    }
    return true;
  }
  if (value.is_array()) {
    if (value.size() < shape.min_items || value.size() > shape.max_items) return false;
    for (size_t i = 0; i < value.size(); ++i) {
      GPTOSS_ASSIGN_OR_RETURN(const bool valid, Validates(value[i], shape.ItemSchemas(i), depth + 1));
      if (!valid) return false;
    }
    return true;
  }
  if (!value.is_object()) return true;
  if (value.size() < shape.min_properties) return false;
  for (const std::string& key : shape.required) {
    if (FindField(value, key) == nullptr) return false;
  }
  for (const auto& [key, inner] : value.items()) {
    GPTOSS_ASSIGN_OR_RETURN(const SchemaSet schemas, shape.ValueSchemas(key));
    GPTOSS_ASSIGN_OR_RETURN(const bool valid, Validates(inner, schemas, depth + 1));
    if (!valid) return false;
  }
  return true;
}

}  // namespace gptoss
