#include "server/openai/models.h"

#include "base/utf8.h"
#include "server/api/fields.h"
#include "server/openai/chat_request.h"
#include "server/openai/errors.h"

namespace gptoss::server {
namespace {

Json ModelJson(const ApiContext& api, std::string_view id) {
  return {{"id", id},
          {"object", "model"},
          {"created", api.options.created},
          {"owned_by", "openai"},
          {"max_model_len", api.turns->engine().max_context()}};
}

/// Names of models are not checked anywhere else, so neither are they here.
void SendModel(const ApiContext& api, const HttpRequest& http, Responder& responder) {
  SendJson(responder, 200, ModelJson(api, std::string_view(http.path).substr(std::string_view("/v1/models/").size())));
}

/// The ids of a text, or of the prompt that a list of messages becomes.
Result<std::vector<TokenId>> Tokenize(const ApiContext& api, const Json& body) {
  FieldReader fields(body);
  if (fields.Find("messages") != nullptr) {
    GPTOSS_ASSIGN_OR_RETURN(ChatRequest request, ParseChatRequest(body, api.options));
    for (HistoryEntry& entry : request.entries) request.turn.history.push_back({std::move(entry.message), {}});
    return api.turns->Render(request.turn);
  }
  for (const char* key : {"prompt", "content", "text"}) {  // as vLLM, as llama.cpp, as our own command
    if (fields.Find(key) == nullptr) continue;
    const std::string text = fields.String(key).value_or("");
    GPTOSS_RETURN_IF_ERROR(fields.status());
    return api.turns->tokenizer().Encode(text);
  }
  return InvalidArgument("prompt: is missing; give 'prompt' (a text) or 'messages'");
}

Result<std::string> Detokenize(const ApiContext& api, const Json& body) {
  FieldReader fields(body);
  const Json* tokens = fields.Array("tokens");
  if (tokens == nullptr) fields.Fail("tokens", "must be an array of token ids");
  GPTOSS_RETURN_IF_ERROR(fields.status());
  std::vector<TokenId> ids;
  for (const Json& id : *tokens) {
    const bool known = id.is_number_integer() && id.get<int64_t>() >= 0 &&
                       id.get<int64_t>() < static_cast<int64_t>(api.turns->tokenizer().size());
    if (!known) return InvalidArgument("tokens: " + WriteJson(id) + " is not a token of the vocabulary");
    ids.push_back(id.get<TokenId>());
  }
  return ReplaceInvalidUtf8(api.turns->tokenizer().Decode(ids));
}

}  // namespace

void AddModelRoutes(Router& router, const ApiContext& api) {
  router.Add("GET", "/v1/models", [&api](const HttpRequest&, std::shared_ptr<Responder> responder) {
    Json models = Json::array({ModelJson(api, api.options.model)});
    for (const std::string& adapter : api.options.adapters) models.push_back(ModelJson(api, adapter));
    SendJson(*responder, 200, {{"object", "list"}, {"data", std::move(models)}});
  });
  const auto one = [&api](const HttpRequest& http, std::shared_ptr<Responder> responder) {
    SendModel(api, http, *responder);
  };
  router.Add("GET", "/v1/models/{}", one);
  router.Add("GET", "/v1/models/{}/{}", one);  // "openai/gpt-oss-20b"
  router.Add("POST", "/v1/embeddings", [](const HttpRequest&, std::shared_ptr<Responder> responder) {
    SendError(*responder, BadRequest("gpt-oss models make no embeddings; use a model that was trained for them",
                                     "model", "unsupported_model"));
  });
  router.Add("POST", "/tokenize", [&api](const HttpRequest& http, std::shared_ptr<Responder> responder) {
    const auto body = ParseBody(http);
    if (!body.ok()) return SendError(*responder, ApiErrorOf(body.status()));
    const auto ids = Tokenize(api, *body);
    if (!ids.ok()) return SendError(*responder, ApiErrorOf(ids.status()));
    SendJson(*responder, 200,
             {{"tokens", *ids}, {"count", ids->size()}, {"max_model_len", api.turns->engine().max_context()}});
  });
  router.Add("POST", "/detokenize", [&api](const HttpRequest& http, std::shared_ptr<Responder> responder) {
    const auto body = ParseBody(http);
    if (!body.ok()) return SendError(*responder, ApiErrorOf(body.status()));
    const auto text = Detokenize(api, *body);
    if (!text.ok()) return SendError(*responder, ApiErrorOf(text.status()));
    SendJson(*responder, 200, {{"prompt", *text}, {"content", *text}});
  });
}

}  // namespace gptoss::server
