// A request of one or more choices, each a turn of its own, answered as one document or as one stream of events.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "json/json.h"
#include "server/http.h"
#include "server/turn.h"

namespace gptoss::server {

/// Base of the runs of /v1/chat/completions and /v1/completions. All On… functions are called with the lock held, one
/// at a time, so that those who write them need no other.
class ChoiceRun : public std::enable_shared_from_this<ChoiceRun> {
 public:
  ChoiceRun(TurnService& turns, std::shared_ptr<Responder> responder, size_t choices, bool stream)
      : turns_(turns), responder_(std::move(responder)), stream_(stream), results_(choices), open_choices_(choices) {}
  virtual ~ChoiceRun() = default;

  /// Begins one turn with the listener that it is given.
  using Starter = std::function<Result<RequestId>(size_t choice, std::shared_ptr<TurnListener> listener)>;
  /// Begins all choices. On failure: what `start` said, and nothing was sent.
  Status Start(const Starter& start);

 protected:
  virtual void OnItemStart(size_t choice, size_t index, const TurnItem& item) = 0;
  virtual void OnDelta(size_t choice, size_t index, const TurnItem& item, std::string_view text,
                       std::span<const ItemLogprob> logprobs) = 0;
  virtual void OnItemEnd(size_t choice, size_t index, const TurnItem& item) = 0;
  virtual void OnChoiceFinish(size_t choice, const TurnResult& result) = 0;
  /// All choices are over: the document, or the events that end the stream.
  virtual Json Document() = 0;
  virtual void EmitEnd() = 0;

  bool stream() const { return stream_; }
  TurnService& turns() { return turns_; }
  const std::vector<TurnResult>& results() const { return results_; }
  /// Sends one event; nothing unless this is a stream.
  void Emit(const Json& event);
  void EmitRaw(std::string_view bytes);

 private:
  class Listener;
  void Finish(size_t choice, const TurnResult& result);
  void FinishAll();
  void CancelAll();

  TurnService& turns_;
  const std::shared_ptr<Responder> responder_;
  const bool stream_;
  std::mutex mutex_;
  bool begun_ = false;      // all choices have started
  bool abandoned_ = false;  // nobody listens, or a choice could not be started
  std::string pending_;     // events from before
  std::vector<TurnResult> results_;
  std::vector<RequestId> ids_;
  size_t open_choices_;
};

/// The word for how a turn ended: "stop", "length" or "tool_calls".
const char* FinishReasonName(TurnEnd end);
/// What "stop" and "length" leave open: null, or "repetition", "deadline", "cancelled".
Json StopDetail(TurnEnd end);

}  // namespace gptoss::server
