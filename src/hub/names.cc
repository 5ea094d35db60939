#include "hub/names.h"

#include <algorithm>

#include "base/utf8.h"

namespace gptoss::hub {
namespace {

constexpr std::string_view kReleased[] = {"gpt-oss-20b", "gpt-oss-120b"};
constexpr size_t kMaxNamePart = 96;
constexpr size_t kMaxRevision = 200;
constexpr size_t kMaxComponent = 240;  // 255 on common file systems, less the suffix ".part.json"
constexpr size_t kMaxPath = 1024;

bool IsAlnum(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }
bool IsNameChar(char c) { return IsAlnum(c) || c == '.' || c == '_' || c == '-'; }

bool IsNamePart(std::string_view part) {
  if (part.empty() || part.size() > kMaxNamePart) return false;
  if (!std::all_of(part.begin(), part.end(), IsNameChar)) return false;
  const auto is_edge = [](char c) { return c == '.' || c == '-'; };
  if (is_edge(part.front()) || is_edge(part.back())) return false;
  return part.find("--") == std::string_view::npos && part.find("..") == std::string_view::npos;
}

/// Folders with these endings are a download's own working state beside the finished folder.
bool HasReservedEnding(std::string_view repo) {
  return repo.ends_with(".partial") || repo.ends_with(".old") || repo.ends_with(".lock");
}

}  // namespace

Result<std::string> ResolveRepoName(std::string_view name) {
  if (name.find('/') == std::string_view::npos) {
    if (std::find(std::begin(kReleased), std::end(kReleased), name) != std::end(kReleased)) {
      return "openai/" + std::string(name);
    }
    return InvalidArgument("\"" + Printable(name) +
                           "\" is not a model name: use gpt-oss-20b, gpt-oss-120b or the form org/repo");
  }
  const size_t slash = name.find('/');
  if (!IsNamePart(name.substr(0, slash)) || !IsNamePart(name.substr(slash + 1)) || HasReservedEnding(name)) {
    return InvalidArgument("\"" + Printable(name) +
                           "\" is not a repository name: it must be org/repo with letters, digits, '.', '_' and '-'");
  }
  return std::string(name);
}

std::string FolderName(std::string_view repo) {
  const size_t slash = repo.find('/');
  return std::string(repo.substr(0, slash)) + "--" + std::string(repo.substr(slash + 1));
}

Status ValidateRevision(std::string_view revision) {
  const bool ok = !revision.empty() && revision.size() <= kMaxRevision &&
                  std::all_of(revision.begin(), revision.end(), [](char c) { return IsNameChar(c) || c == '/'; }) &&
                  revision.front() != '/' && revision.back() != '/' && revision.front() != '-' &&
                  revision.find("..") == std::string_view::npos && revision.find("//") == std::string_view::npos;
  if (ok) return Status();
  return InvalidArgument("revision \"" + Printable(revision) + "\" is not the name of a branch, tag or commit");
}

Status ValidateRemotePath(std::string_view path) {
  const auto refuse = [&](std::string_view why) {
    return CorruptData("the server lists a file named \"" + Printable(path) +
                       "\", which is refused: " + std::string(why));
  };
  if (path.empty() || path.size() > kMaxPath) return refuse("the name is empty or longer than 1024 bytes");
  if (path.front() == '/') return refuse("the path is absolute");
  if (FirstInvalidUtf8(path) != path.size()) return refuse("the name is not UTF-8");
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F || c == '\\') return refuse("the name holds a control character or a backslash");
  }
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return refuse("the path leaves its folder or has an empty part");
    if (part.size() > kMaxComponent) return refuse("a part of the path is longer than 240 bytes");
    if (part.ends_with(".part") || part.ends_with(".part.json") || part == ".gptoss-pull.json") {
      return refuse("the name is reserved for downloads in progress");
    }
    begin = end + 1;
  }
  return Status();
}

std::string Printable(std::string_view text, size_t max_bytes) {
  std::string out(text.substr(0, max_bytes));
  for (char& c : out) {
    if (c < 0x20 || c > 0x7E) c = '?';
  }
  if (text.size() > max_bytes) out += "...";
  return out;
}

std::string UrlEscape(std::string_view text, bool keep_slash) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    if (IsNameChar(c) || c == '~' || (keep_slash && c == '/')) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

}  // namespace gptoss::hub
