#include "server/turn_log.h"

#include <atomic>
#include <utility>

namespace gptoss::server {
namespace {

const char* KindName(TurnItem::Kind kind) {
  switch (kind) {
    case TurnItem::Kind::kReasoning:
      return "reasoning";
    case TurnItem::Kind::kPreamble:
      return "preamble";
    case TurnItem::Kind::kAnswer:
      return "answer";
    case TurnItem::Kind::kToolCall:
      break;
  }
  return "tool_call";
}

class LoggingListener : public TurnListener {
 public:
  LoggingListener(std::shared_ptr<TurnListener> inner, Log& log, uint64_t number)
      : inner_(std::move(inner)), log_(log), number_(number) {}
  void OnItemStart(size_t index, const TurnItem& item) override { inner_->OnItemStart(index, item); }
  void OnDelta(size_t index, std::string_view text, std::span<const ItemLogprob> logprobs) override {
    inner_->OnDelta(index, text, logprobs);
  }
  void OnItemEnd(size_t index, const TurnItem& item) override { inner_->OnItemEnd(index, item); }
  void OnFinish(const TurnResult& result) override {
    Json items = Json::array();
    for (const TurnItem& item : result.items) {
      Json said = {{"kind", KindName(item.kind)}, {"text", item.text}};
      if (item.kind == TurnItem::Kind::kToolCall) said["tool"] = item.tool;
      items.push_back(std::move(said));
    }
    log_.Write(
        {{"event", "turn_end"}, {"turn", number_}, {"end", TurnEndName(result.end)}, {"items", std::move(items)}});
    inner_->OnFinish(result);
  }

 private:
  const std::shared_ptr<TurnListener> inner_;
  Log& log_;
  const uint64_t number_;
};

class LoggedTurns : public TurnService {
 public:
  LoggedTurns(TurnService& turns, Log& log) : turns_(turns), log_(log) {}
  Result<RequestId> Start(TurnRequest request, std::shared_ptr<TurnListener> listener) override {
    GPTOSS_ASSIGN_OR_RETURN(const std::vector<TokenId> prompt, turns_.Render(request));
    return turns_.Start(std::move(request), Logged(prompt, std::move(listener)));
  }
  void Cancel(RequestId id) override { turns_.Cancel(id); }
  Result<std::vector<TokenId>> Render(const TurnRequest& request) const override { return turns_.Render(request); }
  Result<RequestId> StartRaw(std::vector<TokenId> prompt, TurnRequest limits,
                             std::shared_ptr<TurnListener> listener) override {
    auto logged = Logged(prompt, std::move(listener));
    return turns_.StartRaw(std::move(prompt), std::move(limits), std::move(logged));
  }
  const Tokenizer& tokenizer() const override { return turns_.tokenizer(); }
  Engine& engine() override { return turns_.engine(); }

 private:
  std::shared_ptr<TurnListener> Logged(const std::vector<TokenId>& prompt, std::shared_ptr<TurnListener> listener) {
    const uint64_t number = ++turns_begun_;
    log_.Write({{"event", "turn"}, {"turn", number}, {"prompt", tokenizer().Decode(prompt)}});
    return std::make_shared<LoggingListener>(std::move(listener), log_, number);
  }

  TurnService& turns_;
  Log& log_;
  std::atomic<uint64_t> turns_begun_{0};
};

}  // namespace

std::unique_ptr<TurnService> LogTurns(TurnService& turns, Log& log) {
  return std::make_unique<LoggedTurns>(turns, log);
}

}  // namespace gptoss::server
