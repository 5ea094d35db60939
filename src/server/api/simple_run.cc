#include "server/api/simple_run.h"

#include <utility>

namespace gptoss::server {
namespace {

class SimpleRun : public TurnListener, public std::enable_shared_from_this<SimpleRun> {
 public:
  SimpleRun(TurnService& turns, ReplayStore* replay, std::string owner, std::unique_ptr<TurnOutput> output)
      : turns_(turns), replay_(replay), owner_(std::move(owner)), output_(std::move(output)) {}

  Status Start(TurnRequest request, Responder& responder) {
    history_ = request.history;
    return Started(turns_.Start(std::move(request), shared_from_this()), responder);
  }

  Status StartRaw(std::vector<TokenId> prompt, TurnRequest limits, Responder& responder) {
    return Started(turns_.StartRaw(std::move(prompt), std::move(limits), shared_from_this()), responder);
  }

  void OnItemStart(size_t, const TurnItem& item) override {
    std::lock_guard lock(mutex_);
    Begin();
    output_->ItemStart(item);
    item_ = item;
  }

  void OnDelta(size_t, std::string_view text, std::span<const ItemLogprob> logprobs) override {
    std::lock_guard lock(mutex_);
    if (output_->Delta(item_, text, logprobs) || cancelled_) return;
    cancelled_ = true;
    if (request_) turns_.Cancel(*request_);
  }

  void OnItemEnd(size_t, const TurnItem& item) override {
    std::lock_guard lock(mutex_);
    output_->ItemEnd(item);
  }

  void OnFinish(const TurnResult& result) override {
    std::lock_guard lock(mutex_);
    Begin();
    const bool whole = result.end == TurnEnd::kAnswered || result.end == TurnEnd::kToolCall;
    // Before the client hears of it, since its next request may follow at once.
    if (whole && replay_ != nullptr) {
      replay_->Remember(owner_, history_, result.history, output_->replay_ids(), /*durable=*/true);
    }
    output_->Finish(result);
  }

 private:
  Status Started(const Result<RequestId>& started, Responder& responder) {
    if (!started.ok()) return started.status();
    bool cancelled = false;
    {
      std::lock_guard lock(mutex_);
      request_ = *started;
      Begin();
      cancelled = cancelled_;
    }
    if (cancelled) turns_.Cancel(*started);
    responder.OnClosed([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->Cancel();
    });
    return {};
  }

  /// By whichever comes first: the return of TurnService::Start, or the first event of the turn.
  void Begin() {
    if (!std::exchange(begun_, true)) output_->Begin();
  }

  void Cancel() {
    std::optional<RequestId> request;
    {
      std::lock_guard lock(mutex_);
      cancelled_ = true;
      request = request_;
    }
    if (request) turns_.Cancel(*request);
  }

  TurnService& turns_;
  ReplayStore* const replay_;
  const std::string owner_;
  std::vector<HistoryMessage> history_;  // set before the turn begins

  std::mutex mutex_;
  std::unique_ptr<TurnOutput> output_;
  TurnItem item_;
  std::optional<RequestId> request_;
  bool begun_ = false, cancelled_ = false;
};

}  // namespace

Status RunTurn(TurnService& turns, ReplayStore* replay, std::string owner, TurnRequest request,
               std::shared_ptr<Responder> responder, std::unique_ptr<TurnOutput> output) {
  return std::make_shared<SimpleRun>(turns, replay, std::move(owner), std::move(output))
      ->Start(std::move(request), *responder);
}

Status RunRawTurn(TurnService& turns, std::vector<TokenId> prompt, TurnRequest limits,
                  std::shared_ptr<Responder> responder, std::unique_ptr<TurnOutput> output) {
  return std::make_shared<SimpleRun>(turns, nullptr, "", std::move(output))
      ->StartRaw(std::move(prompt), std::move(limits), *responder);
}

}  // namespace gptoss::server
