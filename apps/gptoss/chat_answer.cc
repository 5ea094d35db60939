#include "chat_answer.h"

#include <utility>

namespace gptoss::cli {

Result<AnswerReader> AnswerReader::Create(std::shared_ptr<const Tokenizer> tokenizer, StopSequences stops,
                                          AnswerListener* listener) {
  ParserOptions options;
  options.role = Role::kAssistant;
  GPTOSS_ASSIGN_OR_RETURN(StreamParser parser, StreamParser::Create(std::move(tokenizer), std::move(options)));
  return AnswerReader(std::move(parser), std::move(stops), listener);
}

bool AnswerReader::Add(TokenId id) {
  if (over_) return false;
  events_.clear();
  // The lenient parser has no errors.
  GPTOSS_CHECK(parser_.Add(id, &events_).ok());
  for (const ParseEvent& event : events_) Handle(event);
  return !over_;
}

void AnswerReader::Finish(bool keep_header) {
  if (!over_ && (keep_header || parser_.in_content())) {
    events_.clear();
    GPTOSS_CHECK(parser_.Finish(&events_).ok());
    for (const ParseEvent& event : events_) Handle(event);
  }
  EndMessage();
  over_ = true;
}

void AnswerReader::Handle(const ParseEvent& event) {
  if (over_) return;
  const ParsedMessage& message = parser_.messages()[event.message];
  switch (event.kind) {
    case ParseEvent::Kind::kMessageStart:
      if (message.author.role != Role::kAssistant) {
        over_ = true;
        return;
      }
      Begin(message);
      return;
    case ParseEvent::Kind::kContentDelta:
      if (part_ != AnswerPart::kAnswer) {
        Give(event.text);
        return;
      }
      Give(stops_.Feed(event.text));
      if (stops_.matched()) over_ = stop_matched_ = true;
      return;
    case ParseEvent::Kind::kMessageEnd:
      EndMessage();
      // A final message ends the turn, also when the model closes it with <|end|> instead of <|return|>.
      if (message.channel == "final" && !message.recipient.has_value()) over_ = true;
      return;
  }
}

void AnswerReader::Begin(const ParsedMessage& message) {
  EndMessage();
  in_message_ = true;
  call_ = message.recipient.value_or("");
  part_ = message.recipient.has_value()   ? AnswerPart::kToolCall
          : message.channel == "analysis" ? AnswerPart::kReasoning
                                          : AnswerPart::kAnswer;
  Message& kept = messages_.emplace_back();
  kept.author.role = Role::kAssistant;
  kept.recipient = message.recipient;
  kept.content_type = message.content_type;
  // What came without a channel was meant for the user, and is rendered that way from now on.
  kept.channel = message.channel.has_value() || message.recipient.has_value() ? message.channel : "final";
  kept.contents.emplace_back(TextContent{});
  listener_->OnPart(part_, message.recipient.value_or(""));
}

void AnswerReader::Give(std::string_view text) {
  if (text.empty()) return;
  std::get<TextContent>(messages_.back().contents[0]).text += text;
  answered_ = answered_ || part_ == AnswerPart::kAnswer;
  listener_->OnText(text);
}

/// What a stop string held back belongs to the message after all.
void AnswerReader::EndMessage() {
  if (!std::exchange(in_message_, false) || part_ != AnswerPart::kAnswer || stop_matched_) return;
  Give(stops_.Finish());
  stops_.Reset();
}

std::vector<Message> AnswerReader::TakeMessages() {
  std::erase_if(messages_, [](const Message& m) { return std::get<TextContent>(m.contents[0]).text.empty(); });
  return std::move(messages_);
}

}  // namespace gptoss::cli
