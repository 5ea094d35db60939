// Where the $ref of a schema leads, inside its own document.
#pragma once

#include <map>
#include <string>

#include "base/status.h"
#include "grammar/schema_shape.h"
#include "json/json.h"

namespace gptoss {

class SchemaReferences {
 public:
  /// Keeps references to `root`. On failure: kInvalidArgument when it is nested too deeply.
  static Result<SchemaReferences> Create(const Json& root);

  SchemaRef root() const { return {root_, "#"}; }
  /// The target of `ref`, which stands in the schema at `pointer`: a JSON pointer or the name of an anchor.
  /// On failure: kInvalidArgument when there is no such place, kUnsupported when it is outside the document.
  Result<SchemaRef> Resolve(const std::string& ref, const std::string& pointer) const;

 private:
  explicit SchemaReferences(const Json& root) : root_(&root) {}
  Status IndexAnchors(const Json& json, const std::string& pointer, int depth);
  Result<SchemaRef> FollowPointer(std::string_view fragment, const std::string& ref, const std::string& at) const;

  const Json* root_;
  std::map<std::string, SchemaRef> anchors_;
};

}  // namespace gptoss
