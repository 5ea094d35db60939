// Tools as the models read them: JSON Schema in a TypeScript-like notation.
#pragma once

#include <string>

#include "base/status.h"
#include "harmony/message.h"

namespace gptoss {

enum class SchemaStyle : uint8_t {
  /// Byte for byte what openai/harmony v0.0.8 writes (src/encoding.rs, json_schema_to_typescript), its losses included:
  /// anyOf, allOf, $ref, const and not become `any`, enums other than of strings vanish.
  kOfficial,
  /// The official text wherever it carries what the schema says; else the same notation, extended:
  /// - local `$ref`s are written out in place; a type that contains itself is named by a line `// type Name` above it,
  ///   and by that name inside; a `$ref` that leads nowhere is an error;
  /// - `allOf` is merged where the members agree, else joined by `&`; `anyOf` is a union, as a block like `oneOf` if
  /// its
  ///   members need lines of their own; a union of one type with null is written as the official `nullable` is;
  /// - const and enums of any JSON are literals; type lists keep their items, properties and enums;
  /// - `not` is Exclude<T, N>; typed additionalProperties and patternProperties are `[key: string]: T`; prefixItems
  ///   are `[A, B]`; true and false are `any` and `never`; a schema without type that has properties is an object.
  kFaithful,
};

// Limits on one schema. The output limit also bounds what `$ref`s can multiply to.
inline constexpr size_t kMaxSchemaBytes = 1u << 20;
inline constexpr size_t kMaxSchemaTextBytes = 1u << 20;
inline constexpr int kMaxSchemaDepth = 100;

/// The type of `schema`, with every line after the first indented as the official code does at the top level.
/// On failure: kResourceExhausted past a limit; kInvalidArgument for a `$ref` that leads nowhere (faithful style only).
Result<std::string> SchemaToTypeScript(const Json& schema, SchemaStyle style);

/// The section "# Tools" of a system or developer message, without a line end. Errors name the tool.
Result<std::string> RenderToolsSection(const ToolNamespaces& tools, SchemaStyle style);

/// `json` in one line, as Rust's serde_json writes it: floats as 1.0 or 1e16, no spaces.
std::string CompactJson(const Json& json);

/// Calls `add` with each line of `text`: split at "\n", one "\r" before it removed, no empty line after the last.
template <typename F>
void ForEachLine(std::string_view text, F add) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (end != std::string_view::npos && line.ends_with('\r')) line.remove_suffix(1);
    add(line);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
}

}  // namespace gptoss
