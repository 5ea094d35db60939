#include "server/openai/chat_completions.h"

#include <map>
#include <utility>

#include "base/rng.h"
#include "server/api/clock.h"
#include "server/api/ids.h"
#include "server/api/logprobs.h"
#include "server/openai/chat_request.h"
#include "server/openai/choice_run.h"
#include "server/openai/errors.h"
#include "server/openai/sampling_fields.h"

namespace gptoss::server {
namespace {

constexpr char kNoAnswer[] = "The model ended its turn without an answer.";

bool IsAside(const TurnItem& item) {
  return item.kind == TurnItem::Kind::kReasoning || item.kind == TurnItem::Kind::kPreamble;
}

class ChatRun : public ChoiceRun {
 public:
  ChatRun(const ApiContext& api, ReplayStore* replay, std::string owner, ChatRequest request,
          std::shared_ptr<Responder> responder)
      : ChoiceRun(*api.turns, std::move(responder), static_cast<size_t>(request.choices), request.stream),
        api_(api),
        replay_(replay),
        owner_(std::move(owner)),
        id_(NewId("chatcmpl-")),
        created_(NowSeconds()),
        request_(std::move(request)),
        choices_(static_cast<size_t>(request_.choices)) {}

  Status Run() {
    TurnRequest turn = request_.turn;
    if (replay_ != nullptr) {
      turn.history = replay_->Apply(owner_, std::move(request_.entries));
      history_ = turn.history;
    } else {
      for (HistoryEntry& entry : request_.entries) turn.history.push_back({std::move(entry.message), {}});
    }
    return Start([&](size_t choice, std::shared_ptr<TurnListener> listener) {
      TurnRequest one = turn;
      // The first choice draws the numbers of the seed itself, so that it is what n = 1 gives.
      if (choice > 0) one.sampling.seed = Mix64(one.sampling.seed + choice * kGoldenGamma);
      return api_.turns->Start(std::move(one), std::move(listener));
    });
  }

 private:
  struct Choice {
    bool greeted = false;  // the first delta, with the role, was sent
    bool aside = false;    // some reasoning was given
    int calls = 0;
    std::map<size_t, std::string> call_ids;  // by item
    Json logprobs = Json::array();
  };

  bool Shown(const TurnItem& item) const {
    return item.kind != TurnItem::Kind::kReasoning || !api_.options.withhold_reasoning;
  }

  void OnItemStart(size_t choice, size_t index, const TurnItem& item) override {
    Greet(choice);
    Choice& state = choices_[choice];
    if (IsAside(item) && Shown(item)) {
      if (std::exchange(state.aside, true)) EmitReasoning(choice, "\n\n");
    } else if (item.kind == TurnItem::Kind::kToolCall) {
      std::string& id = state.call_ids[index] = NewId("call_");
      Json call = {{"index", state.calls++}, {"id", id}, {"type", item.custom ? "custom" : "function"}};
      if (item.custom) {
        call["custom"] = {{"name", item.tool}, {"input", ""}};
      } else {
        call["function"] = {{"name", item.tool}, {"arguments", ""}};
      }
      EmitDelta(choice, {{"tool_calls", Json::array({std::move(call)})}});
    }
  }

  void OnDelta(size_t choice, size_t, const TurnItem& item, std::string_view text,
               std::span<const ItemLogprob> logprobs) override {
    if (item.kind == TurnItem::Kind::kToolCall) {
      Json call = {{"index", choices_[choice].calls - 1}};
      if (item.custom) {
        call["custom"] = {{"input", text}};
      } else {
        call["function"] = {{"arguments", text}};
      }
      EmitDelta(choice, {{"tool_calls", Json::array({std::move(call)})}});
    } else if (item.kind == TurnItem::Kind::kAnswer) {
      Json list = request_.logprobs ? LogprobsJson(api_.turns->tokenizer(), logprobs) : Json(nullptr);
      for (const Json& token : list) choices_[choice].logprobs.push_back(token);
      EmitDelta(choice, {{"content", text}}, std::move(list));
    } else if (Shown(item)) {
      EmitReasoning(choice, text);
    }
  }

  void OnItemEnd(size_t, size_t, const TurnItem&) override {}

  void OnChoiceFinish(size_t choice, const TurnResult& result) override {
    Greet(choice);
    if (result.end == TurnEnd::kFailed) return;
    if (IsEmpty(result)) EmitDelta(choice, {{"refusal", kNoAnswer}});
    EmitDelta(choice, Json::object(), nullptr, &result);
    if (replay_ == nullptr || (result.end != TurnEnd::kAnswered && result.end != TurnEnd::kToolCall)) return;
    Turn turn = result.history;
    // Clients of this API get preambles as reasoning, and send them back as such.
    for (HistoryMessage& said : turn) {
      if (said.message.channel == "commentary" && !said.message.recipient) said.message.channel = "analysis";
    }
    std::vector<std::string> ids;
    for (const auto& [item, id] : choices_[choice].call_ids) ids.push_back(id);
    replay_->Remember(owner_, history_, turn, ids, result.end == TurnEnd::kToolCall);
  }

  Json Document() override {
    EngineUsage usage;
    int reasoning = 0;
    Json choices = Json::array();
    for (size_t i = 0; i < results().size(); ++i) {
      const TurnResult& result = results()[i];
      AddUsage(result.usage, &usage);
      reasoning += result.reasoning_tokens;
      Json logprobs = nullptr;
      if (request_.logprobs) logprobs = {{"content", choices_[i].logprobs}, {"refusal", nullptr}};
      choices.push_back({{"index", i},
                         {"message", MessageOf(choices_[i], result)},
                         {"logprobs", std::move(logprobs)},
                         {"finish_reason", FinishReasonName(result.end)},
                         {"stop_reason", StopDetail(result.end)}});
    }
    return {{"id", id_},
            {"object", "chat.completion"},
            {"created", created_},
            {"model", request_.model},
            {"choices", std::move(choices)},
            {"usage", UsageJson(usage, reasoning)},
            {"service_tier", "default"},
            {"system_fingerprint", "gptoss-" + api_.options.version},
            {"reasoning_effort", EffortName(request_.turn)}};
  }

  void EmitEnd() override {
    if (!request_.include_usage) return;
    EngineUsage usage;
    int reasoning = 0;
    for (const TurnResult& result : results()) {
      AddUsage(result.usage, &usage);
      reasoning += result.reasoning_tokens;
    }
    Json chunk = Chunk();
    chunk["choices"] = Json::array();
    chunk["usage"] = UsageJson(usage, reasoning);
    Emit(chunk);
  }

  static bool IsEmpty(const TurnResult& result) {
    if (result.end != TurnEnd::kAnswered) return false;
    for (const TurnItem& item : result.items) {
      if (!IsAside(item) && (item.kind == TurnItem::Kind::kToolCall || !item.text.empty())) return false;
    }
    return true;
  }

  Json MessageOf(const Choice& choice, const TurnResult& result) const {
    std::string content, aside;
    Json calls = Json::array();
    for (size_t i = 0; i < result.items.size(); ++i) {
      const TurnItem& item = result.items[i];
      if (item.kind == TurnItem::Kind::kAnswer) {
        content += item.text;
      } else if (item.kind == TurnItem::Kind::kToolCall) {
        Json call = {{"id", choice.call_ids.at(i)}, {"type", item.custom ? "custom" : "function"}};
        if (item.custom) {
          call["custom"] = {{"name", item.tool}, {"input", item.text}};
        } else {
          call["function"] = {{"name", item.tool}, {"arguments", item.text}};
        }
        calls.push_back(std::move(call));
      } else if (Shown(item)) {
        aside += (aside.empty() ? "" : "\n\n") + item.text;
      }
    }
    Json message = {{"role", "assistant"}};
    // Some clients drop the calls when text stands beside them.
    message["content"] = calls.empty() ? Json(content) : Json(nullptr);
    message["refusal"] = IsEmpty(result) ? Json(kNoAnswer) : Json(nullptr);
    message["annotations"] = Json::array();
    if (!calls.empty()) message["tool_calls"] = std::move(calls);
    if (!aside.empty()) {
      message["reasoning"] = aside;
      message["reasoning_content"] = aside;
    }
    return message;
  }

  Json Chunk() const {
    return {{"id", id_},
            {"object", "chat.completion.chunk"},
            {"created", created_},
            {"model", request_.model},
            {"service_tier", "default"},
            {"system_fingerprint", "gptoss-" + api_.options.version}};
  }

  void Greet(size_t choice) {
    if (!stream() || std::exchange(choices_[choice].greeted, true)) return;
    EmitDelta(choice, {{"role", "assistant"}, {"content", ""}, {"refusal", nullptr}});
  }

  void EmitReasoning(size_t choice, std::string_view text) {
    EmitDelta(choice, {{"reasoning", text}, {"reasoning_content", text}});
  }

  /// `end`, when given, is how the choice ended.
  void EmitDelta(size_t choice, Json delta, Json logprobs = nullptr, const TurnResult* end = nullptr) {
    if (!stream()) return;
    Json chunk = Chunk();
    if (!logprobs.is_null()) logprobs = {{"content", std::move(logprobs)}, {"refusal", nullptr}};
    Json one = {{"index", choice},
                {"delta", std::move(delta)},
                {"logprobs", std::move(logprobs)},
                {"finish_reason", end == nullptr ? Json(nullptr) : Json(FinishReasonName(end->end))}};
    if (end != nullptr) {
      one["stop_reason"] = StopDetail(end->end);
      chunk["reasoning_effort"] = EffortName(request_.turn);
    }
    chunk["choices"] = Json::array({std::move(one)});
    if (request_.include_usage) chunk["usage"] = nullptr;
    Emit(chunk);
  }

  const ApiContext& api_;
  ReplayStore* const replay_;
  const std::string owner_, id_;
  const int64_t created_;
  ChatRequest request_;
  std::vector<HistoryMessage> history_;
  std::vector<Choice> choices_;
};

}  // namespace

void AddChatCompletionsRoutes(Router& router, const ApiContext& api, ReplayStore* replay) {
  router.Add("POST", "/v1/chat/completions",
             [&api, replay](const HttpRequest& http, std::shared_ptr<Responder> responder) {
               const auto body = ParseBody(http);
               if (!body.ok()) return SendError(*responder, ApiErrorOf(body.status()));
               auto request = ParseChatRequest(*body, api.options);
               if (!request.ok()) return SendError(*responder, ApiErrorOf(request.status()));
               const auto run = std::make_shared<ChatRun>(api, replay, http.key_name, *std::move(request), responder);
               if (const Status status = run->Run(); !status.ok()) SendError(*responder, ApiErrorOf(status));
             });
}

}  // namespace gptoss::server
