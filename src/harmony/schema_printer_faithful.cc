#include <algorithm>
#include <utility>

#include "harmony/schema_printer.h"

namespace gptoss {
namespace {

const Json* FindList(const Json& object, std::string_view key) {
  const Json* field = FindField(object, key);
  return field != nullptr && field->is_array() && !field->empty() ? field : nullptr;
}

bool IsSchemaWithContent(const Json* schema) { return schema != nullptr && schema->is_object() && !schema->empty(); }

/// Says more than a type's name does.
bool HasShape(const Json& schema) {
  for (const char* key : {"$ref", "allOf", "anyOf", "oneOf", "enum", "prefixItems"}) {
    if (FindField(schema, key) != nullptr) return true;
  }
  return FindField(schema, "const") != nullptr || FindField(schema, "not") != nullptr ||
         IsSchemaWithContent(FindField(schema, "properties")) || IsSchemaWithContent(FindField(schema, "items")) ||
         IsSchemaWithContent(FindField(schema, "patternProperties")) ||
         IsSchemaWithContent(FindField(schema, "additionalProperties"));
}

/// Members such as {"required": ["a"]}, which say nothing about the type.
bool OnlyConstraints(const Json& variants) {
  return std::all_of(variants.begin(), variants.end(),
                     [](const Json& v) { return v.is_object() && !HasShape(v) && FindField(v, "type") == nullptr; });
}

/// A comment for members that only differ in what they require.
std::string RequiredSets(const Json& variants, const std::string& indent) {
  std::string sets;
  for (const Json& variant : variants) {
    const Json* names = FindList(variant, "required");
    if (names == nullptr) return {};
    std::string set;
    for (const Json& name : *names) {
      if (name.is_string()) set += (set.empty() ? "" : ", ") + name.get<std::string>();
    }
    sets += (sets.empty() ? "" : " | ") + set;
  }
  return indent + "// required: " + sets + "\n";
}

Json Without(const Json& schema, const char* key) {
  Json out = schema;
  out.erase(key);
  return out;
}

/// A `|` or `&` outside of brackets and quotes.
bool IsUnion(std::string_view type) {
  int depth = 0;
  bool quoted = false;
  for (char c : type) {
    if (c == '"') quoted = !quoted;
    if (quoted) continue;
    if (c == '{' || c == '(' || c == '[' || c == '<') ++depth;
    if (c == '}' || c == ')' || c == ']' || c == '>') --depth;
    if (depth == 0 && (c == '|' || c == '&')) return true;
  }
  return false;
}

std::string Parenthesized(std::string type) { return IsUnion(type) ? "(" + std::move(type) + ")" : type; }

std::string JoinUnique(const std::vector<std::string>& parts, std::string_view separator) {
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (std::find(parts.begin(), parts.begin() + static_cast<ptrdiff_t>(i), parts[i]) !=
        parts.begin() + static_cast<ptrdiff_t>(i)) {
      continue;
    }
    if (i > 0) out += separator;
    out += parts[i];
  }
  return out;
}

bool IsPlain(const Json& schema) {
  if (schema.is_boolean()) return true;
  if (!schema.is_object()) return false;
  for (const char* key : {"description", "default", "oneOf", "anyOf", "allOf", "properties", "additionalProperties"}) {
    if (FindField(schema, key) != nullptr) return false;
  }
  if (FindField(schema, "patternProperties") != nullptr || FindField(schema, "prefixItems") != nullptr) return false;
  const Json* items = FindField(schema, "items");
  if (items != nullptr && !IsPlain(*items)) return false;
  const std::string* type = FindString(schema, "type");
  return type == nullptr || *type != "object";
}

}  // namespace

std::string SchemaPrinter::Labels(size_t mark, const Indent& indent) const {
  if (official_) return {};
  std::string out;
  for (const std::string& name : resolver_.UsedSince(mark)) out += indent + "// type " + name + "\n";
  return out;
}

bool SchemaPrinter::IsInline(const Json& variants) {
  for (const Json& variant : variants) {
    const size_t mark = resolver_.Mark();
    const bool plain = IsPlain(Resolve(variant));
    resolver_.CloseTo(mark);
    if (!plain) return false;
  }
  return true;
}

const Json* SchemaPrinter::BlockVariants(const Json& schema) {
  const Json* one_of = FindField(schema, "oneOf");
  if (official_) return one_of != nullptr && one_of->is_array() ? one_of : nullptr;
  if (const Json* list = FindList(schema, "oneOf")) {
    return HasShape(Without(schema, "oneOf")) || OnlyConstraints(*list) ? nullptr : list;
  }
  const Json* any_of = FindList(schema, "anyOf");
  if (any_of == nullptr || HasShape(Without(schema, "anyOf")) || OnlyConstraints(*any_of)) return nullptr;
  return IsInline(*any_of) ? nullptr : any_of;
}

std::string SchemaPrinter::Member(const Json& schema, const Indent& indent) {
  const size_t mark = resolver_.Mark();
  const Json resolved = Resolve(schema);
  std::string out = AddNull(resolved, Type(resolved, indent));
  out.insert(0, Labels(mark, indent));
  resolver_.CloseTo(mark);
  return out;
}

std::string SchemaPrinter::MemberInUnion(const Json& schema, const Indent& indent) {
  return Parenthesized(Member(schema, indent));
}

std::string SchemaPrinter::Faithful(const Json& schema, const Indent& indent) {
  if (schema.is_boolean()) return schema.get<bool>() ? "any" : "never";
  if (!schema.is_object()) return "any";
  if (const std::string* ref = RefOf(schema)) return resolver_.Use(*ref);
  if (FindList(schema, "allOf") != nullptr) return Intersection(schema, indent);
  if (FindList(schema, "anyOf") != nullptr) return AnyOf(schema, indent);
  if (FindList(schema, "oneOf") != nullptr) return OneOfBeside(schema, indent);
  if (FindField(schema, "not") != nullptr) return Not(schema, indent);
  if (const Json* value = FindField(schema, "const")) return CompactJson(*value);
  const std::string* type = FindString(schema, "type");
  if (const Json* values = FindList(schema, "enum")) {
    if (type != nullptr && *type == "string" && IsStringEnum(schema)) return Shape(schema, indent);
    std::vector<std::string> literals;
    for (const Json& value : *values) literals.push_back(CompactJson(value));
    return JoinUnique(literals, " | ");
  }
  if (const Json* types = FindList(schema, "type")) return TypeList(schema, *types, indent);
  if (type != nullptr) return *type == "null" ? "null" : Shape(schema, indent);
  if (IsSchemaWithContent(FindField(schema, "properties")) ||
      IsSchemaWithContent(FindField(schema, "additionalProperties")) ||
      IsSchemaWithContent(FindField(schema, "patternProperties"))) {
    return Object(schema, indent);
  }
  if (FindField(schema, "items") != nullptr || FindField(schema, "prefixItems") != nullptr)
    return Array(schema, indent);
  return "any";
}

std::string SchemaPrinter::Intersection(const Json& schema, const Indent& indent) {
  std::vector<std::string> parts;
  const Json base = Without(schema, "allOf");
  const Json& members = schema["allOf"];
  const Json* type = FindField(base, "type");
  if (HasShape(base) || (type != nullptr && (*type != "object" || OnlyConstraints(members)))) {
    parts.push_back(MemberInUnion(base, indent));
  }
  for (const Json& member : members) {
    if (member.is_object() && !HasShape(member) && FindField(member, "type") == nullptr) continue;
    parts.push_back(MemberInUnion(member, indent));
  }
  return parts.empty() ? "any" : JoinUnique(parts, " & ");
}

std::string SchemaPrinter::AnyOf(const Json& schema, const Indent& indent) {
  const Json& variants = schema["anyOf"];
  const Json base = Without(schema, "anyOf");
  if (OnlyConstraints(variants)) return RequiredSets(variants, indent) + Member(base, indent);
  std::string out;
  if (IsInline(variants)) {
    std::vector<std::string> parts;
    for (const Json& variant : variants) parts.push_back(Member(variant, indent));
    out = JoinUnique(parts, " | ");
  } else {
    out = Block(variants, indent);
  }
  return HasShape(base) ? MemberInUnion(base, indent) + " & " + Parenthesized(out) : out;
}

std::string SchemaPrinter::OneOfBeside(const Json& schema, const Indent& indent) {
  const Json& variants = schema["oneOf"];
  const Json base = Without(schema, "oneOf");
  if (OnlyConstraints(variants)) return RequiredSets(variants, indent) + Member(base, indent);
  if (!HasShape(base)) return Block(variants, indent);
  return MemberInUnion(base, indent) + " & (" + Block(variants, indent) + "\n" + indent + ")";
}

std::string SchemaPrinter::Not(const Json& schema, const Indent& indent) {
  const Json base = Without(schema, "not");
  const std::string type = Member(base, indent);
  const Json& excluded = schema["not"];
  if (OnlyConstraints(Json::array({excluded}))) return type;  // e.g. {"required": [...]}: no type to exclude
  return "Exclude<" + type + ", " + Member(excluded, indent) + ">";
}

std::string SchemaPrinter::TypeList(const Json& schema, const Json& types, const Indent& indent) {
  std::vector<std::string> parts;
  for (const Json& type : types) {
    if (!type.is_string()) continue;
    const std::string name = type.get<std::string>();
    const bool structured = (name == "object" && FindField(schema, "properties") != nullptr) ||
                            (name == "object" && IsSchemaWithContent(FindField(schema, "additionalProperties"))) ||
                            (name == "array" && FindField(schema, "items") != nullptr);
    if (!structured) {
      parts.push_back(name == "integer" ? "number" : name);
      continue;
    }
    Json one = Without(schema, "nullable");
    one["type"] = name;
    parts.push_back(Type(one, indent));
  }
  // The official text repeats number for ["integer", "number"]; it carries the same, so it stays.
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : " | ") + part;
  return out.empty() ? "any" : out;
}

std::string SchemaPrinter::IndexSignatures(const Json& schema, const Indent& indent) {
  std::string out;
  const auto add = [&](const Json& value) {
    const size_t mark = resolver_.Mark();
    const Json resolved = Resolve(value);
    if (const std::string* description = FindString(resolved, "description")) {
      out += indent + "// " + *description + "\n";
    }
    const std::string type = AddNull(resolved, Type(resolved, indent + "    "));
    out += Labels(mark, indent) + indent + "[key: string]: " + type + ",\n";
    resolver_.CloseTo(mark);
  };
  const Json* patterns = FindField(schema, "patternProperties");
  if (patterns != nullptr && patterns->is_object()) {
    for (const auto& [pattern, value] : patterns->items()) {
      out += indent + "// keys that match " + pattern + "\n";
      add(value);
    }
  }
  const Json* additional = FindField(schema, "additionalProperties");
  if (IsSchemaWithContent(additional)) add(*additional);
  return out;
}

std::string SchemaPrinter::Tuple(const Json& items, const Indent& indent) {
  std::string out;
  for (const Json& item : items) out += (out.empty() ? "" : ", ") + Member(item, indent);
  return "[" + out + "]";
}

}  // namespace gptoss
