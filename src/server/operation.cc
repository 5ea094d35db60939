#include "server/operation.h"

#include <array>
#include <utility>

#include "server/openai/errors.h"

namespace gptoss::server {
namespace {

struct Described {
  std::string_view method, pattern, summary;
};

constexpr std::array kDescribed = {
    Described{"POST", "/v1/chat/completions", "One turn of the assistant (OpenAI's Chat Completions)"},
    Described{"POST", "/v1/completions", "Raw continuation of a text or of token ids"},
    Described{"GET", "/v1/models", "The model that is served"},
    Described{"GET", "/v1/models/{}", "The model that is served, under any name"},
    Described{"GET", "/v1/models/{}/{}", "The model that is served, under any name"},
    Described{"POST", "/v1/embeddings", "Refused: the models make none"},
    Described{"POST", "/v1/responses", "One response (OpenAI's Responses)"},
    Described{"POST", "/v1/responses/input_tokens", "Counts the tokens of a request of /v1/responses"},
    Described{"POST", "/v1/responses/compact", "Makes a summary stand for what was said before"},
    Described{"GET", "/v1/responses/{}", "A stored response, or its stream"},
    Described{"DELETE", "/v1/responses/{}", "Forgets a stored response"},
    Described{"POST", "/v1/responses/{}/cancel", "Ends a response in the background"},
    Described{"GET", "/v1/responses/{}/input_items", "What a stored response was an answer to"},
    Described{"POST", "/v1/messages", "One turn of the assistant (Anthropic's Messages)"},
    Described{"POST", "/v1/messages/count_tokens", "Counts the tokens of a request of /v1/messages"},
    Described{"POST", "/api/chat", "One turn of the assistant (Ollama)"},
    Described{"POST", "/api/generate", "One answer to a prompt (Ollama)"},
    Described{"POST", "/tokenize", "Token ids of a text, or of the prompt that messages become"},
    Described{"POST", "/detokenize", "The text of token ids"},
    Described{"GET", "/health", "The process lives"},
    Described{"GET", "/ready", "New requests are taken"},
    Described{"GET", "/metrics", "Counters in the text format of Prometheus"},
    Described{"GET", "/openapi.json", "This description"},
};

std::string_view SummaryOf(const Router::RouteName& route) {
  for (const Described& described : kDescribed) {
    if (described.method == route.method && described.pattern == route.pattern) return described.summary;
  }
  return "";
}

/// "/v1/responses/{}" -> "/v1/responses/{p1}", since names are required there.
std::string NamedPath(const std::string& pattern, Json* parameters) {
  std::string path;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern.compare(i, 2, "{}") != 0) {
      path += pattern[i];
      continue;
    }
    const std::string name = "p" + std::to_string(parameters->size() + 1);
    parameters->push_back({{"name", name}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}});
    path += "{" + name + "}";
    ++i;
  }
  return path;
}

Json ErrorSchema() {
  const Json text = {{"type", Json::array({"string", "null"})}};
  return {
      {"type", "object"},
      {"required", Json::array({"error"})},
      {"properties",
       {{"error",
         {{"type", "object"},
          {"required", Json::array({"message", "type", "param", "code"})},
          {"properties",
           {{"message", {{"type", "string"}}}, {"type", {{"type", "string"}}}, {"param", text}, {"code", text}}}}}}}};
}

std::string LowerCase(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return text;
}

}  // namespace

Json OpenApiDocument(const Router& router, const ApiOptions& options) {
  Json paths = Json::object();
  for (const Router::RouteName& route : router.routes()) {
    Json parameters = Json::array();
    const std::string path = NamedPath(route.pattern, &parameters);
    Json operation = {{"summary", SummaryOf(route)}};
    if (!parameters.empty()) operation["parameters"] = parameters;
    if (route.method == "POST") {
      operation["requestBody"] = {{"content", {{"application/json", {{"schema", {{"type", "object"}}}}}}}};
    }
    operation["responses"] = {
        {"200", {{"description", "As asked; with \"stream\": true a stream of server-sent events"}}},
        {"default",
         {{"description", "An error"},
          {"content", {{"application/json", {{"schema", {{"$ref", "#/components/schemas/Error"}}}}}}}}}};
    paths[path][LowerCase(route.method)] = std::move(operation);
  }
  return {{"openapi", "3.1.0"},
          {"info", {{"title", "gptoss"}, {"version", options.version}}},
          {"paths", std::move(paths)},
          {"components",
           {{"schemas", {{"Error", ErrorSchema()}}},
            {"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}}}},
          {"security", Json::array({Json::object(), Json{{"key", Json::array()}}})}};
}

void AddOperationRoutes(Router& router, const ApiContext& api, const OperationHooks& hooks) {
  router.Add("GET", "/health", [](const HttpRequest&, std::shared_ptr<Responder> responder) {
    SendJson(*responder, 200, {{"status", "ok"}});
  });
  router.Add("GET", "/ready", [&hooks](const HttpRequest&, std::shared_ptr<Responder> responder) {
    const bool ready = hooks.ready();
    SendJson(*responder, ready ? 200 : 503, {{"status", ready ? "ready" : "draining"}});
  });
  router.Add("GET", "/metrics", [&hooks](const HttpRequest&, std::shared_ptr<Responder> responder) {
    responder->Send(200, "text/plain; version=0.0.4; charset=utf-8", hooks.metrics());
  });
  router.Add("GET", "/openapi.json", [&router, &api](const HttpRequest&, std::shared_ptr<Responder> responder) {
    SendJson(*responder, 200, OpenApiDocument(router, api.options));
  });
}

}  // namespace gptoss::server
