// The op tables of all CPU targets in this build.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "backends/cpu/kernels.h"
#include "ops/ops.h"

namespace gptoss::cpu {

struct Target {
  std::string_view name;
  int64_t highway_target;  // HWY_AVX2 …
  const Kernels* kernels;
  const Ops* fast;
  const Ops* exact;
  const char* (*why_not)() = nullptr;  // asked besides Highway, if there is more to ask
  std::string_view extends = {};       // the target whose kernels it has for all else
};

/// Best last.
std::span<const Target> Targets();

/// Null when this machine and its operating system can run `target`, else why not.
const char* WhyUnavailable(const Target& target);

inline bool IsAvailable(const Target& target) { return WhyUnavailable(target) == nullptr; }

}  // namespace gptoss::cpu
