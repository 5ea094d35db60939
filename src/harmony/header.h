// The header of a message: what stands between <|start|> and <|message|>.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "harmony/message.h"

namespace gptoss {

/// A header as it was read: its text, cut at the markers. Bytes may be any.
struct RawHeader {
  std::string role_text;       // before the first marker
  std::string channel_text;    // after <|channel|>
  std::string constrain_text;  // after <|constrain|>
  bool has_channel = false;
  bool has_constrain = false;

  /// No marker, and nothing but white space.
  bool empty() const;
  size_t size() const { return role_text.size() + channel_text.size() + constrain_text.size(); }
};

struct Header {
  Author author;
  std::optional<std::string> recipient;
  std::optional<std::string> channel;
  std::optional<std::string> content_type;  // "<|constrain|>json" when the marker stood before it, as officially
  std::string stranded;                     // text that is no part of a header: it belongs to the content
  bool has_role_only = false;               // nothing but a role was said

  bool operator==(const Header&) const = default;
};

struct HeaderContext {
  std::optional<Role> role;  // given from outside; then the header need not say it
  Role fallback = Role::kAssistant;
  bool has_message = true;  // ended by <|message|>; else something else came first
  bool has_start = true;    // began with <|start|>; else a lone sentence has no role, whatever its first word
  /// Full names of the declared tools ("functions.f", "browser.open", "python"); may be empty. With them, bare and
  /// glued names ("f", "functions.fjson") are put right.
  const std::vector<std::string>* tools = nullptr;
};

/// Reads any header, and loses no word of it. The rules, in order:
/// - role: the given one, or the first word: a role's name, also "user:bob"; glued words ("assistantcommentary",
///   "assistantto=f") come apart; an unknown first word is a tool's name if <|message|> follows (directly, or after
///   "to=" or when it has a dot), else the text belongs to the fallback role;
/// - "to=X" gives the recipient wherever it stands;
/// - the word after <|channel|> is the channel; analysis, commentary and final are also found glued to what follows
///   ("finalx", "analysiscode"), "comment" is commentary; an unknown word is a channel only if at most one other word
///   stands beside it;
/// - <|constrain|>, glued or not, marks the content type;
/// - one word left over is a recipient if it looks like one (dotted, or a declared tool) or a <|constrain|> type is
///   there, else the content type; two are recipient and content type if the second is a known type;
/// - everything else, and all free text when <|message|> is missing, is `stranded`.
Header ReadHeader(const RawHeader& raw, const HeaderContext& context);

/// The official library's reading (v0.0.8) of the header's text with the markers spelled out, odd results included.
/// `malformed`: <|message|> was missing; then what is not channel or role is content. On failure: kCorruptData with the
/// official message.
Result<Header> ReadHeaderOfficial(std::string text, std::optional<Role> role, bool malformed);

}  // namespace gptoss
