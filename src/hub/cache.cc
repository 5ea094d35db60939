#include "hub/cache.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/mmap_file.h"
#include "hub/names.h"
#include "json/json.h"

namespace gptoss::hub {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kManifestVersion = 1;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

Result<std::string> ModelsDirOrDefault(const std::string& models_dir) {
  if (!models_dir.empty()) return models_dir;
  return DefaultModelsDir();
}

Result<Manifest> ParseManifest(std::string_view text) {
  GPTOSS_ASSIGN_OR_RETURN(const Json root, ParseJson(text));
  GPTOSS_ASSIGN_OR_RETURN(const int64_t version, GetInt(root, "version"));
  if (version != kManifestVersion) return Unsupported("written by another version of gptoss");
  Manifest manifest;
  const auto text_field = [&](std::string_view key) {
    const std::string* value = FindString(root, key);
    return value == nullptr ? std::string() : *value;
  };
  manifest.repo = text_field("repo");
  manifest.revision = text_field("revision");
  manifest.commit = text_field("commit");
  manifest.endpoint = text_field("endpoint");
  const Json* files = FindField(root, "files");
  if (files == nullptr || !files->is_array()) return CorruptData("\"files\" is missing");
  for (const Json& entry : *files) {
    const std::string* path = FindString(entry, "path");
    const std::string* digest = FindString(entry, "digest");
    if (path == nullptr || digest == nullptr) return CorruptData("an entry of \"files\" is malformed");
    GPTOSS_RETURN_IF_ERROR(ValidateRemotePath(*path));
    GPTOSS_ASSIGN_OR_RETURN(const int64_t size, GetInt(entry, "size"));
    GPTOSS_ASSIGN_OR_RETURN(const Digest parsed, Digest::FromString(*digest));
    if (size < 0) return CorruptData("\"size\" is negative");
    manifest.files.push_back({*path, static_cast<uint64_t>(size), parsed});
  }
  return manifest;
}

}  // namespace

Result<std::string> DefaultModelsDir() {
  if (const std::string home = Environment("GPTOSS_HOME"); !home.empty()) return home + "/models";
  if (const std::string data = Environment("XDG_DATA_HOME"); !data.empty()) return data + "/gptoss/models";
  if (const std::string home = Environment("HOME"); !home.empty()) return home + "/.local/share/gptoss/models";
  return NotFound("no folder for models: set GPTOSS_HOME (or HOME)");
}

Result<std::string> FindPulledModel(std::string_view name, const std::string& models_dir) {
  GPTOSS_ASSIGN_OR_RETURN(const std::string repo, ResolveRepoName(name));
  GPTOSS_ASSIGN_OR_RETURN(const std::string dir, ModelsDirOrDefault(models_dir));
  const fs::path folder = fs::path(dir) / FolderName(repo);
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    return NotFound(repo + " is not in " + dir + "; fetch it with: gptoss pull " + std::string(name));
  }
  if (!fs::exists(folder / "config.json", error) && fs::exists(folder / "original" / "config.json", error)) {
    return (folder / "original").string();
  }
  return folder.string();
}

Result<std::vector<PulledModel>> ListPulledModels(const std::string& models_dir) {
  GPTOSS_ASSIGN_OR_RETURN(const std::string dir, ModelsDirOrDefault(models_dir));
  std::vector<PulledModel> models;
  std::error_code error;
  if (!fs::exists(dir, error)) return models;
  fs::directory_iterator it(dir, error), end;
  for (; !error && it != end; it.increment(error)) {
    const std::string folder = it->path().filename().string();
    const size_t separator = folder.find("--");
    if (separator == std::string::npos) continue;
    const auto repo = ResolveRepoName(folder.substr(0, separator) + "/" + folder.substr(separator + 2));
    if (!repo.ok()) continue;  // also what is unfinished: "*.partial"
    const Result<Manifest> manifest = ReadManifest(it->path().string());
    if (!manifest.ok()) continue;
    PulledModel model{*repo, it->path().string(), manifest->commit, 0};
    for (const RemoteFile& file : manifest->files) model.bytes += file.size;
    models.push_back(std::move(model));
  }
  if (error) return IoError(dir + ": " + error.message());
  std::sort(models.begin(), models.end(), [](const auto& a, const auto& b) { return a.repo < b.repo; });
  return models;
}

const RemoteFile* Manifest::Find(std::string_view path) const {
  const auto it = std::find_if(files.begin(), files.end(), [&](const RemoteFile& f) { return f.path == path; });
  return it == files.end() ? nullptr : &*it;
}

Result<Manifest> ReadManifest(const std::string& folder) {
  const std::string path = folder + "/" + std::string(kManifestName);
  GPTOSS_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  Result<Manifest> manifest = ParseManifest(text);
  if (!manifest.ok()) return manifest.status().WithContext(path);
  return manifest;
}

Status WriteManifest(const std::string& folder, const Manifest& manifest) {
  Json files = Json::array();
  for (const RemoteFile& file : manifest.files) {
    files.push_back({{"path", file.path}, {"size", file.size}, {"digest", file.digest.ToString()}});
  }
  const Json root = {{"version", kManifestVersion}, {"repo", manifest.repo},         {"revision", manifest.revision},
                     {"commit", manifest.commit},   {"endpoint", manifest.endpoint}, {"files", std::move(files)}};
  return WriteFileAtomically(folder + "/" + std::string(kManifestName), WriteJson(root, 1) + "\n");
}

}  // namespace gptoss::hub
