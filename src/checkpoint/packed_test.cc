// The packed form's header and checksums; the weights in it are tested where they are made (tests/packed_test.cc).
#include "checkpoint/packed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>

#include "base/rng.h"
#include "checkpoint/test_util.h"
#include "checkpoint/xxh64.h"
#include "json/json.h"

namespace gptoss {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

uint64_t Hash(const std::string& text) { return Xxh64(std::as_bytes(std::span(text))); }

// Values published with xxHash and its bindings; the last two are longer than one stripe of 32 bytes.
TEST(Xxh64Test, KnownValues) {
  EXPECT_EQ(Hash(""), 0xEF46DB3751D8E999u);
  EXPECT_EQ(Hash("a"), 0xD24EC4F1A98C6E5Bu);
  EXPECT_EQ(Hash("abc"), 0x44BC2CF5AD770999u);
  EXPECT_EQ(Hash("Nobody inspects the spammish repetition"), 0xFBCEA83C8A378BF1u);
}

TEST(Xxh64Test, EveryBitCounts) {
  std::string bytes(100, 'x');
  const uint64_t before = Hash(bytes);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] ^= 1;
    EXPECT_NE(Hash(bytes), before) << i;
    bytes[i] ^= 1;
  }
}

/// A header of a small model whose arrays follow one another, and the file's size.
PackedHeader SmallHeader(uint64_t* file_bytes) {
  PackedHeader header;
  header.config = *NamedConfig("micro");
  header.dense = "auto";
  uint64_t offset = 1 << 20;
  const auto place = [&offset](uint64_t bytes) {
    PackedArray array{offset, bytes, std::max<uint64_t>(bytes, 1), 7};
    offset += (bytes + kPackedAlignment - 1) / kPackedAlignment * kPackedAlignment;
    return array;
  };
  for (HeldSpec& held : HeldTensors(header.config)) {
    PackedTensor tensor;
    tensor.dtype = held.spec.is_expert_weight ? DType::kMxfp4 : IsHeldAsFloat(held.spec) ? DType::kF32 : DType::kBF16;
    tensor.layout = "row-major";
    tensor.data = place(held.spec.rows() * RowBytes(tensor.dtype, held.spec.cols()));
    if (HasScales(tensor.dtype))
      tensor.scales = place(held.spec.rows() * RowScaleBytes(tensor.dtype, held.spec.cols()));
    tensor.held = std::move(held);
    header.tensors.push_back(std::move(tensor));
  }
  *file_bytes = offset + kPackedSlackBytes;
  return header;
}

class PackedHeaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    header_ = SmallHeader(&file_bytes_);
    prefix_ = *FormatPackedHeader(header_, file_bytes_);
  }
  Status Parse(std::string bytes) const {
    bytes.resize(std::max<size_t>(bytes.size(), file_bytes_), '\0');
    return ParsePackedHeader(std::as_bytes(std::span(bytes)), "f.gptoss").status();
  }
  /// The error after an edit of the JSON, with sizes and checksum put right.
  std::string ErrorAfter(const std::function<void(Json&)>& edit) const {
    Json document = *ParseJson(prefix_.substr(32));
    edit(document);
    const std::string text = WriteJson(document);
    std::string bytes = prefix_.substr(0, 32) + text;
    const auto size = static_cast<uint32_t>(text.size());
    const uint64_t sum = Hash(text);
    std::memcpy(&bytes[12], &size, 4);
    std::memcpy(&bytes[24], &sum, 8);
    const Status status = Parse(bytes);
    return status.ok() ? "ok" : status.message();
  }
  static Json& Tensor(Json& document, const std::string& name) {
    for (Json& tensor : document["tensors"]) {
      if (tensor["name"] == name) return tensor;
    }
    ADD_FAILURE() << name;
    return document;
  }

  PackedHeader header_;
  uint64_t file_bytes_ = 0;
  std::string prefix_;
};

TEST_F(PackedHeaderTest, GoesRound) {
  std::string bytes = prefix_;
  bytes.resize(file_bytes_, '\0');
  const auto parsed = ParsePackedHeader(std::as_bytes(std::span(bytes)), "f");
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(parsed->config, header_.config);
  EXPECT_EQ(parsed->dense, "auto");
  ASSERT_EQ(parsed->tensors.size(), header_.tensors.size());
  for (size_t i = 0; i < header_.tensors.size(); ++i) {
    EXPECT_EQ(parsed->tensors[i].held.spec.name, header_.tensors[i].held.spec.name);
    EXPECT_EQ(parsed->tensors[i].dtype, header_.tensors[i].dtype);
    EXPECT_EQ(parsed->tensors[i].data.offset, header_.tensors[i].data.offset);
    EXPECT_EQ(parsed->tensors[i].scales.bytes, header_.tensors[i].scales.bytes);
    EXPECT_EQ(parsed->tensors[i].data.checksum, 7u);
  }
}

TEST_F(PackedHeaderTest, PrefixIsChecked) {
  EXPECT_TRUE(Parse(prefix_).ok());
  std::string bytes = prefix_;
  bytes[0] = 'g';
  EXPECT_THAT(Parse(bytes).message(), HasSubstr("f.gptoss: not a packed gptoss file"));
  bytes = prefix_;
  bytes[8] = 2;
  EXPECT_THAT(Parse(bytes).message(), AllOf(HasSubstr("version 2"), HasSubstr("convert --packed")));
  bytes = prefix_;
  bytes[16] = static_cast<char>(bytes[16] ^ 1);
  EXPECT_THAT(Parse(bytes).message(), HasSubstr("truncated or damaged"));
  EXPECT_THAT(Parse(prefix_ + std::string(file_bytes_, 'x')).message(), HasSubstr("truncated or damaged"));
  bytes = prefix_;
  std::memset(&bytes[12], 0xFF, 4);
  EXPECT_THAT(Parse(bytes).message(), HasSubstr("the header claims 4294967295 bytes"));
  bytes = prefix_;
  bytes[100] = static_cast<char>(bytes[100] ^ 1);
  EXPECT_THAT(Parse(bytes).message(), HasSubstr("the header is damaged (checksum)"));
}

TEST_F(PackedHeaderTest, EveryTruncationIsAnError) {
  for (size_t n = 0; n < prefix_.size(); n += 61) {
    const std::string bytes = prefix_.substr(0, n);
    EXPECT_FALSE(ParsePackedHeader(std::as_bytes(std::span(bytes)), "f").ok()) << n;
  }
}

TEST_F(PackedHeaderTest, EveryErrorNamesFileAndTensor) {
  const std::string q = "layers.1.qkv.weight", e = "layers.0.down.weight";
  const struct {
    std::function<void(Json&)> edit;
    const char* expected;
  } cases[] = {
      {[](Json&) {}, "ok"},
      {[](Json& d) { d.erase("config"); }, "\"config\" is missing"},
      {[](Json& d) { d["config"]["hidden_size"] = 100; }, "\"config\": "},
      {[](Json& d) { d["config"]["num_hidden_layers"] = 3; }, "\"config\": "},
      {[](Json& d) { d["dense"] = "int4"; }, "\"dense\" is not"},
      {[](Json& d) { d["exact"] = 1; }, "\"exact\" is not"},
      {[](Json& d) { d["tensors"] = 3; }, "\"tensors\" is missing"},
      {[](Json& d) { d["tensors"].erase(3); }, "tensor \"layers.0.qkv.bias\" is missing"},
      {[](Json& d) { d["tensors"].push_back(d["tensors"][0]); }, "tensor \"embedding\" occurs twice"},
      {[](Json& d) {
         d["tensors"].push_back(d["tensors"][0]);
         d["tensors"].back()["name"] = "extra";
       },
       "tensor \"extra\" is not one of this configuration"},
      {[&](Json& d) { Tensor(d, q)["dtype"] = "Q4_0"; }, "tensor \"layers.1.qkv.weight\": \"dtype\" is missing"},
      {[&](Json& d) { Tensor(d, q)["dtype"] = "MXFP4"; }, "\"dtype\" MXFP4 is not one"},
      {[&](Json& d) { Tensor(d, "final_norm")["dtype"] = "BF16"; }, "tensor \"final_norm\": \"dtype\" BF16"},
      {[&](Json& d) { Tensor(d, q).erase("layout"); }, "\"layout\" is missing"},
      {[&](Json& d) { Tensor(d, e)["layout"] = "rows8"; }, "ok"},
      {[&](Json& d) { Tensor(d, e)["layout"] = "of a later version"; }, "ok"},
      {[&](Json& d) { Tensor(d, q)["layout"] = "rows8"; }, "\"rows8\" cannot hold this type and shape"},
      {[&](Json& d) { Tensor(d, "embedding")["layout"] = "rows8"; }, "\"rows8\" cannot hold this type and shape"},
      {[&](Json& d) { Tensor(d, q)["shape"][0] = 1; }, "\"shape\" is not [768,128]"},
      {[&](Json& d) { Tensor(d, q).erase("data"); }, "\"data\" is missing"},
      {[&](Json& d) { Tensor(d, e).erase("scales"); }, "tensor \"layers.0.down.weight\": \"scales\" is missing"},
      {[&](Json& d) { Tensor(d, q)["data"]["offset"] = -1; }, "\"offset\" is not a number"},
      {[&](Json& d) { Tensor(d, q)["data"]["bytes"] = 5; }, "5 bytes, but type and shape imply 196608"},
      {[&](Json& d) { Tensor(d, q)["data"]["block"] = 0; }, "\"block\" is out of range"},
      {[&](Json& d) { Tensor(d, q)["data"]["block"] = 1; }, "\"block\" is out of range"},
      {[&](Json& d) { Tensor(d, q)["data"]["xxh64"] = "12"; }, "\"xxh64\" is not 16"},
      {[&](Json& d) { Tensor(d, q)["data"]["offset"] = 1000000; }, "not a multiple of 4096"},
      {[&](Json& d) { Tensor(d, q)["data"]["offset"] = 0; }, "lie outside of the file's arrays"},
      {[&](Json& d) { Tensor(d, q)["data"]["offset"] = uint64_t{1} << 62; }, "lie outside of the file's arrays"},
      {[&](Json& d) { Tensor(d, q)["data"]["offset"] = UINT64_MAX - 4095; }, "lie outside of the file's arrays"},
      {[&](Json& d) { Tensor(d, q)["data"]["offset"] = Tensor(d, e)["data"]["offset"]; }, "two arrays overlap"},
      {[](Json& d) {
         d["tokenizer"] = Json{{"form", "bpe"}};
       },
       "\"tokenizer\": \"form\" is not"},
  };
  for (const auto& bad : cases) {
    const std::string error = ErrorAfter(bad.edit);
    EXPECT_THAT(error, HasSubstr(bad.expected));
    if (error != "ok") {
      EXPECT_THAT(error, HasSubstr("f.gptoss: "));
    }
  }
}

/// Random damage inside the JSON, with the checksum put right: any outcome but a crash or an array out of the file.
TEST_F(PackedHeaderTest, RandomDamageNeverCrashes) {
  const RandomStream random(1, "packed damage");
  for (uint64_t round = 0; round < 400; ++round) {
    std::string bytes = prefix_;
    for (uint64_t i = 0; i < 3; ++i) {
      const uint64_t word = random.Word(round * 3 + i);
      bytes[32 + word % (prefix_.size() - 32)] = "0123456789\"{}[],:.-e"[(word >> 32) % 20];
    }
    const uint64_t sum = Hash(bytes.substr(32));
    std::memcpy(&bytes[24], &sum, 8);
    bytes.resize(file_bytes_, '\0');
    const auto parsed = ParsePackedHeader(std::as_bytes(std::span(bytes)), "f");
    if (!parsed.ok()) continue;
    for (const PackedTensor& tensor : parsed->tensors) {
      EXPECT_LE(tensor.data.offset + tensor.data.bytes, file_bytes_);
      EXPECT_LE(tensor.scales.offset + tensor.scales.bytes, file_bytes_);
    }
  }
}

TEST(HeldSpecTest, QkvFollowOneAnother) {
  const ModelConfig config = *NamedConfig("micro");
  const std::vector<TensorSpec> canonical = CanonicalTensors(config);
  size_t next = 0;
  for (const HeldSpec& held : HeldTensors(config)) {
    uint64_t elements = 0;
    for (const size_t part : held.parts) {
      EXPECT_EQ(part, next++);  // in order, none left out
      elements += canonical[part].rows() * canonical[part].cols();
    }
    EXPECT_EQ(elements, held.spec.rows() * held.spec.cols()) << held.spec.name;
    if (held.parts.size() == 1) {
      EXPECT_EQ(held.spec.name, canonical[held.parts[0]].name);
    }
  }
  EXPECT_EQ(next, canonical.size());
}

}  // namespace
}  // namespace gptoss
