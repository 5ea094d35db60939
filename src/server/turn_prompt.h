// A turn's prompt: system message, developer message, history, and the opening of the assistant's message.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "harmony/render.h"
#include "server/turn.h"

namespace gptoss::server {

/// The name that a declared tool has for the model.
std::string Recipient(const std::string& bare_name);
/// "get_weather" of "functions.get_weather"; other names as they are.
std::string BareName(const std::string& recipient);

struct TurnPrompt {
  std::vector<TokenId> tokens;
  std::vector<int> checkpoints;  // see EngineRequest
};

/// Messages with tokens are written as those tokens (their end as <|end|> where it was <|return|>), others are
/// rendered. Nothing that a message, a name or a schema holds can become a marker.
/// On failure: as Renderer::RenderConversation, messages counted within the history.
Result<TurnPrompt> BuildPrompt(const Renderer& renderer, const TurnRequest& request, const std::string& date);

}  // namespace gptoss::server
