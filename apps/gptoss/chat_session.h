// A conversation with a loaded model: renders it, reuses what the cache still holds, samples, and keeps the answer.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "chat_answer.h"
#include "chat_history.h"
#include "engine/generator.h"
#include "engine/traffic.h"
#include "grammar/turn_grammar.h"
#include "harmony/render.h"
#include "model_session.h"
#include "sampling/sampler.h"

namespace gptoss::cli {

struct ChatOptions {
  SamplingParams sampling;
  std::vector<std::string> stops;
  int max_tokens = 1 << 30;  // of one answer, reasoning included
  SpeculationOptions speculation;
  bool profile = false;
  bool detect_repetition = true;
  std::shared_ptr<const TokenIndex> tokens;  // of the tokenizer
  TurnOptions turn;                          // what a turn may be; limits on tokens are added
};

struct TurnProfile {
  StageReport prefill, decode;
};

struct ChatTurn {
  StopReason reason = StopReason::kMaxTokens;
  bool interrupted = false;     // `go_on` said so
  bool answered = false;        // some text was meant for the user
  bool cut_short = false;       // the turn is whole, but shortened to fit the limit on tokens
  std::string call;             // the recipient, when the turn ends in a call
  int conversation_tokens = 0;  // of the prompt, cached ones included
  GenerateTimings timings;
  std::optional<TurnProfile> profile;  // when the options ask for it
};

/// "tokens per second" lines, for people.
std::string DescribeTurn(const ChatTurn& turn);

class ChatSession {
 public:
  /// `model` must outlive the session. On failure: what Renderer::Create or StopSequences::Make say.
  static Result<std::unique_ptr<ChatSession>> Create(ModelSession& model, std::shared_ptr<const Tokenizer> tokenizer,
                                                     ChatSetup setup, ChatOptions options);

  ChatHistory& history() { return history_; }
  /// "none", which closes the channel of reasoning and tells the model "low", or what ReasoningEffortFromName knows.
  void SetEffort(const std::string& name);
  std::string EffortName() const;

  /// Asks and answers. `on_token` is called for each sampled token, and with 0 between the chunks of a long prompt,
  /// with the number sampled so far; false interrupts, which keeps what was said until then. On failure, nothing of the
  /// question stays: kResourceExhausted when the conversation has outgrown the context, or what Generate says.
  Result<ChatTurn> Ask(const std::string& question, AnswerListener* listener,
                       const std::function<bool(int tokens)>& on_token);

 private:
  ChatSession(ModelSession& model, Renderer renderer, StopSequences stops, std::shared_ptr<const Tokenizer> tokenizer,
              ChatSetup setup, ChatOptions options);
  Result<ChatTurn> Answer(AnswerListener* listener, const std::function<bool(int tokens)>& on_token);
  /// What a turn after a prompt of so many tokens may be.
  Result<std::unique_ptr<TokenConstraint>> ConstraintOf(size_t prompt_tokens) const;
  /// Makes the sequence hold `prompt`, with as much of it computed as the last turn left behind.
  void Rewind(const std::vector<TokenId>& prompt);

  ModelSession& model_;
  Renderer renderer_;
  StopSequences stops_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  ChatHistory history_;
  ChatOptions options_;
  std::unique_ptr<Sequence> sequence_;
  uint64_t turns_ = 0;
};

}  // namespace gptoss::cli
