// Any token ids: the parser never fails in lenient mode, and events give the messages' text.
#include <cstring>

#include "base/check.h"
#include "harmony/stream_parser.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gptoss;
  static const auto tokenizer = *Tokenizer::Embedded();
  if (size < 1) return 0;
  ParserOptions options;
  const uint8_t flags = data[0];
  options.strict = (flags & 1) != 0;
  if ((flags & 2) != 0) options.role = static_cast<Role>((flags >> 2) % 5);
  if ((flags & 128) != 0) options.tools = {"functions.f", "python"};
  StreamParser parser = *StreamParser::Create(tokenizer, options);
  std::vector<ParseEvent> events;
  Status status;
  // Three bytes an id; the highest ones are the markers, so that they are found soon.
  for (size_t i = 1; i + 3 <= size; i += 3) {
    TokenId id = data[i] | data[i + 1] << 8 | data[i + 2] << 16;
    if (data[i + 2] >= 0xF0) id = 199998 + data[i] % 24;
    status = parser.Add(id, &events);
    GPTOSS_CHECK(status.ok() || options.strict);
  }
  status = parser.Finish(&events);
  GPTOSS_CHECK(status.ok() || options.strict);
  std::vector<std::string> texts(parser.messages().size());
  for (const ParseEvent& event : events) texts[event.message] += event.text;
  for (size_t i = 0; i < texts.size(); ++i) GPTOSS_CHECK(texts[i] == parser.messages()[i].text);
  return 0;
}
