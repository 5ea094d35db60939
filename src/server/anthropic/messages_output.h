// A turn as Anthropic's message: whole, or as the events of a stream (message_start, content_block_start, deltas,
// content_block_stop, message_delta, message_stop). Source: docs.anthropic.com/en/docs/build-with-claude/streaming.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "json/json.h"
#include "server/api/simple_run.h"
#include "server/http.h"
#include "server/openai/errors.h"

namespace gptoss::server {

/// {"type": "error", "error": {"type", "message"}} with Anthropic's names for kinds of errors.
Json AnthropicErrorJson(const ApiError& error);
void SendAnthropicError(Responder& responder, const ApiError& error);

class MessagesOutput : public TurnOutput {
 public:
  struct Options {
    std::string model;
    bool stream = false, show_thinking = false, omit_thinking = false;
  };
  MessagesOutput(Options options, std::shared_ptr<Responder> responder);

  void Begin() override;
  void ItemStart(const TurnItem& item) override;
  bool Delta(const TurnItem& item, std::string_view text, std::span<const ItemLogprob> logprobs) override;
  void ItemEnd(const TurnItem& item) override;
  void Finish(const TurnResult& result) override;
  std::vector<std::string> replay_ids() const override { return ids_; }

 private:
  void OpenBlock(const TurnItem& item);
  bool Send(const char* type, Json fields);

  const Options options_;
  const std::shared_ptr<Responder> responder_;
  Json message_;
  Json block_;           // that is open; null: none
  std::string text_;     // of the item so far
  bool hidden_ = false;  // the item is not part of the answer
  std::vector<std::string> ids_;
};

}  // namespace gptoss::server
