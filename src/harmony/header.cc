#include "harmony/header.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/utf8.h"
#include "harmony/special_tokens.h"

namespace gptoss {
namespace {

constexpr std::string_view kSpace = " \t\n\v\f\r";
constexpr std::array<std::string_view, 3> kChannels = {"analysis", "commentary", "final"};
constexpr std::array<std::string_view, 8> kContentTypes = {"json", "code", "text",     "python",
                                                           "yaml", "xml",  "markdown", "typescript"};

template <size_t N>
bool Contains(const std::array<std::string_view, N>& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

bool IsNameByte(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == '-';
}

bool IsName(std::string_view word) {
  return !word.empty() && std::all_of(word.begin(), word.end(), [](char c) { return IsNameByte(c) || c == '.'; });
}

bool IsDottedName(std::string_view word) {
  const size_t dot = word.find('.');
  return IsName(word) && dot != std::string_view::npos && dot > 0 && !word.ends_with('.');
}

std::string_view Trimmed(std::string_view text) {
  const size_t start = text.find_first_not_of(kSpace);
  if (start == std::string_view::npos) return {};
  return text.substr(start, text.find_last_not_of(kSpace) - start + 1);
}

/// Walks over the words of one part of a header.
class Words {
 public:
  explicit Words(std::string_view text) : rest_(text) { Skip(); }

  bool empty() const { return rest_.empty(); }
  std::string_view rest() const { return rest_; }
  std::string_view Peek() const { return rest_.substr(0, rest_.find_first_of(kSpace)); }
  std::string_view PeekSecond() const { return Words(rest_.substr(Peek().size())).Peek(); }
  std::string_view Next() {
    const std::string_view word = Peek();
    Drop(word.size());
    return word;
  }
  /// Takes only `bytes` of the next word.
  void Drop(size_t bytes) {
    rest_.remove_prefix(bytes);
    Skip();
  }
  size_t Count() const {
    size_t n = 0;
    for (Words copy = *this; !copy.empty(); copy.Next()) ++n;
    return n;
  }

 private:
  void Skip() { rest_.remove_prefix(std::min(rest_.find_first_not_of(kSpace), rest_.size())); }
  std::string_view rest_;
};

class Reader {
 public:
  explicit Reader(const HeaderContext& context) : context_(context) {}

  Header Read(const RawHeader& raw) {
    const std::string role_text = ReplaceInvalidUtf8(raw.role_text);
    const std::string channel_text = ReplaceInvalidUtf8(raw.channel_text);
    const std::string constrain_text = ReplaceInvalidUtf8(raw.constrain_text);
    markers_ = raw.has_channel || raw.has_constrain;
    Words role_words(role_text);
    ReadRole(&role_words);
    if (!raw.has_channel) TakeChannelWord(&role_words);
    ReadWords(&role_words);
    Words channel_words(channel_text);
    if (raw.has_channel) ReadChannel(&channel_words);
    ReadWords(&channel_words);
    Words constrain_words(constrain_text);
    if (raw.has_constrain) ReadConstrain(&constrain_words);
    ReadWords(&constrain_words);
    ResolveFree();
    MatchTools();
    out_.has_role_only = role_said_ && !out_.author.name && !out_.recipient && !out_.channel && !out_.content_type &&
                         out_.stranded.empty();
    return std::move(out_);
  }

 private:
  void ReadRole(Words* words) {
    out_.author.role = context_.role.value_or(context_.fallback);
    if (words->empty()) return;
    const std::string_view word = words->Peek();
    if (!context_.has_start && !context_.has_message && !markers_ && words->Count() > 1) return;
    for (Role role : {Role::kUser, Role::kAssistant, Role::kSystem, Role::kDeveloper, Role::kTool}) {
      const std::string_view name = RoleName(role);
      if (!word.starts_with(name) || (context_.role && *context_.role != role)) continue;
      const std::string_view tail = word.substr(name.size());
      const bool named = tail.starts_with(':') && tail.size() > 1;
      if (!tail.empty() && !named && !tail.starts_with("to=") && !Contains(kChannels, tail)) continue;
      role_said_ = true;
      out_.author.role = role;
      if (named) out_.author.name = tail.substr(1);
      words->Drop(named ? word.size() : name.size());
      return;
    }
    if (context_.role || word.starts_with("to=") || Contains(kChannels, word)) return;
    const bool recipient_follows = words->PeekSecond().starts_with("to=");
    const bool is_tool = context_.has_message ? recipient_follows || words->Count() == 1 || IsDottedName(word)
                                              : recipient_follows || (IsDottedName(word) && markers_);
    if (!is_tool) return;
    out_.author.role = Role::kTool;
    out_.author.name = words->Next();
  }

  /// A channel's name in the place of the role, as when <|channel|> was forgotten.
  void TakeChannelWord(Words* words) {
    if (words->empty() || !Contains(kChannels, words->Peek())) return;
    // Without any marker a sentence may begin so: "final answer: ...".
    if (context_.has_message || words->PeekSecond().starts_with("to=")) out_.channel = words->Next();
  }

  void ReadChannel(Words* words) {
    if (words->empty()) return;
    const std::string_view word = words->Peek();
    for (std::string_view channel : kChannels) {
      if (!word.starts_with(channel)) continue;
      out_.channel = channel;
      words->Drop(channel.size());
      return;
    }
    if (word == "comment") {
      out_.channel = "commentary";
      words->Next();
      return;
    }
    if (word.starts_with("to=")) return;
    size_t others = 0;
    for (Words copy = *words; !copy.empty();) others += copy.Next().starts_with("to=") ? 0 : 1;
    if (others <= (context_.has_message ? 2u : 1u) && std::all_of(word.begin(), word.end(), IsNameByte)) {
      out_.channel = words->Next();
    }
  }

  void ReadConstrain(Words* words) {
    std::string type(Spelling(FormatToken::kConstrain));
    const std::string_view word = words->Peek();
    size_t length = 0;
    while (length < word.size() &&
           (IsNameByte(word[length]) || word[length] == '.' || word[length] == '+' || word[length] == '/')) {
      ++length;
    }
    if (word.starts_with("to=")) length = 0;
    type += word.substr(0, length);
    words->Drop(length);
    out_.content_type = std::move(type);
  }

  /// Takes "to=X", here or after a space. False if the next word is none, or a second one that says something else.
  bool TakeRecipient(Words* words) {
    if (!words->Peek().starts_with("to=")) return false;
    Words after = *words;
    after.Drop(3);
    std::string_view name = after.Peek();
    name = name.substr(0, name.find_first_of("{<\""));
    if (name.empty() || (out_.recipient && *out_.recipient != name)) return false;
    after.Drop(name.size());
    out_.recipient = name;
    *words = after;
    return true;
  }

  void ReadWords(Words* words) {
    while (!words->empty()) {
      if (TakeRecipient(words)) continue;
      if (!context_.has_message) {  // from the first free word on it is text, kept as it is
        Strand(words->rest());
        return;
      }
      free_.emplace_back(words->Next());
    }
  }

  bool LooksLikeRecipient(std::string_view word) const {
    if (IsDottedName(word)) return true;
    return context_.tools != nullptr &&
           std::find(context_.tools->begin(), context_.tools->end(), word) != context_.tools->end();
  }

  void ResolveFree() {
    if (free_.empty()) return;
    const bool may_call = !out_.recipient && out_.author.role != Role::kTool;
    if (free_.size() == 1 && may_call && IsName(free_[0]) && (LooksLikeRecipient(free_[0]) || out_.content_type)) {
      out_.recipient = free_[0];
    } else if (free_.size() == 1 && !out_.content_type) {
      out_.content_type = free_[0];
    } else if (free_.size() == 2 && may_call && !out_.content_type && IsName(free_[0]) &&
               Contains(kContentTypes, free_[1])) {
      out_.recipient = free_[0];
      out_.content_type = free_[1];
    } else {
      std::string text;
      for (const std::string& word : free_) text += (text.empty() ? "" : " ") + word;
      Strand(text);
    }
  }

  /// Puts the recipient right by the declared tools: "f" for "functions.f", "functions.fjson", "functions.fcode".
  void MatchTools() {
    if (!out_.recipient || context_.tools == nullptr || out_.author.role != Role::kAssistant) return;
    const auto declared = [&](std::string_view name) -> const std::string* {
      for (const std::string& tool : *context_.tools) {
        const bool bare =
            tool.size() > name.size() && tool.ends_with(name) && tool[tool.size() - name.size() - 1] == '.';
        if (!name.empty() && (tool == name || bare)) return &tool;
      }
      return nullptr;
    };
    std::string_view name = *out_.recipient;
    const std::string* tool = declared(name);
    if (tool == nullptr && !out_.content_type) {
      for (std::string_view type : kContentTypes) {
        if (!name.ends_with(type)) continue;
        tool = declared(name.substr(0, name.size() - type.size()));
        if (tool == nullptr) continue;
        out_.content_type = type;
        break;
      }
    }
    if (tool != nullptr) out_.recipient = *tool;
  }

  void Strand(std::string_view text) {
    if (!out_.stranded.empty()) out_.stranded += ' ';
    out_.stranded += context_.has_message ? Trimmed(text) : text;
  }

  const HeaderContext& context_;
  Header out_;
  std::vector<std::string> free_;
  bool markers_ = false;
  bool role_said_ = false;
};

}  // namespace

bool RawHeader::empty() const {
  return !has_channel && !has_constrain && role_text.find_first_not_of(kSpace) == std::string::npos;
}

Header ReadHeader(const RawHeader& raw, const HeaderContext& context) { return Reader(context).Read(raw); }

}  // namespace gptoss
