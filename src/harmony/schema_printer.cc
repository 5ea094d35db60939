#include "harmony/schema_printer.h"

#include <set>
#include <utility>

namespace gptoss {
namespace {

// Bounds the time that references can multiply work to; a legal schema stays far below.
constexpr size_t kMaxNodes = 100000;
constexpr size_t kMaxWrittenBytes = 64u << 20;

const Json* FindArray(const Json& object, std::string_view key) {
  const Json* field = FindField(object, key);
  return field != nullptr && field->is_array() ? field : nullptr;
}

bool HasEnum(const Json& schema) {
  const Json* values = FindArray(schema, "enum");
  return values != nullptr && !values->empty();
}

std::string Quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

/// The text of `schema`'s default. The official code quotes a string beside an enum in a variant of a nested union
/// (`always_quoted`), but not at a property.
std::string DefaultText(const Json& schema, const Json& value, bool always_quoted) {
  const auto* text = value.get_ptr<const std::string*>();
  if (text == nullptr) return CompactJson(value);
  if (!HasEnum(schema)) return Quoted(*text);
  return always_quoted ? CompactJson(value) : *text;
}

}  // namespace

bool IsStringEnum(const Json& schema) {
  const Json* values = FindArray(schema, "enum");
  if (values == nullptr || values->empty()) return false;
  for (const Json& value : *values) {
    if (!value.is_string()) return false;
  }
  return true;
}

void SchemaPrinter::Fail(Status status) {
  if (status_.ok()) status_ = std::move(status);
}

Json SchemaPrinter::Resolve(const Json& schema) {
  if (official_) return schema;
  Result<Json> resolved = resolver_.Resolve(schema);
  if (resolved.ok()) return *std::move(resolved);
  Fail(resolved.status());
  return Json::object();
}

Result<std::string> SchemaPrinter::Print() {
  std::string out = Type(root_, "");
  out.insert(0, Labels(0, ""));
  if (!status_.ok()) return status_;
  if (out.size() > kMaxSchemaTextBytes) {
    return ResourceExhausted("the schema's text is over " + std::to_string(kMaxSchemaTextBytes) +
                             " bytes; shorten it or its \"$ref\"s");
  }
  return out;
}

std::string SchemaPrinter::Type(const Json& schema, const Indent& indent) {
  if (!status_.ok()) return {};
  if (depth_ >= kMaxSchemaDepth) {
    Fail(ResourceExhausted("the schema is nested deeper than " + std::to_string(kMaxSchemaDepth) + " levels"));
    return {};
  }
  ++depth_;
  std::string out;
  if (official_) {
    out = Shape(schema, indent);
  } else {
    const size_t mark = resolver_.Mark();
    const Json resolved = Resolve(schema);
    out = Faithful(resolved, indent);
    out.insert(0, Labels(mark, indent));
    resolver_.CloseTo(mark);
  }
  --depth_;
  written_ += out.size();
  if (++nodes_ > kMaxNodes || written_ > kMaxWrittenBytes) {
    Fail(ResourceExhausted("the schema expands to too much; shorten it or its \"$ref\"s"));
  }
  return out;
}

std::string SchemaPrinter::Shape(const Json& schema, const Indent& indent) {
  if (const Json* one_of = FindArray(schema, "oneOf")) return Block(*one_of, indent);
  if (const Json* types = FindArray(schema, "type")) {
    std::string out;
    for (const Json& type : *types) {
      const auto* name = type.get_ptr<const std::string*>();
      if (name == nullptr) continue;
      if (!out.empty()) out += " | ";
      out += *name == "integer" ? "number" : *name;
    }
    if (!out.empty()) return out;
  }
  const std::string* type = FindString(schema, "type");
  if (type == nullptr) return "any";
  if (*type == "object") return Object(schema, indent);
  if (*type == "array") return Array(schema, indent);
  if (*type == "number" || *type == "integer") return "number";
  if (*type == "boolean") return "boolean";
  if (*type != "string") return "any";
  std::string out;
  if (const Json* values = FindArray(schema, "enum")) {
    bool first = true;
    for (const Json& value : *values) {
      const auto* text = value.get_ptr<const std::string*>();
      if (text == nullptr) continue;
      out += (first ? "" : " | ") + Quoted(*text);
      first = false;
    }
  }
  return out.empty() ? "string" : out;
}

std::string SchemaPrinter::Array(const Json& schema, const Indent& indent) {
  const Json* items = FindField(schema, "items");
  if (official_) return items == nullptr ? "Array<any>" : Type(*items, indent) + "[]";
  if (const Json* prefix = FindArray(schema, "prefixItems")) return Tuple(*prefix, indent);
  if (items == nullptr) return "Array<any>";
  if (items->is_array()) return Tuple(*items, indent);
  const size_t mark = resolver_.Mark();
  const Json item = Resolve(*items);
  // The official text has no parentheses around a union; they stand only around what it could not write at all.
  const bool official_text =
      FindArray(item, "oneOf") != nullptr || IsStringEnum(item) ||
      (FindArray(item, "type") != nullptr && !HasEnum(item) && !item.contains("items") && !item.contains("properties"));
  const Json* nullable = FindField(item, "nullable");
  const bool bare = official_text && (nullable == nullptr || *nullable != Json(true));
  std::string out = (bare ? Type(item, indent) : MemberInUnion(item, indent)) + "[]";
  out.insert(0, Labels(mark, indent));
  resolver_.CloseTo(mark);
  return out;
}

std::string SchemaPrinter::AddNull(const Json& schema, std::string type) const {
  const Json* nullable = FindField(schema, "nullable");
  if (nullable == nullptr || *nullable != Json(true)) return type;
  // The official test also finds "null" in names and texts, which loses the null; only that text stays official.
  const bool has_null = official_ ? type.find("null") != std::string::npos
                                  : type == "null" || type.ends_with("| null") || type.starts_with("null |");
  return has_null ? type : type + " | null";
}

std::string SchemaPrinter::Block(const Json& variants, const Indent& indent) {
  std::string out;
  for (const Json& variant : variants) {
    const size_t mark = resolver_.Mark();
    const Json schema = Resolve(variant);
    std::string type = AddNull(schema, Type(schema, indent + "   "));
    out += "\n" + indent + " | " + Labels(mark, indent + "   ") + type;
    resolver_.CloseTo(mark);
    std::string comment;
    if (const std::string* description = FindString(schema, "description")) comment = " " + *description;
    if (const Json* value = FindField(schema, "default")) comment += " default: " + DefaultText(schema, *value, true);
    if (!comment.empty()) out += " //" + comment;
  }
  return out;
}

std::string SchemaPrinter::Object(const Json& schema, const Indent& indent) {
  std::string out;
  if (const std::string* description = FindString(schema, "description")) out += indent + "// " + *description + "\n";
  out += "{\n";
  const Json* properties = FindField(schema, "properties");
  if (properties != nullptr && properties->is_object()) {
    std::set<std::string> required;
    if (const Json* names = FindArray(schema, "required")) {
      for (const Json& name : *names) {
        if (name.is_string()) required.insert(name.get<std::string>());
      }
    }
    for (const auto& [key, value] : properties->items()) {
      out += Property(key, value, required.contains(key), indent);
      if (!status_.ok()) return {};
    }
  }
  if (!official_) out += IndexSignatures(schema, indent);
  return out + indent + "}";
}

std::string SchemaPrinter::PropertyComments(const Json& schema, bool is_union, const Indent& indent) const {
  std::string out;
  if (const std::string* title = FindString(schema, "title")) {
    out += indent + "// " + *title + "\n" + indent + "//\n";
  }
  const std::string* description = FindString(schema, "description");
  if (description != nullptr && !is_union) out += indent + "// " + *description + "\n";
  const Json* examples = FindArray(schema, "examples");
  if (examples != nullptr && !examples->empty()) {
    out += indent + "// Examples:\n";
    for (const Json& example : *examples) {
      if (const auto* text = example.get_ptr<const std::string*>()) {
        out += indent + "// - " + Quoted(*text) + "\n";
      } else if (!official_) {
        out += indent + "// - " + CompactJson(example) + "\n";
      }
    }
  }
  return out;
}

std::string SchemaPrinter::Property(const std::string& key, const Json& schema_in, bool required,
                                    const Indent& indent) {
  const size_t mark = resolver_.Mark();
  const Json schema = Resolve(schema_in);
  const Json* variants = BlockVariants(schema);
  // The official code leaves the description and default out even when oneOf is not a list.
  const bool is_union = variants != nullptr || (official_ && FindField(schema, "oneOf") != nullptr);
  std::string out = PropertyComments(schema, is_union, indent);
  const std::string key_text = indent + key + (required ? "" : "?") + ":";
  if (variants != nullptr) {
    out += PropertyUnion(key_text, schema, *variants, indent);
  } else {
    out += key_text + " " + AddNull(schema, Type(schema, indent + "    ")) + ",";
    const Json* value = FindField(schema, "default");
    if (value != nullptr && !is_union) out += " // default: " + DefaultText(schema, *value, false);
    out += "\n";
  }
  out.insert(0, Labels(mark, indent));
  resolver_.CloseTo(mark);
  return out;
}

std::string SchemaPrinter::PropertyUnion(const std::string& key_text, const Json& schema, const Json& variants,
                                         const Indent& indent) {
  const std::string* description = FindString(schema, "description");
  std::string out;
  bool described = false;
  if (description != nullptr) {
    const std::string* first = variants.empty() ? nullptr : FindString(variants[0], "description");
    described = first == nullptr || *first != *description;
    if (described) out += indent + "// " + *description + "\n";
  }
  if (const Json* value = FindField(schema, "default")) {
    out += indent + "// default: " + DefaultText(schema, *value, false) + "\n";
  }
  out += key_text + "\n";
  for (size_t i = 0; i < variants.size(); ++i) {
    const size_t mark = resolver_.Mark();
    const Json variant = Resolve(variants[i]);
    const std::string type = AddNull(variant, Type(variant, indent + "   "));
    out += indent + " | " + Labels(mark, indent + "   ") + type;
    resolver_.CloseTo(mark);
    std::string comment;
    const std::string* own = FindString(variant, "description");
    // The official code drops the first variant's own text when the property has one.
    const bool skip = i == 0 && described && FindField(schema, "oneOf") != nullptr;
    if (own != nullptr && !skip && (description == nullptr || *own != *description)) comment = " " + *own;
    if (const Json* value = FindField(variant, "default"))
      comment += " default: " + DefaultText(variant, *value, false);
    if (!comment.empty()) out += " //" + comment;
    out += "\n";
  }
  if (!official_ && !AddNull(schema, "").empty()) out += indent + " | null\n";
  return out + indent + ",\n";
}

}  // namespace gptoss
