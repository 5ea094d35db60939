// Names that come from a person or from a server, checked before they become a URL or a path on disk.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace gptoss::hub {

/// The full repository name "org/repo" for what a person typed: a released model's bare name ("gpt-oss-20b",
/// "gpt-oss-120b") or any "org/repo". Each part: 1 to 96 of [A-Za-z0-9._-], not beginning or ending with '.' or '-',
/// without "--" or ".." (the hub's own rules, which make FolderName injective). On failure: kInvalidArgument.
Result<std::string> ResolveRepoName(std::string_view name);

/// "org--repo" for a name that ResolveRepoName returned.
std::string FolderName(std::string_view repo);

/// A branch, tag, commit or "refs/pr/N": 1 to 200 of [A-Za-z0-9._/-] without ".." or "//". On failure:
/// kInvalidArgument.
Status ValidateRevision(std::string_view revision);

/// A file name from a server's listing that may be joined to a local folder: relative, no empty, "." or ".." component,
/// no backslash or control character, valid UTF-8, at most 240 bytes a component and 1024 in all, and none of the names
/// that a download uses itself (".gptoss-pull.json", "*.part", "*.part.json"). On failure: kCorruptData naming it.
Status ValidateRemotePath(std::string_view path);

/// `text` with everything that is not printable ASCII replaced by '?' and cut after `max_bytes`, for messages.
std::string Printable(std::string_view text, size_t max_bytes = 200);

/// Percent-encodes everything but [A-Za-z0-9._~-] and, when `keep_slash`, '/'.
std::string UrlEscape(std::string_view text, bool keep_slash);

}  // namespace gptoss::hub
