#include "grammar/schema_reader.h"

#include <string_view>

#include "grammar/schema_keywords.h"
#include "grammar/schema_pointer.h"

namespace gptoss {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxShapes = 512;

}  // namespace

Result<SchemaReader> SchemaReader::Create(const Json& root, SchemaDialect dialect) {
  bool draft7 = dialect == SchemaDialect::kDraft7;
  const std::string* schema = root.is_object() ? FindString(root, "$schema") : nullptr;
  if (dialect == SchemaDialect::kAuto && schema != nullptr) {
    // Another metaschema may give other meanings to the same words.
    const bool known = schema->find("json-schema.org/") != std::string::npos ||
                       schema->find("spec.openapis.org/") != std::string::npos;
    if (!known) {
      return UnsupportedSchema("#/$schema", "the dialect '" + *schema +
                                                "' is not known; leave $schema out or name a draft of json-schema.org");
    }
    draft7 = schema->find("/draft-0") != std::string::npos;
  }
  GPTOSS_ASSIGN_OR_RETURN(SchemaReferences references, SchemaReferences::Create(root));
  return SchemaReader(std::move(references), draft7);
}

Status SchemaReader::Collect(const SchemaRef& in, Partial* out, int depth) {
  if (depth > kMaxDepth || ++work_ > kMaxWork) {
    return ResourceExhausted("schema " + in.pointer + ": too many combinations; simplify allOf, anyOf and oneOf");
  }
  if (in.json->is_boolean()) {
    out->shape.impossible = out->shape.impossible || !in.json->get<bool>();
    return {};
  }
  if (!in.json->is_object()) return InvalidSchema(in.pointer, "a schema must be an object, true or false");
  if (!out->seen.insert(in.json).second) return {};  // once is enough, also for a schema that includes itself
  const std::string* id = FindString(*in.json, "$id");
  if (in.json != root().json && id != nullptr && !id->starts_with('#')) {
    return UnsupportedSchema(in.pointer + "/$id", "nested $id is not supported");
  }
  const Json* ref = FindField(*in.json, "$ref");
  if (ref != nullptr && draft7_) return CollectKeyword("$ref", *ref, in, out, depth);
  // The schema's own properties come before those of what it includes: their order is that of the keys.
  GPTOSS_RETURN_IF_ERROR(CollectArrays(in, &out->shape));
  GPTOSS_RETURN_IF_ERROR(CollectObjects(in, &out->shape));
  for (const auto& [keyword, value] : in.json->items()) {
    GPTOSS_RETURN_IF_ERROR(CollectKeyword(keyword, value, in, out, depth));
  }
  return {};
}

Status SchemaReader::CollectKeyword(const std::string& keyword, const Json& value, const SchemaRef& in, Partial* out,
                                    int depth) {
  const std::string at = in.pointer + PointerToken(keyword);
  if (keyword == "$ref") {
    if (!value.is_string()) return InvalidSchema(at, "must be a string");
    GPTOSS_ASSIGN_OR_RETURN(const SchemaRef target, references_.Resolve(value.get<std::string>(), in.pointer));
    return Collect(target, out, depth + 1);
  }
  if (keyword == "type") {
    const Json* nullable = FindField(*in.json, "nullable");
    return ReadTypes(value, at, nullable != nullptr && nullable->is_boolean() && nullable->get<bool>(), &out->shape);
  }
  if (keyword == "allOf" || keyword == "anyOf" || keyword == "oneOf") {
    return CollectChoice(keyword, value, at, out, depth);
  }
  // CollectArrays and CollectObjects have read these together.
  for (const char* read : {"properties", "patternProperties", "additionalProperties", "items", "prefixItems"}) {
    if (keyword == read) return {};
  }
  GPTOSS_ASSIGN_OR_RETURN(const bool known, ReadValueKeyword(keyword, value, at, &out->shape));
  if (known || IsAnnotation(keyword)) return {};
  return UnsupportedSchema(at, "the keyword " + keyword + " is not supported");
}

Status SchemaReader::CollectChoice(const std::string& keyword, const Json& value, const std::string& at, Partial* out,
                                   int depth) {
  if (!value.is_array() || value.empty()) return InvalidSchema(at, "must be a list of schemas that is not empty");
  Choice choice{{}, keyword == "oneOf", at};
  for (size_t i = 0; i < value.size(); ++i) choice.branches.push_back({&value[i], at + "/" + std::to_string(i)});
  if (keyword != "allOf") {
    out->choices.push_back(std::move(choice));
    return {};
  }
  for (const SchemaRef& part : choice.branches) GPTOSS_RETURN_IF_ERROR(Collect(part, out, depth + 1));
  return {};
}

Status SchemaReader::CollectArrays(const SchemaRef& in, Shape* shape) {
  ArrayPart part;
  const auto list = [&](const char* keyword, const Json& value) {
    for (size_t i = 0; i < value.size(); ++i) {
      part.prefix.push_back({&value[i], in.pointer + "/" + keyword + "/" + std::to_string(i)});
    }
  };
  const Json* prefix = FindField(*in.json, "prefixItems");
  const Json* items = FindField(*in.json, "items");
  if (prefix != nullptr && draft7_) return UnsupportedSchema(in.pointer + "/prefixItems", "is not of draft 7");
  if (prefix != nullptr && !prefix->is_array()) {
    return InvalidSchema(in.pointer + "/prefixItems", "must be a list of schemas");
  }
  if (prefix != nullptr) list("prefixItems", *prefix);
  if (items != nullptr && items->is_array()) {
    if (prefix != nullptr) return InvalidSchema(in.pointer + "/items", "must be a schema beside prefixItems");
    list("items", *items);
    if (const Json* more = FindField(*in.json, "additionalItems")) part.items = {more, in.pointer + "/additionalItems"};
  } else if (items != nullptr) {
    part.items = {items, in.pointer + "/items"};
  }
  if (!part.prefix.empty() || part.items) shape->arrays.push_back(std::move(part));
  return {};
}

Status SchemaReader::CollectObjects(const SchemaRef& in, Shape* shape) {
  ObjectPart part;
  for (const char* keyword : {"properties", "patternProperties"}) {
    const Json* map = FindField(*in.json, keyword);
    if (map == nullptr) continue;
    const std::string at = in.pointer + "/" + keyword;
    if (!map->is_object()) return InvalidSchema(at, "must be an object");
    for (const auto& [key, value] : map->items()) {
      const SchemaRef ref{&value, at + PointerToken(key)};
      if (std::string_view(keyword) == "properties") {
        part.properties.emplace_back(key, ref);
        continue;
      }
      GPTOSS_ASSIGN_OR_RETURN(const Regex regex, ReadPattern(key, ref.pointer));
      part.patterns.emplace_back(regex, ref);
    }
  }
  if (const Json* more = FindField(*in.json, "additionalProperties")) {
    part.additional = {more, in.pointer + "/additionalProperties"};
  }
  if (!part.properties.empty() || !part.patterns.empty() || part.additional) shape->objects.push_back(std::move(part));
  return {};
}

Result<std::vector<Shape>> SchemaReader::Expand(const SchemaSet& set) {
  Partial partial;
  for (const SchemaRef& ref : set) GPTOSS_RETURN_IF_ERROR(Collect(ref, &partial, 0));
  std::vector<Shape> out;
  GPTOSS_RETURN_IF_ERROR(ExpandPartial(std::move(partial), &out, 0));
  return out;
}

Status SchemaReader::ExpandPartial(Partial partial, std::vector<Shape>* out, int depth) {
  if (partial.choices.empty()) {
    if (!partial.shape.impossible) out->push_back(std::move(partial.shape));
    if (out->size() > kMaxShapes) {
      return ResourceExhausted("schema: anyOf and oneOf give more than " + std::to_string(kMaxShapes) +
                               " combinations");
    }
    return {};
  }
  const Choice choice = std::move(partial.choices.front());
  partial.choices.erase(partial.choices.begin());
  if (choice.exclusive) GPTOSS_RETURN_IF_ERROR(CheckExclusive(choice, partial, depth));
  for (const SchemaRef& branch : choice.branches) {
    Partial next = partial;
    GPTOSS_RETURN_IF_ERROR(Collect(branch, &next, depth + 1));
    GPTOSS_RETURN_IF_ERROR(ExpandPartial(std::move(next), out, depth + 1));
  }
  return {};
}

}  // namespace gptoss
