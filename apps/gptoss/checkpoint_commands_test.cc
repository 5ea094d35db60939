// synth, convert and inspect through their flags.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "commands.h"
#include "json/json.h"

namespace gptoss::cli {

// main.cc's, which is not part of this binary.
static std::string last_error;
int Fail(const Status& status) {
  last_error = status.message();
  return 1;
}
int UsageError(const std::string& message) {
  last_error = message;
  return 2;
}

namespace {

using ::testing::HasSubstr;

class CheckpointCommands : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "gptoss_cli_XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern + "/";
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  /// The exit code, as main computes it.
  int Run(std::vector<std::string> arguments) {
    CLI::App app("test");
    app.require_subcommand(1);
    int exit_code = -1;
    RegisterConvert(app, &exit_code);
    RegisterInspect(app, &exit_code);
    RegisterSynth(app, &exit_code);
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes a vector from its end
    try {
      app.parse(arguments);
    } catch (const CLI::ParseError& e) {
      last_error = e.what();
      return 2;
    }
    return exit_code;
  }
  int RunAndCapture(std::vector<std::string> arguments, std::string* out) {
    ::testing::internal::CaptureStdout();
    const int code = Run(std::move(arguments));
    *out = ::testing::internal::GetCapturedStdout();
    return code;
  }
  std::string dir_;
};

TEST_F(CheckpointCommands, SynthWritesEveryForm) {
  for (const std::string form : {"hf", "original", "gguf"}) {
    ASSERT_EQ(Run({"synth", "--like", "micro", "--layers", "2", "--experts", "5", "--vocab", "96", "--seed", "3",
                   "--format", form, "--out", dir_ + form}),
              0)
        << last_error;
    const Result<std::unique_ptr<Checkpoint>> opened = OpenCheckpoint(dir_ + form);
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    EXPECT_EQ(CheckpointFormatName((*opened)->format()), form);
    EXPECT_EQ((*opened)->config().num_layers, 2);
    EXPECT_EQ((*opened)->config().num_experts, 5);
    EXPECT_EQ((*opened)->config().vocab_size, 96);
    EXPECT_TRUE((*opened)->VocabularyTokens().empty());
  }
  EXPECT_EQ(Run({"synth", "--like", "micro", "--format", "hf", "--out", dir_ + "hf"}), 1);
  EXPECT_THAT(last_error, HasSubstr("already exists"));
}

TEST_F(CheckpointCommands, FullVocabularyGoesIntoTheFile) {
  ASSERT_EQ(
      Run({"synth", "--like", "micro", "--layers", "1", "--vocab", "201088", "--format", "gguf", "--out", dir_ + "v"}),
      0)
      << last_error;
  const Result<std::unique_ptr<Checkpoint>> opened = OpenCheckpoint(dir_ + "v");
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const std::vector<std::string> tokens = (*opened)->VocabularyTokens();
  ASSERT_EQ(tokens.size(), 201088u);
  EXPECT_EQ(tokens[200002], "<|return|>");
  EXPECT_EQ((*opened)->VocabularyTokenTypes()[200002], 3);
  // It is carried on from file to file.
  ASSERT_EQ(Run({"convert", "--model", dir_ + "v", "--to", "gguf", "--out", dir_ + "w"}), 0) << last_error;
  EXPECT_EQ((*OpenCheckpoint(dir_ + "w"))->VocabularyTokens(), tokens);
}

TEST_F(CheckpointCommands, ConvertGoesRoundAndSaysWhatWouldBeLost) {
  const std::string golden = GPTOSS_TEST_DATA "/golden/micro/checkpoint/hf";
  ASSERT_EQ(Run({"convert", "--model", golden, "--to", "gguf", "--dense", "bf16", "--out", dir_ + "b"}), 0)
      << last_error;
  ASSERT_EQ(Run({"convert", "--model", dir_ + "b", "--to", "original", "--out", dir_ + "o"}), 0) << last_error;
  std::string a, b;
  const auto tensors = [](const std::string& text) { return (*ParseJson(text))["tensors"]; };
  ASSERT_EQ(RunAndCapture({"inspect", "--json", "--model", golden}, &a), 0);
  ASSERT_EQ(RunAndCapture({"inspect", "--json", "--model", dir_ + "o"}, &b), 0);
  EXPECT_EQ(tensors(a), tensors(b));
  ASSERT_EQ(Run({"convert", "--model", golden, "--to", "gguf", "--out", dir_ + "q"}), 0) << last_error;
  EXPECT_EQ(Run({"convert", "--model", dir_ + "q", "--to", "hf", "--out", dir_ + "h"}), 1);
  EXPECT_THAT(last_error, HasSubstr("--allow-lossy"));
  EXPECT_EQ(Run({"convert", "--model", dir_ + "q", "--to", "hf", "--out", dir_ + "h", "--allow-lossy"}), 0)
      << last_error;
  EXPECT_EQ(Run({"convert", "--model", golden, "--to", "hf", "--dense", "f32", "--out", dir_ + "x"}), 1);
  EXPECT_THAT(last_error, HasSubstr("--dense goes with gguf only"));
}

TEST_F(CheckpointCommands, InspectDescribes) {
  const std::string golden = GPTOSS_TEST_DATA "/golden/micro/checkpoint/original";
  std::string out;
  ASSERT_EQ(RunAndCapture({"inspect", "--json", "--model", golden}, &out), 0);
  const Result<Json> json = ParseJson(out);
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["format"], "original");
  EXPECT_EQ((*json)["total_bytes"], 2516352);
  EXPECT_EQ((*json)["config"]["num_experts"], 8);
  EXPECT_EQ((*json)["tensors"].size(), 3u + 17 * 4);
  EXPECT_EQ((*json)["tensors"][14]["name"], "layers.0.gate_up.weight");
  EXPECT_EQ((*json)["tensors"][14]["dtype"], "MXFP4");
  EXPECT_EQ((*json)["tensors"][14]["bytes"], 8 * 256 * (64 + 4));
  ASSERT_EQ(RunAndCapture({"inspect", "--model", golden}, &out), 0);
  EXPECT_THAT(out, HasSubstr("layers.3.down.bias"));
  EXPECT_EQ(Run({"inspect", "--model", dir_ + "absent"}), 1);
  EXPECT_THAT(last_error, HasSubstr("absent: no such file"));
}

TEST_F(CheckpointCommands, WrongUsageIsRefused) {
  EXPECT_EQ(Run({"synth", "--like", "7b", "--format", "hf", "--out", dir_ + "x"}), 2);
  EXPECT_EQ(Run({"synth", "--like", "micro", "--format", "npz", "--out", dir_ + "x"}), 2);
  EXPECT_EQ(Run({"synth", "--like", "micro", "--format", "hf"}), 2);
  EXPECT_EQ(Run({"convert", "--to", "hf", "--out", dir_ + "x"}), 2);
  EXPECT_FALSE(std::filesystem::exists(dir_ + "x"));
}

}  // namespace
}  // namespace gptoss::cli
