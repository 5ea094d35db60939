// JSON pointers (RFC 6901) into a schema, and the errors that name a place by one.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace gptoss {

/// "/" and `key` as one token of a pointer.
std::string PointerToken(std::string_view key);
/// The key that a token without its "/" stands for, inside the fragment of a URI: %20, ~0 and ~1 are undone.
std::string KeyOfPointerToken(std::string_view token);

/// "schema POINTER: WHAT", as kInvalidArgument and as kUnsupported.
Status InvalidSchema(const std::string& pointer, const std::string& what);
Status UnsupportedSchema(const std::string& pointer, const std::string& what);

}  // namespace gptoss
