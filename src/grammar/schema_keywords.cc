#include "grammar/schema_keywords.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <vector>

#include "grammar/schema_formats.h"
#include "grammar/schema_pointer.h"

namespace gptoss {
namespace {

constexpr uint64_t kMaxMultiple = 1'000'000;

Result<uint32_t> Count(const Json& value, const std::string& at) {
  const bool whole =
      value.is_number_integer() || (value.is_number_float() && std::floor(value.get<double>()) == value.get<double>());
  if (!whole || value.get<double>() < 0) return InvalidSchema(at, "must be a whole number of at least 0");
  return static_cast<uint32_t>(std::min(value.get<double>(), 4e9));
}

Status RaiseBound(const Json& value, const std::string& at, uint32_t* bound) {
  GPTOSS_ASSIGN_OR_RETURN(const uint32_t count, Count(value, at));
  *bound = std::max(*bound, count);
  return {};
}

Status LowerBound(const Json& value, const std::string& at, uint32_t* bound) {
  GPTOSS_ASSIGN_OR_RETURN(const uint32_t count, Count(value, at));
  *bound = std::min(*bound, count);
  return {};
}

/// enum, or const as a list of one value.
void KeepValues(const std::vector<Json>& values, Shape* shape) {
  if (!shape->values) {
    shape->values = values;
    return;
  }
  std::erase_if(*shape->values, [&](const Json& v) {
    return std::none_of(values.begin(), values.end(), [&](const Json& w) { return JsonEquals(v, w); });
  });
}

Status ReadEnum(const Json& value, const std::string& at, Shape* shape) {
  if (!value.is_array()) return InvalidSchema(at, "must be a list");
  KeepValues({value.begin(), value.end()}, shape);
  return {};
}

Status ReadNumberBound(const Json& value, const std::string& at, bool is_lower, bool exclusive, Shape* shape) {
  if (value.is_boolean()) return UnsupportedSchema(at, "the boolean form of draft 4 is not supported");
  GPTOSS_ASSIGN_OR_RETURN(const Decimal number, ReadNumber(value, at));
  std::optional<NumberBound>& bound = is_lower ? shape->range.lower : shape->range.upper;
  const int order = bound ? Compare(number, bound->value) * (is_lower ? 1 : -1) : 1;
  if (order > 0) bound = NumberBound{number, exclusive};
  if (order == 0) bound->exclusive = bound->exclusive || exclusive;
  return {};
}

Status ReadMultipleOf(const Json& value, const std::string& at, Shape* shape) {
  GPTOSS_ASSIGN_OR_RETURN(const Decimal number, ReadNumber(value, at));
  if (number.negative || number.IsZero()) return InvalidSchema(at, "must be above 0");
  if (!number.IsInteger() || number.whole.size() > 6) {
    return UnsupportedSchema(at, "multipleOf is supported for whole numbers below a million");
  }
  const uint64_t multiple = std::lcm(uint64_t{shape->range.multiple_of}, uint64_t{std::stoul(number.whole)});
  if (multiple > kMaxMultiple) return UnsupportedSchema(at, "multipleOf is too large together with another one");
  shape->range.multiple_of = static_cast<uint32_t>(multiple);
  return {};
}

Status ReadStringForm(const std::string& keyword, const Json& value, const std::string& at, Shape* shape) {
  if (!value.is_string()) return InvalidSchema(at, "must be a string");
  const std::string& text = value.get_ref<const std::string&>();
  if (keyword == "pattern") {
    GPTOSS_ASSIGN_OR_RETURN(const Regex regex, ReadPattern(text, at));
    shape->patterns.push_back(regex);
    return {};
  }
  const Regex regex = FormatRegex(text);
  if (regex == nullptr) return UnsupportedSchema(at, "the format " + WriteJson(value) + " is not supported");
  shape->patterns.push_back(regex);
  return {};
}

Status ReadRequired(const Json& value, const std::string& at, Shape* shape) {
  if (!value.is_array()) return InvalidSchema(at, "must be a list of names");
  for (const Json& name : value) {
    if (!name.is_string()) return InvalidSchema(at, "must be a list of names");
    if (!shape->Requires(name.get<std::string>())) shape->required.push_back(name.get<std::string>());
  }
  return {};
}

/// ReadValueKeyword, with false in `known` where that gives false.
Status Read(const std::string& keyword, const Json& value, const std::string& at, Shape* shape, bool* known) {
  *known = true;
  if (keyword == "minLength") return RaiseBound(value, at, &shape->min_length);
  if (keyword == "maxLength") return LowerBound(value, at, &shape->max_length);
  if (keyword == "minItems") return RaiseBound(value, at, &shape->min_items);
  if (keyword == "maxItems") return LowerBound(value, at, &shape->max_items);
  if (keyword == "minProperties") {
    shape->min_properties_pointer = at;
    return RaiseBound(value, at, &shape->min_properties);
  }
  if (keyword == "minimum") return ReadNumberBound(value, at, true, false, shape);
  if (keyword == "exclusiveMinimum") return ReadNumberBound(value, at, true, true, shape);
  if (keyword == "maximum") return ReadNumberBound(value, at, false, false, shape);
  if (keyword == "exclusiveMaximum") return ReadNumberBound(value, at, false, true, shape);
  if (keyword == "multipleOf") return ReadMultipleOf(value, at, shape);
  if (keyword == "pattern" || keyword == "format") return ReadStringForm(keyword, value, at, shape);
  if (keyword == "required") return ReadRequired(value, at, shape);
  if (keyword == "enum") return ReadEnum(value, at, shape);
  if (keyword == "const") {
    KeepValues({value}, shape);
    return {};
  }
  *known = keyword == "uniqueItems" && value.is_boolean() && !value.get<bool>();
  return {};
}

}  // namespace

Result<bool> ReadValueKeyword(const std::string& keyword, const Json& value, const std::string& at, Shape* shape) {
  bool known = false;
  GPTOSS_RETURN_IF_ERROR(Read(keyword, value, at, shape, &known));
  return known;
}

Status ReadTypes(const Json& value, const std::string& at, bool nullable, Shape* shape) {
  const std::vector<Json> names = value.is_array() ? std::vector<Json>(value.begin(), value.end()) : std::vector{value};
  uint8_t types = nullable ? kNullType : 0;
  static const std::map<std::string, uint8_t> kNames = {
      {"null", kNullType},       {"boolean", kBooleanType},
      {"integer", kIntegerType}, {"number", kIntegerType | kFractionType},
      {"string", kStringType},   {"array", kArrayType},
      {"object", kObjectType}};
  for (const Json& name : names) {
    const auto it = name.is_string() ? kNames.find(name.get<std::string>()) : kNames.end();
    if (it == kNames.end()) return InvalidSchema(at, WriteJson(name) + " is no type");
    types |= it->second;
  }
  shape->types &= types;
  return {};
}

Result<Regex> ReadPattern(const std::string& pattern, const std::string& at) {
  Result<Regex> regex = ParseRegex(pattern);
  if (regex.ok()) regex = ResolveAnchors(*regex, false);
  return regex.ok() ? std::move(regex) : Result<Regex>(regex.status().WithContext("schema " + at));
}

Result<Decimal> ReadNumber(const Json& value, const std::string& at) {
  if (!value.is_number()) return InvalidSchema(at, "must be a number");
  Result<Decimal> out = Decimal::Parse(WriteJson(value));
  return out.ok() ? out : Result<Decimal>(out.status().WithContext("schema " + at));
}

std::string NumberText(const Json& number) {
  const std::string text = WriteJson(number);
  if (!number.is_number_float()) return text;
  const Result<Decimal> decimal = Decimal::Parse(text);
  return decimal.ok() ? decimal->Text() : text;
}

bool IsAnnotation(std::string_view keyword) {
  // clang-format off
  static constexpr std::string_view kAnnotations[] = {
      "$schema", "$vocabulary", "$comment", "$id", "id", "$anchor", "$defs", "definitions",
      "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly",
      // Of a string's content, which is not looked into.
      "contentMediaType", "contentEncoding",
      // Of OpenAPI, of providers' dialects, of editors.
      "externalDocs", "xml", "discriminator", "propertyOrdering", "strict",
      "enumNames", "enumDescriptions", "markdownDescription",
      // Read together with type and with items.
      "nullable", "additionalItems"};
  // clang-format on
  return keyword.starts_with("x-") ||
         std::find(std::begin(kAnnotations), std::end(kAnnotations), keyword) != std::end(kAnnotations);
}

}  // namespace gptoss
