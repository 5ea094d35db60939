// One response while it is computed: takes the turn's events, sends them to whoever follows, and stores the outcome
// before the client is told that it is complete.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/api_context.h"
#include "server/http.h"
#include "server/openai/responses_builder.h"
#include "server/response_store.h"

namespace gptoss::server {

/// What the runs of one server share; must outlive them.
struct ResponsesShared {
  const ApiContext* api = nullptr;
  ResponseStore* store = nullptr;
  ReplayStore* replay = nullptr;
};

class ResponseRun;

/// The runs that are not over, by id. Thread-safe.
class LiveResponses {
 public:
  void Add(const std::shared_ptr<ResponseRun>& run);
  /// Forgets the run; with `keep`, only when many others came after it: it could not be stored.
  void Remove(const std::string& id, bool keep);
  /// Null when it is not there or another owner's.
  std::shared_ptr<ResponseRun> Find(std::string_view owner, std::string_view id);

 private:
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<ResponseRun>, std::less<>> runs_;
  std::list<std::string> kept_;
};

class ResponseRun : public TurnListener, public std::enable_shared_from_this<ResponseRun> {
 public:
  struct Plan {
    std::string owner;
    std::string previous_id;
    Json echo;
    Json items;  // the request's own
    BuilderOptions builder;
    bool store = true, stream = false;
  };

  /// `live` is null for a response that is not stored. The run may outlive it: the store's thread ends the last ones.
  ResponseRun(ResponsesShared shared, const std::shared_ptr<LiveResponses>& live, Plan plan);

  /// Begins the turn. On failure, as TurnService::Start: nothing is sent.
  Status Start(TurnRequest request, std::shared_ptr<Responder> responder);

  const std::string& id() const { return id_; }
  const std::string& owner() const { return plan_.owner; }
  bool background() const { return plan_.builder.background; }
  /// As far as it has come.
  Json Snapshot() const;
  const Json& items() const { return plan_.items; }
  const std::string& previous_id() const { return plan_.previous_id; }
  /// Sends the stream's events after number `after`, and those to come. Background streams only: false for others.
  bool Follow(std::shared_ptr<Responder> responder, int64_t after);
  /// Ends the turn; `responder`, unless it is null, gets the response once it is over.
  void Cancel(std::shared_ptr<Responder> responder);
  /// Ends the turn; nothing of it will be stored.
  void Forget();

  void OnItemStart(size_t index, const TurnItem& item) override;
  void OnDelta(size_t index, std::string_view text, std::span<const ItemLogprob> logprobs) override;
  void OnItemEnd(size_t index, const TurnItem& item) override;
  void OnFinish(const TurnResult& result) override;

 private:
  void Begin();
  /// A background response is on the disk, or not: answers with it as it began, however far it has come meanwhile.
  void Acknowledge(const Json& begun, const Status& stored);
  void Emit(const Json& event);
  void Deliver(const Status& stored);
  void ClientLeft();
  StoredResponse Record() const;

  const ResponsesShared shared_;
  const std::weak_ptr<LiveResponses> live_;
  const Plan plan_;
  const std::string id_;
  const int64_t created_s_;

  mutable std::mutex mutex_;
  ResponseBuilder builder_;
  std::vector<HistoryMessage> history_;
  std::shared_ptr<Responder> responder_;               // gets the whole response at its end
  std::vector<std::shared_ptr<Responder>> followers_;  // get its events
  std::vector<std::shared_ptr<Responder>> waiting_for_end_;
  std::vector<std::string> log_;  // of a background stream: index is sequence number
  std::optional<RequestId> request_;
  bool begun_ = false, delivered_ = false, cancelled_ = false, forgotten_ = false;
};

}  // namespace gptoss::server
