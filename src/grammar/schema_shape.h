// A JSON Schema taken apart: what it demands of each type, with references followed and combinations multiplied out.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "grammar/json_schema.h"
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

bool JsonEquals(const Json& a, const Json& b);
SchemaSet MakeSchemaSet(std::vector<SchemaRef> refs);

class SchemaReader {
 public:
  /// Keeps references to `root`.
  static Result<SchemaReader> Create(const Json& root, SchemaDialect dialect);

  SchemaRef root() const { return {root_, "#"}; }
  /// The alternatives of which one or more must hold.
  Result<std::vector<Shape>> Expand(const SchemaSet& set);
  /// Whether a value is valid, by the same reading of the schema.
  Result<bool> Validates(const Json& value, const SchemaSet& set, int depth = 0);
  Result<bool> Validates(const Json& value, const Shape& shape, int depth);

 private:
  struct Choice {
    std::vector<SchemaRef> branches;
    bool exclusive;  // oneOf
    std::string pointer;
  };
  struct Partial {
    Shape shape;
    std::vector<Choice> choices;
    std::set<const Json*> seen;
  };

  SchemaReader(const Json& root, bool draft7) : root_(&root), draft7_(draft7) {}
  Status IndexAnchors(const Json& json, const std::string& pointer, int depth);
  Result<SchemaRef> Resolve(const std::string& ref, const std::string& pointer) const;
  Status Collect(const SchemaRef& ref, Partial* out, int depth);
  Status CollectKeyword(const std::string& keyword, const Json& value, const SchemaRef& in, Partial* out, int depth);
  Status CollectStructure(const std::string& keyword, const Json& value, const SchemaRef& in, Partial* out,
                          bool* known);
  Status CollectScalar(const std::string& keyword, const Json& value, const std::string& at, Shape* shape, bool* known);
  Status CollectTypes(const Json& value, const std::string& at, bool nullable, Shape* shape);
  Status CollectArrays(const SchemaRef& in, Shape* shape);
  Status CollectObjects(const SchemaRef& in, Shape* shape);
  Status ExpandPartial(Partial partial, std::vector<Shape>* out, int depth);
  Status CheckExclusive(const Choice& choice, const Partial& common, int depth);
  Result<bool> Disjoint(const Shape& a, const Shape& b, int depth);
  Result<bool> DisjointObjects(const Shape& a, const Shape& b, int depth);
  Result<bool> DisjointStrings(const Shape& a, const Shape& b);

  const Json* root_;
  bool draft7_;
  size_t work_ = 0;
  std::map<std::string, SchemaRef> anchors_;
};

/// The body of a string with this format, or null when the format is not known.
Regex FormatRegex(const std::string& format);

}  // namespace gptoss
