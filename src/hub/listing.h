// What a repository holds, as a Hugging Face compatible endpoint lists it, and which of it a model needs.
// Source of the form: GET /api/models/{repo}/revision/{revision}?blobs=true.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "hub/digest.h"

namespace gptoss::hub {

struct RemoteFile {
  std::string path;  // relative, passed ValidateRemotePath
  uint64_t size = 0;
  Digest digest;
};

struct RepoListing {
  std::string commit;  // 40 hexadecimal digits, or empty when the endpoint does not say
  std::vector<RemoteFile> files;
};

inline constexpr size_t kMaxListingBytes = 32u << 20;
inline constexpr size_t kMaxListedFiles = 20000;
inline constexpr uint64_t kMaxFileBytes = uint64_t{1} << 40;
inline constexpr uint64_t kMaxTotalBytes = uint64_t{4} << 40;

/// Parses an answer of the endpoint; total over any bytes. A file whose size is not given is an error, since nothing
/// could be checked or planned. On failure: kCorruptData or kResourceExhausted, naming the file or field.
Result<RepoListing> ParseListing(std::string_view json_text);

struct Selection {
  std::vector<std::string> include = {};  // shell patterns over the whole path ('*' also matches '/'); empty = default
  bool original = false;                  // OpenAI's own layout in original/ instead of the Hugging Face one
};

/// The files to download, sorted by path. Default: config.json, generation_config.json, tokenizer*.json,
/// model*.safetensors and its index, at the top level. `original`: original/* and tokenizer*.json. With `include`, what
/// any pattern matches and nothing else. On failure: kNotFound when nothing, or no weight file by default, is selected.
Result<std::vector<RemoteFile>> SelectFiles(const RepoListing& listing, const Selection& selection);

}  // namespace gptoss::hub
