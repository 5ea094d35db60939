#include "server/openai/completions.h"

#include <utility>

#include "base/rng.h"
#include "server/api/clock.h"
#include "server/api/ids.h"
#include "server/api/logprobs.h"
#include "server/openai/choice_run.h"
#include "server/openai/errors.h"
#include "server/openai/sampling_fields.h"

namespace gptoss::server {
namespace {

constexpr int kDefaultTokens = 16;  // as OpenAI documents
constexpr int kMaxLegacyLogprobs = 5;
constexpr size_t kMaxPrompts = 128;

struct CompletionRequest {
  std::vector<std::vector<TokenId>> prompts;
  TurnRequest limits;
  std::string model;
  int choices = 1;  // of each prompt
  bool stream = false, include_usage = false, echo = false, logprobs = false;
};

Result<std::vector<TokenId>> TokenList(const Json& json, const Tokenizer& tokenizer) {
  std::vector<TokenId> ids;
  for (const Json& id : json) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= tokenizer.size()) {
      return InvalidArgument("prompt: " + WriteJson(id) + " is not a token of the vocabulary");
    }
    ids.push_back(id.get<TokenId>());
  }
  return ids;
}

Result<std::vector<TokenId>> OnePrompt(const Json& json, const Tokenizer& tokenizer) {
  if (json.is_array()) return TokenList(json, tokenizer);
  if (!json.is_string()) {
    return InvalidArgument("prompt: must be a string, an array of token ids, or an array of either");
  }
  auto ids = tokenizer.Encode(json.get<std::string>());
  // An empty text begins a document.
  if (ids.empty() && tokenizer.SpecialId("<|endoftext|>") >= 0) ids.push_back(tokenizer.SpecialId("<|endoftext|>"));
  return ids;
}

Status ReadPrompts(FieldReader& body, const Tokenizer& tokenizer, std::vector<std::vector<TokenId>>* prompts) {
  const Json* prompt = body.Find("prompt");
  if (prompt == nullptr) return InvalidArgument("prompt: is missing");
  const bool is_list = prompt->is_array() && !prompt->empty() && !prompt->front().is_number();
  const Json list = is_list ? *prompt : Json::array({*prompt});
  if (list.size() > kMaxPrompts) return InvalidArgument("prompt: has too many texts");
  for (const Json& one : list) {
    GPTOSS_ASSIGN_OR_RETURN(auto ids, OnePrompt(one, tokenizer));
    prompts->push_back(std::move(ids));
  }
  return {};
}

Result<CompletionRequest> ParseCompletionRequest(const Json& json, const ApiContext& api) {
  FieldReader body(json);
  CompletionRequest out;
  GPTOSS_RETURN_IF_ERROR(ReadPrompts(body, api.turns->tokenizer(), &out.prompts));
  GPTOSS_RETURN_IF_ERROR(ReadSamplingFields(body, &out.limits));
  if (body.Find("max_tokens") == nullptr && body.Find("max_completion_tokens") == nullptr) {
    out.limits.max_tokens = kDefaultTokens;
  }
  if (body.String("suffix").value_or("") != "") {
    return Unsupported("suffix: gpt-oss models continue a text, they do not fill gaps");
  }
  const Json* model = body.Find("model");
  out.model = model != nullptr && model->is_string() && *model != "" ? model->get<std::string>() : api.options.model;
  out.limits.adapter = AdapterOf(api.options, out.model);
  out.choices = static_cast<int>(body.Int("n", 1, kMaxChoices).value_or(1));
  out.stream = body.Bool("stream").value_or(false);
  out.echo = body.Bool("echo").value_or(false);
  if (const auto top = body.Int("logprobs", 0, kMaxLegacyLogprobs)) {
    out.logprobs = true;
    out.limits.sampling.top_logprobs = static_cast<int>(*top);
  }
  if (const Json* stream = body.Object("stream_options")) {
    FieldReader fields(*stream, "stream_options");
    out.include_usage = fields.Bool("include_usage").value_or(false);
    GPTOSS_RETURN_IF_ERROR(fields.status());
  }
  GPTOSS_RETURN_IF_ERROR(body.status());
  return out;
}

class CompletionRun : public ChoiceRun {
 public:
  CompletionRun(const ApiContext& api, CompletionRequest request, std::shared_ptr<Responder> responder)
      : ChoiceRun(*api.turns, std::move(responder), request.prompts.size() * static_cast<size_t>(request.choices),
                  request.stream),
        api_(api),
        id_(NewId("cmpl-")),
        created_(NowSeconds()),
        request_(std::move(request)),
        logprobs_(results().size(), EmptyLogprobs()),
        offsets_(results().size(), 0) {}

  Status Run() {
    return Start([&](size_t choice, std::shared_ptr<TurnListener> listener) {
      TurnRequest limits = request_.limits;
      const size_t sample = choice % static_cast<size_t>(request_.choices);
      if (sample > 0) limits.sampling.seed = Mix64(limits.sampling.seed + sample * kGoldenGamma);
      return api_.turns->StartRaw(request_.prompts[PromptOf(choice)], std::move(limits), std::move(listener));
    });
  }

 private:
  size_t PromptOf(size_t choice) const { return choice / static_cast<size_t>(request_.choices); }

  static Json EmptyLogprobs() {
    return {{"tokens", Json::array()},
            {"token_logprobs", Json::array()},
            {"top_logprobs", Json::array()},
            {"text_offset", Json::array()}};
  }

  std::string Prefix(size_t choice) const {
    return request_.echo ? api_.turns->tokenizer().Decode(request_.prompts[PromptOf(choice)]) : std::string();
  }

  void OnItemStart(size_t choice, size_t, const TurnItem&) override {
    if (request_.echo) EmitText(choice, Prefix(choice), nullptr, nullptr);
  }

  void OnDelta(size_t choice, size_t, const TurnItem&, std::string_view text,
               std::span<const ItemLogprob> logprobs) override {
    Json delta = nullptr;
    if (request_.logprobs) {
      delta = EmptyLogprobs();
      for (const ItemLogprob& token : logprobs) AddLogprob(choice, token, &delta);
      for (const auto& [key, list] : delta.items()) {
        for (const Json& value : list) logprobs_[choice][key].push_back(value);
      }
    }
    EmitText(choice, text, std::move(delta), nullptr);
  }

  void OnItemEnd(size_t, size_t, const TurnItem&) override {}

  void OnChoiceFinish(size_t choice, const TurnResult& result) override {
    if (result.end != TurnEnd::kFailed) EmitText(choice, "", nullptr, &result);
  }

  void AddLogprob(size_t choice, const ItemLogprob& token, Json* out) {
    const Json json = TokenJson(api_.turns->tokenizer(), token.id, token.logprob);
    (*out)["tokens"].push_back(json["token"]);
    (*out)["token_logprobs"].push_back(json["logprob"]);
    Json top = Json::object();
    for (const TokenLogprob& other : token.top) {
      const Json named = TokenJson(api_.turns->tokenizer(), other.id, other.logprob);
      top[named["token"].get<std::string>()] = named["logprob"];
    }
    (*out)["top_logprobs"].push_back(std::move(top));
    (*out)["text_offset"].push_back(offsets_[choice]);
    offsets_[choice] += api_.turns->tokenizer().TokenBytes(token.id).size();
  }

  Json Envelope() const {
    return {{"id", id_},
            {"object", "text_completion"},
            {"created", created_},
            {"model", request_.model},
            {"system_fingerprint", "gptoss-" + api_.options.version}};
  }

  void EmitText(size_t choice, std::string_view text, Json logprobs, const TurnResult* end) {
    if (!stream()) return;
    Json chunk = Envelope();
    Json one = {{"index", choice},
                {"text", text},
                {"logprobs", std::move(logprobs)},
                {"finish_reason", end == nullptr ? Json(nullptr) : Json(FinishReasonName(end->end))}};
    if (end != nullptr) one["stop_reason"] = StopDetail(end->end);
    chunk["choices"] = Json::array({std::move(one)});
    if (request_.include_usage) chunk["usage"] = nullptr;
    Emit(chunk);
  }

  Json Usage() const {
    EngineUsage sum;
    for (size_t i = 0; i < results().size(); ++i) {
      const EngineUsage& usage = results()[i].usage;
      sum.output_tokens += usage.output_tokens;
      if (i % static_cast<size_t>(request_.choices) != 0) continue;  // one prompt, however many samples
      sum.prompt_tokens += usage.prompt_tokens;
      sum.cached_tokens += usage.cached_tokens;
    }
    return UsageJson(sum, 0);
  }

  Json Document() override {
    Json document = Envelope();
    document["choices"] = Json::array();
    for (size_t i = 0; i < results().size(); ++i) {
      const TurnResult& result = results()[i];
      std::string text = Prefix(i);
      for (const TurnItem& item : result.items) text += item.text;
      document["choices"].push_back({{"index", i},
                                     {"text", std::move(text)},
                                     {"logprobs", request_.logprobs ? logprobs_[i] : Json(nullptr)},
                                     {"finish_reason", FinishReasonName(result.end)},
                                     {"stop_reason", StopDetail(result.end)}});
    }
    document["usage"] = Usage();
    return document;
  }

  void EmitEnd() override {
    if (!request_.include_usage) return;
    Json chunk = Envelope();
    chunk["choices"] = Json::array();
    chunk["usage"] = Usage();
    Emit(chunk);
  }

  const ApiContext& api_;
  const std::string id_;
  const int64_t created_;
  const CompletionRequest request_;
  std::vector<Json> logprobs_;
  std::vector<size_t> offsets_;  // bytes of the answer before the next token
};

}  // namespace

void AddCompletionsRoutes(Router& router, const ApiContext& api) {
  router.Add("POST", "/v1/completions", [&api](const HttpRequest& http, std::shared_ptr<Responder> responder) {
    const auto body = ParseBody(http);
    if (!body.ok()) return SendError(*responder, ApiErrorOf(body.status()));
    auto request = ParseCompletionRequest(*body, api);
    if (!request.ok()) return SendError(*responder, ApiErrorOf(request.status()));
    const auto run = std::make_shared<CompletionRun>(api, *std::move(request), responder);
    if (const Status status = run->Run(); !status.ok()) SendError(*responder, ApiErrorOf(status));
  });
}

}  // namespace gptoss::server
