#include "server/replay/replay_store.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <span>

#include "json/json.h"
#include "server/api/history.h"

namespace gptoss::server {
namespace {

constexpr size_t kBytesPerToken = sizeof(TokenId), kBytesPerMessage = 256;

/// FNV-1a of 64 bits, over fields that are separated so that no two histories run together.
class Digest {
 public:
  void Add(std::string_view text) {
    for (const char c : text) Byte(static_cast<uint8_t>(c));
    for (size_t n = text.size(), i = 0; i < 8; ++i) Byte(static_cast<uint8_t>(n >> (8 * i)));
  }
  std::string Hex() const {
    std::string out(16, '0');
    for (int i = 0; i < 16; ++i) out[15 - i] = "0123456789abcdef"[(state_ >> (4 * i)) & 15];
    return out;
  }

 private:
  void Byte(uint8_t b) { state_ = (state_ ^ b) * 0x100000001b3ull; }
  uint64_t state_ = 0xcbf29ce484222325ull;
};

bool IsAnalysis(const Message& message) {
  return message.author.role == Role::kAssistant && message.channel == "analysis" && !message.recipient;
}

/// Text that is equal where clients may not tell a difference: arguments as JSON without regard to spaces.
std::string ComparableText(const Message& message) {
  std::string text = TextOf(message);
  if (!message.recipient) return text;
  const auto json = ParseJson(text);
  return json.ok() ? WriteJson(*json) : text;
}

/// Clients leave out what has no text.
bool IsEmptyPreamble(const Message& message, std::string_view text) {
  return message.author.role == Role::kAssistant && !message.recipient && text.empty();
}

void AddVisible(const Message& message, Digest* digest) {
  const std::string text = ComparableText(message);
  if (IsAnalysis(message) || IsEmptyPreamble(message, text)) return;
  digest->Add(RoleName(message.author.role));
  digest->Add(message.author.name.value_or(""));
  digest->Add(message.recipient.value_or(""));
  digest->Add(text);
}

std::string Squeezed(std::string text) {
  std::erase_if(text, [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; });
  return text;
}

/// What users see, and all reasoning as one.
struct Comparable {
  std::vector<std::pair<std::string, std::string>> visible;  // recipient, text
  std::string reasoning;
};

template <typename Range, typename F>
Comparable ComparableOf(const Range& range, F message_of) {
  Comparable out;
  for (const auto& element : range) {
    const Message& message = message_of(element);
    if (IsAnalysis(message)) {
      out.reasoning += TextOf(message);
    } else if (std::string text = ComparableText(message); !IsEmptyPreamble(message, text)) {
      out.visible.emplace_back(message.recipient.value_or(""), std::move(text));
    }
  }
  return out;
}

bool Matches(std::span<const HistoryEntry> run, const Turn& turn) {
  const Comparable said = ComparableOf(run, [](const HistoryEntry& e) -> const Message& { return e.message; });
  const Comparable kept = ComparableOf(turn, [](const HistoryMessage& m) -> const Message& { return m.message; });
  if (said.visible != kept.visible) return false;
  return said.reasoning.empty() || Squeezed(said.reasoning) == Squeezed(kept.reasoning);
}

size_t BytesOf(const Turn& turn) {
  size_t bytes = 0;
  for (const HistoryMessage& m : turn) {
    bytes += kBytesPerMessage + TextOf(m.message).size() + m.tokens.size() * kBytesPerToken;
  }
  return bytes;
}

std::string Key(std::string_view owner, std::string_view kind, std::string_view id) {
  return std::string(owner) + "\n" + std::string(kind) + "\n" + std::string(id);
}

}  // namespace

std::string WriteTurn(const Turn& turn) {
  Json out = Json::array();
  for (const HistoryMessage& m : turn) {
    Json json = {{"text", TextOf(m.message)}, {"tokens", m.tokens}};
    if (m.message.recipient) json["recipient"] = *m.message.recipient;
    if (m.message.channel) json["channel"] = *m.message.channel;
    if (m.message.content_type) json["content_type"] = *m.message.content_type;
    out.push_back(std::move(json));
  }
  return WriteJson(out);
}

std::shared_ptr<const Turn> ReadTurn(std::string_view blob) {
  const auto json = ParseJson(blob);
  if (!json.ok() || !json->is_array()) return nullptr;
  auto turn = std::make_shared<Turn>();
  for (const Json& element : *json) {
    const std::string* text = FindString(element, "text");
    const Json* tokens = FindField(element, "tokens");
    if (text == nullptr || tokens == nullptr || !tokens->is_array()) return nullptr;
    HistoryMessage message{TextMessage(Role::kAssistant, *text), {}};
    const auto field = [&](const char* name) {
      const std::string* value = FindString(element, name);
      return value == nullptr ? std::optional<std::string>() : *value;
    };
    message.message.recipient = field("recipient");
    message.message.channel = field("channel");
    message.message.content_type = field("content_type");
    for (const Json& token : *tokens) {
      if (!token.is_number_integer()) return nullptr;
      message.tokens.push_back(token.get<TokenId>());
    }
    turn->push_back(std::move(message));
  }
  return turn;
}

void ReplayStore::Remember(std::string_view owner, const std::vector<HistoryMessage>& history, const Turn& turn,
                           const std::vector<std::string>& ids, bool durable) {
  if (turn.empty()) return;
  Digest digest;
  for (const HistoryMessage& m : history) AddVisible(m.message, &digest);
  for (const HistoryMessage& m : turn) AddVisible(m.message, &digest);
  std::vector<std::string> keys = {Key(owner, "digest", digest.Hex())};
  for (const std::string& id : ids) {
    if (!id.empty()) keys.push_back(Key(owner, "id", id));
  }
  if (durable && storage_ != nullptr) storage_->PutTurn(keys, WriteTurn(turn));
  std::lock_guard lock(mutex_);
  Insert(std::move(keys), std::make_shared<const Turn>(turn));
}

void ReplayStore::Insert(std::vector<std::string> keys, std::shared_ptr<const Turn> turn) {
  const size_t bytes = BytesOf(*turn);
  kept_.push_front({std::move(turn), bytes, std::move(keys)});
  bytes_ += bytes;
  for (const std::string& key : kept_.front().keys) by_key_[key] = kept_.begin();
  while (bytes_ > max_bytes_ && kept_.size() > 1) {
    const auto oldest = std::prev(kept_.end());
    for (const std::string& key : oldest->keys) {
      const auto it = by_key_.find(key);
      if (it != by_key_.end() && it->second == oldest) by_key_.erase(it);
    }
    bytes_ -= oldest->bytes;
    kept_.erase(oldest);
  }
}

std::shared_ptr<const Turn> ReplayStore::Find(const std::string& key) {
  {
    std::lock_guard lock(mutex_);
    const auto it = by_key_.find(key);
    if (it != by_key_.end()) {
      kept_.splice(kept_.begin(), kept_, it->second);
      return it->second->turn;
    }
  }
  if (storage_ == nullptr) return nullptr;
  const std::string blob = storage_->FindTurn(key);
  auto turn = blob.empty() ? nullptr : ReadTurn(blob);
  if (turn != nullptr) {
    std::lock_guard lock(mutex_);
    Insert({key}, turn);
  }
  return turn;
}

std::vector<HistoryMessage> ReplayStore::Apply(std::string_view owner, std::vector<HistoryEntry> entries) {
  std::vector<HistoryMessage> out;
  Digest digest;
  for (size_t i = 0; i < entries.size();) {
    if (entries[i].message.author.role != Role::kAssistant) {
      AddVisible(entries[i].message, &digest);
      out.push_back({std::move(entries[i++].message), {}});
      continue;
    }
    size_t end = i;
    while (end < entries.size() && entries[end].message.author.role == Role::kAssistant) {
      AddVisible(entries[end++].message, &digest);
    }
    const std::span<const HistoryEntry> run(entries.data() + i, end - i);
    std::shared_ptr<const Turn> turn;
    const auto try_key = [&](const std::string& key) {
      auto found = Find(key);
      if (found != nullptr && Matches(run, *found)) turn = std::move(found);
    };
    for (auto it = run.rbegin(); it != run.rend() && turn == nullptr; ++it) {
      if (!it->id.empty()) try_key(Key(owner, "id", it->id));
    }
    if (turn == nullptr) try_key(Key(owner, "digest", digest.Hex()));
    if (turn != nullptr) out.insert(out.end(), turn->begin(), turn->end());
    for (; i < end; ++i) {
      if (turn == nullptr) out.push_back({std::move(entries[i].message), {}});
    }
    std::lock_guard lock(mutex_);
    ++(turn != nullptr ? counters_.replayed : counters_.rendered);
  }
  return out;
}

ReplayStore::Counters ReplayStore::counters() const {
  std::lock_guard lock(mutex_);
  return counters_;
}

}  // namespace gptoss::server
