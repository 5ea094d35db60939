// JSON Schema to an automaton whose language is the JSON documents that are valid, written in one fixed way:
// - keys in the schema's order, those that it names first; additional keys follow;
// - no white space but (by option) one optional space after ':' and ',';
// - strings with any JSON escapes, lengths in code points; strings with a pattern, a format, an enum or a const, and
//   keys that must not repeat a named one, in the shortest form of every character;
// - numbers as number_range.h says.
// Every keyword is enforced, a pure annotation, or an error: nothing is ignored silently.
#pragma once

#include <string>

#include "base/status.h"
#include "grammar/automaton.h"
#include "json/json.h"

namespace gptoss {

enum class SchemaDialect : uint8_t {
  kAuto,    // by $schema; 2020-12 where it is absent
  kDraft7,  // beside $ref nothing counts
  k2020,    // 2019-09 and later
};

struct JsonSchemaOptions {
  SchemaDialect dialect = SchemaDialect::kAuto;
  bool optional_spaces = true;
  bool only_objects = false;  // whatever else the schema allows
  AutomatonLimits limits;
};

/// On failure: kUnsupported or kInvalidArgument with the keyword and its JSON pointer, kResourceExhausted past a limit;
/// kInvalidArgument when no document at all is valid.
Result<Automaton> CompileJsonSchema(const Json& schema, const JsonSchemaOptions& options = {});

/// Any JSON object, any keys: arguments of a function that is not strict, and `json_object`.
Result<Automaton> AnyJsonObject(const JsonSchemaOptions& options = {});

/// Writes a document the way that the automaton of `schema` expects it: keys in the schema's order as far as that is
/// known from `properties` reachable through $ref, allOf, anyOf and oneOf; what equals a value of an enum or const as
/// it is written there; short escapes; numbers without exponents, integral ones as integers. For checking documents
/// that others wrote.
std::string CanonicalJson(const Json& document, const Json& schema);

}  // namespace gptoss
