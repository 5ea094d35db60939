#include "server/openai/responses_run.h"

#include <utility>

#include "server/api/clock.h"
#include "server/api/sse.h"
#include "server/openai/errors.h"

namespace gptoss::server {
namespace {

constexpr size_t kMaxKept = 64;  // complete responses that the store refused

std::string EventText(const Json& event) { return NamedEvent(event["type"].get_ref<const std::string&>(), event); }

}  // namespace

void LiveResponses::Add(const std::shared_ptr<ResponseRun>& run) {
  std::lock_guard lock(mutex_);
  runs_[run->id()] = run;
}

void LiveResponses::Remove(const std::string& id, bool keep) {
  std::shared_ptr<ResponseRun> removed;  // destroyed after the lock
  std::lock_guard lock(mutex_);
  std::string gone = id;
  if (keep) {
    kept_.push_back(id);
    if (kept_.size() <= kMaxKept) return;
    gone = kept_.front();
    kept_.pop_front();
  }
  const auto it = runs_.find(gone);
  if (it == runs_.end()) return;
  removed = std::move(it->second);
  runs_.erase(it);
}

std::shared_ptr<ResponseRun> LiveResponses::Find(std::string_view owner, std::string_view id) {
  std::lock_guard lock(mutex_);
  const auto it = runs_.find(id);
  return it == runs_.end() || it->second->owner() != owner ? nullptr : it->second;
}

ResponseRun::ResponseRun(ResponsesShared shared, const std::shared_ptr<LiveResponses>& live, Plan plan)
    : shared_(shared),
      live_(live),
      plan_(std::move(plan)),
      id_(NewId("resp_")),
      created_s_(NowSeconds()),
      builder_(
          id_, created_s_, plan_.echo, plan_.builder, shared.api->turns->tokenizer(),
          plan_.stream ? ResponseBuilder::Sink([this](const Json& event) { Emit(event); }) : ResponseBuilder::Sink()) {}

Status ResponseRun::Start(TurnRequest request, std::shared_ptr<Responder> responder) {
  {
    std::lock_guard lock(mutex_);
    history_ = request.history;
    responder_ = responder;
  }
  if (const auto live = live_.lock()) live->Add(shared_from_this());
  auto started = shared_.api->turns->Start(std::move(request), shared_from_this());
  if (!started.ok()) {
    if (const auto live = live_.lock()) live->Remove(id_, false);
    return started.status();
  }
  bool cancel = false;
  {
    std::lock_guard lock(mutex_);
    request_ = *started;
    Begin();
    cancel = cancelled_;
  }
  if (cancel) shared_.api->turns->Cancel(*started);
  if (background()) return {};
  responder->OnClosed([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->ClientLeft();
  });
  return {};
}

/// By whichever comes first: the return of TurnService::Start, or the first event of the turn.
void ResponseRun::Begin() {
  if (begun_) return;
  begun_ = true;
  if (background()) {
    // The client hears of a response only when it is on the disk. Its stream begins then, from the log.
    builder_.Created();
    shared_.store->Put(Record(), [self = shared_from_this(), begun = builder_.response()](const Status& stored) {
      self->Acknowledge(begun, stored);
    });
    return;
  }
  if (plan_.stream) {
    BeginEvents(*responder_);
    followers_.push_back(responder_);
  }
  builder_.Created();
}

void ResponseRun::Acknowledge(const Json& begun, const Status& stored) {
  std::unique_lock lock(mutex_);
  const std::shared_ptr<Responder> responder = std::exchange(responder_, nullptr);
  if (!stored.ok()) {
    // A response that nobody could ask for later is of no use.
    forgotten_ = true;
    lock.unlock();
    SendError(*responder, {507, "server_error", "the response could not be stored: " + stored.message(), "background",
                           "storage_full", 0});
    Cancel(nullptr);
    return;
  }
  if (plan_.stream) {
    lock.unlock();
    Follow(responder, -1);
    return;
  }
  lock.unlock();
  SendJson(*responder, 200, begun);
}

void ResponseRun::Emit(const Json& event) {
  std::string text = EventText(event);
  bool left = false;
  for (const auto& follower : followers_) left = !follower->Write(text) || left;
  if (background()) log_.push_back(std::move(text));
  if (!left || background()) return;
  cancelled_ = true;
  if (request_) shared_.api->turns->Cancel(*request_);
}

Json ResponseRun::Snapshot() const {
  std::lock_guard lock(mutex_);
  return builder_.response();
}

bool ResponseRun::Follow(std::shared_ptr<Responder> responder, int64_t after) {
  std::lock_guard lock(mutex_);
  if (!background() || !plan_.stream) return false;
  BeginEvents(*responder);
  for (size_t i = static_cast<size_t>(after + 1); i < log_.size(); ++i) responder->Write(log_[i]);
  if (delivered_) {
    responder->End();
  } else {
    followers_.push_back(std::move(responder));
  }
  return true;
}

void ResponseRun::Cancel(std::shared_ptr<Responder> responder) {
  std::optional<RequestId> request;
  std::optional<Json> over;
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    request = request_;
    if (delivered_) {
      over = builder_.response();
    } else if (responder != nullptr) {
      waiting_for_end_.push_back(responder);
    }
  }
  if (over && responder != nullptr) return SendJson(*responder, 200, *over);
  if (request) shared_.api->turns->Cancel(*request);
}

void ResponseRun::Forget() {
  {
    std::lock_guard lock(mutex_);
    forgotten_ = true;
  }
  Cancel(nullptr);
}

void ResponseRun::ClientLeft() { Cancel(nullptr); }

void ResponseRun::OnItemStart(size_t, const TurnItem& item) {
  std::lock_guard lock(mutex_);
  Begin();
  builder_.ItemStart(item);
}

void ResponseRun::OnDelta(size_t, std::string_view text, std::span<const ItemLogprob> logprobs) {
  std::lock_guard lock(mutex_);
  builder_.Delta(text, logprobs);
}

void ResponseRun::OnItemEnd(size_t, const TurnItem& item) {
  std::lock_guard lock(mutex_);
  builder_.ItemEnd(item);
}

StoredResponse ResponseRun::Record() const {
  StoredResponse record;
  record.id = id_;
  record.owner = plan_.owner;
  record.previous_id = plan_.previous_id;
  record.status = builder_.response()["status"].get<std::string>();
  record.body = WriteJson(builder_.response());
  record.input = WriteJson(plan_.items);
  record.created_s = created_s_;
  return record;
}

void ResponseRun::OnFinish(const TurnResult& result) {
  std::unique_lock lock(mutex_);
  Begin();
  builder_.Finish(result, NowSeconds());
  // What was cut off is no turn that the model would continue from.
  const bool whole = result.end == TurnEnd::kAnswered || result.end == TurnEnd::kToolCall;
  const bool keep = plan_.store && !forgotten_;
  if (whole) shared_.replay->Remember(plan_.owner, history_, result.history, builder_.replay_ids(), keep);
  history_.clear();
  if (!keep) {
    lock.unlock();
    return Deliver({});
  }
  StoredResponse record = Record();
  if (!log_.empty()) {
    for (const std::string& text : log_) record.events += text;
    record.events += EventText(builder_.EndEvent());
  }
  // Under the lock, so that whoever deletes the response does so after it was put.
  shared_.store->Put(std::move(record), [self = shared_from_this()](const Status& status) { self->Deliver(status); });
}

void ResponseRun::Deliver(const Status& stored) {
  // Whoever has the answer may ask for the response at once, and is to find the stored one.
  if (const auto live = live_.lock()) live->Remove(id_, background() && !stored.ok());
  std::unique_lock lock(mutex_);
  if (!stored.ok()) builder_.StorageFailed(stored);
  const std::string end = EventText(builder_.EndEvent());
  delivered_ = true;
  const Json response = builder_.response();
  if (background() && plan_.stream) log_.push_back(end);
  const auto followers = std::exchange(followers_, {});
  const auto responder = std::exchange(responder_, nullptr);
  const auto waiting_for_end = std::exchange(waiting_for_end_, {});
  for (const auto& follower : followers) {
    follower->Write(end);
    follower->End();
  }
  lock.unlock();
  const bool is_follower = plan_.stream && !background();
  if (responder != nullptr && !is_follower) {
    // Weights or arithmetic that fail are the server's fault; whatever a model says is not.
    if (response["status"] == "failed" && !background()) {
      SendError(*responder, {500, "server_error", response["error"].value("message", ""), "", "", 0});
    } else {
      SendJson(*responder, 200, response);
    }
  }
  for (const auto& waiting : waiting_for_end) SendJson(*waiting, 200, response);
}

}  // namespace gptoss::server
