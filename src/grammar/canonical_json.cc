// Documents in the order and the spelling that the automaton of their schema has.
#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "grammar/json_schema.h"
#include "grammar/schema_keywords.h"
#include "grammar/schema_shape.h"

namespace gptoss {
namespace {

constexpr int kMaxSchemaDepth = 16;
constexpr int kMaxDocumentDepth = 64;

/// What a schema says of the writing of a document, as far as that is known without deciding its validity.
struct Writing {
  std::vector<std::pair<std::string, const Json*>> properties;  // in order, with the schemas of their values
  std::vector<std::string> required;
  std::vector<const Json*> values;  // enum and const
};

const Json* Target(const Json& schema, const Json& root) {
  const std::string* ref = FindString(schema, "$ref");
  if (ref == nullptr || !ref->starts_with('#')) return nullptr;
  try {  // the library's pointers throw on wrong syntax
    const Json::json_pointer pointer(ref->substr(1));
    return root.contains(pointer) ? &root[pointer] : nullptr;
  } catch (const Json::exception&) {
    return nullptr;
  }
}

/// The list under a keyword, or an empty one.
const Json& List(const Json& schema, const char* keyword) {
  static const Json kNone = Json::array();
  const Json* list = FindField(schema, keyword);
  return list != nullptr && list->is_array() ? *list : kNone;
}

void Collect(const Json& schema, const Json& root, int depth, Writing* out) {
  if (!schema.is_object() || depth > kMaxSchemaDepth) return;
  if (const Json* map = FindField(schema, "properties"); map != nullptr && map->is_object()) {
    for (const auto& [key, value] : map->items()) out->properties.emplace_back(key, &value);
  }
  for (const Json& name : List(schema, "required")) {
    if (name.is_string()) out->required.push_back(name.get<std::string>());
  }
  for (const Json& value : List(schema, "enum")) out->values.push_back(&value);
  if (const Json* value = FindField(schema, "const")) out->values.push_back(value);
  if (const Json* target = Target(schema, root)) Collect(*target, root, depth + 1, out);
  for (const char* keyword : {"allOf", "anyOf", "oneOf"}) {
    for (const Json& part : List(schema, keyword)) Collect(part, root, depth + 1, out);
  }
}

class Writer {
 public:
  explicit Writer(const Json& root) : root_(root) {}

  void Write(const Json& value, const Json& schema, int depth) {
    Writing writing;
    if (depth <= kMaxDocumentDepth) Collect(schema, root_, 0, &writing);
    const auto same = std::ranges::find_if(writing.values, [&](const Json* v) { return JsonEquals(*v, value); });
    if (same != writing.values.end()) return WriteAs(**same, true, Writing(), depth);
    WriteAs(value, schema, writing, depth);
  }

  std::string text;

 private:
  void WriteAs(const Json& value, const Json& schema, const Writing& writing, int depth) {
    if (value.is_array()) {
      WriteArray(value, schema, depth);
    } else if (value.is_object()) {
      WriteObject(value, schema, writing, depth);
    } else {
      text += value.is_number() ? NumberText(value) : WriteJson(value);
    }
  }

  static const Json& SchemaAt(const Json& schema, const char* keyword) {
    static const Json kAny = true;
    const Json* found = schema.is_object() ? FindField(schema, keyword) : nullptr;
    return found != nullptr ? *found : kAny;
  }

  void WriteArray(const Json& value, const Json& schema, int depth) {
    static const Json kAny = true;
    const Json& prefix =
        SchemaAt(schema, "prefixItems").is_array() ? SchemaAt(schema, "prefixItems") : SchemaAt(schema, "items");
    text += '[';
    for (size_t i = 0; i < value.size(); ++i) {
      if (i > 0) text += ',';
      Write(value[i], !prefix.is_array() ? SchemaAt(schema, "items") : i < prefix.size() ? prefix[i] : kAny, depth + 1);
    }
    text += ']';
  }

  void WriteObject(const Json& value, const Json& schema, const Writing& writing, int depth) {
    static const Json kAny = true;
    std::vector<std::pair<std::string, const Json*>> order = writing.properties;
    for (const std::string& name : writing.required) order.emplace_back(name, &kAny);
    for (const auto& item : value.items()) order.emplace_back(item.key(), &SchemaAt(schema, "additionalProperties"));
    std::set<std::string> written;
    text += '{';
    for (const auto& [key, inner] : order) {
      const Json* found = FindField(value, key);
      if (found == nullptr || !written.insert(key).second) continue;
      if (written.size() > 1) text += ',';
      text += WriteJson(Json(key)) + ':';
      Write(*found, *inner, depth + 1);
    }
    text += '}';
  }

  const Json& root_;
};

}  // namespace

std::string CanonicalJson(const Json& document, const Json& schema) {
  Writer writer(schema);
  writer.Write(document, schema, 0);
  return std::move(writer.text);
}

}  // namespace gptoss
