// Log-probabilities as OpenAI's APIs, and Ollama's after them, write them. Source: OpenAI's API reference, "logprobs".
#pragma once

#include <span>

#include "json/json.h"
#include "server/turn.h"

namespace gptoss::server {

/// {"token", "logprob", "bytes"}. Bytes that are no text are U+FFFD in "token".
Json TokenJson(const Tokenizer& tokenizer, TokenId id, float logprob);

/// Of each token TokenJson and "top_logprobs", a list of the same.
Json LogprobsJson(const Tokenizer& tokenizer, std::span<const ItemLogprob> logprobs);

}  // namespace gptoss::server
