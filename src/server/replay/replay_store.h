// Exact-token replay. What the model said is kept as the tokens that it sampled, under the ids that clients send back
// (tool calls, output items, responses) and under a digest of the conversation up to and with it. A history that comes
// back and matches is continued from those tokens, its chain of thought included, even where the client dropped it;
// what does not match is left as the client wrote it, to be rendered by harmony's rules.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "server/turn.h"

namespace gptoss::server {

/// One message of a history as a client sent it. `id` is the id under which it was given out, if the client kept it:
/// of a tool call, an output item or a response.
struct HistoryEntry {
  Message message;
  std::string id;
};

/// What an assistant said between two messages of others: reasoning, preambles, and last a call or an answer.
using Turn = std::vector<HistoryMessage>;

/// Where turns are kept across restarts. Thread-safe.
class TurnStorage {
 public:
  virtual ~TurnStorage() = default;
  /// Does not wait for the disk; what fails is lost, and the history is then rendered.
  virtual void PutTurn(std::vector<std::string> keys, std::string blob) = 0;
  /// Empty when there is none.
  virtual std::string FindTurn(std::string_view key) = 0;
};

/// Thread-safe. Turns of one owner (the name of an API key) are never replayed for another.
class ReplayStore {
 public:
  /// Holds at most about `max_bytes` in memory, the least recently used going first. `storage` may be null: then
  /// nothing outlives the process; else it must outlive this.
  explicit ReplayStore(size_t max_bytes = 64u << 20, TurnStorage* storage = nullptr)
      : max_bytes_(max_bytes), storage_(storage) {}

  /// Keeps `turn`, sampled after `history` (as Apply returned it), under `ids` and under the digest of the two. With
  /// `durable` it goes to the storage too.
  void Remember(std::string_view owner, const std::vector<HistoryMessage>& history, const Turn& turn,
                const std::vector<std::string>& ids, bool durable);

  /// `entries` in order, every run of assistant messages that matches a kept turn replaced by it. A run matches when
  /// what users see of it (answers, preambles, calls; arguments compared as JSON) is the same, and its reasoning, where
  /// the client sent any, is too.
  std::vector<HistoryMessage> Apply(std::string_view owner, std::vector<HistoryEntry> entries);

  struct Counters {
    uint64_t replayed = 0;  // runs that matched
    uint64_t rendered = 0;  // runs that did not
  };
  Counters counters() const;

 private:
  struct Kept {
    std::shared_ptr<const Turn> turn;
    size_t bytes = 0;
    std::vector<std::string> keys;
  };
  std::shared_ptr<const Turn> Find(const std::string& key);
  void Insert(std::vector<std::string> keys, std::shared_ptr<const Turn> turn);

  const size_t max_bytes_;
  TurnStorage* const storage_;
  mutable std::mutex mutex_;
  std::list<Kept> kept_;  // most recently used first
  std::unordered_map<std::string, std::list<Kept>::iterator> by_key_;
  size_t bytes_ = 0;
  Counters counters_;
};

/// The form in which storages hold turns. Parsing is total: null when `blob` is damaged.
std::string WriteTurn(const Turn& turn);
std::shared_ptr<const Turn> ReadTurn(std::string_view blob);

}  // namespace gptoss::server
