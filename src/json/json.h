// JSON for the whole program: the library's ordered type behind a parser with limits. Key order is kept.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace gptoss {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  size_t max_bytes = 64u << 20;
  int max_depth = 128;
};

/// Parses one document. On failure: kCorruptData with the byte offset, kResourceExhausted past a limit. Never throws.
/// Duplicate keys: the last one wins, as the library does. Text that is not UTF-8 is an error.
Result<Json> ParseJson(std::string_view text, const JsonLimits& limits = {});

/// One line of JSON; strings that are not UTF-8 are written with U+FFFD in place of what is broken. Never throws.
std::string WriteJson(const Json& value, int indent = -1);

// Typed access that cannot throw: null when the key is absent or has another type.
const Json* FindField(const Json& object, std::string_view key);
const std::string* FindString(const Json& object, std::string_view key);

/// An integer field (also an integral float such as 32.0). On failure: kCorruptData naming `key`.
Result<int64_t> GetInt(const Json& object, std::string_view key);
Result<double> GetDouble(const Json& object, std::string_view key);

}  // namespace gptoss
