#include "server/api/logprobs.h"

#include <string_view>
#include <utility>

#include "base/utf8.h"

namespace gptoss::server {

Json TokenJson(const Tokenizer& tokenizer, TokenId id, float logprob) {
  const std::string_view bytes = tokenizer.TokenBytes(id);
  Json list = Json::array();
  for (const char c : bytes) list.push_back(static_cast<uint8_t>(c));
  // JSON has no infinity; OpenAI writes -9999 for what cannot be.
  const double shown = logprob > -9999.0f ? static_cast<double>(logprob) : -9999.0;
  return {{"token", ReplaceInvalidUtf8(bytes)}, {"logprob", shown}, {"bytes", std::move(list)}};
}

Json LogprobsJson(const Tokenizer& tokenizer, std::span<const ItemLogprob> logprobs) {
  Json list = Json::array();
  for (const ItemLogprob& token : logprobs) {
    Json json = TokenJson(tokenizer, token.id, token.logprob);
    json["top_logprobs"] = Json::array();
    for (const TokenLogprob& top : token.top) json["top_logprobs"].push_back(TokenJson(tokenizer, top.id, top.logprob));
    list.push_back(std::move(json));
  }
  return list;
}

}  // namespace gptoss::server
