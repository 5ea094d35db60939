#include "hub/listing.h"

#include <fnmatch.h>

#include <algorithm>

#include "hub/names.h"
#include "json/json.h"

namespace gptoss::hub {
namespace {

/// LFS files carry the checksum of their contents; the others are git blobs.
Result<Digest> ParseDigest(const Json& entry) {
  if (const Json* lfs = FindField(entry, "lfs"); lfs != nullptr && lfs->is_object()) {
    const std::string* hex = FindString(*lfs, "sha256");
    if (hex == nullptr) hex = FindString(*lfs, "oid");
    if (hex == nullptr) return CorruptData("\"lfs\" has neither \"sha256\" nor \"oid\"");
    const std::string_view text = *hex;
    return MakeDigest(DigestKind::kSha256, text.starts_with("sha256:") ? text.substr(7) : text);
  }
  if (const std::string* blob = FindString(entry, "blobId")) return MakeDigest(DigestKind::kGitBlob, *blob);
  return Digest{};
}

Result<uint64_t> ParseSize(const Json& entry) {
  const Json* lfs = FindField(entry, "lfs");
  const bool in_lfs = FindField(entry, "size") == nullptr && lfs != nullptr && FindField(*lfs, "size") != nullptr;
  GPTOSS_ASSIGN_OR_RETURN(const int64_t size, GetInt(in_lfs ? *lfs : entry, "size"));
  if (size < 0 || static_cast<uint64_t>(size) > kMaxFileBytes) {
    return CorruptData("\"size\" is " + std::to_string(size) + ", outside 0 to 1 TiB");
  }
  return static_cast<uint64_t>(size);
}

Result<RemoteFile> ParseEntry(const Json& entry) {
  const std::string* path = FindString(entry, "rfilename");
  if (path == nullptr) return CorruptData("an entry of \"siblings\" has no \"rfilename\"");
  GPTOSS_RETURN_IF_ERROR(ValidateRemotePath(*path));
  Result<uint64_t> size = ParseSize(entry);
  if (!size.ok()) return size.status().WithContext(Printable(*path));
  Result<Digest> digest = ParseDigest(entry);
  if (!digest.ok()) return digest.status().WithContext(Printable(*path));
  return RemoteFile{*path, *size, *digest};
}

/// No two entries of one name, and none that another entry needs as a folder. `files` is sorted by path.
Status CheckDistinct(const std::vector<RemoteFile>& files) {
  for (size_t i = 1; i < files.size(); ++i) {
    if (files[i - 1].path == files[i].path) {
      return CorruptData("the server lists \"" + Printable(files[i].path) + "\" twice");
    }
  }
  const auto by_path = [](const RemoteFile& file, std::string_view path) { return file.path < path; };
  for (const RemoteFile& file : files) {
    for (size_t slash = file.path.find('/'); slash != std::string::npos; slash = file.path.find('/', slash + 1)) {
      const std::string_view folder = std::string_view(file.path).substr(0, slash);
      const auto it = std::lower_bound(files.begin(), files.end(), folder, by_path);
      if (it != files.end() && it->path == folder) {
        return CorruptData("the server lists \"" + Printable(folder) + "\" both as a file and as a folder");
      }
    }
  }
  return Status();
}

bool Matches(const std::string& path, std::string_view pattern) {
  return fnmatch(std::string(pattern).c_str(), path.c_str(), 0) == 0;
}

bool IsDefaultFile(const std::string& path) {
  if (path.find('/') != std::string::npos) return false;
  constexpr std::string_view kNeeded[] = {"config.json", "generation_config.json", "tokenizer*.json",
                                          "model*.safetensors", "model*.safetensors.index.json"};
  return std::any_of(std::begin(kNeeded), std::end(kNeeded), [&](std::string_view p) { return Matches(path, p); });
}

bool IsOriginalFile(const std::string& path) {
  if (path.starts_with("original/")) return true;
  return path.find('/') == std::string::npos && Matches(path, "tokenizer*.json");
}

}  // namespace

Result<RepoListing> ParseListing(std::string_view json_text) {
  GPTOSS_ASSIGN_OR_RETURN(const Json root, ParseJson(json_text, {.max_bytes = kMaxListingBytes, .max_depth = 64}));
  const Json* siblings = FindField(root, "siblings");
  if (siblings == nullptr || !siblings->is_array()) {
    return CorruptData("the endpoint's answer has no list \"siblings\"; is it a Hugging Face compatible endpoint?");
  }
  if (siblings->size() > kMaxListedFiles) {
    return ResourceExhausted("the repository lists " + std::to_string(siblings->size()) + " files; at most " +
                             std::to_string(kMaxListedFiles) + " are supported");
  }
  RepoListing listing;
  if (const std::string* commit = FindString(root, "sha")) {
    GPTOSS_ASSIGN_OR_RETURN(const Digest parsed, MakeDigest(DigestKind::kGitBlob, *commit));
    listing.commit = parsed.hex;
  }
  for (const Json& entry : *siblings) {
    GPTOSS_ASSIGN_OR_RETURN(RemoteFile file, ParseEntry(entry));
    listing.files.push_back(std::move(file));
  }
  std::sort(listing.files.begin(), listing.files.end(),
            [](const RemoteFile& a, const RemoteFile& b) { return a.path < b.path; });
  GPTOSS_RETURN_IF_ERROR(CheckDistinct(listing.files));
  return listing;
}

Result<std::vector<RemoteFile>> SelectFiles(const RepoListing& listing, const Selection& selection) {
  std::vector<RemoteFile> files;
  uint64_t total = 0;
  bool has_weights = false;
  for (const RemoteFile& file : listing.files) {
    bool wanted = selection.original ? IsOriginalFile(file.path) : IsDefaultFile(file.path);
    if (!selection.include.empty()) {
      wanted = std::any_of(selection.include.begin(), selection.include.end(),
                           [&](const std::string& pattern) { return Matches(file.path, pattern); });
    }
    if (!wanted) continue;
    total += file.size;  // cannot wrap: at most 20000 files of 2^40 bytes
    has_weights |= file.path.ends_with(".safetensors");
    files.push_back(file);
  }
  if (files.empty() && !selection.include.empty()) {
    return NotFound("no file of the repository matches --include");
  }
  if (selection.include.empty() && !has_weights) {
    return NotFound(selection.original
                        ? "the repository holds no original/*.safetensors; pull without --original"
                        : "the repository holds no model*.safetensors; name the files you want with --include");
  }
  if (total > kMaxTotalBytes) {
    return ResourceExhausted("the selected files are " + std::to_string(total) + " bytes; at most 4 TiB are supported");
  }
  return files;
}

}  // namespace gptoss::hub
