#include <CLI/Version.hpp>
#include <cstdio>
#include <thread>

#include "backends/registry.h"
#include "commands.h"
#include "engine/memory_plan.h"
#include "json/json.h"
#include "progress.h"

namespace gptoss::cli {
namespace {

std::string Compiler() {
#if defined(__clang__)
  return "clang " + std::to_string(__clang_major__) + "." + std::to_string(__clang_minor__);
#else
  return "g++ " + std::to_string(__GNUC__) + "." + std::to_string(__GNUC_MINOR__);
#endif
}

Json GpusJson(const Result<std::vector<GpuInfo>>& gpus) {
  Json list = Json::array();
  if (!gpus.ok()) return list;
  for (const GpuInfo& gpu : *gpus) {
    list.push_back({{"index", gpu.index},
                    {"name", gpu.name},
                    {"compute_capability", gpu.capability / 10.0},
                    {"memory_bytes", gpu.memory_bytes}});
  }
  return list;
}

void PrintGpus(const Result<std::vector<GpuInfo>>& gpus) {
  if (!gpus.ok()) return void(std::printf("GPU: none; %s\n", gpus.status().message().c_str()));
  if (gpus->empty()) std::printf("GPU: none\n");
  for (const GpuInfo& gpu : *gpus) {
    std::printf("GPU %d: %s, compute capability %d.%d, %s\n", gpu.index, gpu.name.c_str(), gpu.capability / 10,
                gpu.capability % 10, FormatBytes(static_cast<double>(gpu.memory_bytes)).c_str());
  }
}

int RunInfo(bool json) {
  const auto chosen = CpuOps("", Precision::kFast);
  if (!chosen.ok()) return Fail(chosen.status());
  const auto gpus = ListGpus();
  const std::string cuda = CudaVersion();
  Json targets = Json::array();
  for (const CpuTarget& t : ListCpuTargets()) targets.push_back({{"name", t.name}, {"available", t.available}});
  const Json document = {
      {"version", GPTOSS_VERSION},
      {"build",
       {{"compiler", Compiler()}, {"type", GPTOSS_BUILD_TYPE}, {"cuda", cuda.empty() ? Json(nullptr) : Json(cuda)}}},
      {"cpu", {{"threads", std::thread::hardware_concurrency()}, {"targets", targets}, {"chosen", (*chosen)->name}}},
      {"gpus", GpusJson(gpus)},
      {"memory_available_bytes", AvailableMemory()},
      {"libraries",
       {{"CLI11", CLI11_VERSION},
        {"nlohmann-json", std::to_string(NLOHMANN_JSON_VERSION_MAJOR) + "." +
                              std::to_string(NLOHMANN_JSON_VERSION_MINOR) + "." +
                              std::to_string(NLOHMANN_JSON_VERSION_PATCH)}}}};
  if (json) {
    std::printf("%s\n", WriteJson(document).c_str());
    return 0;
  }
  std::printf("gptoss %s (%s, %s, %s)\n", GPTOSS_VERSION, Compiler().c_str(), GPTOSS_BUILD_TYPE,
              cuda.empty() ? "without CUDA" : ("CUDA " + cuda).c_str());
  std::printf("CPU: %u threads; targets:", std::thread::hardware_concurrency());
  for (const CpuTarget& t : ListCpuTargets()) std::printf(" %s%s", t.name.c_str(), t.available ? "" : " (not here)");
  std::printf("; in use: %s\n", std::string((*chosen)->name).c_str());
  PrintGpus(gpus);
  std::printf("memory available: %s\n", FormatBytes(static_cast<double>(AvailableMemory())).c_str());
  return 0;
}

}  // namespace

void RegisterInfo(CLI::App& app, int* exit_code) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("info", "Version, build, and what this machine offers");
  command->add_flag("--json", *json, "One JSON document");
  command->callback([json, exit_code] { *exit_code = RunInfo(*json); });
}

}  // namespace gptoss::cli
