// A tokenizer of single bytes, a tiny model and a handful of conversations for the training tests.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "harmony/render.h"
#include "tokenizer/vocabulary.h"
#include "training/trainer.h"

namespace gptoss {

inline constexpr int kTinyVocabulary = 264;  // 256 bytes and the 8 markers of harmony

inline Renderer ByteRenderer() {
  Vocabulary vocabulary;
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    EXPECT_TRUE(vocabulary.Add(byte, {&text, 1}, Vocabulary::Kind::kOrdinary).ok());
  }
  for (int i = 0; i < kFormatTokenCount; ++i) {
    const auto token = static_cast<FormatToken>(i);
    EXPECT_TRUE(vocabulary.Add(256 + i, Spelling(token), Vocabulary::Kind::kSpecial).ok());
  }
  auto tokenizer = Tokenizer::FromVocabulary(std::move(vocabulary));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  auto renderer = Renderer::Create(*tokenizer);
  EXPECT_TRUE(renderer.ok()) << renderer.status().message();
  return *renderer;
}

inline ModelConfig TinyConfig() {
  ModelConfig c;
  c.num_layers = 2;
  c.num_experts = 4;
  c.experts_per_token = 2;
  c.vocab_size = kTinyVocabulary;
  c.hidden_size = 32;
  c.intermediate_size = 32;
  c.head_dim = 16;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.sliding_window = 16;
  c.max_context = 256;
  c.rope_factor = 1.0;
  c.rope_initial_context = 256;
  return c;
}

/// Eight questions with answers, one with reasoning and one with a tool call.
inline std::string EightConversations() {
  static constexpr const char* kPairs[][2] = {{"2+2?", "4"},        {"3+5?", "8"},         {"hi", "hello"},
                                              {"red?", "a colour"}, {"cat?", "an animal"}, {"7*8?", "56"}};
  std::string text;
  for (const auto& [question, answer] : kPairs) {
    text += std::string(R"({"messages":[{"role":"user","content":")") + question +
            R"("},{"role":"assistant","channel":"final","content":")" + answer + "\"}]}\n";
  }
  text +=
      R"({"messages":[{"role":"user","content":"9-4?"},{"role":"assistant","channel":"analysis","content":"9-4=5"},)"
      R"({"role":"assistant","channel":"final","content":"5"}]})"
      "\n";
  text += R"({"messages":[{"role":"user","content":"time?"},{"role":"assistant","channel":"commentary",)"
          R"("recipient":"functions.now","content_type":"<|constrain|>json","content":"{}"}]})"
          "\n";
  return text;
}

inline Dataset TinyDataset() {
  DatasetOptions options;
  options.vocab_size = kTinyVocabulary;
  options.max_tokens = 256;
  Dataset dataset = ReadDataset(ByteRenderer(), EightConversations(), options);
  EXPECT_TRUE(dataset.bad_lines.empty()) << dataset.bad_lines[0].reason;
  EXPECT_EQ(dataset.examples.size(), 8u);
  return dataset;
}

/// A directory of its own for one test, removed afterwards.
class ScopedDirectory {
 public:
  ScopedDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "gptoss_train_XXXXXX").string();
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
  }
  ScopedDirectory(const ScopedDirectory&) = delete;
  ~ScopedDirectory() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace gptoss
