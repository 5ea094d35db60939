// From a request's tools and format to the grammar of its turn. Compiled schemas are kept, since an agent sends the
// same tools with every turn.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "grammar/machine.h"
#include "grammar/turn_grammar.h"
#include "server/turn.h"

namespace gptoss::server {

/// Thread-safe.
class TurnGrammars {
 public:
  explicit TurnGrammars(std::shared_ptr<const TokenIndex> tokens) : tokens_(std::move(tokens)) {}

  const std::shared_ptr<const TokenIndex>& tokens() const { return tokens_; }

  /// The grammar of a turn of at most `max_tokens` tokens (>= 1), of which `answer_reserve` are kept for the answer as
  /// far as there are as many. On failure: kInvalidArgument or kUnsupported naming field, tool and keyword.
  Result<std::shared_ptr<const TurnGrammar>> Create(const TurnRequest& request, int max_tokens, int answer_reserve);

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<Machine> machine;
  };
  using Maker = std::function<Result<std::shared_ptr<Machine>>()>;
  /// The machine that is kept under `key`, else the one that `make` gives. Equal keys stand for equal languages.
  Result<std::shared_ptr<Machine>> MachineOf(std::string key, const Maker& make);
  Result<TurnTool> ToolOf(const ToolSpec& tool);
  /// Null for an answer of free text.
  Result<std::shared_ptr<Machine>> AnswerOf(const AnswerFormat& format);

  const std::shared_ptr<const TokenIndex> tokens_;
  std::mutex mutex_;
  std::list<Entry> entries_;  // the last used first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_key_;
};

}  // namespace gptoss::server
