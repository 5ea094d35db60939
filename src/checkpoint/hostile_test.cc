// Broken and hostile files: each gets one error that names the file and what in it is at fault.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>

#include "base/rng.h"
#include "checkpoint/gguf.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/test_util.h"
#include "json/json.h"

namespace gptoss {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string U64(uint64_t n) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &n, 8);
  return bytes;
}
std::string U32(uint32_t n) {
  std::string bytes(4, '\0');
  std::memcpy(bytes.data(), &n, 4);
  return bytes;
}

std::string FileOf(const std::string& header, const std::string& data) { return U64(header.size()) + header + data; }

Status ParseBytes(const std::string& bytes) {
  return ParseSafetensorsHeader(std::as_bytes(std::span(bytes)), bytes.size(), "f.safetensors").status();
}

struct BadHeader {
  const char* header;
  size_t data_bytes;
  const char* expected;
};

TEST(SafetensorsHeader, EveryErrorNamesFileAndTensor) {
  const BadHeader cases[] = {
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
       4, "the key \"a\" occurs twice"},
      {R"({"a":{"dtype":"BF16","dtype":"U8","shape":[2],"data_offsets":[0,4]}})", 4, "the key \"dtype\" occurs twice"},
      {R"({"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", 8, "tensor \"a\": dtype \"F64\""},
      {R"({"a":{"shape":[1],"data_offsets":[0,8]}})", 8, "tensor \"a\": \"dtype\" is missing"},
      {R"({"a":{"dtype":"U8","data_offsets":[0,8]}})", 8, "tensor \"a\": \"shape\" is missing"},
      {R"({"a":{"dtype":"U8","shape":[8]}})", 8, "tensor \"a\": \"data_offsets\" is missing"},
      {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8,9]}})", 8, "tensor \"a\": \"data_offsets\""},
      {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[8,0]}})", 8, "tensor \"a\": \"data_offsets\" is not a range"},
      {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})", 7, "tensor \"a\": bytes 0 to 8 lie outside"},
      {R"({"a":{"dtype":"U8","shape":[-8],"data_offsets":[0,8]}})", 8, "tensor \"a\": \"shape\" holds"},
      {R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,8]}})", 8, "tensor \"a\": \"shape\" holds"},
      {R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1,
       "tensor \"a\": \"shape\" has more"},
      {R"({"a":{"dtype":"BF16","shape":[3],"data_offsets":[0,4]}})", 4,
       "tensor \"a\": bytes 0 to 4 do not fit shape [3] of BF16"},
      {R"({"a":{"dtype":"BF16","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
       "tensor \"a\": bytes 0 to 0 do not fit"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[1,3]}})",
       3, "tensor \"b\": bytes 1 to 3 are not aligned"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
       6, "tensor \"b\": its bytes overlap those of \"a\""},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}})",
       6, "tensor \"b\": 2 bytes before it belong to no tensor"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 5, "3 bytes after the last tensor"},
      {R"({"a":[]})", 0, "tensor \"a\": its description is not"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})", 1, "header: not valid JSON"},
      {"[]", 0, "does not begin with"},
      {"", 0, "does not begin with"},
      {"{\"\xFF\":1}", 0, "header: not UTF-8 at byte 2"},
      {R"({"a":[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]})", 0, "nested deeper"},
  };
  for (const BadHeader& bad : cases) {
    const Status status = ParseBytes(FileOf(bad.header, std::string(bad.data_bytes, 'x')));
    ASSERT_FALSE(status.ok()) << bad.header;
    EXPECT_THAT(status.message(), AllOf(HasSubstr("f.safetensors: "), HasSubstr(bad.expected)));
  }
}

TEST(SafetensorsHeader, LengthsThatLie) {
  EXPECT_THAT(ParseBytes("").message(), HasSubstr("too short"));
  EXPECT_THAT(ParseBytes("1234567").message(), HasSubstr("too short"));
  EXPECT_THAT(ParseBytes(U64(3) + "{}").message(), HasSubstr("the header claims 3 bytes"));
  EXPECT_THAT(ParseBytes(U64(UINT64_MAX) + "{}").message(), HasSubstr("the header claims 18446744073709551615 bytes"));
  const std::string large(kMaxSafetensorsHeader + 1, ' ');
  EXPECT_EQ(ParseBytes(FileOf(large, "")).code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(ParseBytes(FileOf(R"({"__metadata__":{"format":"pt"}})", "")).ok());
}

/// Everything before every byte of a real header: no prefix may be taken for a whole file, none may crash.
TEST(SafetensorsHeader, EveryTruncationIsAnError) {
  const std::string whole = ReadFile(kMicro + "original/model.safetensors");
  ASSERT_TRUE(ParseBytes(whole).ok());
  for (size_t n = 0; n < 8000; n += 37) EXPECT_FALSE(ParseBytes(whole.substr(0, n)).ok()) << n;
  EXPECT_FALSE(ParseBytes(whole.substr(0, whole.size() - 1)).ok());
}

/// A copy of a golden checkpoint that a test may damage.
class HostileDirectory : public ::testing::Test {
 protected:
  void Copy(const std::string& layout) {
    std::filesystem::copy(kMicro + layout, path_, std::filesystem::copy_options::recursive);
    std::filesystem::permissions(path_, std::filesystem::perms::owner_all);
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      std::filesystem::permissions(entry.path(), std::filesystem::perms::owner_all);
    }
  }
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  std::string Error() const {
    const Result<std::unique_ptr<Checkpoint>> checkpoint = OpenCheckpoint(path_);
    return checkpoint.ok() ? "opened" : checkpoint.status().message();
  }
  /// Replaces `from` by the equally long `to` in the file.
  void Patch(const std::string& name, const std::string& from, const std::string& to) {
    ASSERT_EQ(from.size(), to.size());
    std::string bytes = ReadFile(File(name));
    const size_t at = bytes.find(from);
    ASSERT_NE(at, std::string::npos);
    WriteFile(File(name), bytes.replace(at, from.size(), to));
  }
  void EditIndex(const std::function<void(Json&)>& edit) {
    Json index = *ParseJson(ReadFile(File(kIndex)));
    edit(index);
    WriteFile(File(kIndex), WriteJson(index));
  }

  static constexpr char kIndex[] = "model.safetensors.index.json";
  static constexpr char kShard1[] = "model-00001-of-00002.safetensors";
  TempDir dir_;
  std::string path_ = dir_ / "m";
};

TEST_F(HostileDirectory, UndamagedCopyOpens) {
  Copy("hf");
  EXPECT_EQ(Error(), "opened");
}

TEST_F(HostileDirectory, MissingPieces) {
  EXPECT_THAT(Error(), AllOf(HasSubstr(path_), HasSubstr("no such file")));
  std::filesystem::create_directory(path_);
  EXPECT_THAT(Error(), HasSubstr("holds no config.json"));
  std::filesystem::remove(path_);
  Copy("hf");
  std::filesystem::remove(File(kShard1));
  EXPECT_THAT(Error(), AllOf(HasSubstr(kShard1), HasSubstr("the shard is missing"), HasSubstr(kIndex)));
  std::filesystem::remove(File(kIndex));
  EXPECT_THAT(Error(), HasSubstr("holds neither model.safetensors nor"));
}

TEST_F(HostileDirectory, TruncatedShard) {
  Copy("hf");
  std::filesystem::resize_file(File(kShard1), std::filesystem::file_size(File(kShard1)) - 100);
  EXPECT_THAT(Error(), AllOf(HasSubstr(kShard1), HasSubstr("tensor \"model.layers.2."), HasSubstr("truncated")));
}

TEST_F(HostileDirectory, IndexAndShardsDisagree) {
  Copy("hf");
  EditIndex([](Json& index) { index["weight_map"]["model.norm.weight"] = kShard1; });
  EXPECT_THAT(Error(),
              AllOf(HasSubstr(kShard1), HasSubstr("tensor \"model.norm.weight\" is absent"), HasSubstr(kIndex)));
}

TEST_F(HostileDirectory, TensorInTwoShards) {
  Copy("hf");
  std::filesystem::copy_file(File(kShard1), File("extra.safetensors"));
  EditIndex([](Json& index) { index["weight_map"]["model.layers.1.self_attn.sinks"] = "extra.safetensors"; });
  EXPECT_THAT(Error(),
              AllOf(HasSubstr("extra.safetensors"), HasSubstr("tensor \"model.layers."), HasSubstr("is also in")));
}

TEST_F(HostileDirectory, IndexLeadsOutOfTheDirectory) {
  Copy("hf");
  for (const char* name : {"../other.safetensors", "/etc/passwd", "..", ""}) {
    EditIndex([&](Json& index) { index["weight_map"]["model.norm.weight"] = name; });
    EXPECT_THAT(Error(),
                AllOf(HasSubstr(kIndex), HasSubstr("tensor \"model.norm.weight\""), HasSubstr("plain file name")));
  }
  EditIndex([](Json& index) { index["weight_map"] = 3; });
  EXPECT_THAT(Error(), AllOf(HasSubstr(kIndex), HasSubstr("\"weight_map\" is missing")));
  WriteFile(File(kIndex), R"({"weight_map":{"a":"b","a":"c"}})");
  EXPECT_THAT(Error(), AllOf(HasSubstr(kIndex), HasSubstr("the key \"a\" occurs twice")));
}

TEST_F(HostileDirectory, WrongNamesShapesAndTypes) {
  Copy("original");
  const std::string file = "model.safetensors";
  Patch(file, "\"norm.scale\"", "\"gnom.scale\"");
  EXPECT_THAT(Error(), AllOf(HasSubstr(path_), HasSubstr("tensor \"norm.scale\" is missing")));
  Patch(file, "\"gnom.scale\"", "\"norm.scale\"");
  Patch(file, "\"shape\":[128,512]", "\"shape\":[512,128]");
  EXPECT_THAT(Error(), AllOf(HasSubstr(file), HasSubstr("tensor \"block.0.attn.out.weight\" has shape [512, 128]"),
                             HasSubstr("implies [128, 512]")));
  Patch(file, "\"shape\":[512,128]", "\"shape\":[128,512]");
  EXPECT_EQ(Error(), "opened");
  Patch(file, R"("BF16","shape":[128,512])", R"("U8","shape":[256,512]  )");
  EXPECT_THAT(Error(), AllOf(HasSubstr(file), HasSubstr("tensor \"block.0.attn.out.weight\"")));
}

TEST_F(HostileDirectory, DtypeOfTheRightSize) {
  Copy("original");
  const std::string file = "model.safetensors";
  // One row of bytes where BF16 belongs, of the same extent.
  Patch(file, R"({"dtype":"BF16","shape":[128],"data_offsets":[0,256]})",
        R"({"dtype":"U8","shape":[256],"data_offsets":[0,256]  })");
  EXPECT_THAT(Error(), AllOf(HasSubstr(file), HasSubstr("tensor \"block.0.attn.norm.scale\"")));
}

TEST_F(HostileDirectory, MoreLayersThanTheConfiguration) {
  Copy("original");
  Patch("config.json", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 3");
  EXPECT_THAT(Error(), AllOf(HasSubstr("model.safetensors"), HasSubstr("tensor \"block.3."), HasSubstr("3 layers")));
  Patch("config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 5");
  EXPECT_THAT(Error(), HasSubstr("tensor \"block.4.attn.norm.scale\" is missing"));
}

TEST_F(HostileDirectory, MissingShardFoundByListing) {
  Copy("original");
  const auto source = MustOpen(path_);
  ASSERT_TRUE(source);
  WriteOptions options;
  options.max_shard_bytes = 900'000;
  ASSERT_TRUE(WriteOriginal(*source, dir_ / "s", options).ok());
  std::filesystem::remove(dir_ / "s/model.safetensors.index.json");
  std::string second;
  for (const auto& entry : std::filesystem::directory_iterator(dir_ / "s")) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("model--00002-of-")) second = name;
  }
  ASSERT_FALSE(second.empty());
  std::filesystem::remove(dir_ / ("s/" + second));
  const Result<std::unique_ptr<Checkpoint>> opened = OpenCheckpoint(dir_ / "s");
  ASSERT_FALSE(opened.ok());
  EXPECT_THAT(opened.status().message(), AllOf(HasSubstr(second), HasSubstr("the shard is missing")));
}

TEST_F(HostileDirectory, ConfigThatIsNotJson) {
  Copy("hf");
  WriteFile(File("config.json"), "{\"hidden_size\": ");
  EXPECT_THAT(Error(), AllOf(HasSubstr("config.json"), HasSubstr("not valid JSON")));
  WriteFile(File("config.json"), "{\"hidden_size\": 128}");
  EXPECT_THAT(Error(), AllOf(HasSubstr("config.json"), HasSubstr("\"num_hidden_layers\" is missing")));
}

// GGUF.

std::string GgufString(const std::string& s) { return U64(s.size()) + s; }
std::string GgufHead(uint64_t tensors, uint64_t pairs) { return "GGUF" + U32(3) + U64(tensors) + U64(pairs); }
std::string GgufTensorText(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
  std::string text = GgufString(name) + U32(static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) text += U64(dim);
  return text + U32(type) + U64(offset);
}
std::string Padded(std::string header, size_t data) {
  header.resize((header.size() + 31) / 32 * 32 + data, '\0');
  return header;
}

Status ParseGgufBytes(const std::string& bytes) {
  return ParseGguf(std::as_bytes(std::span(bytes)), "f.gguf").status();
}

TEST(GgufHeaderTest, EveryErrorNamesFileAndPlace) {
  const std::string key_x = GgufString("x");
  const struct {
    std::string bytes;
    const char* expected;
  } cases[] = {
      {"", "not a GGUF file"},
      {"GGML" + U32(3), "not a GGUF file"},
      {"GGUF" + U32(2) + U64(0) + U64(0), "GGUF version 2"},
      {std::string("GGUF\0\0\0\3", 8) + U64(0) + U64(0), "big endian"},
      {"GGUF" + U32(3) + U64(0), "the file ends here"},
      {GgufHead(uint64_t{1} << 40, 0), "1099511627776 tensors"},
      {GgufHead(0, uint64_t{1} << 40), "1099511627776 metadata pairs"},
      {GgufHead(0, 1), "metadata pair 0: the file ends here"},
      {GgufHead(0, 1) + U64(UINT64_MAX) + "x", "metadata pair 0: the file ends here"},
      {GgufHead(0, 1) + GgufString("\xC3("), "the key of metadata pair 0 is not UTF-8"},
      {GgufHead(0, 1) + key_x + U32(13), "metadata \"x\": type 13"},
      {GgufHead(0, 1) + key_x + U32(8) + U64(100) + "short", "metadata \"x\": the file ends here"},
      {GgufHead(0, 1) + key_x + U32(9) + U32(4) + U64(uint64_t{1} << 62), "metadata \"x\": the file ends here"},
      {GgufHead(0, 1) + key_x + U32(9) + U32(8) + U64(UINT64_MAX), "metadata \"x\": the file ends here"},
      {GgufHead(0, 1) + key_x + U32(9) + U32(9) + U64(1), "metadata \"x\": array of arrays"},
      {GgufHead(0, 1) + key_x + U32(9) + U32(77) + U64(1), "metadata \"x\": array of type 77"},
      {GgufHead(0, 2) + key_x + U32(4) + U32(1) + key_x + U32(4) + U32(1), "metadata \"x\" occurs twice"},
      {GgufHead(1, 0), "tensor 0: the file ends here"},
      {GgufHead(1, 0) + GgufTensorText("t", {}, 0, 0), "tensor \"t\": 0 dimensions"},
      {GgufHead(1, 0) + GgufTensorText("t", {1, 1, 1, 1, 1}, 0, 0), "tensor \"t\": 5 dimensions"},
      {GgufHead(1, 0) + GgufTensorText("t", {0}, 0, 0), "tensor \"t\": impossible dimensions"},
      {GgufHead(1, 0) + GgufTensorText("t", {uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0), "tensor \"t\": impossible"},
      {GgufHead(1, 0) + GgufTensorText("t", {256}, 12, 0), "tensor \"t\": Q4_K (12)"},
      {GgufHead(1, 0) + GgufTensorText("t", {33}, 39, 0), "tensor \"t\": rows of 33 values"},
      {Padded(GgufHead(1, 0) + GgufTensorText("t", {8}, 0, 4), 64), "tensor \"t\": offset 4 is not a multiple"},
      {Padded(GgufHead(1, 0) + GgufTensorText("t", {9}, 0, 0), 32),
       "tensor \"t\": its 36 bytes at offset 0 lie outside"},
      {Padded(GgufHead(1, 0) + GgufTensorText("t", {1}, 0, UINT64_MAX - 31), 32), "tensor \"t\": its 4 bytes"},
      {Padded(GgufHead(2, 0) + GgufTensorText("t", {9}, 0, 0) + GgufTensorText("u", {1}, 0, 32), 64),
       "tensor \"u\": its bytes overlap those of \"t\""},
      {Padded(GgufHead(2, 0) + GgufTensorText("t", {1}, 0, 0) + GgufTensorText("t", {1}, 0, 32), 64),
       "tensor \"t\" occurs twice"},
      {GgufHead(0, 1) + GgufString("general.alignment") + U32(4) + U32(48),
       "\"general.alignment\" is not a power of two"},
  };
  for (const auto& bad : cases) {
    const Status status = ParseGgufBytes(bad.bytes);
    ASSERT_FALSE(status.ok()) << bad.expected;
    EXPECT_THAT(status.message(), AllOf(HasSubstr("f.gguf: "), HasSubstr(bad.expected)));
  }
  EXPECT_TRUE(ParseGgufBytes(Padded(GgufHead(1, 0) + GgufTensorText("t", {8}, 0, 0), 32)).ok());
}

class HostileGguf : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto source = Synthetic(MicroOptions());
    ASSERT_TRUE(source);
    const Status status = WriteGguf(*source, path_, {});
    ASSERT_TRUE(status.ok()) << status.message();
  }
  std::string Error() const {
    const Result<std::unique_ptr<Checkpoint>> checkpoint = OpenCheckpoint(path_);
    return checkpoint.ok() ? "opened" : checkpoint.status().message();
  }
  void Patch(const std::string& from, const std::string& to) {
    ASSERT_EQ(from.size(), to.size());
    std::string bytes = ReadFile(path_);
    const size_t at = bytes.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    WriteFile(path_, bytes.replace(at, from.size(), to));
  }
  TempDir dir_;
  std::string path_ = dir_ / "m.gguf";
};

TEST_F(HostileGguf, MetadataAndTensorsAreChecked) {
  EXPECT_EQ(Error(), "opened");
  Patch("blk.1.attn_sinks.weight", "blk.1.attn_stinks.weigh");
  EXPECT_THAT(Error(), AllOf(HasSubstr(path_), HasSubstr("tensor \"blk.1.attn_sinks.weight\" is missing")));
  Patch("blk.1.attn_stinks.weigh", "blk.1.attn_sinks.weight");
  Patch("gpt-oss.expert_count", "gpt-oss.expert_cuont");
  EXPECT_THAT(Error(), AllOf(HasSubstr(path_), HasSubstr("metadata \"gpt-oss.expert_count\" is missing")));
  Patch("gpt-oss.expert_cuont", "gpt-oss.expert_count");
  Patch(GgufString("gpt-oss"), GgufString("llama42"));
  EXPECT_THAT(Error(), AllOf(HasSubstr(path_), HasSubstr("\"general.architecture\" is \"llama42\"")));
  Patch(GgufString("llama42"), GgufString("gpt-oss"));
  Patch(GgufString("gpt-oss.block_count") + U32(4) + U32(4), GgufString("gpt-oss.block_count") + U32(4) + U32(3));
  EXPECT_THAT(Error(), AllOf(HasSubstr(path_), HasSubstr("tensor \"blk.3."), HasSubstr("3 layers")));
  Patch(GgufString("gpt-oss.block_count") + U32(4) + U32(3), GgufString("gpt-oss.block_count") + U32(4) + U32(4));
  Patch(GgufString("gpt-oss.attention.head_count") + U32(4) + U32(8),
        GgufString("gpt-oss.attention.head_count") + U32(4) + U32(6));
  EXPECT_THAT(Error(), AllOf(HasSubstr(path_), HasSubstr("tensor \"blk.0.attn_q.weight\" has shape [512, 128]"),
                             HasSubstr("implies [384, 128]")));
}

TEST_F(HostileGguf, TruncationIsNoticedBeforeReading) {
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 4096);
  EXPECT_THAT(Error(), AllOf(HasSubstr(path_), HasSubstr("tensor \"output.weight\""), HasSubstr("truncated")));
}

/// The file with metadata that calls it split `no` of 2. What is inserted is a multiple of the alignment long.
std::string AsSplit(std::string bytes, uint32_t no) {
  uint64_t pairs = 0;
  std::memcpy(&pairs, bytes.data() + 16, 8);
  bytes.replace(16, 8, U64(pairs + 3));
  std::string added = GgufString("split.no") + U32(4) + U32(no) + GgufString("split.count") + U32(4) + U32(2);
  added += GgufString("p") + U32(8) + GgufString(std::string(24, 'x'));
  EXPECT_EQ(added.size() % 32, 0u);
  return bytes.insert(24, added);
}

TEST_F(HostileGguf, SplitsAreOpenedTogether) {
  const std::string whole = ReadFile(path_);
  WriteFile(path_, AsSplit(whole, 0));
  EXPECT_THAT(Error(), HasSubstr("must be named \xE2\x80\xA6-00001-of-00002.gguf"));
  // As llama.cpp splits with --no-tensor-first-split: the first part has only metadata.
  std::string first = AsSplit(whole, 0);
  first.resize(first.find(GgufString("token_embd.weight")));
  first.replace(8, 8, U64(0));
  const std::string single = path_;
  path_ = dir_ / "x-00001-of-00002.gguf";
  WriteFile(path_, first);
  EXPECT_THAT(Error(), AllOf(HasSubstr("x-00002-of-00002.gguf"), HasSubstr("the split is missing")));
  const std::string second = dir_ / "x-00002-of-00002.gguf";
  WriteFile(second, AsSplit(whole, 0));
  EXPECT_THAT(Error(), AllOf(HasSubstr("x-00002-of-00002.gguf"), HasSubstr("do not agree with its name")));
  WriteFile(second, AsSplit(whole, 1));
  WriteFile(single, whole);
  const auto split = MustOpen(path_), from_second = MustOpen(second), expected = MustOpen(single);
  ASSERT_TRUE(split && from_second && expected);
  ExpectSameContents(*split, *expected);
  ExpectSameContents(*from_second, *expected);
  WriteFile(path_, AsSplit(whole, 0));
  EXPECT_THAT(Error(), AllOf(HasSubstr("x-00002-of-00002.gguf"), HasSubstr("is also in")));
}

/// Random damage to real headers: any outcome but a crash, and opened checkpoints can be read.
TEST_F(HostileGguf, RandomDamageNeverCrashes) {
  const std::string whole = ReadFile(path_);
  const RandomStream random(1, "damage");
  for (uint64_t round = 0; round < 400; ++round) {
    std::string bytes = whole.substr(0, 12000);  // the header and some data
    for (uint64_t i = 0; i < 3; ++i) {
      const uint64_t word = random.Word(round * 3 + i);
      bytes[word % 8000] = static_cast<char>(word >> 32);
    }
    const Status status = ParseGgufBytes(bytes);
    EXPECT_TRUE(!status.ok()) << round;  // always truncated
  }
}

}  // namespace
}  // namespace gptoss
