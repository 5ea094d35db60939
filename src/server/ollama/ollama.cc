#include "server/ollama/ollama.h"

#include <cmath>
#include <cstdio>
#include <ctime>
#include <memory>
#include <utility>

#include "server/api/fields.h"
#include "server/ollama/ollama_output.h"
#include "server/ollama/ollama_request.h"

namespace gptoss::server {
namespace {

std::string TimeOf(int64_t seconds) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm utc{};
  gmtime_r(&time, &utc);
  char text[40];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

/// "20.9B", "116.8B", "1.5M".
std::string ParameterSize(uint64_t parameters) {
  const bool billions = parameters >= 1'000'000'000;
  char text[32];
  std::snprintf(text, sizeof text, "%.1f%c", static_cast<double>(parameters) / (billions ? 1e9 : 1e6),
                billions ? 'B' : 'M');
  return text;
}

class Ollama {
 public:
  Ollama(const ApiContext& api, ReplayStore& replay, ModelCard card)
      : api_(api), replay_(replay), card_(std::move(card)) {}

  void Run(const HttpRequest& http, bool chat, const std::shared_ptr<Responder>& responder) const;
  void Show(const HttpRequest& http, Responder& responder) const;
  Json Tags() const;
  Json Running() const;

 private:
  Json Details() const;
  Json Entry() const;

  const ApiContext& api_;
  ReplayStore& replay_;
  const ModelCard card_;
};

Json Ollama::Details() const {
  return {{"parent_model", ""},
          {"format", card_.format},
          {"family", "gptoss"},
          {"families", Json::array({"gptoss"})},
          {"parameter_size", ParameterSize(card_.parameters)},
          {"quantization_level", card_.quantization}};
}

Json Ollama::Entry() const {
  // Clients take the digest for an id; there is no manifest here that one could be made of.
  return {{"name", api_.options.model},
          {"model", api_.options.model},
          {"modified_at", TimeOf(api_.options.created)},
          {"size", card_.bytes},
          {"digest", ""},
          {"details", Details()}};
}

Json Ollama::Tags() const {
  Json models = Json::array({Entry()});
  for (const std::string& adapter : api_.options.adapters) {
    Json entry = Entry();
    entry["name"] = entry["model"] = adapter;
    models.push_back(std::move(entry));
  }
  return {{"models", std::move(models)}};
}

Json Ollama::Running() const {
  Json entry = Entry();
  entry.erase("modified_at");
  // It stays as long as the server does.
  entry["expires_at"] = "9999-12-31T23:59:59Z";
  entry["size_vram"] = 0;
  entry["context_length"] = api_.turns->engine().max_context();
  return {{"models", Json::array({std::move(entry)})}};
}

void Ollama::Show(const HttpRequest& http, Responder& responder) const {
  const auto body = ParseBody(http);
  if (!body.ok()) return SendOllamaError(responder, ApiErrorOf(body.status()));
  const Json info = {{"general.architecture", "gptoss"},
                     {"general.basename", api_.options.model},
                     {"general.parameter_count", card_.parameters},
                     {"gptoss.attention.head_count", card_.heads},
                     {"gptoss.attention.head_count_kv", card_.kv_heads},
                     {"gptoss.block_count", card_.layers},
                     {"gptoss.context_length", card_.context},
                     {"gptoss.embedding_length", card_.hidden},
                     {"gptoss.expert_count", card_.experts},
                     {"gptoss.expert_used_count", card_.active_experts},
                     {"gptoss.vocab_size", card_.vocabulary}};
  SendJson(responder, 200,
           {{"license", "Apache-2.0"},
            {"modelfile", ""},
            {"parameters", "temperature 1"},
            {"template", ""},
            {"details", Details()},
            {"model_info", info},
            {"capabilities", Json::array({"completion", "tools", "thinking"})},
            {"modified_at", TimeOf(api_.options.created)}});
}

void Ollama::Run(const HttpRequest& http, bool chat, const std::shared_ptr<Responder>& responder) const {
  const auto body = ParseBody(http);
  auto request = !body.ok() ? Result<OllamaRequest>(body.status())
                 : chat     ? ParseOllamaChat(*body, api_.options)
                            : ParseOllamaGenerate(*body, api_.options);
  if (!request.ok()) return SendOllamaError(*responder, ApiErrorOf(request.status()));
  if (request->load_only) {
    Json line = {{"model", request->model}, {"created_at", OllamaTime()}};
    if (chat) {
      line["message"] = {{"role", "assistant"}, {"content", ""}};
    } else {
      line["response"] = "";
    }
    line["done"] = true;
    line["done_reason"] = request->unload ? "unload" : "load";
    return SendJson(*responder, 200, line);
  }
  request->turn.history = replay_.Apply(http.key_name, std::move(request->entries));
  auto output = std::make_unique<OllamaOutput>(
      OllamaOutput::Options{request->model, chat, request->stream, request->show_thinking, request->logprobs},
      api_.turns->tokenizer(), responder);
  Status status;
  if (request->raw) {
    std::vector<TokenId> prompt = api_.turns->tokenizer().Encode(request->prompt);
    status = RunRawTurn(*api_.turns, std::move(prompt), std::move(request->turn), responder, std::move(output));
  } else {
    status = RunTurn(*api_.turns, &replay_, http.key_name, std::move(request->turn), responder, std::move(output));
  }
  if (!status.ok()) SendOllamaError(*responder, ApiErrorOf(status));
}

}  // namespace

void AddOllamaRoutes(Router& router, const ApiContext& api, ReplayStore& replay, const ModelCard& card) {
  const auto ollama = std::make_shared<const Ollama>(api, replay, card);
  using Request = const HttpRequest&;
  using Out = std::shared_ptr<Responder>;
  router.Add("POST", "/api/chat", [ollama](Request http, Out out) { ollama->Run(http, true, out); });
  router.Add("POST", "/api/generate", [ollama](Request http, Out out) { ollama->Run(http, false, out); });
  router.Add("POST", "/api/show", [ollama](Request http, Out out) { ollama->Show(http, *out); });
  router.Add("GET", "/api/tags", [ollama](Request, Out out) { SendJson(*out, 200, ollama->Tags()); });
  router.Add("GET", "/api/ps", [ollama](Request, Out out) { SendJson(*out, 200, ollama->Running()); });
  router.Add("GET", "/api/version", [](Request, Out out) { SendJson(*out, 200, {{"version", kOllamaApiVersion}}); });
}

}  // namespace gptoss::server
