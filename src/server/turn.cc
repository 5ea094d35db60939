#include "server/turn.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <utility>

#include "server/turn_grammars.h"
#include "server/turn_prompt.h"
#include "server/turn_reader.h"

namespace gptoss::server {
namespace {

std::string Today() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 16> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%d", &local)};
}

/// One turn while the engine works on it.
class TurnRun : public EngineListener {
 public:
  TurnRun(std::shared_ptr<TurnListener> listener, TurnReader reader)
      : listener_(std::move(listener)), reader_(std::move(reader)) {}

  bool OnToken(const SampledToken& token) override { return reader_.Add(token); }

  void OnFinish(const EngineFinish& finish) override {
    reader_.Finish();
    TurnResult result;
    result.status = finish.status;
    result.usage = finish.usage;
    result.reasoning_tokens = reader_.reasoning_tokens();
    result.items = reader_.items();
    result.history = reader_.TakeHistory();
    result.end = EndOf(finish.reason, result.items);
    if (result.end == TurnEnd::kStopSequence) result.stop = reader_.stop_match();
    listener_->OnFinish(result);
  }

 private:
  TurnEnd EndOf(FinishReason reason, const std::vector<TurnItem>& items) const {
    switch (reason) {
      case FinishReason::kStopToken:
      case FinishReason::kConstraintEnd:
      case FinishReason::kListener:
        if (reader_.stop_matched()) return TurnEnd::kStopSequence;
        return !items.empty() && items.back().kind == TurnItem::Kind::kToolCall ? TurnEnd::kToolCall
                                                                                : TurnEnd::kAnswered;
      case FinishReason::kMaxTokens:
        return TurnEnd::kMaxTokens;
      case FinishReason::kContextFull:
        return TurnEnd::kContextFull;
      case FinishReason::kRepetition:
        return TurnEnd::kRepetition;
      case FinishReason::kCancelled:
        return TurnEnd::kCancelled;
      case FinishReason::kDeadline:
        return TurnEnd::kDeadline;
      case FinishReason::kFailed:
        break;
    }
    return TurnEnd::kFailed;
  }

  std::shared_ptr<TurnListener> listener_;
  TurnReader reader_;
};

class EngineTurnService : public TurnService {
 public:
  EngineTurnService(Engine& engine, std::shared_ptr<const Tokenizer> tokenizer, Renderer renderer,
                    std::shared_ptr<const TokenIndex> index, TurnServiceOptions options)
      : engine_(engine),
        tokenizer_(std::move(tokenizer)),
        renderer_(std::move(renderer)),
        grammars_(std::move(index)),
        options_(std::move(options)) {}

  Result<RequestId> Start(TurnRequest request, std::shared_ptr<TurnListener> listener) override {
    GPTOSS_ASSIGN_OR_RETURN(TurnPrompt prompt, Prompt(request));
    GPTOSS_ASSIGN_OR_RETURN(const int max_tokens, MostTokens(prompt.tokens.size(), request.max_tokens));
    GPTOSS_ASSIGN_OR_RETURN(auto grammar, grammars_.Create(request, max_tokens, options_.answer_reserve));
    TurnReaderOptions reading;
    reading.stops = request.stops;
    for (const ToolSpec& tool : request.tools) {
      reading.tools.push_back(tool.name);
      if (tool.input != ToolSpec::Input::kJson) reading.custom_tools.push_back(tool.name);
    }
    EngineRequest work;
    work.adapter = request.adapter;
    work.prompt = std::move(prompt.tokens);
    work.checkpoints = std::move(prompt.checkpoints);
    work.constraint = std::make_unique<TurnConstraint>(grammars_.tokens(), std::move(grammar));
    work.stop_tokens = StopTokens();
    work.max_tokens = max_tokens;
    work.sampling = request.sampling;
    work.deadline = request.deadline;
    work.detect_repetition = options_.detect_repetition;
    return Submit(std::move(work), reading, std::move(listener));
  }

  void Cancel(RequestId id) override { engine_.Cancel(id); }

  Result<std::vector<TokenId>> Render(const TurnRequest& request) const override {
    GPTOSS_ASSIGN_OR_RETURN(TurnPrompt prompt, Prompt(request));
    return std::move(prompt.tokens);
  }

  Result<RequestId> StartRaw(std::vector<TokenId> prompt, TurnRequest limits,
                             std::shared_ptr<TurnListener> listener) override {
    if (prompt.empty()) return InvalidArgument("prompt: holds no token");
    EngineRequest work;
    work.adapter = limits.adapter;
    GPTOSS_ASSIGN_OR_RETURN(work.max_tokens, MostTokens(prompt.size(), limits.max_tokens));
    work.prompt = std::move(prompt);
    work.stop_tokens = StopTokens();
    work.sampling = limits.sampling;
    work.deadline = limits.deadline;
    work.detect_repetition = options_.detect_repetition;
    TurnReaderOptions reading;
    reading.stops = limits.stops;
    reading.raw = true;
    return Submit(std::move(work), reading, std::move(listener));
  }

  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  Engine& engine() override { return engine_; }

 private:
  Result<TurnPrompt> Prompt(const TurnRequest& request) const {
    return BuildPrompt(renderer_, request, options_.date.empty() ? Today() : options_.date);
  }

  std::vector<int32_t> StopTokens() const {
    const FormatTokenIds& format = renderer_.format();
    std::vector<int32_t> ids = {format.return_, format.call};
    if (format.end_of_text >= 0) ids.push_back(format.end_of_text);
    return ids;
  }

  /// Tokens that a turn may have: what was asked for, clamped to what the context leaves.
  Result<int> MostTokens(size_t prompt_tokens, std::optional<int> wanted) const {
    const int room = engine_.max_context() - static_cast<int>(prompt_tokens);
    if (room < 1) {
      return InvalidArgument(std::string(kContextLengthExceeded) + ": the prompt has " + std::to_string(prompt_tokens) +
                             " tokens, and the context holds " + std::to_string(engine_.max_context()) +
                             ", answer included; shorten the prompt or serve with a larger --context");
    }
    if (wanted && *wanted < 1) return InvalidArgument("max_tokens: must be at least 1");
    return std::min(room, wanted.value_or(room));
  }

  Result<RequestId> Submit(EngineRequest work, const TurnReaderOptions& reading,
                           std::shared_ptr<TurnListener> listener) {
    GPTOSS_RETURN_IF_ERROR(ValidateSampling(work.sampling, tokenizer_->size()));
    auto reader = TurnReader::Create(tokenizer_, reading, listener.get());
    if (!reader.ok()) return reader.status().WithContext("stop");
    return engine_.Submit(std::move(work), std::make_shared<TurnRun>(std::move(listener), *std::move(reader)));
  }

  Engine& engine_;
  const std::shared_ptr<const Tokenizer> tokenizer_;
  const Renderer renderer_;
  TurnGrammars grammars_;
  const TurnServiceOptions options_;
};

}  // namespace

const char* TurnEndName(TurnEnd end) {
  switch (end) {
    case TurnEnd::kAnswered:
      return "answered";
    case TurnEnd::kToolCall:
      return "tool_call";
    case TurnEnd::kStopSequence:
      return "stop_sequence";
    case TurnEnd::kMaxTokens:
      return "max_tokens";
    case TurnEnd::kContextFull:
      return "context_full";
    case TurnEnd::kRepetition:
      return "repetition";
    case TurnEnd::kCancelled:
      return "cancelled";
    case TurnEnd::kDeadline:
      return "deadline";
    case TurnEnd::kFailed:
      break;
  }
  return "failed";
}

Result<std::unique_ptr<TurnService>> TurnService::Create(Engine& engine, std::shared_ptr<const Tokenizer> tokenizer,
                                                         TurnServiceOptions options) {
  GPTOSS_ASSIGN_OR_RETURN(Renderer renderer, Renderer::Create(tokenizer));
  GPTOSS_ASSIGN_OR_RETURN(auto index, TokenIndex::Create(tokenizer));
  return std::unique_ptr<TurnService>(
      new EngineTurnService(engine, std::move(tokenizer), std::move(renderer), std::move(index), std::move(options)));
}

}  // namespace gptoss::server
