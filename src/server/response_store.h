// Responses that outlive their request, and sampled turns for replay, in one SQLite file. A thread of its own writes:
// what is waiting goes into one transaction, which is on the disk before anybody is told that it is stored.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <variant>
#include <vector>

#include "base/status.h"
#include "server/api/ids.h"
#include "server/replay/replay_store.h"

namespace gptoss::server {

class Sqlite;

struct StoredResponse {
  std::string id;
  std::string owner;  // name of the API key; others do not find it
  std::string previous_id;
  std::string status;     // "queued", "in_progress": only while the process runs that computes it
  std::string body;       // JSON: the response object
  std::string input;      // JSON: array of the request's own input items, each with an id
  std::string events;     // the stream as it was sent, for background streams; else empty
  int64_t created_s = 0;  // since 1970
};

struct StoreLimits {
  int64_t max_responses = 100'000;
  int64_t max_bytes = int64_t{2} << 30;       // of responses; the least recently used go first
  int64_t max_turn_bytes = int64_t{1} << 30;  // of turns kept for replay
  int64_t max_age_s = 30 * 86400;             // since the last use
  int64_t max_file_bytes = 0;                 // of the file; past it writing fails. 0: what the disk holds
};

/// Thread-safe.
class ResponseStore : public TurnStorage {
 public:
  using Done = std::function<void(const Status&)>;
  using Log = std::function<void(const std::string&)>;

  /// `path` empty: in memory, at most 128 MiB of responses and no turns. A file that is damaged is renamed to
  /// "PATH.damaged-SECONDS" and begun anew, which `log` is told. Responses that were being computed when the process
  /// died are marked as failed. On failure: kIo or kResourceExhausted, naming the file; kInvalidArgument for a file of
  /// a newer program.
  static Result<std::unique_ptr<ResponseStore>> Open(const std::string& path, StoreLimits limits = {}, Log log = {});
  /// Writes what is waiting.
  ~ResponseStore() override;

  /// Inserts or replaces; `done` is called on the store's thread once the response is on the disk, or with the reason
  /// why it will never be (kResourceExhausted: the disk is full; kIo). It may be empty.
  void Put(StoredResponse response, Done done);
  /// On failure: kNotFound (also for what another owner stored), kCorruptData, kIo.
  Result<StoredResponse> Get(std::string_view owner, std::string_view id);
  /// The response and those before it, oldest first, at most `max` of them. On failure: as Get, naming the absent one.
  Result<std::vector<StoredResponse>> GetChain(std::string_view owner, std::string_view id, size_t max = 4096);
  /// The response that has an input or output item of this id. On failure: as Get.
  Result<StoredResponse> GetByItem(std::string_view owner, std::string_view item_id);
  /// True: it was there. On the disk when this returns.
  Result<bool> Delete(std::string_view owner, std::string_view id);

  void PutTurn(std::vector<std::string> keys, std::string blob) override;
  std::string FindTurn(std::string_view key) override;

  /// Waits until all that was put so far is written or has failed.
  void Flush();
  /// The key for what clients carry; kept in the file, so that it outlives a restart.
  const SealKey& seal_key() const { return seal_key_; }

 private:
  struct PutOp {
    StoredResponse response;
    Done done;
  };
  struct TurnOp {
    std::vector<std::string> keys;
    std::string blob;
  };
  struct DeleteOp {
    std::string owner, id;
    std::function<void(Result<bool>)> done;
  };
  struct TouchOp {
    std::vector<std::string> ids;
  };
  struct FlushOp {
    std::function<void()> done;
  };
  using Op = std::variant<PutOp, TurnOp, DeleteOp, TouchOp, FlushOp>;

  ResponseStore(std::string path, StoreLimits limits, Log log);
  Status Connect();
  Status Prepare();
  Status LoadSealKey();
  Status FailInterrupted();
  Status SetAside(const Status& why);
  void Enqueue(Op op);
  void WriteLoop();
  void WriteBatch(std::vector<Op>& batch);
  /// Everything in one transaction; `outcomes` gets a Delete's result.
  Status Apply(std::vector<Op>& ops, size_t begin, size_t end, std::vector<bool>* outcomes);
  Status ApplyOne(Op& op, bool* found);
  Status InsertResponse(const StoredResponse& response);
  Status InsertTurn(const TurnOp& turn);
  Status RemoveResponse(std::string_view id);
  Status Evict();
  Result<StoredResponse> Read(Sqlite& db, std::string_view owner, std::string_view id);
  template <typename F>
  auto WithReader(F read);

  const std::string path_;
  const StoreLimits limits_;
  const Log log_;
  SealKey seal_key_{};

  // The writer's connection; in memory it is the reader's as well.
  std::mutex write_mutex_;
  std::unique_ptr<Sqlite> writer_;
  std::mutex read_mutex_;
  std::unique_ptr<Sqlite> reader_;

  std::mutex queue_mutex_;
  std::condition_variable queued_;
  std::vector<Op> queue_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace gptoss::server
