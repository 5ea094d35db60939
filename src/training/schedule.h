// The learning rate over the steps of a run.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace gptoss {

/// kWsd: warm-up, constant, then linear over the last decay_steps (Hu et al., arXiv 2404.06395, section 4). Until the
/// decay begins the run's length may still change.
enum class ScheduleKind : uint8_t { kConstant, kLinear, kCosine, kWsd };
std::string_view ScheduleName(ScheduleKind kind);  // "constant", "linear", "cosine", "wsd"
std::optional<ScheduleKind> ScheduleFromName(std::string_view name);

struct Schedule {
  ScheduleKind kind = ScheduleKind::kCosine;
  double peak = 1e-4;
  int64_t warmup_steps = 0;   // the rate rises linearly; its first step has peak / warmup_steps
  int64_t total_steps = 100;  // at and after which all but constant rest at floor * peak
  int64_t decay_steps = 0;    // of kWsd
  double floor = 0.1;
};

/// The rate of step `step`, counted from 0.
double LearningRate(const Schedule& schedule, int64_t step);

}  // namespace gptoss
