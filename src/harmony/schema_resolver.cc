#include "harmony/schema_resolver.h"

#include <algorithm>
#include <utility>

namespace gptoss {
namespace {

// Every Resolve copies; references can make the copies far larger than the document.
constexpr size_t kMaxCopiedBytes = 64u << 20;
constexpr int kMaxRefChain = 64;

bool IsAnnotation(const std::string& key) {
  return key == "description" || key == "title" || key == "default" || key == "examples" || key == "deprecated" ||
         key == "$comment" || key == "$schema" || key == "$id" || key == "$defs" || key == "definitions";
}

/// Adds `from` to `into`, whose annotations win. False, with `into` half merged, when both state different things.
bool MergeInto(const Json& from, Json* into) {
  if (!from.is_object()) return from == Json(true);
  for (const auto& [key, value] : from.items()) {
    const auto it = into->find(key);
    if (it == into->end()) {
      (*into)[key] = value;
    } else if (*it == value || IsAnnotation(key)) {
      continue;
    } else if (key == "properties" && it->is_object() && value.is_object()) {
      for (const auto& [name, schema] : value.items()) {
        const auto own = it->find(name);
        if (own == it->end()) {
          (*it)[name] = schema;
        } else if (*own != schema) {
          *own = Json{{"allOf", {*own, schema}}};
        }
      }
    } else if (key == "required" && it->is_array() && value.is_array()) {
      for (const Json& name : value) {
        if (std::find(it->begin(), it->end(), name) == it->end()) it->push_back(name);
      }
    } else if (key == "additionalProperties" && (value.is_boolean() || it->is_boolean())) {
      if (it->is_boolean() && it->get<bool>()) *it = value;
    } else {
      return false;
    }
  }
  return true;
}

std::string Unescape(std::string_view part) {
  std::string out;
  for (size_t i = 0; i < part.size(); ++i) {
    const bool tilde = part[i] == '~' && i + 1 < part.size() && (part[i + 1] == '0' || part[i + 1] == '1');
    if (tilde) {
      out += part[++i] == '0' ? '~' : '/';
    } else if (part[i] == '%' && i + 2 < part.size() && std::isxdigit(static_cast<unsigned char>(part[i + 1])) &&
               std::isxdigit(static_cast<unsigned char>(part[i + 2]))) {
      out += static_cast<char>(std::stoi(std::string(part.substr(i + 1, 2)), nullptr, 16));
      i += 2;
    } else {
      out += part[i];
    }
  }
  return out;
}

/// anyOf of exactly one type and null.
bool TakeNullable(Json* schema) {
  const Json* any_of = FindField(*schema, "anyOf");
  if (any_of == nullptr || !any_of->is_array() || any_of->size() != 2) return false;
  const bool first_null = IsNullSchema((*any_of)[0]);
  if (first_null == IsNullSchema((*any_of)[1])) return false;
  const Json variant = (*any_of)[first_null ? 1 : 0];
  Json merged = *schema;
  merged.erase("anyOf");
  if (!variant.is_object() || !MergeInto(variant, &merged)) return false;
  merged["nullable"] = true;
  *schema = std::move(merged);
  return true;
}

}  // namespace

const std::string* RefOf(const Json& schema) { return FindString(schema, "$ref"); }

bool IsNullSchema(const Json& schema) {
  if (!schema.is_object()) return false;
  if (const std::string* type = FindString(schema, "type")) return *type == "null";
  if (const Json* value = FindField(schema, "const")) return value->is_null();
  const Json* values = FindField(schema, "enum");
  return values != nullptr && values->is_array() && values->size() == 1 && (*values)[0].is_null();
}

Result<const Json*> SchemaResolver::Find(const std::string& pointer) const {
  const Status nowhere = InvalidArgument("\"$ref\": \"" + pointer + "\" does not lead to a schema of this document");
  if (pointer.empty() || pointer[0] != '#') return nowhere;
  const Json* at = &root_;
  std::string_view rest = std::string_view(pointer).substr(1);
  while (!rest.empty()) {
    if (rest[0] != '/') return nowhere;
    rest.remove_prefix(1);
    const std::string part = Unescape(rest.substr(0, rest.find('/')));
    rest.remove_prefix(std::min(rest.find('/'), rest.size()));
    if (at->is_array()) {
      if (part.empty() || part.size() > 9 || part.find_first_not_of("0123456789") != std::string::npos) return nowhere;
      const size_t index = std::stoul(part);
      if (index >= at->size()) return nowhere;
      at = &(*at)[index];
    } else {
      at = FindField(*at, part);
      if (at == nullptr) return nowhere;
    }
  }
  if (!at->is_object() && !at->is_boolean()) return nowhere;
  return at;
}

bool SchemaResolver::IsOpen(const std::string& pointer) const {
  return std::find(open_.begin(), open_.end(), pointer) != open_.end();
}

Status SchemaResolver::FollowRefs(Json* schema) {
  for (int i = 0; i < kMaxRefChain; ++i) {
    const std::string* ref = RefOf(*schema);
    if (ref == nullptr || IsOpen(*ref)) return {};
    const std::string pointer = *ref;
    GPTOSS_ASSIGN_OR_RETURN(const Json* target, Find(pointer));
    copied_ += WriteJson(*target).size();
    if (copied_ > kMaxCopiedBytes) return ResourceExhausted("the schema's \"$ref\"s expand to too much; simplify it");
    open_.push_back(pointer);
    schema->erase("$ref");
    if (target->is_boolean()) {
      if (schema->empty() || !target->get<bool>()) *schema = *target;
      return {};
    }
    Json merged = *schema;
    if (MergeInto(*target, &merged)) {
      *schema = std::move(merged);
    } else {
      *schema = Json{{"allOf", {*target, *schema}}};
    }
  }
  return ResourceExhausted("a chain of \"$ref\"s is longer than " + std::to_string(kMaxRefChain));
}

Status SchemaResolver::MergeAllOf(Json* schema, int depth) {
  const Json* all_of = FindField(*schema, "allOf");
  if (all_of == nullptr || !all_of->is_array() || all_of->empty()) return {};
  std::vector<Json> members;
  for (const Json& member : *all_of) {
    GPTOSS_ASSIGN_OR_RETURN(Json resolved, ResolveAt(member, depth + 1));
    members.push_back(std::move(resolved));
  }
  Json base = *schema;
  base.erase("allOf");
  Json apart = Json::array();
  for (Json& member : members) {
    Json merged = base;
    // A reference to an open type has only its name, and joins others as `&`.
    const bool alone = RefOf(member) != nullptr || RefOf(base) != nullptr;
    if (!alone && MergeInto(member, &merged)) {
      base = std::move(merged);
    } else if (alone && base.empty() && members.size() == 1) {
      base = std::move(member);
    } else {
      apart.push_back(std::move(member));
    }
  }
  if (!apart.empty()) base["allOf"] = std::move(apart);
  *schema = std::move(base);
  return {};
}

Result<Json> SchemaResolver::ResolveAt(const Json& schema, int depth) {
  if (depth > kMaxRefChain) return ResourceExhausted("the schema nests allOf too deeply");
  if (!schema.is_object()) return schema;
  Json out = schema;
  // A merged target may bring references, allOf and unions of its own.
  for (int i = 0; i < kMaxRefChain; ++i) {
    const size_t opened = open_.size();
    GPTOSS_RETURN_IF_ERROR(FollowRefs(&out));
    if (!out.is_object()) return out;
    const bool had_all_of = FindField(out, "allOf") != nullptr;
    GPTOSS_RETURN_IF_ERROR(MergeAllOf(&out, depth));
    const bool was_nullable = TakeNullable(&out);
    if (open_.size() == opened && !had_all_of && !was_nullable) break;
    if (FindField(out, "allOf") != nullptr) break;  // what is left cannot be merged
  }
  return out;
}

Result<Json> SchemaResolver::Resolve(const Json& schema) {
  if (schema.is_object()) {
    const bool plain = !schema.contains("$ref") && !schema.contains("allOf") && !schema.contains("anyOf");
    if (!plain) {
      copied_ += WriteJson(schema).size();
      if (copied_ > kMaxCopiedBytes) return ResourceExhausted("the schema expands to too much; simplify it");
    }
  }
  return ResolveAt(schema, 0);
}

std::string SchemaResolver::Use(const std::string& pointer) {
  used_.insert(pointer);
  const auto it = names_.find(pointer);
  if (it != names_.end()) return it->second;
  std::string name = pointer == "#" ? "Root" : Unescape(pointer.substr(pointer.rfind('/') + 1));
  for (char& c : name) {
    if (static_cast<signed char>(c) >= 0 && !std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  if (name.empty() || std::isdigit(static_cast<unsigned char>(name[0]))) name = "Type" + name;
  std::string unique = name;
  const auto taken = [&](const std::string& candidate) {
    return std::any_of(names_.begin(), names_.end(), [&](const auto& item) { return item.second == candidate; });
  };
  for (int n = 2; taken(unique); ++n) unique = name + std::to_string(n);
  return names_[pointer] = unique;
}

std::vector<std::string> SchemaResolver::UsedSince(size_t mark) const {
  std::vector<std::string> out;
  for (size_t i = mark; i < open_.size(); ++i) {
    if (used_.contains(open_[i])) out.push_back(names_.at(open_[i]));
  }
  return out;
}

}  // namespace gptoss
