#include "harmony/stream_parser.h"

#include <algorithm>
#include <utility>

#include "base/utf8.h"

namespace gptoss {
namespace {

// Real headers have well under 100 bytes. Past this the model has forgotten <|message|> and the text must stream.
constexpr size_t kMaxHeaderBytes = 512;
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

bool IsBlank(std::string_view text) { return text.find_first_not_of(" \t\n\v\f\r") == std::string_view::npos; }

}  // namespace

Result<StreamParser> StreamParser::Create(std::shared_ptr<const Tokenizer> tokenizer, ParserOptions options) {
  GPTOSS_ASSIGN_OR_RETURN(const FormatTokenIds format, FormatTokenIds::Of(*tokenizer));
  return StreamParser(std::move(tokenizer), format, std::move(options));
}

StreamParser::StreamParser(std::shared_ptr<const Tokenizer> tokenizer, FormatTokenIds format, ParserOptions options)
    : tokenizer_(std::move(tokenizer)), format_(format), options_(std::move(options)), decoder_(*tokenizer_) {
  if (options_.role) BeginHeader(options_.role, *options_.role, true);
}

Status StreamParser::Add(TokenId id, std::vector<ParseEvent>* events) {
  if (done_) return error_;
  events_ = events;
  if (options_.strict) {
    if (error_.ok()) error_ = AddStrict(id);
  } else if (state_ == State::kBetween) {
    AddBetween(id);
  } else if (state_ == State::kHeader) {
    AddToHeader(id);
  } else {
    AddToContent(id);
  }
  events_ = nullptr;
  return error_;
}

Status StreamParser::Finish(std::vector<ParseEvent>* events) {
  if (done_) return error_;
  events_ = events;
  if (state_ == State::kContent && error_.ok()) {
    EndMessage(EndReason::kEndOfInput);
  } else if (state_ == State::kHeader && options_.strict && error_.ok()) {
    error_ = CorruptData("Unexpected EOS while waiting for message header to complete");
  } else if (state_ == State::kHeader && !options_.strict) {
    SalvageHeader(EndReason::kEndOfInput);
  }
  done_ = true;
  events_ = nullptr;
  return error_;
}

Status StreamParser::AddStrict(TokenId id) {
  switch (state_) {
    case State::kBetween:
      if (id != format_.start) {
        return CorruptData("Unexpected token " + std::to_string(id) + " while expecting start token " +
                           std::to_string(format_.start));
      }
      BeginHeader(std::nullopt, Role::kAssistant, true);
      return {};
    case State::kHeader: {
      if (id == format_.message) return OpenStrict();
      const std::string_view bytes = tokenizer_->TokenBytes(id);
      strict_header_undecodable_ |= bytes.empty();
      strict_header_ += bytes;
      return {};
    }
    case State::kContent: {
      const std::optional<EndReason> end = EndOf(id);
      if (end && *end != EndReason::kEndOfText) {
        EndMessage(*end);
      } else {
        AddContentToken(id);
      }
      return {};
    }
  }
  return {};
}

Status StreamParser::OpenStrict() {
  if (strict_header_undecodable_) return CorruptData("could not decode header");
  Result<Header> header = ReadHeaderOfficial(std::move(strict_header_), role_, false);
  if (!header.ok()) return header.status();
  PushMessage(*std::move(header), false);
  return {};
}

void StreamParser::AddBetween(TokenId id) {
  if (id == format_.start) {
    BeginHeader(std::nullopt, Role::kAssistant, true);
  } else if (EndOf(id)) {
    stopped_ |= format_.IsStop(id);
  } else if (!IsBlank(tokenizer_->TokenBytes(id))) {
    BeginHeader(std::nullopt, Role::kAssistant, false);
    AddToHeader(id);
  }
}

void StreamParser::AddToHeader(TokenId id) {
  if (id == format_.message) {
    OpenContent();
  } else if (id == format_.start) {
    // The given role is still the best guess when <|start|> comes at once, and no role after it.
    const Role fallback = raw_.empty() ? fallback_ : Role::kAssistant;
    SalvageHeader(EndReason::kNext);
    BeginHeader(std::nullopt, fallback, true);
  } else if (const std::optional<EndReason> end = EndOf(id)) {
    SalvageHeader(*end);
  } else if (id == format_.channel) {
    if (raw_.has_channel && !IsBlank(raw_.channel_text)) {
      SalvageHeader(EndReason::kNext);
      const Role role = messages_.empty() ? fallback_ : messages_.back().author.role;
      BeginHeader(std::nullopt, role, false);
    }
    BeginChannel();
  } else if (id == format_.constrain) {
    if (raw_.has_constrain) raw_.constrain_text += ' ';
    raw_.has_constrain = true;
    part_ = &RawHeader::constrain_text;
  } else {
    AddHeaderText(id);
  }
}

void StreamParser::AddHeaderText(TokenId id) {
  std::string& part = raw_.*part_;
  part += tokenizer_->TokenBytes(id);
  if (raw_.size() <= kMaxHeaderBytes) return;
  // Never inside a character, unless what looks like one does not end.
  if (CompleteUtf8Prefix(part) == part.size() || raw_.size() > 2 * kMaxHeaderBytes) ForceContent();
}

void StreamParser::AddToContent(TokenId id) {
  if (id == format_.start) {
    EndMessage(EndReason::kNext);
    BeginHeader(std::nullopt, Role::kAssistant, true);
  } else if (id == format_.channel) {
    const Role role = messages_.back().author.role;
    EndMessage(EndReason::kNext);
    BeginHeader(std::nullopt, role, false);
    BeginChannel();
  } else if (const std::optional<EndReason> end = EndOf(id)) {
    EndMessage(*end);
  } else if (id != format_.message && id != format_.constrain) {
    AddContentToken(id);
  }
}

std::optional<EndReason> StreamParser::EndOf(TokenId id) const {
  if (id == format_.end) return EndReason::kEnd;
  if (id == format_.return_) return EndReason::kReturn;
  if (id == format_.call) return EndReason::kCall;
  if (id == format_.end_of_text && id >= 0) return EndReason::kEndOfText;
  return std::nullopt;
}

void StreamParser::BeginHeader(std::optional<Role> role, Role fallback, bool has_start) {
  state_ = State::kHeader;
  role_ = role;
  fallback_ = fallback;
  has_start_ = has_start;
  raw_ = RawHeader();
  part_ = &RawHeader::role_text;
  strict_header_.clear();
  strict_header_undecodable_ = false;
}

void StreamParser::BeginChannel() {
  raw_.has_channel = true;
  part_ = &RawHeader::channel_text;
}

Header StreamParser::TakeHeader(bool has_message) {
  HeaderContext context;
  context.role = role_;
  context.fallback = fallback_;
  context.has_message = has_message;
  context.has_start = has_start_;
  context.tools = &options_.tools;
  return ReadHeader(std::exchange(raw_, RawHeader()), context);
}

void StreamParser::OpenContent() {
  Header header = TakeHeader(true);
  const std::string stranded = std::exchange(header.stranded, {});
  PushMessage(std::move(header), !stranded.empty());
  AppendText(stranded);
  separate_ = !stranded.empty();
}

void StreamParser::ForceContent() {
  Header header = TakeHeader(false);
  const std::string stranded = std::exchange(header.stranded, {});
  PushMessage(std::move(header), true);
  AppendText(stranded);
}

void StreamParser::SalvageHeader(EndReason reason) {
  const bool empty = raw_.empty();
  Header header = TakeHeader(false);
  if (empty || header.has_role_only) {
    state_ = State::kBetween;
    stopped_ |= reason == EndReason::kReturn || reason == EndReason::kCall || reason == EndReason::kEndOfText;
    return;
  }
  const std::string stranded = std::exchange(header.stranded, {});
  PushMessage(std::move(header), true);
  AppendText(stranded);
  EndMessage(reason);
}

void StreamParser::AddContentToken(TokenId id) {
  if (!tokenizer_->TokenBytes(id).empty()) {
    AppendText(decoder_.Add(id));
    return;
  }
  AppendText(decoder_.Finish());
  AppendText(kReplacement);
}

void StreamParser::PushMessage(Header header, bool salvaged) {
  ParsedMessage message;
  message.author = std::move(header.author);
  message.recipient = std::move(header.recipient);
  message.channel = std::move(header.channel);
  message.content_type = std::move(header.content_type);
  message.salvaged = salvaged;
  message.after_stop = stopped_;
  messages_.push_back(std::move(message));
  state_ = State::kContent;
  separate_ = false;
  Emit(ParseEvent::Kind::kMessageStart);
}

void StreamParser::AppendText(std::string_view text) {
  if (text.empty()) return;
  std::string delta(text);
  if (std::exchange(separate_, false)) delta.insert(0, "\n");
  messages_.back().text += delta;
  Emit(ParseEvent::Kind::kContentDelta, std::move(delta));
}

void StreamParser::EndMessage(EndReason reason) {
  AppendText(decoder_.Finish());
  messages_.back().end = reason;
  stopped_ |= reason == EndReason::kReturn || reason == EndReason::kCall || reason == EndReason::kEndOfText;
  state_ = State::kBetween;
  separate_ = false;
  Emit(ParseEvent::Kind::kMessageEnd);
}

void StreamParser::Emit(ParseEvent::Kind kind, std::string text) {
  if (events_ != nullptr) events_->push_back({kind, messages_.size() - 1, std::move(text)});
}

Result<std::vector<ParsedMessage>> ParseMessages(std::shared_ptr<const Tokenizer> tokenizer,
                                                 const std::vector<TokenId>& ids, ParserOptions options) {
  GPTOSS_ASSIGN_OR_RETURN(StreamParser parser, StreamParser::Create(std::move(tokenizer), std::move(options)));
  for (TokenId id : ids) GPTOSS_RETURN_IF_ERROR(parser.Add(id));
  GPTOSS_RETURN_IF_ERROR(parser.Finish());
  return parser.messages();
}

}  // namespace gptoss
