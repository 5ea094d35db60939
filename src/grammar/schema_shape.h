// What a JSON Schema demands of each type, where no alternatives are left.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "grammar/number_range.h"
#include "grammar/regex.h"
#include "json/json.h"

namespace gptoss {

/// One schema object (or true, false) inside the document, with its JSON pointer.
struct SchemaRef {
  const Json* json = nullptr;
  std::string pointer;
};
/// Schemas that must all hold, sorted by address.
using SchemaSet = std::vector<SchemaRef>;

enum TypeBit : uint8_t {
  kNullType = 1,
  kBooleanType = 2,
  kIntegerType = 4,
  kFractionType = 8,  // numbers that are no integers
  kStringType = 16,
  kArrayType = 32,
  kObjectType = 64,
  kAllTypes = 127,
};

/// What one schema object says of arrays or objects; several hold at once.
struct ArrayPart {
  std::vector<SchemaRef> prefix;
  std::optional<SchemaRef> items;  // of those after the prefix
};
struct ObjectPart {
  std::vector<std::pair<std::string, SchemaRef>> properties;
  std::vector<std::pair<Regex, SchemaRef>> patterns;
  std::optional<SchemaRef> additional;
};

/// A conjunction without alternatives.
struct Shape {
  uint8_t types = kAllTypes;
  bool impossible = false;
  std::optional<std::vector<Json>> values;  // enum and const
  NumberRange range;
  uint32_t min_length = 0, max_length = kUnbounded;
  std::vector<Regex> patterns;  // resolved
  uint32_t min_items = 0, max_items = kUnbounded;
  std::vector<ArrayPart> arrays;
  std::vector<ObjectPart> objects;
  std::vector<std::string> required;
  uint32_t min_properties = 0;
  std::string min_properties_pointer;

  /// Schemas of the item at `index`, of the value under `key`.
  SchemaSet ItemSchemas(size_t index) const;
  size_t PrefixLength() const;
  Result<SchemaSet> ValueSchemas(const std::string& key) const;
  bool Requires(const std::string& key) const;
  /// Named by properties or required, in order.
  std::vector<std::string> Keys() const;
};

/// As the schema language compares: 1 equals 1.0, and the order of keys does not count.
bool JsonEquals(const Json& a, const Json& b);
/// Without repetitions and without `true`, which demands nothing.
SchemaSet MakeSchemaSet(std::vector<SchemaRef> refs);

}  // namespace gptoss
