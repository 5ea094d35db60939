#include "backends/registry.h"

#include <cstdlib>

#include "backends/cpu/cpu_ops.h"
#include "backends/cuda/scratch_plan.h"

namespace gptoss {
namespace {

std::string AvailableNames() {
  std::string names;
  for (const cpu::Target& target : cpu::Targets()) {
    if (cpu::IsAvailable(target)) names += (names.empty() ? "" : ", ") + std::string(target.name);
  }
  return names;
}

}  // namespace

std::vector<CpuTarget> ListCpuTargets() {
  std::vector<CpuTarget> list;
  for (const cpu::Target& target : cpu::Targets()) list.push_back({std::string(target.name), cpu::IsAvailable(target)});
  return list;
}

Result<const Ops*> CpuOps(const std::string& target, Precision precision) {
  const char* environment = std::getenv("GPTOSS_CPU");
  const bool from_environment = target.empty() && environment != nullptr && environment[0] != '\0';
  const std::string wanted = from_environment ? environment : target;
  const std::string what = (from_environment ? "GPTOSS_CPU: " : "") + ("CPU target '" + wanted + "'");
  const cpu::Target* chosen = nullptr;
  for (const cpu::Target& candidate : cpu::Targets()) {
    if (wanted.empty() ? cpu::IsAvailable(candidate) : candidate.name == wanted) chosen = &candidate;
  }
  if (chosen == nullptr) return InvalidArgument(what + " does not exist; use one of " + AvailableNames());
  if (!cpu::IsAvailable(*chosen)) {
    return Unsupported(what + " cannot be used: " + cpu::WhyUnavailable(*chosen) + "; use one of " + AvailableNames());
  }
  return precision == Precision::kExact ? chosen->exact : chosen->fast;
}

uint64_t CudaScratchBytes(const StepShape& step) { return cuda::ScratchBytes(step); }

}  // namespace gptoss
