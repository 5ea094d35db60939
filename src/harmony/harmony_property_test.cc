// Properties that hold for all inputs, on many random ones. Seeds are fixed: a failure repeats.
#include <gtest/gtest.h>

#include <random>

#include "base/utf8.h"
#include "harmony/render.h"
#include "harmony/stream_parser.h"

namespace gptoss {
namespace {

const std::shared_ptr<const Tokenizer>& Tokens() {
  static const auto tokenizer = *Tokenizer::Embedded();
  return tokenizer;
}

using Rng = std::mt19937_64;
size_t Below(Rng& rng, size_t n) { return static_cast<size_t>(rng() % n); }

template <typename T>
const T& Pick(Rng& rng, const std::vector<T>& items) {
  return items[Below(rng, items.size())];
}

/// Tokens that are a space and at least six small letters: words that no header syntax knows.
std::vector<TokenId> WordTokens() {
  std::vector<TokenId> out;
  for (TokenId id = 0; id < 100000; ++id) {
    const std::string_view bytes = Tokens()->TokenBytes(id);
    if (bytes.size() < 7 || bytes[0] != ' ' || bytes.find_first_not_of("abcdefghijklmnopqrstuvwxyz", 1) != bytes.npos) {
      continue;
    }
    const std::string_view word = bytes.substr(1);
    bool known = RoleFromName(word).has_value();
    for (std::string_view other : {"analysis", "commentary", "final", "comment"}) known |= word.starts_with(other);
    if (!known) out.push_back(id);
  }
  return out;
}

/// What the model might write where: markers, words and pieces of headers.
std::vector<TokenId> RandomStream(Rng& rng, const std::vector<TokenId>& words, std::vector<TokenId>* used) {
  static const std::vector<TokenId> markers = {200002, 200003, 200005, 200005, 200006, 200006,
                                               200007, 200008, 200008, 200012, 199999, 200013};
  static const std::vector<std::string> pieces = {
      "assistant", "user", "analysis", "final", "commentary", " to=", " json", "code", "{",
      "functions", ".",    "\n",       ":",     " ",          "tool", "to=",   "x",    "system"};
  std::vector<TokenId> ids;
  for (size_t n = Below(rng, 30); n > 0; --n) {
    const size_t kind = Below(rng, 10);
    if (kind < 4) {
      ids.push_back(Pick(rng, markers));
    } else if (kind < 7) {
      Tokens()->Encode(Pick(rng, pieces), &ids);
    } else if (kind < 9) {
      ids.push_back(Pick(rng, words));
      used->push_back(ids.back());
    } else {
      ids.push_back(static_cast<TokenId>(Below(rng, 201300)) - 100);
    }
  }
  return ids;
}

ParserOptions RandomOptions(Rng& rng) {
  ParserOptions options;
  if (Below(rng, 2) == 0) options.role = static_cast<Role>(Below(rng, 5));
  if (Below(rng, 4) == 0) options.tools = {"functions.f", "python"};
  return options;
}

/// Feeds one stream; checks that events and messages agree and that all text is whole.
std::vector<ParsedMessage> Feed(const std::vector<TokenId>& ids, const ParserOptions& options) {
  StreamParser parser = *StreamParser::Create(Tokens(), options);
  std::vector<ParseEvent> events;
  for (TokenId id : ids) EXPECT_TRUE(parser.Add(id, &events).ok());
  EXPECT_TRUE(parser.Finish(&events).ok());
  std::vector<std::string> texts(parser.messages().size());
  for (const ParseEvent& event : events) {
    EXPECT_EQ(FirstInvalidUtf8(event.text), event.text.size());
    texts[event.message] += event.text;
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(texts[i], parser.messages()[i].text);
    EXPECT_NE(parser.messages()[i].end, EndReason::kOpen);
  }
  return parser.messages();
}

TEST(HarmonyProperty, LenientParsingLosesNoWord) {
  const std::vector<TokenId> words = WordTokens();
  ASSERT_GT(words.size(), 5000u);
  Rng rng(20250805);
  for (int i = 0; i < 100000 && !testing::Test::HasFailure(); ++i) {
    std::vector<TokenId> used;
    const std::vector<TokenId> ids = RandomStream(rng, words, &used);
    std::string all;
    for (const ParsedMessage& m : Feed(ids, RandomOptions(rng))) {
      all += m.author.name.value_or("") + " " + m.recipient.value_or("") + " " + m.channel.value_or("") + " " +
             m.content_type.value_or("") + " " + m.text + " ";
    }
    for (TokenId id : used) {
      const std::string_view word = Tokens()->TokenBytes(id).substr(1);
      EXPECT_NE(all.find(word), std::string::npos) << word << " of " << Tokens()->Decode(ids) << " is not in " << all;
    }
  }
}

TEST(HarmonyProperty, StrictParsingIsTotal) {
  const std::vector<TokenId> words = WordTokens();
  Rng rng(7);
  int parsed = 0;
  for (int i = 0; i < 20000; ++i) {
    std::vector<TokenId> used;
    ParserOptions options = RandomOptions(rng);
    options.strict = true;
    const Result<std::vector<ParsedMessage>> result = ParseMessages(Tokens(), RandomStream(rng, words, &used), options);
    parsed += result.ok() ? 1 : 0;
    EXPECT_EQ(result.ok(), result.status().message().empty());
  }
  EXPECT_GT(parsed, 0);
}

std::string RandomText(Rng& rng) {
  static const std::vector<std::string> parts = {"<|end|>", "<|start|>",        "<|call|>",  "hello", " ",
                                                 "\n",      "{\"a\": 1}",       "é",         "漢",    "\U0001F680",
                                                 "to=x",    "<|channel|>final", "assistant", ""};
  std::string out;
  for (size_t n = Below(rng, 8); n > 0; --n) out += Pick(rng, parts);
  return out;
}

Message RandomMessage(Rng& rng) {
  static const std::vector<std::string> channels = {"analysis", "commentary", "final", "notes"};
  static const std::vector<std::string> recipients = {"functions.f", "browser.open", "python", "assistant", "user"};
  static const std::vector<std::string> types = {"json", "code", "<|constrain|>json", "<|constrain|>", "text/plain"};
  Message message = TextMessage(static_cast<Role>(Below(rng, 5)), RandomText(rng));
  if (message.author.role == Role::kTool) {
    message.author.name = Below(rng, 2) == 0 ? "functions.get_weather" : "python";
  } else if (Below(rng, 4) == 0) {
    message.author.name = "bob_7";
  }
  if (Below(rng, 3) == 0) message.recipient = Pick(rng, recipients);
  if (Below(rng, 3) != 0) message.channel = Pick(rng, channels);
  if (Below(rng, 4) == 0) message.content_type = Pick(rng, types);
  // A tool that says its type but not whom it answers reads like a sentence.
  if (message.author.role == Role::kTool && message.content_type && !message.channel) message.recipient = "assistant";
  return message;
}

TEST(HarmonyProperty, ParsingUndoesRendering) {
  const Renderer renderer = *Renderer::Create(Tokens());
  Rng rng(99);
  RenderOptions options;
  options.auto_drop_analysis = false;
  for (int i = 0; i < 5000 && !testing::Test::HasFailure(); ++i) {
    Conversation conversation;
    for (size_t n = Below(rng, 6); n > 0; --n) conversation.messages.push_back(RandomMessage(rng));
    if (Below(rng, 2) == 0) options.next_role = Role::kAssistant;
    Result<std::vector<TokenId>> ids = renderer.RenderConversation(conversation, options);
    ASSERT_TRUE(ids.ok());
    Conversation back;
    for (const ParsedMessage& parsed : Feed(*ids, {})) {
      EXPECT_FALSE(parsed.salvaged);
      Message message = TextMessage(parsed.author.role, parsed.text);
      message.author = parsed.author;
      message.recipient = parsed.recipient;
      message.channel = parsed.channel;
      message.content_type = parsed.content_type;
      back.messages.push_back(std::move(message));
    }
    EXPECT_TRUE(back == conversation) << Tokens()->Decode(*ids);
  }
}

}  // namespace
}  // namespace gptoss
