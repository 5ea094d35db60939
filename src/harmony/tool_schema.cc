#include "harmony/tool_schema.h"

#include "harmony/schema_printer.h"

namespace gptoss {
namespace {

/// The depth of `json`, or more than `limit` when it is deeper than that.
int Depth(const Json& json, int limit) {
  if (!json.is_structured()) return 0;
  if (limit <= 0) return 1;
  int deepest = 0;
  for (const Json& value : json) deepest = std::max(deepest, Depth(value, limit - 1));
  return deepest + 1;
}

/// One tool's comment lines and type, ending in an empty line.
Result<std::string> ToolText(const ToolDescription& tool, SchemaStyle style) {
  std::string out;
  ForEachLine(tool.description, [&](std::string_view line) { out += "// " + std::string(line) + "\n"; });
  if (!tool.parameters) return out + "type " + tool.name + " = () => any;\n\n";
  GPTOSS_ASSIGN_OR_RETURN(const std::string type, SchemaToTypeScript(*tool.parameters, style));
  return out + "type " + tool.name + " = (_: " + type + ") => any;\n\n";
}

}  // namespace

Result<std::string> SchemaToTypeScript(const Json& schema, SchemaStyle style) {
  // A level of the schema is up to two of JSON, e.g. "properties" and the property.
  if (Depth(schema, 4 * kMaxSchemaDepth) > 3 * kMaxSchemaDepth) {
    return ResourceExhausted("the schema is nested deeper than " + std::to_string(3 * kMaxSchemaDepth) + " levels");
  }
  const size_t size = WriteJson(schema).size();
  if (size > kMaxSchemaBytes) {
    return ResourceExhausted("the schema has " + std::to_string(size) + " bytes; the limit is " +
                             std::to_string(kMaxSchemaBytes));
  }
  return SchemaPrinter(schema, style).Print();
}

Result<std::string> RenderToolsSection(const ToolNamespaces& tools, SchemaStyle style) {
  std::string out = "# Tools";
  for (const auto& [key, space] : tools) {
    out += "\n\n## " + space.name + "\n";
    const bool has_tools = !space.tools.empty();
    ForEachLine(space.description.value_or(""),
                [&](std::string_view line) { out += (has_tools ? "\n// " : "\n") + std::string(line); });
    if (!has_tools) continue;
    out += "\nnamespace " + space.name + " {\n\n";
    for (const ToolDescription& tool : space.tools) {
      Result<std::string> text = ToolText(tool, style);
      if (!text.ok()) return text.status().WithContext("tool \"" + space.name + "." + tool.name + "\"");
      out += *text;
    }
    out += "} // namespace " + space.name;
  }
  return out;
}

}  // namespace gptoss
