// The printer behind SchemaToTypeScript (tool_schema.h).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "harmony/schema_resolver.h"
#include "harmony/tool_schema.h"

namespace gptoss {

/// Prints one document once. Errors are kept and end the work; what is printed after one is of no use.
class SchemaPrinter {
 public:
  SchemaPrinter(const Json& root, SchemaStyle style)
      : root_(root), official_(style == SchemaStyle::kOfficial), resolver_(root) {}

  Result<std::string> Print();

 private:
  using Indent = std::string;

  // The official notation (schema_printer.cc).
  std::string Type(const Json& schema, const Indent& indent);
  std::string Shape(const Json& schema, const Indent& indent);
  std::string Object(const Json& schema, const Indent& indent);
  std::string Property(const std::string& key, const Json& schema, bool required, const Indent& indent);
  std::string PropertyComments(const Json& schema, bool is_union, const Indent& indent) const;
  std::string PropertyUnion(const std::string& key_text, const Json& schema, const Json& variants,
                            const Indent& indent);
  std::string Block(const Json& variants, const Indent& indent);
  std::string Array(const Json& schema, const Indent& indent);
  std::string AddNull(const Json& schema, std::string type) const;

  // What the official notation lacks (schema_printer_faithful.cc).
  std::string Faithful(const Json& schema, const Indent& indent);
  std::string Intersection(const Json& schema, const Indent& indent);
  std::string AnyOf(const Json& schema, const Indent& indent);
  std::string OneOfBeside(const Json& schema, const Indent& indent);
  std::string Not(const Json& schema, const Indent& indent);
  std::string TypeList(const Json& schema, const Json& types, const Indent& indent);
  std::string IndexSignatures(const Json& schema, const Indent& indent);
  std::string Tuple(const Json& items, const Indent& indent);
  std::string Member(const Json& schema, const Indent& indent);
  std::string MemberInUnion(const Json& schema, const Indent& indent);
  std::string Labels(size_t mark, const Indent& indent) const;
  bool IsInline(const Json& variants);
  /// The variants to print as a block below a property's name, or null.
  const Json* BlockVariants(const Json& schema);

  /// The schema to look at: itself in the official style. Close with resolver_.CloseTo.
  Json Resolve(const Json& schema);
  void Fail(Status status);

  const Json& root_;
  const bool official_;
  SchemaResolver resolver_;
  Status status_;
  int depth_ = 0;
  size_t nodes_ = 0;
  size_t written_ = 0;
};

bool IsStringEnum(const Json& schema);

}  // namespace gptoss
