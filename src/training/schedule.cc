#include "training/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

namespace gptoss {
namespace {

constexpr std::array<std::pair<ScheduleKind, std::string_view>, 3> kNames = {
    {{ScheduleKind::kConstant, "constant"}, {ScheduleKind::kLinear, "linear"}, {ScheduleKind::kCosine, "cosine"}}};

}  // namespace

std::string_view ScheduleName(ScheduleKind kind) { return kNames[static_cast<size_t>(kind)].second; }

std::optional<ScheduleKind> ScheduleFromName(std::string_view name) {
  for (const auto& [kind, own] : kNames) {
    if (own == name) return kind;
  }
  return std::nullopt;
}

double LearningRate(const Schedule& s, int64_t step) {
  if (step < s.warmup_steps) {
    return s.peak * static_cast<double>(step + 1) / static_cast<double>(s.warmup_steps);
  }
  const int64_t span = std::max<int64_t>(1, s.total_steps - s.warmup_steps);
  const double done = std::min(1.0, static_cast<double>(step - s.warmup_steps) / static_cast<double>(span));
  double share = 1.0;  // of the way from the floor to the peak
  if (s.kind == ScheduleKind::kLinear) share = 1.0 - done;
  if (s.kind == ScheduleKind::kCosine) share = 0.5 * (1.0 + std::cos(std::numbers::pi * done));
  return s.peak * (s.floor + (1.0 - s.floor) * share);
}

}  // namespace gptoss
