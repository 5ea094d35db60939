// One grammar over a whole turn of the assistant in the harmony format: headers are legal by construction, reasoning
// is free, and what a channel's content must be is enforced there and nowhere else. A turn begins after
// "<|start|>assistant". Sources: openai/harmony, docs/format.md; header forms as that library renders them.
//
// A message is one of
//   <|channel|>analysis<|message|> free text <|end|>
//   <|channel|>commentary<|message|> free text <|end|>                               (a preamble)
//   <|channel|>final<|message|> content <|return|>                                   (content: free or a grammar)
//   [ to=R]<|channel|>commentary[ to=R][ <|constrain|>json]<|message|> arguments <|call|>
// (R once; analysis in place of commentary for tools that the model calls in its reasoning). After <|end|> comes
// "<|start|>assistant". Headers are written in the tokens that the renderer would use, so that they cannot grow long.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "grammar/machine.h"
#include "tokenizer/tokenizer.h"

namespace gptoss {

/// The markers' ids in the vocabulary in use.
struct TurnTokens {
  TokenId start = -1, end = -1, message = -1, channel = -1, constrain = -1, return_ = -1, call = -1;

  /// On failure: kUnsupported naming the marker that the vocabulary lacks.
  static Result<TurnTokens> Of(const Tokenizer& tokenizer);
};

struct TurnTool {
  std::string recipient;               // "functions.get_weather", "browser.search", "python"
  std::shared_ptr<Machine> arguments;  // null: free text
  bool json = true;                    // its header carries <|constrain|>json
  bool in_analysis = false;            // called on the analysis channel (the built-in tools)
};

enum class ToolChoice : uint8_t {
  kAuto,
  kNone,      // no calls
  kRequired,  // the turn ends in a call of one of `allowed`, or of any tool where it is empty
};

struct TurnOptions {
  std::vector<TurnTool> tools;
  ToolChoice choice = ToolChoice::kAuto;
  std::vector<std::string> allowed;       // recipients; empty: all. One with kRequired is a named tool.
  std::shared_ptr<Machine> final_answer;  // null: free text
  bool allow_analysis = true;             // effort none: false
  bool allow_preamble = true;
  /// Tokens of content and ends in analysis and preambles together, after which the way to the answer is forced.
  std::optional<size_t> reasoning_budget;
  /// Tokens of the whole turn (0: no limit), and how many of them are kept for the final answer or the call; more than
  /// asked where the shortest one takes more. 0: none are kept.
  size_t max_tokens = 0, answer_reserve = 0;
  /// Content that has a grammar is led to its end before max_tokens cut it, as far as they suffice at all.
  bool close_at_limit = true;
};

/// Immutable; shared by the sequences of a request.
class TurnGrammar {
 public:
  /// On failure: kInvalidArgument naming a tool that is declared twice or not at all, a required call without a tool,
  /// or a reserve that leaves nothing; errors of TurnTokens::Of.
  static Result<std::shared_ptr<const TurnGrammar>> Create(std::shared_ptr<const TokenIndex> tokens,
                                                           TurnOptions options);

 private:
  friend class TurnMatcher;
  enum class Kind : uint8_t { kAnalysis, kPreamble, kFinal, kCall };
  struct Header {
    int tool = -1;  // index; -1: none
    Kind kind = Kind::kAnalysis;
  };
  /// A place within the headers, which form a trie of tokens. Place 0 is the start.
  struct Place {
    std::vector<std::pair<TokenId, uint32_t>> next;
    std::vector<uint32_t> headers;  // that go on from here, or end here
  };
  TurnGrammar() = default;
  Status CheckOptions() const;
  void AddHeader(const Header& header, const std::vector<TokenId>& tokens);
  void AddCallHeaders(size_t tool);
  /// Tokens of the longest way from reasoning to the end of a shortest answer or call.
  size_t LongestAnswer() const;

  std::shared_ptr<const TokenIndex> tokens_;
  TurnTokens markers_;
  TurnOptions options_;
  std::vector<TokenId> between_;  // from <|end|> to the next header
  std::vector<Header> headers_;
  std::vector<Place> places_;
  size_t longest_header_ = 0;
  size_t reserve_ = 0;
};

/// One sequence's place in its turn.
class TurnMatcher {
 public:
  enum class Part : uint8_t { kHeader, kAnalysis, kPreamble, kArguments, kFinal, kBetween, kDone };

  explicit TurnMatcher(std::shared_ptr<const TurnGrammar> grammar);

  /// False, and nothing happens, when `token` cannot follow. On failure: kResourceExhausted of a content's grammar.
  Result<bool> Accept(TokenId token);
  void Rollback(size_t n);
  size_t steps() const { return states_.size() - 1; }
  /// Bits of all tokens that may follow, markers included. On failure: as Accept; then the mask is all zero.
  Status FillMask(std::span<uint64_t> mask) const;
  /// The only token that may follow, or -1. Never inside content.
  Result<TokenId> ForcedToken() const;
  /// <|return|> or <|call|> was taken.
  bool IsComplete() const { return states_.back().part == Part::kDone; }
  /// For the sake of max_tokens a mask left out what the grammar would have allowed.
  bool CutShort() const { return states_.back().cut_short; }
  Part part() const { return states_.back().part; }

 private:
  struct State {
    Part part = Part::kHeader;
    uint32_t place = 0;  // in TurnGrammar::places_, or in between_
    int tool = -1;
    Machine::StateId content = Machine::kDead;
    size_t reasoning = 0;  // tokens of analysis and preambles
    size_t tokens = 0;
    bool preamble = false;  // one was written
    bool closing = false;   // the reasoning was over when this header began
    bool cut_short = false;
    mutable bool narrowed = false;  // the mask was, at this place
  };
  bool ReasoningOver(const State& state) const;
  bool IsThinking(const State& state) const { return state.part == Part::kAnalysis || state.part == Part::kPreamble; }
  bool HeaderAllowed(const State& state, const TurnGrammar::Header& header) const;
  bool PlaceAllowed(const State& state, uint32_t place) const;
  Machine* ContentOf(const State& state) const;
  int64_t MostNeed(const State& state) const;
  Result<bool> Next(const State& state, TokenId token, State* out) const;
  bool NextInHeader(const State& state, TokenId token, State* out) const;
  Result<bool> NextInContent(const State& state, TokenId token, State* out) const;
  TokenId EndOf(Part part) const;

  std::shared_ptr<const TurnGrammar> grammar_;
  std::vector<State> states_;
};

}  // namespace gptoss
