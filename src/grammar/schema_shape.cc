#include "grammar/schema_shape.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "grammar/char_dfa.h"

namespace gptoss {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxShapes = 512;
constexpr size_t kMaxWork = 200'000;  // schema objects read, over the whole compilation

// Keywords that say nothing about which documents are valid.
constexpr std::array<std::string_view, 28> kAnnotations = {"$schema",
                                                           "$comment",
                                                           "$defs",
                                                           "definitions",
                                                           "title",
                                                           "description",
                                                           "default",
                                                           "examples",
                                                           "example",
                                                           "deprecated",
                                                           "readOnly",
                                                           "writeOnly",
                                                           "$id",
                                                           "id",
                                                           "$anchor",
                                                           "contentMediaType",
                                                           "contentEncoding",
                                                           "externalDocs",
                                                           "xml",
                                                           "discriminator",
                                                           "propertyOrdering",
                                                           "enumNames",
                                                           "enumDescriptions",
                                                           "markdownDescription",
                                                           "nullable",
                                                           "additionalItems",
                                                           "strict",
                                                           "$vocabulary"};

/// A key as one token of a JSON pointer.
std::string Escaped(std::string_view key) {
  std::string out = "/";
  for (char c : key) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

Status Bad(const std::string& at, const std::string& what) { return InvalidArgument("schema " + at + ": " + what); }

std::string Unescape(std::string_view token) {
  std::string percent, out;
  for (size_t i = 0; i < token.size(); ++i) {
    const auto hex = [&](size_t at) {
      const char c = at < token.size() ? token[at] : 'x';
      return c >= '0' && c <= '9'   ? c - '0'
             : c >= 'a' && c <= 'f' ? c - 'a' + 10
             : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                    : -1;
    };
    if (token[i] == '%' && hex(i + 1) >= 0 && hex(i + 2) >= 0) {
      percent += static_cast<char>(hex(i + 1) * 16 + hex(i + 2));
      i += 2;
    } else {
      percent += token[i];
    }
  }
  for (size_t i = 0; i < percent.size(); ++i) {
    const bool tilde = percent[i] == '~' && i + 1 < percent.size();
    out += tilde ? (percent[i + 1] == '0' ? '~' : '/') : percent[i];
    i += tilde ? 1 : 0;
  }
  return out;
}

Result<uint32_t> Count(const Json& value, const std::string& at) {
  const bool whole =
      value.is_number_integer() || (value.is_number_float() && std::floor(value.get<double>()) == value.get<double>());
  if (!whole || value.get<double>() < 0) return Bad(at, "must be a whole number of at least 0");
  return static_cast<uint32_t>(std::min(value.get<double>(), 4e9));
}

Result<Decimal> Number(const Json& value, const std::string& at) {
  if (!value.is_number()) return Bad(at, "must be a number");
  Result<Decimal> out = Decimal::Parse(WriteJson(value));
  return out.ok() ? out : Result<Decimal>(out.status().WithContext("schema " + at));
}

uint8_t TypeOf(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return kNullType;
    case Json::value_t::boolean:
      return kBooleanType;
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return kIntegerType;
    case Json::value_t::number_float:
      return std::floor(value.get<double>()) == value.get<double>() ? kIntegerType : kFractionType;
    case Json::value_t::string:
      return kStringType;
    case Json::value_t::array:
      return kArrayType;
    case Json::value_t::object:
      return kObjectType;
    default:
      return 0;
  }
}

size_t CodePoints(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

bool JsonEquals(const Json& a, const Json& b) {
  if (a.is_number() && b.is_number()) return a == b;
  if (a.type() != b.type() || a.size() != b.size()) return false;
  if (a.is_array()) {
    for (size_t i = 0; i < a.size(); ++i) {
      if (!JsonEquals(a[i], b[i])) return false;
    }
    return true;
  }
  if (!a.is_object()) return a == b;
  return std::all_of(a.items().begin(), a.items().end(), [&](const auto& item) {
    const Json* other = FindField(b, item.key());
    return other != nullptr && JsonEquals(item.value(), *other);
  });
}

SchemaSet MakeSchemaSet(std::vector<SchemaRef> refs) {
  std::erase_if(refs, [](const SchemaRef& r) { return r.json->is_boolean() && r.json->get<bool>(); });
  std::sort(refs.begin(), refs.end(), [](const SchemaRef& a, const SchemaRef& b) { return a.json < b.json; });
  refs.erase(std::unique(refs.begin(), refs.end(), [](const auto& a, const auto& b) { return a.json == b.json; }),
             refs.end());
  return refs;
}

SchemaSet Shape::ItemSchemas(size_t index) const {
  std::vector<SchemaRef> out;
  for (const ArrayPart& part : arrays) {
    if (index < part.prefix.size()) {
      out.push_back(part.prefix[index]);
    } else if (part.items) {
      out.push_back(*part.items);
    }
  }
  return MakeSchemaSet(std::move(out));
}

size_t Shape::PrefixLength() const {
  size_t length = 0;
  for (const ArrayPart& part : arrays) length = std::max(length, part.prefix.size());
  return length;
}

Result<SchemaSet> Shape::ValueSchemas(const std::string& key) const {
  std::vector<SchemaRef> out;
  for (const ObjectPart& part : objects) {
    bool matched = false;
    for (const auto& [name, ref] : part.properties) {
      if (name != key) continue;
      out.push_back(ref);
      matched = true;
    }
    for (const auto& [pattern, ref] : part.patterns) {
      GPTOSS_ASSIGN_OR_RETURN(const CharDfa dfa, CharDfa::FromRegex(pattern));
      if (!dfa.Matches(key)) continue;
      out.push_back(ref);
      matched = true;
    }
    if (!matched && part.additional) out.push_back(*part.additional);
  }
  return MakeSchemaSet(std::move(out));
}

bool Shape::Requires(const std::string& key) const {
  return std::find(required.begin(), required.end(), key) != required.end();
}

std::vector<std::string> Shape::Keys() const {
  std::vector<std::string> out;
  std::set<std::string> seen;
  for (const ObjectPart& part : objects) {
    for (const auto& property : part.properties) {
      if (seen.insert(property.first).second) out.push_back(property.first);
    }
  }
  for (const std::string& key : required) {
    if (seen.insert(key).second) out.push_back(key);
  }
  return out;
}

Result<SchemaReader> SchemaReader::Create(const Json& root, SchemaDialect dialect) {
  bool draft7 = dialect == SchemaDialect::kDraft7;
  if (dialect == SchemaDialect::kAuto && root.is_object()) {
    const std::string* schema = FindString(root, "$schema");
    draft7 = schema != nullptr && schema->find("/draft-0") != std::string::npos;
  }
  SchemaReader reader(root, draft7);
  GPTOSS_RETURN_IF_ERROR(reader.IndexAnchors(root, "#", 0));
  return reader;
}

Status SchemaReader::IndexAnchors(const Json& json, const std::string& pointer, int depth) {
  if (depth > 2 * kMaxDepth) return Bad(pointer, "is nested too deeply");
  if (json.is_array()) {
    for (size_t i = 0; i < json.size(); ++i) {
      GPTOSS_RETURN_IF_ERROR(IndexAnchors(json[i], pointer + "/" + std::to_string(i), depth + 1));
    }
  }
  if (!json.is_object()) return {};
  if (const std::string* anchor = FindString(json, "$anchor")) anchors_.try_emplace(*anchor, SchemaRef{&json, pointer});
  if (const std::string* id = FindString(json, "$id"); id != nullptr && id->starts_with('#')) {
    anchors_.try_emplace(id->substr(1), SchemaRef{&json, pointer});
  }
  for (const auto& [key, value] : json.items()) {
    if (key == "enum" || key == "const" || key == "default" || key == "examples") continue;
    GPTOSS_RETURN_IF_ERROR(IndexAnchors(value, pointer + Escaped(key), depth + 1));
  }
  return {};
}

Result<SchemaRef> SchemaReader::Resolve(const std::string& ref, const std::string& pointer) const {
  const std::string at = pointer + "/$ref";
  std::string_view fragment = ref;
  const std::string* id = root_->is_object() ? FindString(*root_, "$id") : nullptr;
  if (id != nullptr && !id->empty() && ref.starts_with(*id)) fragment.remove_prefix(id->size());
  if (fragment.empty()) return root();
  if (!fragment.starts_with('#')) {
    return Unsupported("schema " + at + ": $ref '" + ref + "' leads out of the schema; put its target into $defs");
  }
  fragment.remove_prefix(1);
  if (fragment.empty()) return root();
  if (!fragment.starts_with('/')) {
    const auto it = anchors_.find(std::string(fragment));
    if (it == anchors_.end()) return Bad(at, "there is no $anchor '" + std::string(fragment) + "'");
    return it->second;
  }
  SchemaRef found = root();
  while (!fragment.empty()) {
    fragment.remove_prefix(1);
    const size_t end = std::min(fragment.find('/'), fragment.size());
    const std::string token = Unescape(fragment.substr(0, end));
    fragment.remove_prefix(end);
    const Json* next = nullptr;
    if (found.json->is_object()) {
      next = FindField(*found.json, token);
      if (token == "$id" || (found.json != root_ && FindString(*found.json, "$id") != nullptr)) {
        return Unsupported("schema " + at + ": $ref across a nested $id is not supported");
      }
    } else if (found.json->is_array() && !token.empty() && token.size() < 9 &&
               std::all_of(token.begin(), token.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      const size_t index = std::stoul(token);
      if (index < found.json->size()) next = &(*found.json)[index];
    }
    if (next == nullptr) return Bad(at, "'" + ref + "' does not exist");
    found = {next, found.pointer + Escaped(token)};
  }
  return found;
}

Status SchemaReader::Collect(const SchemaRef& in, Partial* out, int depth) {
  if (depth > kMaxDepth || ++work_ > kMaxWork) {
    return ResourceExhausted("schema " + in.pointer + ": too many combinations; simplify allOf, anyOf and oneOf");
  }
  if (in.json->is_boolean()) {
    out->shape.impossible = out->shape.impossible || !in.json->get<bool>();
    return {};
  }
  if (!in.json->is_object()) return Bad(in.pointer, "a schema must be an object, true or false");
  if (!out->seen.insert(in.json).second) return {};  // once is enough, also for a schema that includes itself
  if (in.json != root_ && FindString(*in.json, "$id") != nullptr && !FindString(*in.json, "$id")->starts_with('#')) {
    return Unsupported("schema " + in.pointer + "/$id: nested $id is not supported");
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
  const std::string at = in.pointer + Escaped(keyword);
  if (keyword == "$ref") {
    if (!value.is_string()) return Bad(at, "must be a string");
    GPTOSS_ASSIGN_OR_RETURN(const SchemaRef target, Resolve(value.get<std::string>(), in.pointer));
    return Collect(target, out, depth + 1);
  }
  if (keyword == "type") {
    const Json* nullable = FindField(*in.json, "nullable");
    return CollectTypes(value, at, nullable != nullptr && nullable->is_boolean() && nullable->get<bool>(), &out->shape);
  }
  bool known = false;
  GPTOSS_RETURN_IF_ERROR(CollectStructure(keyword, value, in, out, &known));
  if (!known) GPTOSS_RETURN_IF_ERROR(CollectScalar(keyword, value, at, &out->shape, &known));
  if (keyword == "allOf") {
    for (size_t i = 0; i < value.size(); ++i) {
      GPTOSS_RETURN_IF_ERROR(Collect({&value[i], at + "/" + std::to_string(i)}, out, depth + 1));
    }
  }
  if (known || keyword.starts_with("x-")) return {};
  if (std::find(kAnnotations.begin(), kAnnotations.end(), keyword) != kAnnotations.end()) return {};
  return Unsupported("schema " + at + ": the keyword " + keyword + " is not supported");
}

Status SchemaReader::CollectStructure(const std::string& keyword, const Json& value, const SchemaRef& in, Partial* out,
                                      bool* known) {
  const std::string at = in.pointer + Escaped(keyword);
  *known = true;
  if (keyword == "anyOf" || keyword == "oneOf" || keyword == "allOf") {
    if (!value.is_array() || value.empty()) return Bad(at, "must be a list of schemas that is not empty");
    if (keyword == "allOf") return {};
    Choice choice{{}, keyword == "oneOf", at};
    for (size_t i = 0; i < value.size(); ++i) choice.branches.push_back({&value[i], at + "/" + std::to_string(i)});
    out->choices.push_back(std::move(choice));
  } else if (keyword == "enum" || keyword == "const") {
    std::vector<Json> values;
    if (keyword == "const") {
      values.push_back(value);
    } else if (!value.is_array()) {
      return Bad(at, "must be a list");
    } else {
      values.assign(value.begin(), value.end());
    }
    std::optional<std::vector<Json>>& have = out->shape.values;
    if (have) {
      std::erase_if(*have, [&](const Json& v) {
        return std::none_of(values.begin(), values.end(), [&](const Json& w) { return JsonEquals(v, w); });
      });
    } else {
      have = std::move(values);
    }
  } else {
    // Read together with the keywords beside them.
    *known = keyword == "properties" || keyword == "patternProperties" || keyword == "additionalProperties" ||
             keyword == "items" || keyword == "prefixItems";
  }
  return {};
}

Status SchemaReader::CollectScalar(const std::string& keyword, const Json& value, const std::string& at, Shape* shape,
                                   bool* known) {
  *known = true;
  const auto raise = [&](uint32_t* bound) -> Status {
    GPTOSS_ASSIGN_OR_RETURN(const uint32_t count, Count(value, at));
    *bound = std::max(*bound, count);
    return {};
  };
  const auto lower = [&](uint32_t* bound) -> Status {
    GPTOSS_ASSIGN_OR_RETURN(const uint32_t count, Count(value, at));
    *bound = std::min(*bound, count);
    return {};
  };
  if (keyword == "minLength") return raise(&shape->min_length);
  if (keyword == "maxLength") return lower(&shape->max_length);
  if (keyword == "minItems") return raise(&shape->min_items);
  if (keyword == "maxItems") return lower(&shape->max_items);
  if (keyword == "minProperties") {
    shape->min_properties_pointer = at;
    return raise(&shape->min_properties);
  }
  const bool is_lower = keyword == "minimum" || keyword == "exclusiveMinimum";
  if (is_lower || keyword == "maximum" || keyword == "exclusiveMaximum") {
    if (value.is_boolean()) return Unsupported("schema " + at + ": the boolean form of draft 4 is not supported");
    GPTOSS_ASSIGN_OR_RETURN(const Decimal number, Number(value, at));
    const bool exclusive = keyword.starts_with("exclusive");
    std::optional<NumberBound>& bound = is_lower ? shape->range.lower : shape->range.upper;
    const int order = bound ? Compare(number, bound->value) * (is_lower ? 1 : -1) : 1;
    if (order > 0) bound = NumberBound{number, exclusive};
    if (order == 0) bound->exclusive = bound->exclusive || exclusive;
    return {};
  }
  if (keyword == "multipleOf") {
    GPTOSS_ASSIGN_OR_RETURN(const Decimal number, Number(value, at));
    if (number.negative || number.IsZero()) return Bad(at, "must be above 0");
    if (!number.IsInteger() || number.whole.size() > 6) {
      return Unsupported("schema " + at + ": multipleOf is supported for whole numbers below a million");
    }
    const uint64_t a = shape->range.multiple_of, b = std::stoul(number.whole);
    uint64_t x = a, y = b;
    while (y != 0) x = std::exchange(y, x % y);
    if (a / x * b > 1'000'000)
      return Unsupported("schema " + at + ": multipleOf is too large together with another one");
    shape->range.multiple_of = static_cast<uint32_t>(a / x * b);
    return {};
  }
  if (keyword == "pattern") {
    if (!value.is_string()) return Bad(at, "must be a string");
    Result<Regex> regex = ParseRegex(value.get_ref<const std::string&>());
    if (regex.ok()) regex = ResolveAnchors(*regex, false);
    if (!regex.ok()) return regex.status().WithContext("schema " + at);
    shape->patterns.push_back(*regex);
    return {};
  }
  if (keyword == "format") {
    if (!value.is_string()) return Bad(at, "must be a string");
    const Regex regex = FormatRegex(value.get_ref<const std::string&>());
    if (regex == nullptr) {
      return Unsupported("schema " + at + ": the format " + WriteJson(value) + " is not supported");
    }
    shape->patterns.push_back(regex);
    return {};
  }
  if (keyword == "required") {
    if (!value.is_array()) return Bad(at, "must be a list of names");
    for (const Json& name : value) {
      if (!name.is_string()) return Bad(at, "must be a list of names");
      if (!shape->Requires(name.get<std::string>())) shape->required.push_back(name.get<std::string>());
    }
    return {};
  }
  if (keyword == "uniqueItems" && value.is_boolean() && !value.get<bool>()) return {};
  *known = false;
  return {};
}

Status SchemaReader::CollectTypes(const Json& value, const std::string& at, bool nullable, Shape* shape) {
  const std::vector<Json> names = value.is_array() ? std::vector<Json>(value.begin(), value.end()) : std::vector{value};
  uint8_t types = nullable ? kNullType : 0;
  static const std::map<std::string, uint8_t> kNames = {
      {"null", kNullType},       {"boolean", kBooleanType},
      {"integer", kIntegerType}, {"number", kIntegerType | kFractionType},
      {"string", kStringType},   {"array", kArrayType},
      {"object", kObjectType}};
  for (const Json& name : names) {
    const auto it = name.is_string() ? kNames.find(name.get<std::string>()) : kNames.end();
    if (it == kNames.end()) return Bad(at, WriteJson(name) + " is no type");
    types |= it->second;
  }
  shape->types &= types;
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
  if (prefix != nullptr && draft7_) return Unsupported("schema " + in.pointer + "/prefixItems: is not of draft 7");
  if (prefix != nullptr && !prefix->is_array()) return Bad(in.pointer + "/prefixItems", "must be a list of schemas");
  if (prefix != nullptr) list("prefixItems", *prefix);
  if (items != nullptr && items->is_array()) {
    if (prefix != nullptr) return Bad(in.pointer + "/items", "must be a schema beside prefixItems");
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
    if (!map->is_object()) return Bad(at, "must be an object");
    for (const auto& [key, value] : map->items()) {
      const SchemaRef ref{&value, at + Escaped(key)};
      if (std::string_view(keyword) == "properties") {
        part.properties.emplace_back(key, ref);
        continue;
      }
      Result<Regex> regex = ParseRegex(key);
      if (regex.ok()) regex = ResolveAnchors(*regex, false);
      if (!regex.ok()) return regex.status().WithContext("schema " + ref.pointer);
      part.patterns.emplace_back(*regex, ref);
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

Status SchemaReader::CheckExclusive(const Choice& choice, const Partial& common, int depth) {
  if (depth > 8) return Unsupported("schema " + choice.pointer + ": oneOf is nested too deeply");
  std::vector<std::vector<Shape>> shapes(choice.branches.size());
  for (size_t i = 0; i < choice.branches.size(); ++i) {
    Partial branch = common;
    // What an enclosing oneOf rules out is not needed to tell these branches apart.
    branch.choices.clear();
    GPTOSS_RETURN_IF_ERROR(Collect(choice.branches[i], &branch, depth + 1));
    GPTOSS_RETURN_IF_ERROR(ExpandPartial(std::move(branch), &shapes[i], depth + 1));
  }
  for (size_t i = 0; i < shapes.size(); ++i) {
    for (size_t j = i + 1; j < shapes.size(); ++j) {
      for (const Shape& a : shapes[i]) {
        for (const Shape& b : shapes[j]) {
          GPTOSS_ASSIGN_OR_RETURN(const bool disjoint, Disjoint(a, b, 0));
          if (disjoint) continue;
          return Unsupported(
              "schema " + choice.pointer + ": the branches " + std::to_string(i) + " and " + std::to_string(j) +
              " of oneOf may hold together; use anyOf, or tell them apart by type, " + "const or a required key");
        }
      }
    }
  }
  return {};
}

Result<bool> SchemaReader::DisjointStrings(const Shape& a, const Shape& b) {
  if (a.max_length < b.min_length || b.max_length < a.min_length) return true;
  if (a.patterns.empty() || b.patterns.empty()) return false;
  CharDfa dfa = CharDfa::All();
  for (const Shape* shape : {&a, &b}) {
    for (const Regex& pattern : shape->patterns) {
      GPTOSS_ASSIGN_OR_RETURN(const CharDfa next, CharDfa::FromRegex(pattern));
      GPTOSS_ASSIGN_OR_RETURN(dfa, dfa.Intersection(next));
    }
  }
  return dfa.empty();
}

Result<bool> SchemaReader::DisjointObjects(const Shape& a, const Shape& b, int depth) {
  if (depth > 3) return false;
  for (const Shape* shape : {&a, &b}) {
    for (const std::string& key : shape->required) {
      GPTOSS_ASSIGN_OR_RETURN(const SchemaSet left, a.ValueSchemas(key));
      GPTOSS_ASSIGN_OR_RETURN(const SchemaSet right, b.ValueSchemas(key));
      GPTOSS_ASSIGN_OR_RETURN(const std::vector<Shape> lefts, Expand(left));
      GPTOSS_ASSIGN_OR_RETURN(const std::vector<Shape> rights, Expand(right));
      bool apart = true;
      for (const Shape& x : lefts) {
        for (const Shape& y : rights) {
          if (!apart) break;
          GPTOSS_ASSIGN_OR_RETURN(apart, Disjoint(x, y, depth + 1));
        }
      }
      if (apart) return true;
    }
  }
  return false;
}

Result<bool> SchemaReader::Disjoint(const Shape& a, const Shape& b, int depth) {
  if (++work_ > kMaxWork) return ResourceExhausted("schema: too many combinations of oneOf");
  if (a.impossible || b.impossible) return true;
  for (const auto& [x, y] : {std::pair(&a, &b), std::pair(&b, &a)}) {
    if (!x->values) continue;
    for (const Json& value : *x->values) {
      GPTOSS_ASSIGN_OR_RETURN(const bool in_x, Validates(value, *x, 0));
      GPTOSS_ASSIGN_OR_RETURN(const bool in_y, Validates(value, *y, 0));
      if (in_x && in_y) return false;
    }
    return true;
  }
  const uint8_t types = a.types & b.types;
  if ((types & (kNullType | kBooleanType)) != 0) return false;
  if ((types & (kIntegerType | kFractionType)) != 0) {
    const auto above = [](const NumberRange& low, const NumberRange& high) {
      if (!low.upper || !high.lower) return false;
      const int order = Compare(low.upper->value, high.lower->value);
      return order < 0 || (order == 0 && (low.upper->exclusive || high.lower->exclusive));
    };
    if (!above(a.range, b.range) && !above(b.range, a.range)) return false;
  }
  if ((types & kStringType) != 0) {
    GPTOSS_ASSIGN_OR_RETURN(const bool apart, DisjointStrings(a, b));
    if (!apart) return false;
  }
  if ((types & kArrayType) != 0 && !(a.max_items < b.min_items || b.max_items < a.min_items)) return false;
  if ((types & kObjectType) == 0) return true;
  return DisjointObjects(a, b, depth);
}

Result<bool> SchemaReader::Validates(const Json& value, const SchemaSet& set, int depth) {
  if (depth > kMaxDepth) return ResourceExhausted("schema: an enum or const is nested too deeply");
  GPTOSS_ASSIGN_OR_RETURN(const std::vector<Shape> shapes, Expand(set));
  for (const Shape& shape : shapes) {
    GPTOSS_ASSIGN_OR_RETURN(const bool valid, Validates(value, shape, depth));
    if (valid) return true;
  }
  return false;
}

Result<bool> SchemaReader::Validates(const Json& value, const Shape& shape, int depth) {
  const uint8_t type = TypeOf(value);
  if (shape.impossible || (shape.types & type) == 0) return false;
  if (shape.values &&
      std::none_of(shape.values->begin(), shape.values->end(), [&](const Json& v) { return JsonEquals(v, value); })) {
    return false;
  }
  if (value.is_number()) {
    GPTOSS_ASSIGN_OR_RETURN(const Decimal number, Number(value, "enum"));
    return shape.range.Contains(number);
  }
  if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    const size_t length = CodePoints(text);
    if (length < shape.min_length || length > shape.max_length) return false;
    for (const Regex& pattern : shape.patterns) {
      GPTOSS_ASSIGN_OR_RETURN(const CharDfa dfa, CharDfa::FromRegex(pattern));
      if (!dfa.Matches(text)) return false;
    }
    return true;
  }
  if (value.is_array()) {
    if (value.size() < shape.min_items || value.size() > shape.max_items) return false;
    for (size_t i = 0; i < value.size(); ++i) {
      GPTOSS_ASSIGN_OR_RETURN(const bool valid, Validates(value[i], shape.ItemSchemas(i), depth + 1));
      if (!valid) return false;
    }
    return true;
  }
  if (!value.is_object()) return true;
  if (value.size() < shape.min_properties) return false;
  for (const std::string& key : shape.required) {
    if (FindField(value, key) == nullptr) return false;
  }
  for (const auto& [key, inner] : value.items()) {
    GPTOSS_ASSIGN_OR_RETURN(const SchemaSet schemas, shape.ValueSchemas(key));
    GPTOSS_ASSIGN_OR_RETURN(const bool valid, Validates(inner, schemas, depth + 1));
    if (!valid) return false;
  }
  return true;
}

}  // namespace gptoss
