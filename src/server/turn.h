// One turn of the assistant, free of any API. An API's adapter turns its JSON into a TurnRequest and the listener's
// calls into its own answer or events; what lies between (rendering, the turn's grammar, the engine, parsing) is here
// once for all of them.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "grammar/tool_grammar.h"
#include "harmony/message.h"
#include "json/json.h"
#include "tokenizer/tokenizer.h"

namespace gptoss::server {

struct ToolChoice {
  enum class Kind : uint8_t { kAuto, kNone, kRequired };
  Kind kind = Kind::kAuto;
  std::vector<std::string> allowed;  // bare names; empty: all. One with kRequired is a named tool.
};

struct AnswerFormat {
  enum class Kind : uint8_t { kText, kJsonObject, kJsonSchema };
  Kind kind = Kind::kText;
  std::string name, description;  // of the schema
  Json schema;
};

/// A message as it was said, and the tokens that said it when the model did (header included, from after "<|start|>" +
/// role to the end marker): those are replayed rather than rendered.
struct HistoryMessage {
  Message message;
  std::vector<TokenId> tokens;
};

struct TurnRequest {
  std::string instructions;             // of the developer
  std::vector<HistoryMessage> history;  // user's, assistant's and tools' messages; earlier reasoning is dropped by rule
  std::vector<ToolSpec> tools;
  ToolChoice tool_choice;
  AnswerFormat format;
  ReasoningEffort effort = ReasoningEffort::kMedium;
  int adapter = 0;                      // of the engine (EngineRequest)
  bool no_reasoning = false;            // effort "none": low, and the analysis channel is closed
  std::optional<int> reasoning_budget;  // tokens
  std::optional<int> max_tokens;        // of the whole turn; clamped to the context
  SamplingParams sampling;
  std::vector<std::string> stops;  // end the answer; not looked for in reasoning
  std::optional<std::chrono::steady_clock::time_point> deadline;
};

struct TurnItem {
  enum class Kind : uint8_t { kReasoning, kPreamble, kAnswer, kToolCall };
  Kind kind = Kind::kAnswer;
  std::string tool;  // bare name, of a call
  bool custom = false;
  std::string text;  // so far: reasoning, answer, or the call's arguments ("{}" at its end when the model gave none)
  bool cut = false;  // at its end: it was not said to its end
};

/// A token of an item with its bytes; present when log-probabilities were asked for.
struct ItemLogprob {
  TokenId id = 0;
  float logprob = 0.0f;
  std::vector<TokenLogprob> top;
};

enum class TurnEnd : uint8_t {
  kAnswered,
  kToolCall,
  kStopSequence,
  kMaxTokens,
  kContextFull,
  kRepetition,
  kCancelled,
  kDeadline,
  kFailed,  // `status` says why
};

/// "answered", "tool_call", "stop_sequence", "max_tokens", …
const char* TurnEndName(TurnEnd end);

struct TurnResult {
  TurnEnd end = TurnEnd::kFailed;
  Status status;
  std::string stop;                     // the stop sequence that ended the answer; empty: none did
  std::vector<TurnItem> items;          // in order
  std::vector<HistoryMessage> history;  // the same as messages with their tokens, for replay
  EngineUsage usage;
  int reasoning_tokens = 0;
};

/// Called on the engine's thread, in order: for each item start, deltas, end; then OnFinish once. Must not block.
class TurnListener {
 public:
  virtual ~TurnListener() = default;
  virtual void OnItemStart(size_t index, const TurnItem& item) = 0;
  /// Whole characters; `logprobs` of the tokens that came since the last delta. A stop sequence is never part of it.
  virtual void OnDelta(size_t index, std::string_view text, std::span<const ItemLogprob> logprobs) = 0;
  virtual void OnItemEnd(size_t index, const TurnItem& item) = 0;
  virtual void OnFinish(const TurnResult& result) = 0;
};

struct TurnServiceOptions {
  std::string date;          // "2025-06-28" for the system message; empty: today's
  int answer_reserve = 256;  // tokens of max_tokens kept for the answer or the call, as far as there are as many
  bool detect_repetition = true;
};

/// Begins the message of the error (kInvalidArgument) for a prompt that leaves no room in the context.
inline constexpr std::string_view kContextLengthExceeded = "the context length is exceeded";

/// Thread-safe.
class TurnService {
 public:
  /// `engine` must outlive the service. On failure: what Renderer::Create says.
  static Result<std::unique_ptr<TurnService>> Create(Engine& engine, std::shared_ptr<const Tokenizer> tokenizer,
                                                     TurnServiceOptions options);
  virtual ~TurnService() = default;

  /// On failure, before anything is sampled: kInvalidArgument or kUnsupported naming the field, tool or keyword at
  /// fault; else what Engine::Submit says. The listener is then never called.
  virtual Result<RequestId> Start(TurnRequest request, std::shared_ptr<TurnListener> listener) = 0;
  virtual void Cancel(RequestId id) = 0;
  /// The tokens of the prompt, for counting. On failure: as Start.
  virtual Result<std::vector<TokenId>> Render(const TurnRequest& request) const = 0;
  /// Raw continuation of text or tokens, without harmony (/v1/completions): the listener gets one item of kAnswer.
  virtual Result<RequestId> StartRaw(std::vector<TokenId> prompt, TurnRequest limits,
                                     std::shared_ptr<TurnListener> listener) = 0;
  virtual const Tokenizer& tokenizer() const = 0;
  virtual Engine& engine() = 0;
};

}  // namespace gptoss::server
