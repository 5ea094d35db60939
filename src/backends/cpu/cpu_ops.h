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
};

/// Best last.
std::span<const Target> Targets();

/// This machine and its operating system can run `target`.
bool IsAvailable(const Target& target);

}  // namespace gptoss::cpu
