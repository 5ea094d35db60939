#include "training/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

namespace gptoss {
namespace {

constexpr std::array<std::pair<ScheduleKind, std::string_view>, 4> kNames = {{{ScheduleKind::kConstant, "constant"},
                                                                              {ScheduleKind::kLinear, "linear"},
                                                                              {ScheduleKind::kCosine, "cosine"},
                                                                              {ScheduleKind::kWsd, "wsd"}}};

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
  const int64_t begin =
      s.kind == ScheduleKind::kWsd ? std::max(s.warmup_steps, s.total_steps - s.decay_steps) : s.warmup_steps;
  const int64_t span = std::max<int64_t>(1, s.total_steps - begin);
  const double done = std::clamp(static_cast<double>(step - begin) / static_cast<double>(span), 0.0, 1.0);
  double share = 1.0;  // of the way from the floor to the peak
  if (s.kind == ScheduleKind::kLinear || s.kind == ScheduleKind::kWsd) share = 1.0 - done;
  if (s.kind == ScheduleKind::kCosine) share = 0.5 * (1.0 + std::cos(std::numbers::pi * done));
  return s.peak * (s.floor + (1.0 - s.floor) * share);
}

}  // namespace gptoss
