#include "server/anthropic/messages.h"

#include <utility>

#include "server/anthropic/messages_output.h"
#include "server/anthropic/messages_request.h"

namespace gptoss::server {
namespace {

Result<MessagesRequest> Read(const HttpRequest& http, const ApiContext& api, ReplayStore& replay, bool counting) {
  GPTOSS_ASSIGN_OR_RETURN(const Json body, ParseBody(http));
  GPTOSS_ASSIGN_OR_RETURN(MessagesRequest request, ParseMessagesRequest(body, api.options, counting));
  request.turn.history = replay.Apply(http.key_name, std::move(request.entries));
  return request;
}

void Create(const HttpRequest& http, const ApiContext& api, ReplayStore& replay,
            const std::shared_ptr<Responder>& responder) {
  auto request = Read(http, api, replay, false);
  Status status = request.status();
  if (status.ok()) {
    auto output = std::make_unique<MessagesOutput>(
        MessagesOutput::Options{request->model, request->stream, request->show_thinking, request->omit_thinking},
        responder);
    status = RunTurn(*api.turns, &replay, http.key_name, std::move(request->turn), responder, std::move(output));
  }
  if (!status.ok()) SendAnthropicError(*responder, ApiErrorOf(status));
}

void CountTokens(const HttpRequest& http, const ApiContext& api, ReplayStore& replay, Responder& responder) {
  const auto request = Read(http, api, replay, true);
  const auto tokens = request.ok() ? api.turns->Render(request->turn) : Result<std::vector<TokenId>>(request.status());
  if (!tokens.ok()) return SendAnthropicError(responder, ApiErrorOf(tokens.status()));
  SendJson(responder, 200, {{"input_tokens", tokens->size()}});
}

}  // namespace

void AddAnthropicRoutes(Router& router, const ApiContext& api, ReplayStore& replay) {
  router.Add("POST", "/v1/messages", [&api, &replay](const HttpRequest& http, std::shared_ptr<Responder> responder) {
    Create(http, api, replay, responder);
  });
  router.Add("POST", "/v1/messages/count_tokens",
             [&api, &replay](const HttpRequest& http, std::shared_ptr<Responder> responder) {
               CountTokens(http, api, replay, *responder);
             });
}

}  // namespace gptoss::server
