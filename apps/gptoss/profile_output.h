// Stage timings (--profile) for programs and for people.
#pragma once

#include <string>
#include <string_view>

#include "engine/traffic.h"
#include "json/json.h"

namespace gptoss::cli {

/// {"wall_s", "waiting_s", "passes", "rows", "experts_per_layer", "bytes", "stages": {NAME: {"s", "percent", "gb_s"}}}
Json ProfileJson(const StageReport& report);

/// A table, one stage a line, milliseconds a pass. Ends with a newline.
std::string ProfileTable(std::string_view phase, const StageReport& report);

}  // namespace gptoss::cli
