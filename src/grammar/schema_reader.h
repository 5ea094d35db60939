// A JSON Schema taken apart into shapes: references followed and combinations multiplied out.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "grammar/json_schema.h"
#include "grammar/schema_references.h"
#include "grammar/schema_shape.h"
#include "json/json.h"

namespace gptoss {

class SchemaReader {
 public:
  /// Keeps references to `root`. On failure: kInvalidArgument when it is nested too deeply.
  static Result<SchemaReader> Create(const Json& root, SchemaDialect dialect);

  SchemaRef root() const { return references_.root(); }
  /// The alternatives of which one or more must hold. On failure: kUnsupported or kInvalidArgument with the keyword and
  /// its JSON pointer, kResourceExhausted past a limit on combinations.
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

  SchemaReader(SchemaReferences references, bool draft7) : references_(std::move(references)), draft7_(draft7) {}
  Status Collect(const SchemaRef& ref, Partial* out, int depth);
  Status CollectKeyword(const std::string& keyword, const Json& value, const SchemaRef& in, Partial* out, int depth);
  Status CollectChoice(const std::string& keyword, const Json& value, const std::string& at, Partial* out, int depth);
  Status CollectArrays(const SchemaRef& in, Shape* shape);
  Status CollectObjects(const SchemaRef& in, Shape* shape);
  Status ExpandPartial(Partial partial, std::vector<Shape>* out, int depth);
  Status CheckExclusive(const Choice& choice, const Partial& common, int depth);
  Result<bool> Disjoint(const Shape& a, const Shape& b, int depth);
  Result<bool> DisjointObjects(const Shape& a, const Shape& b, int depth);
  Result<bool> DisjointStrings(const Shape& a, const Shape& b);

  static constexpr size_t kMaxWork = 200'000;  // schema objects read and shapes compared, over the whole compilation

  SchemaReferences references_;
  bool draft7_;
  size_t work_ = 0;
};

}  // namespace gptoss
