#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/mmap_file.h"
#include "base/utf8.h"
#include "chat_answer.h"
#include "chat_commands.h"
#include "chat_history.h"
#include "chat_output.h"
#include "harmony/render.h"
#include "json/json.h"

namespace gptoss::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ChatCommands, Parses) {
  const auto parse = [](std::string_view line) {
    const auto command = ParseChatCommand(line);
    EXPECT_TRUE(command.ok()) << line;
    return std::pair(command->kind, command->argument);
  };
  EXPECT_EQ(parse("/effort high"), std::pair(ChatCommandKind::kEffort, std::string("high")));
  EXPECT_EQ(parse("/effort"), std::pair(ChatCommandKind::kEffort, std::string()));
  EXPECT_EQ(parse("/reasoning \t show  "), std::pair(ChatCommandKind::kReasoning, std::string("show")));
  EXPECT_EQ(parse("/save my chat.json "), std::pair(ChatCommandKind::kSave, std::string("my chat.json")));
  EXPECT_EQ(parse("/load a.json"), std::pair(ChatCommandKind::kLoad, std::string("a.json")));
  EXPECT_EQ(parse("/stats on"), std::pair(ChatCommandKind::kStats, std::string("on")));
  EXPECT_EQ(parse("/new").first, ChatCommandKind::kNew);
  EXPECT_EQ(parse("/help").first, ChatCommandKind::kHelp);
  EXPECT_EQ(parse("/quit").first, ChatCommandKind::kQuit);
  EXPECT_EQ(parse("/exit").first, ChatCommandKind::kQuit);
}

TEST(ChatCommands, RefusesWhatIsNotOne) {
  for (std::string_view line : {"/effort max", "/effort low high", "/reasoning on", "/new now", "/save", "/load ",
                                "/stats 3", "/quit please", "/", "/efforthigh", "/Effort low"}) {
    const auto command = ParseChatCommand(line);
    ASSERT_FALSE(command.ok()) << line;
    EXPECT_EQ(command.status().code(), StatusCode::kInvalidArgument);
  }
  EXPECT_THAT(ParseChatCommand("/effort max").status().message(), HasSubstr("low|medium|high"));
  EXPECT_THAT(ParseChatCommand("/frobnicate x").status().message(), HasSubstr("/frobnicate"));
}

TEST(ChatCommands, TwoSlashesAreText) {
  EXPECT_TRUE(IsChatCommand("/help"));
  EXPECT_FALSE(IsChatCommand("//help"));
  EXPECT_FALSE(IsChatCommand("what is /help"));
  EXPECT_FALSE(IsChatCommand(""));
}

TEST(ChatCommands, HelpNamesEveryCommand) {
  for (const char* name : {"/effort", "/reasoning", "/new", "/save", "/load", "/stats", "/help", "/quit"}) {
    EXPECT_THAT(std::string(ChatHelp()), HasSubstr(name));
  }
}

/// The messages that the lines make; an open one at the end is marked with "…".
std::vector<std::string> Assemble(const std::vector<std::string>& lines) {
  MessageAssembler assembler;
  std::vector<std::string> messages;
  for (const std::string& line : lines) {
    if (auto message = assembler.Add(line)) messages.push_back(*message);
  }
  if (auto rest = assembler.Finish()) messages.push_back(*rest + "…");
  EXPECT_FALSE(assembler.open());
  return messages;
}

TEST(MessageAssembler, PutsLinesTogether) {
  EXPECT_THAT(Assemble({"one", "two\r"}), ElementsAre("one", "two"));
  EXPECT_THAT(Assemble({"one\\", "two\\", "", "three"}), ElementsAre("one\ntwo\n", "three"));
  EXPECT_THAT(Assemble({"\"\"\"", "a", "  b\\", "", "\"\"\"", "c"}), ElementsAre("a\n  b\\\n", "c"));
  EXPECT_THAT(Assemble({"\"\"\"a", "b\"\"\""}), ElementsAre("a\nb"));
  EXPECT_THAT(Assemble({"\"\"\"one line\"\"\""}), ElementsAre("one line"));
  EXPECT_THAT(Assemble({"\"\"\"", "\"\"\"", "next"}), ElementsAre("", "next"));
  EXPECT_THAT(Assemble({"say \"\"\"", "x"}), ElementsAre("say \"\"\"", "x"));
  EXPECT_THAT(Assemble({"\"\"\"", "never closed"}), ElementsAre("never closed\n…"));
  EXPECT_THAT(Assemble({"open\\"}), ElementsAre("open\n…"));
  EXPECT_THAT(Assemble({"pasted\nlines", "x"}), ElementsAre("pasted\nlines", "x"));
  for (const std::string message : {"a\nb", "say \"hi\"", "\"\"\"", "\nx\\\n"}) {
    EXPECT_THAT(Assemble({MessageAssembler::AsOneEntry(message)}), ElementsAre(message));
  }
}

TEST(MessageAssembler, KnowsWhetherAMessageIsOneLine) {
  MessageAssembler assembler;
  EXPECT_FALSE(assembler.Add("\"\"\"").has_value());
  EXPECT_TRUE(assembler.open());
  EXPECT_EQ(assembler.Add("/quit\"\"\""), "/quit");
  EXPECT_TRUE(assembler.multi_line());
  EXPECT_EQ(assembler.Add("/quit"), "/quit");
  EXPECT_FALSE(assembler.multi_line());
  EXPECT_FALSE(assembler.Add("begun\\").has_value());
  assembler.Discard();
  EXPECT_FALSE(assembler.open());
  EXPECT_EQ(assembler.Add("fresh"), "fresh");
  EXPECT_EQ(assembler.Add("/quit\nis pasted"), "/quit\nis pasted");
  EXPECT_TRUE(assembler.multi_line());
}

TEST(EscapeControls, ShowsWhatATerminalWouldObey) {
  EXPECT_EQ(EscapeControls("plain\ttext\nüñ \U0001F600"), "plain\ttext\nüñ \U0001F600");
  EXPECT_EQ(EscapeControls("\x1b]0;title\x07"), "\\x1b]0;title\\x07");
  EXPECT_EQ(EscapeControls("a\rb\bc\x7f"), "a\\x0db\\x08c\\x7f");
  EXPECT_EQ(EscapeControls(std::string_view("\0", 1)), "\\x00");
  EXPECT_EQ(EscapeControls("\u009b31m\u0085\u00a0"), "\\u009b31m\\u0085\u00a0");
  EXPECT_EQ(EscapeControls("\x9b\xff"), "\\x9b\\xff");
  for (int byte = 0; byte < 256; ++byte) {
    for (unsigned char c : EscapeControls(std::string(1, static_cast<char>(byte)))) {
      EXPECT_TRUE(c == '\n' || c == '\t' || (c >= 0x20 && c < 0x7F)) << byte;
    }
  }
}

struct Piece {
  AnswerPart part;
  std::string recipient, text;
};

std::string Print(AnswerStyle style, const std::vector<Piece>& pieces) {
  std::string out;
  AnswerPrinter printer(style, [&](std::string_view text) { out += text; });
  for (const Piece& piece : pieces) {
    printer.Begin(piece.part, piece.recipient);
    const size_t half = CompleteUtf8Prefix(std::string_view(piece.text).substr(0, piece.text.size() / 2));
    printer.Text(std::string_view(piece.text).substr(0, half));
    printer.Text(std::string_view(piece.text).substr(half));
  }
  printer.Finish();
  return out;
}

TEST(AnswerPrinter, PartsOfAnAnswer) {
  const std::vector<Piece> pieces = {{AnswerPart::kReasoning, "", "let me\nthink"}, {AnswerPart::kAnswer, "", "Hi\n"}};
  EXPECT_EQ(Print({}, pieces), "Hi\n");
  EXPECT_EQ(Print({.show_reasoning = true}, pieces), "[reasoning] let me\n[reasoning] think\n\nHi\n");
  EXPECT_EQ(Print({.terminal = true, .colour = true, .show_reasoning = true}, pieces),
            "\x1b[2mThinking\nlet me\nthink\x1b[22m\n\nHi\n");
  EXPECT_EQ(
      Print({}, {{AnswerPart::kAnswer, "", "one"}, {AnswerPart::kAnswer, "", ""}, {AnswerPart::kAnswer, "", "two"}}),
      "one\n\ntwo\n");
  EXPECT_EQ(Print({}, {{AnswerPart::kToolCall, "functions.f\x1b", "{}"}}), "[call to functions.f\\x1b]\n{}\n");
  EXPECT_EQ(Print({}, {{AnswerPart::kToolCall, "functions.f", ""}}), "[call to functions.f]\n");
  EXPECT_EQ(Print({}, {}), "");
}

TEST(AnswerPrinter, EscapesOnATerminalOnly) {
  const std::vector<Piece> pieces = {{AnswerPart::kAnswer, "", "a\x1b[2Jb"}};
  EXPECT_EQ(Print({.terminal = true}, pieces), "a\\x1b[2Jb\n");
  EXPECT_EQ(Print({}, pieces), "a\x1b[2Jb\n");
}

class ChatFiles : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("gptoss_chat_test_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  static void Write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

  std::filesystem::path folder_;
};

Message Assistant(std::string channel, std::string text) {
  Message message = TextMessage(Role::kAssistant, std::move(text));
  message.channel = std::move(channel);
  return message;
}

TEST_F(ChatFiles, SavedConversationsComeBack) {
  ChatHistory saved(
      {.identity = "You are Ada.", .developer = "Be brief.", .date = "2025-06-28", .effort = ReasoningEffort::kHigh});
  saved.Add(TextMessage(Role::kUser, "line one\nline \"two\" \u00e9\U0001F600 <|end|>"));
  saved.Add(Assistant("analysis", "hm"));
  saved.Add(Assistant("final", "yes"));
  const std::string path = Path("chat.json");
  ASSERT_TRUE(saved.Save(path).ok());

  ChatHistory loaded({.date = "2026-01-01"});
  EXPECT_EQ(loaded.effort(), ReasoningEffort::kMedium);
  const Status status = loaded.Load(path);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(loaded.conversation(), saved.conversation());
  EXPECT_EQ(loaded.effort(), ReasoningEffort::kHigh);
  EXPECT_EQ(loaded.user_messages(), 1);
  ASSERT_TRUE(loaded.Save(path).ok()) << "a saved conversation may be replaced";

  // The file is in the official form.
  const auto json = ParseJson(*ReadTextFile(path));
  ASSERT_TRUE(json.ok());
  const Json& messages = (*json)["messages"];
  ASSERT_EQ(messages.size(), 5u);
  EXPECT_EQ(messages[0]["role"], "system");
  EXPECT_EQ(messages[1]["role"], "developer");
  EXPECT_EQ(messages[3]["channel"], "analysis");
  EXPECT_EQ(messages[4]["content"][0]["text"], "yes");
}

TEST_F(ChatFiles, LoadingWhatHasNoSystemMessageAddsOurs) {
  Write(Path("bare.json"), R"({"messages":[{"role":"user","content":"hello"}]})");
  ChatHistory history({.date = "2025-06-28", .effort = ReasoningEffort::kLow});
  ASSERT_TRUE(history.Load(Path("bare.json")).ok());
  ASSERT_EQ(history.conversation().messages.size(), 2u);
  EXPECT_EQ(history.conversation().messages[0].author.role, Role::kSystem);
  EXPECT_EQ(history.effort(), ReasoningEffort::kLow);
  history.SetEffort(ReasoningEffort::kHigh);
  EXPECT_EQ(std::get<SystemContent>(history.conversation().messages[0].contents[0]).reasoning_effort,
            ReasoningEffort::kHigh);
}

TEST_F(ChatFiles, FailuresNameTheFileAndChangeNothing) {
  ChatHistory history({.date = "2025-06-28"});
  history.Add(TextMessage(Role::kUser, "hello"));
  const Conversation before = history.conversation();
  Write(Path("broken.json"), "{\"messages\": [");
  Write(Path("wrong.json"), R"({"messages":[{"role":"robot","content":"x"}]})");
  for (const char* name : {"absent.json", "broken.json", "wrong.json"}) {
    const Status status = history.Load(Path(name));
    ASSERT_FALSE(status.ok()) << name;
    EXPECT_THAT(status.message(), HasSubstr(name));
    EXPECT_EQ(history.conversation(), before);
  }
  Write(Path("notes.txt"), "precious");
  EXPECT_EQ(history.Save(Path("notes.txt")).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(*ReadTextFile(Path("notes.txt")), "precious");
  EXPECT_FALSE(history.Save(Path("no/such/folder/chat.json")).ok());
}

TEST(ChatHistory, BeginsWithWhatWasAskedFor) {
  ChatHistory history({.identity = "You are Ada.", .developer = "Be brief.", .date = "2025-06-28"});
  history.Add(TextMessage(Role::kUser, "hello"));
  history.Clear();
  ASSERT_EQ(history.conversation().messages.size(), 2u);
  const auto& system = std::get<SystemContent>(history.conversation().messages[0].contents[0]);
  EXPECT_EQ(system.model_identity, "You are Ada.");
  EXPECT_EQ(system.conversation_start_date, "2025-06-28");
  EXPECT_EQ(std::get<DeveloperContent>(history.conversation().messages[1].contents[0]).instructions, "Be brief.");
  EXPECT_EQ(ChatHistory({}).conversation().messages.size(), 1u);
}

TEST(ExpandHome, OnlyALeadingTilde) {
  ::setenv("HOME", "/home/ada", 1);
  EXPECT_EQ(ExpandHome("~/a.json"), "/home/ada/a.json");
  EXPECT_EQ(ExpandHome("a~/b"), "a~/b");
  EXPECT_EQ(ExpandHome("/x"), "/x");
}

// ---- AnswerReader ----

class Recorder : public AnswerListener {
 public:
  void OnPart(AnswerPart part, std::string_view recipient) override {
    log += part == AnswerPart::kReasoning ? "{R" : part == AnswerPart::kAnswer ? "{A" : "{T:";
    log += std::string(recipient) + "}";
  }
  void OnText(std::string_view text) override {
    EXPECT_FALSE(text.empty());
    EXPECT_EQ(FirstInvalidUtf8(text), text.size());
    log += text;
  }
  std::string log;
};

struct ReadOutcome {
  std::string log;
  std::vector<Message> messages;
  size_t tokens = 0;  // taken before the turn was over
  bool answered = false, stopped = false;
};

/// Reads `text`, in which markers are spelled out, token by token.
ReadOutcome Read(std::string_view text, std::vector<std::string> stops = {}, bool keep_header = true) {
  const auto tokenizer = Tokenizer::Embedded();
  EXPECT_TRUE(tokenizer.ok());
  std::vector<TokenId> ids;
  (*tokenizer)->EncodeWithSpecial(text, &ids);
  Recorder recorder;
  auto matcher = StopSequences::Make(std::move(stops));
  EXPECT_TRUE(matcher.ok());
  auto reader = AnswerReader::Create(*tokenizer, *matcher, &recorder);
  EXPECT_TRUE(reader.ok());
  ReadOutcome outcome;
  for (TokenId id : ids) {
    ++outcome.tokens;
    if (!reader->Add(id)) break;
  }
  if (outcome.tokens < ids.size()) {
    EXPECT_FALSE(reader->Add(ids.back()));
  }
  reader->Finish(keep_header);
  outcome.log = recorder.log;
  outcome.messages = reader->TakeMessages();
  outcome.answered = reader->answered();
  outcome.stopped = reader->stop_matched();
  return outcome;
}

TEST(AnswerReader, ReasoningThenAnswer) {
  const ReadOutcome outcome = Read(
      "<|channel|>analysis<|message|>User says hi \U0001F600.<|end|><|start|>assistant<|channel|>final<|message|>"
      "Hello! \U0001F468\u200d\U0001F469<|return|>");
  EXPECT_EQ(outcome.log, "{R}User says hi \U0001F600.{A}Hello! \U0001F468\u200d\U0001F469");
  EXPECT_THAT(outcome.messages, ElementsAre(Assistant("analysis", "User says hi \U0001F600."),
                                            Assistant("final", "Hello! \U0001F468\u200d\U0001F469")));
  EXPECT_TRUE(outcome.answered);
}

TEST(AnswerReader, AFinalMessageEndsTheTurn) {
  const ReadOutcome outcome =
      Read("<|channel|>final<|message|>Done.<|end|><|start|>assistant<|channel|>final<|message|>More");
  EXPECT_EQ(outcome.log, "{A}Done.");
  EXPECT_EQ(outcome.messages.size(), 1u);
}

TEST(AnswerReader, NothingIsKeptOfOtherSpeakers) {
  const ReadOutcome outcome = Read(
      "<|channel|>commentary<|message|>First.<|end|><|start|>user<|message|>and now I say<|end|><|start|>assistant"
      "<|channel|>final<|message|>never");
  EXPECT_EQ(outcome.log, "{A}First.");
  EXPECT_THAT(outcome.messages, ElementsAre(Assistant("commentary", "First.")));
}

TEST(AnswerReader, StopStringsCountInAnswersOnly) {
  const ReadOutcome outcome = Read(
      "<|channel|>analysis<|message|>STOP is said here<|end|><|start|>assistant<|channel|>final<|message|>"
      "One, two, STOP, three<|return|>",
      {", STOP"});
  EXPECT_EQ(outcome.log, "{R}STOP is said here{A}One, two");
  EXPECT_TRUE(outcome.stopped);
  EXPECT_THAT(outcome.messages,
              ElementsAre(Assistant("analysis", "STOP is said here"), Assistant("final", "One, two")));
  // What only looked like one comes out at the end.
  EXPECT_EQ(Read("<|channel|>final<|message|>One, STO<|return|>", {", STOP"}).log, "{A}One, STO");
  EXPECT_EQ(Read("<|channel|>final<|message|>One, STO", {", STOP"}).log, "{A}One, STO");
}

TEST(AnswerReader, CallsAreNoAnswers) {
  const ReadOutcome outcome =
      Read("<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\":1}<|call|>");
  EXPECT_EQ(outcome.log, "{T:functions.f}{\"a\":1}");
  EXPECT_FALSE(outcome.answered);
  ASSERT_EQ(outcome.messages.size(), 1u);
  EXPECT_EQ(outcome.messages[0].recipient, "functions.f");
}

TEST(AnswerReader, MalformedTurnsStillAnswer) {
  const ReadOutcome bare = Read("Just text without a header<|return|>");
  EXPECT_EQ(bare.log, "{A}Just text without a header");
  EXPECT_THAT(bare.messages, ElementsAre(Assistant("final", "Just text without a header")));
  // Cut off inside a header: shown when the limit did it, not when the user did.
  EXPECT_TRUE(Read("Just text").answered);
  EXPECT_FALSE(Read("Just text", {}, /*keep_header=*/false).answered);
  const ReadOutcome nothing = Read("<|channel|>final<|message|><|return|>");
  EXPECT_FALSE(nothing.answered);
  EXPECT_TRUE(nothing.messages.empty());
}

TEST(AnswerReader, WhatItKeepsCanBeRendered) {
  auto tokenizer = Tokenizer::Embedded();
  ASSERT_TRUE(tokenizer.ok());
  auto renderer = Renderer::Create(*tokenizer);
  ASSERT_TRUE(renderer.ok());
  ChatHistory history({.date = "2025-06-28"});
  history.Add(TextMessage(Role::kUser, "hi"));
  for (const char* text :
       {"<|channel|>analysis<|message|>thinking<|end|><|start|>assistant<|channel|>final<|message|>a",
        "words without header", "<|channel|>commentary to=f<|message|>{}<|call|>"}) {
    for (Message& message : Read(text).messages) history.Add(std::move(message));
  }
  const auto ids = renderer->RenderConversation(history.conversation(), {.next_role = Role::kAssistant});
  ASSERT_TRUE(ids.ok()) << ids.status().message();
  const std::string text = (*tokenizer)->Decode(*ids);
  EXPECT_THAT(text, HasSubstr("<|channel|>final<|message|>a<|end|>"));
  EXPECT_THAT(text, HasSubstr("<|channel|>final<|message|>words without header<|end|>"));
  EXPECT_THAT(text, testing::Not(HasSubstr("thinking"))) << "reasoning before the last final is dropped";
}

}  // namespace
}  // namespace gptoss::cli
