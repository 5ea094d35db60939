// Tokens to messages, one token at a time. Only token ids are markers; text that spells one is text.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "harmony/header.h"
#include "harmony/message.h"
#include "harmony/special_tokens.h"
#include "tokenizer/tokenizer.h"

namespace gptoss {

struct ParserOptions {
  /// The role of the message that the tokens begin in: they follow "<|start|>assistant". Absent: they begin with
  /// <|start|>.
  std::optional<Role> role;
  /// Errors and header readings of the official library (openai/harmony v0.0.8, StreamableParser, strict).
  bool strict = false;
  /// Full names of the declared tools; lenient mode puts bare and glued recipients right with them. May be empty.
  std::vector<std::string> tools;
};

enum class EndReason : uint8_t {
  kOpen,        // not ended yet
  kEnd,         // <|end|>
  kReturn,      // <|return|>
  kCall,        // <|call|>
  kEndOfText,   // <|endoftext|>
  kNext,        // the next message began without an end
  kEndOfInput,  // the tokens ended
};

struct ParsedMessage {
  Author author;
  std::optional<std::string> recipient;
  std::optional<std::string> channel;
  std::optional<std::string> content_type;
  std::string text;  // UTF-8
  EndReason end = EndReason::kOpen;
  bool salvaged = false;    // put together from malformed output
  bool after_stop = false;  // begun after a token at which sampling should have stopped
};

/// What one token brought about. A message's header is complete and final when it starts.
struct ParseEvent {
  enum class Kind : uint8_t { kMessageStart, kContentDelta, kMessageEnd };
  Kind kind;
  size_t message;    // index into messages()
  std::string text;  // of a delta: whole characters, never empty
};

/// In lenient mode (the default) a total function: no input is an error and no text is lost.
/// - A header is read by the rules of header.h. One without <|message|> ends at the next marker that ends or begins a
///   message, and the text in it is content; so it is when a header grows past 512 bytes.
/// - <|start|> and <|channel|> inside content begin the next message (a forgotten <|end|>); a second <|channel|> inside
///   a header does as well. <|message|> and <|constrain|> inside content are dropped.
/// - Between messages, text without <|start|> begins a message of the assistant; superfluous ends are ignored. That
///   holds after <|return|> and <|call|> too: such messages are marked `after_stop`, and stopped() tells a caller that
///   samples to stop before them.
/// - A header that says nothing but a role gives no message. White space between messages and around header words is
///   not text.
/// - Other special tokens are their spelling; an id outside the vocabulary is U+FFFD in content and nothing elsewhere.
class StreamParser {
 public:
  /// On failure: kUnsupported when the tokenizer lacks a marker.
  static Result<StreamParser> Create(std::shared_ptr<const Tokenizer> tokenizer, ParserOptions options);

  /// Takes one token; appends to `events` unless it is null. On failure (strict mode only): kCorruptData with the
  /// official message, from then on for every call; messages() keeps what was finished.
  Status Add(TokenId id, std::vector<ParseEvent>* events = nullptr);
  /// Ends the input; an open message ends. The parser is done.
  Status Finish(std::vector<ParseEvent>* events = nullptr);

  /// All messages begun so far; only the last can be open.
  const std::vector<ParsedMessage>& messages() const { return messages_; }
  /// A <|return|>, <|call|> or <|endoftext|> was read.
  bool stopped() const { return stopped_; }
  /// The tokens so far end inside the content of messages().back().
  bool in_content() const { return state_ == State::kContent; }

 private:
  enum class State : uint8_t { kBetween, kHeader, kContent };

  StreamParser(std::shared_ptr<const Tokenizer> tokenizer, FormatTokenIds format, ParserOptions options);
  Status AddStrict(TokenId id);
  Status OpenStrict();
  void AddBetween(TokenId id);
  void AddToHeader(TokenId id);
  void AddToContent(TokenId id);
  std::optional<EndReason> EndOf(TokenId id) const;
  void BeginHeader(std::optional<Role> role, Role fallback, bool has_start);
  void BeginChannel();
  Header TakeHeader(bool has_message);
  void OpenContent();
  void ForceContent();
  void SalvageHeader(EndReason reason);
  void AddHeaderText(TokenId id);
  void AddContentToken(TokenId id);
  void PushMessage(Header header, bool salvaged);
  void AppendText(std::string_view text);
  void EndMessage(EndReason reason);
  void Emit(ParseEvent::Kind kind, std::string text = {});

  std::shared_ptr<const Tokenizer> tokenizer_;
  FormatTokenIds format_;
  ParserOptions options_;
  IncrementalDecoder decoder_;
  State state_ = State::kBetween;
  std::optional<Role> role_;          // of the header being read, where it is given
  Role fallback_ = Role::kAssistant;  // of the header being read, where it says none
  bool has_start_ = false;            // the header being read began with <|start|>
  RawHeader raw_;
  std::string RawHeader::*part_ = &RawHeader::role_text;  // where the header's text goes
  std::string strict_header_;
  bool strict_header_undecodable_ = false;
  bool separate_ = false;  // salvaged header text is the content so far
  bool stopped_ = false;
  bool done_ = false;
  Status error_;
  std::vector<ParsedMessage> messages_;
  std::vector<ParseEvent>* events_ = nullptr;  // only during a call
};

/// Parses a whole sequence. On failure (strict mode only): as StreamParser.
Result<std::vector<ParsedMessage>> ParseMessages(std::shared_ptr<const Tokenizer> tokenizer,
                                                 const std::vector<TokenId>& ids, ParserOptions options);

}  // namespace gptoss
