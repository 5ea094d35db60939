// References and allOf, for the faithful style of tool_schema.h.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/status.h"
#include "json/json.h"

namespace gptoss {

/// Follows the `$ref`s of one document while it is being printed from the root inwards. A reference to a type that is
/// open, i.e. being printed, is left in place, so that printing ends.
class SchemaResolver {
 public:
  explicit SchemaResolver(const Json& root) : root_(root), open_({"#"}) {}

  /// `schema` with its own `$ref` replaced by the target (keys beside it win), its `allOf` merged as far as the members
  /// agree, and a union of one type with null turned into that type with "nullable". Pushes what it opened; the caller
  /// prints and then calls CloseTo(mark). On failure: kInvalidArgument for a reference that leads nowhere,
  /// kResourceExhausted when too much had to be copied.
  Result<Json> Resolve(const Json& schema);

  size_t Mark() const { return open_.size(); }
  void CloseTo(size_t mark) { open_.resize(mark); }

  /// The name of the type at `pointer`, unique in this document; remembers that it was needed.
  std::string Use(const std::string& pointer);
  /// Names that were used for types opened since `mark`, outermost first.
  std::vector<std::string> UsedSince(size_t mark) const;

 private:
  Result<const Json*> Find(const std::string& pointer) const;
  bool IsOpen(const std::string& pointer) const;
  Status FollowRefs(Json* schema);
  Status MergeAllOf(Json* schema, int depth);
  Result<Json> ResolveAt(const Json& schema, int depth);

  const Json& root_;
  std::vector<std::string> open_;
  std::map<std::string, std::string> names_;
  std::set<std::string> used_;
  size_t copied_ = 0;
};

/// The schema's own `$ref`, or null.
const std::string* RefOf(const Json& schema);

/// {"type": "null"} or {"const": null} or {"enum": [null]}.
bool IsNullSchema(const Json& schema);

}  // namespace gptoss
