// Fetches a model into the folder of pulled models; the model appears under its name only when complete and checked.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "hub/listing.h"
#include "hub/retry.h"

namespace gptoss::hub {

inline constexpr char kDefaultEndpoint[] = "https://huggingface.co";

struct PullOptions {
  std::string name;  // see ResolveRepoName
  std::string revision = "main";
  std::string endpoint = kDefaultEndpoint;
  std::string token;       // sent to the endpoint's own scheme, host and port only
  std::string models_dir;  // empty: DefaultModelsDir()
  std::string ca_file;     // empty: the system's certificates
  Selection selection;
  int jobs = 4;                      // connections, 1 to 32
  uint64_t chunk_bytes = 64u << 20;  // bytes a request, 64 KiB to 64 GiB
  bool allow_plain_http = false;     // http to hosts other than this machine
  RetryPolicy retry;
  const std::atomic<bool>* cancel = nullptr;
};

struct PullProgress {
  uint64_t bytes_done = 0, bytes_total = 0;
  int files_done = 0, files_total = 0;
  int files_verifying = 0;
};

/// Both are called on the caller's thread.
struct PullEvents {
  std::function<void(const PullProgress&)> progress;
  std::function<void(const std::string&)> note;
};

struct PullSummary {
  std::string repo, revision, commit;
  std::string path;               // the model's folder
  std::vector<RemoteFile> files;  // selected by this call
  uint64_t bytes_total = 0;       // of these
  uint64_t bytes_received = 0;    // over the network in this call
  bool already_complete = false;
};

/// Lists, plans, checks disk space, downloads into "org--repo.partial", checks every file, and renames to "org--repo".
/// A call after an interrupted one fetches only what is missing. A model that is already there is completed or replaced
/// as a whole: files of the same commit are kept, others go. On failure nothing appears under the model's name and what
/// was received is kept: kInvalidArgument (an option), kNotFound, kCorruptData, kResourceExhausted, kIo, kUnsupported,
/// kCancelled.
Result<PullSummary> Pull(const PullOptions& options, const PullEvents& events);

}  // namespace gptoss::hub
