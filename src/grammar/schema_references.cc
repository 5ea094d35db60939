#include "grammar/schema_references.h"

#include <algorithm>
#include <string_view>

#include "grammar/schema_pointer.h"

namespace gptoss {
namespace {

constexpr int kMaxNesting = 128;

}  // namespace

Result<SchemaReferences> SchemaReferences::Create(const Json& root) {
  SchemaReferences references(root);
  GPTOSS_RETURN_IF_ERROR(references.IndexAnchors(root, "#", 0));
  return references;
}

Status SchemaReferences::IndexAnchors(const Json& json, const std::string& pointer, int depth) {
  if (depth > kMaxNesting) return InvalidSchema(pointer, "is nested too deeply");
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
    GPTOSS_RETURN_IF_ERROR(IndexAnchors(value, pointer + PointerToken(key), depth + 1));
  }
  return {};
}

Result<SchemaRef> SchemaReferences::Resolve(const std::string& ref, const std::string& pointer) const {
  const std::string at = pointer + "/$ref";
  std::string_view fragment = ref;
  const std::string* id = root_->is_object() ? FindString(*root_, "$id") : nullptr;
  if (id != nullptr && !id->empty() && ref.starts_with(*id)) fragment.remove_prefix(id->size());
  if (fragment.empty()) return root();
  if (!fragment.starts_with('#')) {
    return UnsupportedSchema(at, "$ref '" + ref + "' leads out of the schema; put its target into $defs");
  }
  fragment.remove_prefix(1);
  if (fragment.empty()) return root();
  if (!fragment.starts_with('/')) {
    const auto it = anchors_.find(std::string(fragment));
    if (it == anchors_.end()) return InvalidSchema(at, "there is no $anchor '" + std::string(fragment) + "'");
    return it->second;
  }
  return FollowPointer(fragment, ref, at);
}

Result<SchemaRef> SchemaReferences::FollowPointer(std::string_view fragment, const std::string& ref,
                                                  const std::string& at) const {
  SchemaRef found = root();
  while (!fragment.empty()) {
    fragment.remove_prefix(1);
    const size_t end = std::min(fragment.find('/'), fragment.size());
    const std::string token = KeyOfPointerToken(fragment.substr(0, end));
    fragment.remove_prefix(end);
    const Json* next = nullptr;
    if (found.json->is_object()) {
      next = FindField(*found.json, token);
      if (token == "$id" || (found.json != root_ && FindString(*found.json, "$id") != nullptr)) {
        return UnsupportedSchema(at, "$ref across a nested $id is not supported");
      }
    } else if (found.json->is_array() && !token.empty() && token.size() < 9 &&
               std::all_of(token.begin(), token.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      const size_t index = std::stoul(token);
      if (index < found.json->size()) next = &(*found.json)[index];
    }
    if (next == nullptr) return InvalidSchema(at, "'" + ref + "' does not exist");
    found = {next, found.pointer + PointerToken(token)};
  }
  return found;
}

}  // namespace gptoss
