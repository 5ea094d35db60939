#include "server/turn_reader.h"

#include <algorithm>

#include "server/turn_prompt.h"

namespace gptoss::server {

Result<TurnReader> TurnReader::Create(std::shared_ptr<const Tokenizer> tokenizer, const TurnReaderOptions& options,
                                      TurnListener* listener) {
  GPTOSS_ASSIGN_OR_RETURN(StopSequences stops, StopSequences::Make(options.stops));
  GPTOSS_ASSIGN_OR_RETURN(const FormatTokenIds format, FormatTokenIds::Of(*tokenizer));
  ParserOptions parsing;
  parsing.role = Role::kAssistant;
  for (const std::string& name : options.tools) parsing.tools.push_back(Recipient(name));
  GPTOSS_ASSIGN_OR_RETURN(StreamParser parser, StreamParser::Create(tokenizer, std::move(parsing)));
  return TurnReader(std::move(parser), std::move(tokenizer), format, std::move(stops), options, listener);
}

TurnReader::TurnReader(StreamParser parser, std::shared_ptr<const Tokenizer> tokenizer, FormatTokenIds format,
                       StopSequences stops, const TurnReaderOptions& options, TurnListener* listener)
    : parser_(std::move(parser)),
      tokenizer_(std::move(tokenizer)),
      format_(format),
      stops_(std::move(stops)),
      decoder_(*tokenizer_),
      options_(options),
      listener_(listener),
      spoken_(1) {}

bool TurnReader::Add(const SampledToken& token) {
  if (over_) return !stops_.matched();
  if (options_.raw) {
    AddRaw(token);
    return !stops_.matched();
  }
  KeepToken(token.id);
  const bool is_content = parser_.in_content() && !tokenizer_->IsSpecial(token.id);
  if (is_content && open_) {
    if (items_.back().kind == TurnItem::Kind::kReasoning) ++reasoning_tokens_;
    logprobs_.push_back({token.id, token.logprob, token.top});
  }
  events_.clear();
  // The lenient parser has no errors.
  GPTOSS_CHECK(parser_.Add(token.id, &events_).ok());
  for (const ParseEvent& event : events_) {
    if (!over_) Handle(event);
  }
  // An answer's end is the engine's to see: it knows whether the model or a limit brought it about.
  return !stops_.matched();
}

void TurnReader::BeginRaw() {
  if (!items_.empty()) return;
  ParsedMessage answer;
  answer.author.role = Role::kAssistant;
  answer.channel = "final";
  Begin(answer);
}

void TurnReader::AddRaw(const SampledToken& token) {
  BeginRaw();
  if (format_.IsStop(token.id)) {
    over_ = true;
    return;
  }
  logprobs_.push_back({token.id, token.logprob, token.top});
  Give(decoder_.Add(token.id));
}

/// Cuts the tokens into messages. "assistant" may have been spelled by several tokens.
void TurnReader::KeepToken(TokenId id) {
  if (id == format_.start) {
    spoken_.emplace_back();
    role_.clear();
    in_role_ = true;
  } else if (in_role_ && !tokenizer_->IsSpecial(id)) {
    role_ += tokenizer_->TokenBytes(id);
    in_role_ = role_ != RoleName(Role::kAssistant);
  } else {
    spoken_.back().push_back(id);
  }
}

void TurnReader::Handle(const ParseEvent& event) {
  switch (event.kind) {
    case ParseEvent::Kind::kMessageStart:
      Begin(parser_.messages()[event.message]);
      return;
    case ParseEvent::Kind::kContentDelta:
      Give(event.text);
      return;
    case ParseEvent::Kind::kMessageEnd: {
      const bool ends_turn = items_.back().kind == TurnItem::Kind::kAnswer;
      EndItem();
      over_ = over_ || ends_turn;
      return;
    }
  }
}

void TurnReader::Begin(const ParsedMessage& message) {
  EndItem();
  TurnItem& item = items_.emplace_back();
  if (message.recipient) {
    item.kind = TurnItem::Kind::kToolCall;
    item.tool = BareName(*message.recipient);
    item.custom =
        std::find(options_.custom_tools.begin(), options_.custom_tools.end(), item.tool) != options_.custom_tools.end();
  } else if (message.channel == "analysis") {
    item.kind = TurnItem::Kind::kReasoning;
  } else if (message.channel == "commentary") {
    item.kind = TurnItem::Kind::kPreamble;
  }
  Message& kept = messages_.emplace_back();
  kept.author.role = Role::kAssistant;
  kept.recipient = message.recipient;
  kept.channel = message.channel || message.recipient ? message.channel : "final";
  kept.content_type = message.content_type;
  open_ = true;
  logprobs_.clear();
  listener_->OnItemStart(items_.size() - 1, item);
}

void TurnReader::Give(const std::string& text) {
  TurnItem& item = items_.back();
  const bool may_stop = item.kind == TurnItem::Kind::kAnswer;
  const std::string certain = may_stop ? stops_.Feed(text) : text;
  if (!certain.empty()) {
    item.text += certain;
    listener_->OnDelta(items_.size() - 1, certain, logprobs_);
    logprobs_.clear();
  }
  if (may_stop && stops_.matched()) over_ = cut_ = true;
}

void TurnReader::EndItem() {
  if (!std::exchange(open_, false)) return;
  TurnItem& item = items_.back();
  item.cut = cut_ && !stops_.matched();
  std::string rest;
  if (item.kind == TurnItem::Kind::kAnswer && !stops_.matched()) {
    rest = stops_.Finish();
  } else if (item.kind == TurnItem::Kind::kToolCall && !item.custom && item.text.empty() && !cut_) {
    rest = "{}";  // a call without arguments
  }
  if (!rest.empty()) {
    item.text += rest;
    listener_->OnDelta(items_.size() - 1, rest, logprobs_);
    logprobs_.clear();
  }
  listener_->OnItemEnd(items_.size() - 1, item);
}

void TurnReader::Finish() {
  if (options_.raw) {
    BeginRaw();
    if (!stops_.matched()) Give(decoder_.Finish());
  } else if (parser_.in_content() && !over_) {
    cut_ = true;
    events_.clear();
    GPTOSS_CHECK(parser_.Finish(&events_).ok());
    for (const ParseEvent& event : events_) Handle(event);
  }
  EndItem();
  over_ = true;
}

std::vector<HistoryMessage> TurnReader::TakeHistory() {
  std::vector<HistoryMessage> history;
  // Only what the grammar had made regular is replayed token by token.
  const auto& parsed = parser_.messages();
  const bool regular = std::none_of(parsed.begin(), parsed.end(), [](const ParsedMessage& m) { return m.salvaged; }) &&
                       parsed.size() == messages_.size() && spoken_.size() >= parsed.size();
  for (size_t i = 0; i < messages_.size(); ++i) {
    HistoryMessage& said = history.emplace_back();
    said.message = std::move(messages_[i]);
    said.message.contents.emplace_back(TextContent{items_[i].text});
    const bool whole = i + 1 < messages_.size() || !cut_;
    if (regular && whole && !options_.raw) said.tokens = std::move(spoken_[i]);
  }
  return history;
}

}  // namespace gptoss::server
