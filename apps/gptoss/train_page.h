// The page with the curves of a training run: one HTML file without scripts or anything from elsewhere.
#pragma once

#include <string>
#include <vector>

#include "json/json.h"

namespace gptoss::cli {

/// `lines` are those of metrics.jsonl. Numbers that are missing or not finite are left out of their curve.
std::string CurvesPage(const std::string& title, const std::vector<Json>& lines);

}  // namespace gptoss::cli
