// The folder of pulled models: where it is, what is in it, and the manifest that a finished download leaves.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "hub/listing.h"

namespace gptoss::hub {

inline constexpr std::string_view kManifestName = ".gptoss-pull.json";

/// $GPTOSS_HOME/models, else $XDG_DATA_HOME/gptoss/models, else ~/.local/share/gptoss/models. The folder need not
/// exist. On failure: kNotFound when none of the variables, nor HOME, is set.
Result<std::string> DefaultModelsDir();

/// The checkpoint folder of a model pulled before, for "gpt-oss-20b", "openai/gpt-oss-20b" or any "org/repo": the
/// model's folder, or its "original" folder when only OpenAI's own layout was pulled. `models_dir` empty =
/// DefaultModelsDir. On failure: kInvalidArgument (not a model name), kNotFound with the command that pulls it.
Result<std::string> FindPulledModel(std::string_view name, const std::string& models_dir = "");

struct PulledModel {
  std::string repo;    // "org/repo"
  std::string path;    // folder
  std::string commit;  // from the manifest; may be empty
  uint64_t bytes = 0;  // of the files in the manifest
};

/// Complete models, sorted by name; an absent folder is an empty list. Folders without a manifest are not listed.
Result<std::vector<PulledModel>> ListPulledModels(const std::string& models_dir = "");

/// What was downloaded and checked: written into the folder it describes.
struct Manifest {
  std::string repo, revision, commit, endpoint;
  std::vector<RemoteFile> files;

  /// The entry for `path`, or null.
  const RemoteFile* Find(std::string_view path) const;
};

/// On failure: kNotFound, kIo or kCorruptData naming the file. Paths in it passed ValidateRemotePath.
Result<Manifest> ReadManifest(const std::string& folder);
Status WriteManifest(const std::string& folder, const Manifest& manifest);

}  // namespace gptoss::hub
