// Asks a model the questions of a suite and judges what it says.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "eval_suite.h"
#include "harmony/render.h"
#include "model_session.h"
#include "sampling/sampler.h"

namespace gptoss::cli {

struct EvalOptions {
  SamplingParams sampling;
  int max_tokens = 512;             // of one answer, reasoning and calls included
  std::string date = "2026-01-01";  // a fixed one, so that results do not depend on the day
};

struct EvalVerdict {
  bool right = false;
  int calls = 0;
  int valid_calls = 0;
  int tokens = 0;    // that the model wrote
  std::string said;  // the last message, for people
};

class EvalRunner {
 public:
  /// `model` must outlive the runner. On failure: what Renderer::Create says.
  static Result<std::unique_ptr<EvalRunner>> Create(ModelSession& model, std::shared_ptr<const Tokenizer> tokenizer,
                                                    EvalOptions options);

  /// Nothing constrains what the model writes. Tools answer as the item says as long as calls are right; after another
  /// call the item is lost. `number` chooses the random numbers. On failure: what Generate says.
  Result<EvalVerdict> Ask(const EvalItem& item, ReasoningEffort effort, uint64_t number);

 private:
  EvalRunner(ModelSession& model, Renderer renderer, std::shared_ptr<const Tokenizer> tokenizer, EvalOptions options)
      : model_(model), renderer_(std::move(renderer)), tokenizer_(std::move(tokenizer)), options_(std::move(options)) {}
  /// The model's next messages, up to a call or the end of the turn.
  Result<std::vector<Message>> Continue(const Conversation& conversation, uint64_t seed, EvalVerdict* verdict);

  ModelSession& model_;
  Renderer renderer_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  EvalOptions options_;
  std::unique_ptr<Sequence> sequence_;
};

/// Counts of one family, or of a whole suite.
struct EvalScore {
  int items = 0, right = 0;
  int calls = 0, valid_calls = 0;
  int64_t tokens = 0;
  bool hard = false;
  void Add(const EvalItem& item, const EvalVerdict& verdict);
};

}  // namespace gptoss::cli
