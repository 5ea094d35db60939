#include <algorithm>

#include "base/utf8.h"
#include "harmony/header.h"
#include "harmony/special_tokens.h"

namespace gptoss {
namespace {

constexpr std::string_view kAsciiSpace = " \t\n\f\r";

std::vector<std::string> SplitWords(std::string_view text) {
  std::vector<std::string> out;
  while (true) {
    const size_t start = text.find_first_not_of(kAsciiSpace);
    if (start == std::string_view::npos) return out;
    text.remove_prefix(start);
    const size_t end = std::min(text.find_first_of(kAsciiSpace), text.size());
    out.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

std::string Joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

/// Takes "<|channel|>NAME" out of `text`.
Status TakeChannel(std::string* text, std::optional<std::string>* channel) {
  const std::string_view marker = Spelling(FormatToken::kChannel);
  const size_t at = text->find(marker);
  if (at == std::string::npos) return {};
  const size_t start = at + marker.size();
  const size_t end = std::min(text->find_first_of(" \t\n\v\f\r<", start), text->size());
  if (end == start) return CorruptData("channel marker present but no channel value found in header");
  *channel = text->substr(start, end - start);
  text->erase(at, end - at);
  return {};
}

std::string StripTo(const std::string& word) { return word.starts_with("to=") ? word.substr(3) : word; }

Result<Role> TakeRole(std::vector<std::string>* words, std::optional<std::string>* name) {
  if (words->empty()) return CorruptData("message header did not contain a role");
  const std::string first = words->front();
  *name = first;
  if (const std::optional<Role> known = RoleFromName(first)) return *known;
  if (words->size() == 1 && !first.starts_with("to=")) return CorruptData("Unknown role: " + first);
  words->erase(words->begin());
  return Role::kTool;
}

}  // namespace

Result<Header> ReadHeaderOfficial(std::string text, std::optional<Role> role, bool malformed) {
  if (FirstInvalidUtf8(text) != text.size()) return CorruptData("could not decode header");
  Header out;
  GPTOSS_RETURN_IF_ERROR(TakeChannel(&text, &out.channel));
  const std::string_view constrain = Spelling(FormatToken::kConstrain);
  for (size_t at = text.find(constrain); at != std::string::npos;
       at = text.find(constrain, at + constrain.size() + 1)) {
    text.insert(at, " ");
  }
  std::vector<std::string> words = SplitWords(text);
  std::optional<std::string> name;
  if (!role) {
    GPTOSS_ASSIGN_OR_RETURN(role, TakeRole(&words, &name));
  }
  out.author.role = *role;
  if (*role == Role::kTool) out.author.name = name;
  if (!words.empty() && words.front() == RoleName(*role)) words.erase(words.begin());
  if (!malformed && !words.empty()) {
    const bool alone = words.size() == 1;
    const std::string last = words.back();
    words.pop_back();
    if (last.starts_with("to=") || alone) {
      out.recipient = StripTo(last);
    } else {
      out.content_type = last;
      out.recipient = StripTo(words.back());
      words.pop_back();
    }
  }
  if (words.empty()) return out;
  if (!malformed) {
    // The official text is Rust's debug form of an optional string.
    return CorruptData("unexpected tokens remaining in message header: Some(" + WriteJson(Json(Joined(words))) + ")");
  }
  out.stranded = Joined(words);
  return out;
}

}  // namespace gptoss
