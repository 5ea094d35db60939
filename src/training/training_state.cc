#include "training/training_state.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "base/mmap_file.h"
#include "checkpoint/output.h"
#include "checkpoint/xxh64.h"
#include "json/json.h"

namespace gptoss {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "state.bin holds floats as they lie in memory");

constexpr int kVersion = 1;
constexpr char kPrefix[] = "step-";
constexpr char kFloatMoments[] = "float";
constexpr uint64_t kSlackBytes = 1 << 20;

std::string StateName(int64_t step) {
  char name[32];
  std::snprintf(name, sizeof(name), "%s%08lld", kPrefix, static_cast<long long>(step));
  return name;
}

/// Names of complete states, oldest first; the digits are padded, longer numbers sort after shorter ones.
std::vector<std::string> StateNames(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const bool digits = name.size() > 5 && name.find_first_not_of("0123456789", 5) == std::string::npos;
    if (name.starts_with(kPrefix) && digits && fs::exists(it->path() / "state.json")) names.push_back(name);
  }
  std::sort(names.begin(), names.end(),
            [](const std::string& a, const std::string& b) { return std::pair(a.size(), a) < std::pair(b.size(), b); });
  return names;
}

std::string Hex(uint64_t value) {
  char text[20];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(value));
  return text;
}

uint64_t TotalBytes(const Trainer::State& state) {
  uint64_t bytes = 0;
  for (const std::span<const std::byte> array : state.Arrays()) bytes += array.size();
  return bytes;
}

/// What must be the same for a run to go on as if it had never stopped.
Json RunJson(const Trainer& trainer, uint64_t data_fingerprint) {
  const TrainerOptions& o = trainer.options();
  Json json = {{"model", HfConfigJson(trainer.model().config())},
               {"data", Hex(data_fingerprint)},
               {"seed", o.seed},
               {"batch_tokens", o.batch_tokens},
               {"accumulation", o.accumulation},
               {"moments", o.byte_moments ? "bytes" : kFloatMoments}};
  const Json identity = trainer.model().Identity();
  for (const auto& [key, value] : identity.items()) json[key] = value;
  return json;
}

/// Older states lack what did not exist when they were written; it had its default then.
bool IsDefault(const std::string& key, const Json& value) {
  return value.empty() || value == false || value == 0 || (key == "moments" && value == kFloatMoments);
}

Result<Json> ReadStateJson(const std::string& path) {
  const std::string file = path + "/state.json";
  GPTOSS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(file, kSlackBytes));
  Result<Json> json = ParseJson(text);
  if (!json.ok()) return json.status().WithContext(file);
  const Result<int64_t> version = GetInt(*json, "version");
  if (!version.ok()) return version.status().WithContext(file);
  if (*version != kVersion) {
    return Unsupported(file + ": version " + std::to_string(*version) + "; this program reads version " +
                       std::to_string(kVersion));
  }
  if (FindField(*json, "run") == nullptr || FindField(*json, "checksums") == nullptr) {
    return CorruptData(file + ": \"run\" or \"checksums\" is missing");
  }
  return json;
}

/// All arrays of `state`, which have their sizes, checked against their sums.
Status ReadArrays(const std::string& path, const Json& checksums, Trainer::State* state) {
  const std::string file = path + "/state.bin";
  GPTOSS_ASSIGN_OR_RETURN(const MappedFile in, MappedFile::Open(file));
  uint64_t offset = 0;
  size_t index = 0;
  if (const uint64_t bytes = TotalBytes(*state); in.size() != bytes) {
    return CorruptData(file + ": has " + std::to_string(in.size()) + " bytes, the model needs " +
                       std::to_string(bytes));
  }
  for (const std::span<std::byte> array : state->Arrays()) {
    GPTOSS_RETURN_IF_ERROR(in.ReadAt(offset, array));
    const bool has_sum = checksums.is_array() && index < checksums.size() && checksums[index].is_string();
    if (!has_sum || checksums[index].get<std::string>() != Hex(Xxh64(array))) {
      return CorruptData(file + ": its checksum differs from state.json; the file is damaged");
    }
    offset += array.size();
    ++index;
  }
  return Status();
}

}  // namespace

std::optional<std::string> NewestState(const std::string& directory) {
  const std::vector<std::string> names = StateNames(directory);
  if (names.empty()) return std::nullopt;
  return (fs::path(directory) / names.back()).string();
}

Status SaveState(const Trainer& trainer, uint64_t data_fingerprint, const std::string& directory, int keep) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) return IoError(directory + ": cannot be made: " + error.message());
  const Trainer::State& state = trainer.state();
  const std::string path = (fs::path(directory) / StateName(state.step)).string();
  GPTOSS_ASSIGN_OR_RETURN(StagedPath staged, StagedPath::Create(path, true, TotalBytes(state) + kSlackBytes));
  GPTOSS_ASSIGN_OR_RETURN(OutputFile arrays, OutputFile::Create(staged.staged() + "/state.bin"));
  Json checksums = Json::array();
  uint64_t offset = 0;
  for (const std::span<const std::byte> array : state.Arrays()) {
    GPTOSS_RETURN_IF_ERROR(arrays.WriteAt(offset, array));
    checksums.push_back(Hex(Xxh64(array)));
    offset += array.size();
  }
  GPTOSS_RETURN_IF_ERROR(arrays.Finish());
  const Json json = {{"version", kVersion},
                     {"step", state.step},
                     {"epoch", state.position.epoch},
                     {"index", state.position.index},
                     {"run", RunJson(trainer, data_fingerprint)},
                     {"checksums", std::move(checksums)}};
  GPTOSS_ASSIGN_OR_RETURN(OutputFile text, OutputFile::Create(staged.staged() + "/state.json"));
  GPTOSS_RETURN_IF_ERROR(text.WriteAt(0, WriteJson(json, 2) + "\n"));
  GPTOSS_RETURN_IF_ERROR(text.Finish());
  GPTOSS_RETURN_IF_ERROR(staged.Commit());
  const std::vector<std::string> names = StateNames(directory);
  for (size_t i = 0; i + static_cast<size_t>(std::max(1, keep)) < names.size(); ++i) {
    fs::remove_all(fs::path(directory) / names[i], error);  // an old state that stays does no harm
  }
  return Status();
}

Result<ModelConfig> ReadStateConfig(const std::string& path) {
  GPTOSS_ASSIGN_OR_RETURN(const Json json, ReadStateJson(path));
  const Json* model = FindField(*FindField(json, "run"), "model");
  if (model == nullptr) return CorruptData(path + "/state.json: \"run\" has no \"model\"");
  Result<ModelConfig> config = ParseHfConfig(*model);
  if (!config.ok()) return config.status().WithContext(path + "/state.json");
  return config;
}

Status LoadState(const std::string& path, uint64_t data_fingerprint, Trainer* trainer) {
  GPTOSS_ASSIGN_OR_RETURN(const Json json, ReadStateJson(path));
  const Json now = RunJson(*trainer, data_fingerprint);
  for (const auto& [key, value] : now.items()) {
    const Json* before = FindField(*FindField(json, "run"), key);
    if (before == nullptr && IsDefault(key, value)) continue;
    if (before == nullptr || *before != value) {
      return InvalidArgument(path + ": was written by a run with another \"" + key +
                             "\"; give the same, or train into another directory");
    }
  }
  Trainer::State state = trainer->state();  // for the sizes of its arrays
  GPTOSS_ASSIGN_OR_RETURN(state.step, GetInt(json, "step"));
  GPTOSS_ASSIGN_OR_RETURN(state.position.epoch, GetInt(json, "epoch"));
  GPTOSS_ASSIGN_OR_RETURN(state.position.index, GetInt(json, "index"));
  GPTOSS_RETURN_IF_ERROR(ReadArrays(path, *FindField(json, "checksums"), &state));
  return trainer->Restore(std::move(state));
}

}  // namespace gptoss
