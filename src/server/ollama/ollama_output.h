// A turn in Ollama's form: one JSON object, or a line of JSON for every piece and a last one with the figures.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "json/json.h"
#include "server/api/simple_run.h"
#include "server/http.h"
#include "server/openai/errors.h"

namespace gptoss::server {

/// {"error": "message"}.
void SendOllamaError(Responder& responder, const ApiError& error);
/// "2025-11-21T10:00:00.000000Z", now.
std::string OllamaTime();

class OllamaOutput : public TurnOutput {
 public:
  struct Options {
    std::string model;
    bool chat = true;  // false: the form of /api/generate
    bool stream = true, show_thinking = true, logprobs = false;
  };
  /// `tokenizer` must outlive this.
  OllamaOutput(Options options, const Tokenizer& tokenizer, std::shared_ptr<Responder> responder);

  void Begin() override;
  void ItemStart(const TurnItem& item) override;
  bool Delta(const TurnItem& item, std::string_view text, std::span<const ItemLogprob> logprobs) override;
  void ItemEnd(const TurnItem& item) override;
  void Finish(const TurnResult& result) override;
  std::vector<std::string> replay_ids() const override { return ids_; }

 private:
  /// One object of the stream: `message` for chat; its fields at the top for generate.
  Json Line(Json message, bool done) const;

  const Options options_;
  const Tokenizer& tokenizer_;
  const std::shared_ptr<Responder> responder_;
  std::string content_, thinking_, call_;
  Json calls_ = Json::array(), logprobs_ = Json::array();
  std::vector<std::string> ids_;
};

}  // namespace gptoss::server
