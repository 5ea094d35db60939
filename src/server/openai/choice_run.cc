#include "server/openai/choice_run.h"

#include <utility>

#include "server/api/sse.h"
#include "server/openai/errors.h"

namespace gptoss::server {

class ChoiceRun::Listener : public TurnListener {
 public:
  Listener(std::shared_ptr<ChoiceRun> run, size_t choice) : run_(std::move(run)), choice_(choice) {}

  void OnItemStart(size_t index, const TurnItem& item) override {
    const std::lock_guard lock(run_->mutex_);
    item_ = item;
    run_->OnItemStart(choice_, index, item);
  }
  void OnDelta(size_t index, std::string_view text, std::span<const ItemLogprob> logprobs) override {
    const std::lock_guard lock(run_->mutex_);
    run_->OnDelta(choice_, index, item_, text, logprobs);
  }
  void OnItemEnd(size_t index, const TurnItem& item) override {
    const std::lock_guard lock(run_->mutex_);
    run_->OnItemEnd(choice_, index, item);
  }
  void OnFinish(const TurnResult& result) override { run_->Finish(choice_, result); }

 private:
  const std::shared_ptr<ChoiceRun> run_;
  const size_t choice_;
  TurnItem item_;
};

Status ChoiceRun::Start(const Starter& start) {
  for (size_t choice = 0; choice < results_.size(); ++choice) {
    const auto id = start(choice, std::make_shared<Listener>(shared_from_this(), choice));
    if (!id.ok()) {
      CancelAll();
      return id.status();
    }
    const std::lock_guard lock(mutex_);
    ids_.push_back(*id);
  }
  responder_->OnClosed([weak = weak_from_this()] {
    if (const auto run = weak.lock()) run->CancelAll();
  });
  const std::lock_guard lock(mutex_);
  begun_ = true;
  if (stream_) {
    BeginEvents(*responder_);
    EmitRaw(std::exchange(pending_, {}));
  }
  if (open_choices_ == 0) FinishAll();
  return {};
}

void ChoiceRun::Emit(const Json& event) {
  if (stream_) EmitRaw("data: " + WriteJson(event) + "\n\n");
}

void ChoiceRun::EmitRaw(std::string_view bytes) {
  if (abandoned_ || bytes.empty()) return;
  if (!begun_) {
    pending_ += bytes;
  } else if (!responder_->Write(bytes)) {
    abandoned_ = true;
    for (const RequestId id : ids_) turns_.Cancel(id);
  }
}

void ChoiceRun::Finish(size_t choice, const TurnResult& result) {
  const std::lock_guard lock(mutex_);
  results_[choice] = result;
  OnChoiceFinish(choice, result);
  if (--open_choices_ == 0 && begun_) FinishAll();
}

void ChoiceRun::FinishAll() {
  if (abandoned_) return;
  for (const TurnResult& result : results_) {
    if (result.end != TurnEnd::kFailed) continue;
    ApiError error = ApiErrorOf(result.status);
    error.http_status = 500, error.type = "server_error";
    if (!stream_) return SendError(*responder_, error);
    Emit(ErrorJson(error));
  }
  if (!stream_) return SendJson(*responder_, 200, Document());
  EmitEnd();
  EmitRaw("data: [DONE]\n\n");
  if (!abandoned_) responder_->End();
}

void ChoiceRun::CancelAll() {
  const std::lock_guard lock(mutex_);
  abandoned_ = true;
  for (const RequestId id : ids_) turns_.Cancel(id);
}

const char* FinishReasonName(TurnEnd end) {
  switch (end) {
    case TurnEnd::kAnswered:
    case TurnEnd::kStopSequence:
      return "stop";
    case TurnEnd::kToolCall:
      return "tool_calls";
    default:
      return "length";
  }
}

Json StopDetail(TurnEnd end) {
  switch (end) {
    case TurnEnd::kContextFull:
    case TurnEnd::kRepetition:
    case TurnEnd::kCancelled:
    case TurnEnd::kDeadline:
      return TurnEndName(end);
    default:
      return nullptr;
  }
}

}  // namespace gptoss::server
