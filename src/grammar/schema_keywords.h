// Keywords of a schema that can be read without the schemas inside it: types, values, bounds, patterns, names.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "grammar/number_range.h"
#include "grammar/schema_shape.h"
#include "json/json.h"

namespace gptoss {

/// Narrows `shape` by one keyword; `at` is its JSON pointer. False when the keyword is none of these.
/// On failure: kInvalidArgument or kUnsupported with the pointer.
Result<bool> ReadValueKeyword(const std::string& keyword, const Json& value, const std::string& at, Shape* shape);
/// The keyword type; null is allowed besides with `nullable`.
Status ReadTypes(const Json& value, const std::string& at, bool nullable, Shape* shape);
/// A pattern in a form that matches whole texts. `at` as above.
Result<Regex> ReadPattern(const std::string& pattern, const std::string& at);
/// The exact value of a JSON number.
Result<Decimal> ReadNumber(const Json& value, const std::string& at);
/// A number as constants are written: digits without an exponent, integers without a point.
std::string NumberText(const Json& number);

/// Whether a keyword says nothing about which documents are valid.
bool IsAnnotation(std::string_view keyword);

}  // namespace gptoss
