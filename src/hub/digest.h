// Checksums of downloaded files, as a hub's listing gives them.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/status.h"

namespace gptoss::hub {

enum class DigestKind : uint8_t {
  kNone,     // the listing gives no checksum; only the size can be checked
  kSha256,   // of the contents: large files (git LFS)
  kGitBlob,  // SHA-1 of "blob SIZE\0" and the contents: small files, git's own object id
};

struct Digest {
  DigestKind kind = DigestKind::kNone;
  std::string hex;  // lower case; empty for kNone

  bool operator==(const Digest&) const = default;
  bool known() const { return kind != DigestKind::kNone; }
  /// "sha256:HEX", "git-sha1:HEX", or "".
  std::string ToString() const;
  /// The inverse of ToString. On failure: kCorruptData.
  static Result<Digest> FromString(std::string_view text);
};

/// Checks and lower-cases `hex`: 64 digits for kSha256, 40 for kGitBlob. On failure: kCorruptData.
Result<Digest> MakeDigest(DigestKind kind, std::string_view hex);

/// The digest of the file at `path`. On failure: kNotFound, kIo, or kCancelled once `*cancel` is true.
Result<Digest> DigestFile(const std::string& path, DigestKind kind, const std::atomic<bool>* cancel = nullptr);

}  // namespace gptoss::hub
