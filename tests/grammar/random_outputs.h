// What a model of random weights writes under a turn grammar: its logits are random numbers, the tokens are drawn by
// the sampler at temperature 1 over the whole vocabulary.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "grammar/tool_grammar.h"
#include "grammar/turn_grammar.h"
#include "json/json.h"

namespace gptoss {

/// Logits of a normal distribution with a spread as trained models have it. The markers' are raised, so that messages
/// end, and by request those of JSON's punctuation, so that strings and lists do.
class RandomLogits {
 public:
  RandomLogits(const Tokenizer& tokenizer, uint64_t seed);
  /// The logits of step `step`; `logits` has one for every token.
  void Fill(uint64_t step, bool raise_punctuation, std::span<float> logits) const;
  size_t size() const { return size_; }

 private:
  size_t size_;
  uint64_t seed_;
  std::vector<std::vector<float>> pool_;
  std::vector<TokenId> markers_, punctuation_;
};

struct TurnCase {
  std::vector<ToolSpec> tools;
  std::optional<Json> answer;  // a schema
  TurnOptions options;
};

/// Tools, choice, allowed set, answer schema, budgets and limits, all at random. `schemas` are objects.
TurnCase RandomTurn(const std::vector<Json>& schemas, uint64_t seed, const std::shared_ptr<const TokenIndex>& tokens);

struct RandomOutput {
  std::vector<TokenId> ids;
  bool finished = false;
  std::string error;  // of the grammar; empty: none
};

/// Draws until the turn is over or has `most` tokens. Now and then a token is taken back and accepted again.
RandomOutput DrawTurn(const std::shared_ptr<const TurnGrammar>& grammar, const RandomLogits& logits, uint64_t seed,
                      size_t most, bool raise_punctuation);

/// A text that has to follow a schema.
struct Document {
  Json schema;
  std::string text;
};

/// Reads the turn with harmony's strict parser and compares it with what was asked for. Empty when all is well; adds
/// what a validator should look at to `documents`.
std::string WhatIsWrong(const TurnCase& turn, const RandomOutput& output, std::shared_ptr<const Tokenizer> tokenizer,
                        std::vector<Document>* documents);

}  // namespace gptoss
