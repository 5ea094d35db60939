// One answer as it is sampled: tokens in; pieces of text to show, and in the end messages for the history, out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "chat_output.h"
#include "harmony/message.h"
#include "harmony/stream_parser.h"
#include "sampling/stop_sequences.h"

namespace gptoss::cli {

/// Told what to show, as soon as it is certain.
class AnswerListener {
 public:
  virtual ~AnswerListener() = default;
  /// A message of the assistant begins. `recipient` is empty except for tool calls.
  virtual void OnPart(AnswerPart part, std::string_view recipient) = 0;
  /// Whole characters of it, never empty.
  virtual void OnText(std::string_view text) = 0;
};

/// Reads the turn that begins after "<|start|>assistant".
class AnswerReader {
 public:
  /// Stop strings are looked for in answers only, not in reasoning or tool calls. On failure: as StreamParser::Create.
  static Result<AnswerReader> Create(std::shared_ptr<const Tokenizer> tokenizer, StopSequences stops,
                                     AnswerListener* listener);

  /// Takes a token. False: the turn is over, because a stop string matched, a final message ended, or the model began
  /// to speak for somebody else (of which nothing is kept).
  bool Add(TokenId id);
  /// Ends the turn. `keep_header`: text of a header that was never finished is shown and kept as content.
  void Finish(bool keep_header);

  /// The assistant's messages, without empty ones, up to the stop string if one matched. After Finish.
  std::vector<Message> TakeMessages();
  /// Some text of an answer was given out.
  bool answered() const { return answered_; }
  bool stop_matched() const { return stop_matched_; }
  /// Whom the last message calls; empty when it is no call.
  const std::string& call() const { return call_; }

 private:
  AnswerReader(StreamParser parser, StopSequences stops, AnswerListener* listener)
      : parser_(std::move(parser)), stops_(std::move(stops)), listener_(listener) {}
  void Handle(const ParseEvent& event);
  void Begin(const ParsedMessage& message);
  void Give(std::string_view text);
  void EndMessage();

  StreamParser parser_;
  StopSequences stops_;
  AnswerListener* listener_;
  std::vector<ParseEvent> events_;
  std::vector<Message> messages_;
  std::string call_;
  AnswerPart part_ = AnswerPart::kAnswer;
  bool in_message_ = false;
  bool answered_ = false;
  bool stop_matched_ = false;
  bool over_ = false;
};

}  // namespace gptoss::cli
