#include "server/api/fields.h"

#include <algorithm>
#include <cmath>

namespace gptoss::server {
namespace {

/// As people write it: 2 rather than 2.000000.
std::string Shown(double value) {
  return Json(value == std::floor(value) ? Json(static_cast<int64_t>(value)) : Json(value)).dump();
}

}  // namespace

std::string Quoted(std::string_view text) {
  constexpr size_t kMax = 64;
  size_t end = std::min(text.size(), kMax);
  while (end < text.size() && end > 0 && (static_cast<uint8_t>(text[end]) & 0xc0) == 0x80) --end;
  std::string out = "'";
  for (const char c : text.substr(0, end)) out += static_cast<uint8_t>(c) < 0x20 ? ' ' : c;
  return out + (end < text.size() ? "…'" : "'");
}

std::string Indexed(std::string_view path, size_t index) {
  return std::string(path) + "[" + std::to_string(index) + "]";
}

FieldReader::FieldReader(const Json& json, std::string path) : json_(&json), path_(std::move(path)) {
  if (!json.is_object()) status_ = InvalidArgument((path_.empty() ? "body" : path_) + ": must be an object");
}

std::string FieldReader::Path(std::string_view key) const {
  return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
}

void FieldReader::Fail(std::string_view key, std::string_view what) {
  if (status_.ok()) status_ = InvalidArgument(Path(key) + ": " + std::string(what));
}

const Json* FieldReader::Find(std::string_view key) const {
  const Json* field = FindField(*json_, key);
  return field == nullptr || field->is_null() ? nullptr : field;
}

const Json* FieldReader::Array(std::string_view key) {
  const Json* field = Find(key);
  if (field == nullptr || field->is_array()) return field;
  Fail(key, "must be an array");
  return nullptr;
}

const Json* FieldReader::Object(std::string_view key) {
  const Json* field = Find(key);
  if (field == nullptr || field->is_object()) return field;
  Fail(key, "must be an object");
  return nullptr;
}

std::optional<bool> FieldReader::Bool(std::string_view key) {
  const Json* field = Find(key);
  if (field == nullptr) return std::nullopt;
  if (field->is_boolean()) return field->get<bool>();
  Fail(key, "must be true or false");
  return std::nullopt;
}

std::optional<int64_t> FieldReader::Int(std::string_view key, int64_t min, int64_t max) {
  if (Find(key) == nullptr) return std::nullopt;
  const auto value = GetInt(*json_, key);
  if (value.ok() && *value >= min && *value <= max) return *value;
  Fail(key, "must be an integer from " + std::to_string(min) + " to " + std::to_string(max));
  return std::nullopt;
}

std::optional<double> FieldReader::Number(std::string_view key, double min, double max) {
  const Json* field = Find(key);
  if (field == nullptr) return std::nullopt;
  if (field->is_number()) {
    const double value = field->get<double>();
    if (value >= min && value <= max) return value;
  }
  Fail(key, "must be a number from " + Shown(min) + " to " + Shown(max));
  return std::nullopt;
}

std::optional<std::string> FieldReader::String(std::string_view key) {
  const Json* field = Find(key);
  if (field == nullptr) return std::nullopt;
  if (field->is_string()) return field->get<std::string>();
  Fail(key, "must be a string");
  return std::nullopt;
}

std::string FieldReader::RequiredString(std::string_view key) {
  if (Find(key) == nullptr) Fail(key, "is missing");
  return String(key).value_or("");
}

}  // namespace gptoss::server
