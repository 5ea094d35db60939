// From sampled tokens to the items of a turn, told to its listener as they grow.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "harmony/stream_parser.h"
#include "sampling/stop_sequences.h"
#include "server/turn.h"

namespace gptoss::server {

struct TurnReaderOptions {
  std::vector<std::string> stops;
  std::vector<std::string> tools;         // bare names
  std::vector<std::string> custom_tools;  // of them, those whose input is text
  bool raw = false;                       // no harmony: everything is one answer
};

/// Not thread-safe.
class TurnReader {
 public:
  /// `listener` must outlive the reader. On failure: as StreamParser::Create and StopSequences::Make.
  static Result<TurnReader> Create(std::shared_ptr<const Tokenizer> tokenizer, const TurnReaderOptions& options,
                                   TurnListener* listener);

  /// False when nothing more is wanted: a stop sequence was met.
  bool Add(const SampledToken& token);
  /// The tokens have ended. What is open ends as it is; an unfinished header is dropped.
  void Finish();

  bool stop_matched() const { return stops_.matched(); }
  /// The stop sequence that was met; empty before.
  std::string_view stop_match() const { return stops_.match(); }
  int reasoning_tokens() const { return reasoning_tokens_; }
  const std::vector<TurnItem>& items() const { return items_; }
  /// The messages with the tokens of those that were said to their end, which ends the reader.
  std::vector<HistoryMessage> TakeHistory();

 private:
  TurnReader(StreamParser parser, std::shared_ptr<const Tokenizer> tokenizer, FormatTokenIds format,
             StopSequences stops, const TurnReaderOptions& options, TurnListener* listener);
  void BeginRaw();
  void AddRaw(const SampledToken& token);
  void KeepToken(TokenId id);
  void Handle(const ParseEvent& event);
  void Begin(const ParsedMessage& message);
  void Give(const std::string& text);
  void EndItem();

  StreamParser parser_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  FormatTokenIds format_;
  StopSequences stops_;
  IncrementalDecoder decoder_;  // of raw output
  TurnReaderOptions options_;
  TurnListener* listener_;

  std::vector<TurnItem> items_;
  std::vector<Message> messages_;             // one for each item
  std::vector<std::vector<TokenId>> spoken_;  // tokens by message, as the markers cut them
  std::string role_;                          // of the message that begins, as far as it was spelled
  bool in_role_ = false;
  bool open_ = false;  // the last item
  bool over_ = false;
  bool cut_ = false;  // the last message was not said to its end
  int reasoning_tokens_ = 0;
  std::vector<ItemLogprob> logprobs_;  // of the tokens since the last delta
  std::vector<ParseEvent> events_;
};

}  // namespace gptoss::server
