#include "grammar/schema_shape.h"

#include <algorithm>
#include <set>

#include "grammar/char_dfa.h"

namespace gptoss {

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

}  // namespace gptoss
