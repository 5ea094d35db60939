// JSON of checkpoint files, where a repeated key means a broken or hostile file: it would let two readers see two
// different tensors under one name.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/status.h"

namespace gptoss {

/// Objects as sorted maps: documents with very many keys stay cheap to look up.
using MapJson = nlohmann::json;

/// Parses one document. On failure: kCorruptData (bad UTF-8, bad syntax, a key that occurs twice in one object, named)
/// or kResourceExhausted (nested deeper than `max_depth`). Never throws.
Result<MapJson> ParseStrictJson(std::string_view text, int max_depth = 16);

}  // namespace gptoss
