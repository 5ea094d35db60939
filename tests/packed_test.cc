// The packed form end to end: what is mapped is what would have been loaded, bit for bit, and damage is noticed.
#include "checkpoint/packed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "golden_model.h"
#include "model/write_packed.h"
#include "tensor/float_convert.h"

namespace gptoss {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr DensePrecision kPrecisions[] = {DensePrecision::kDefault, DensePrecision::kInt8, DensePrecision::kAsStored};

std::shared_ptr<const Checkpoint> MustOpen(const std::string& path) {
  auto checkpoint = OpenCheckpoint(path);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  return checkpoint.ok() ? std::shared_ptr<const Checkpoint>(*std::move(checkpoint)) : nullptr;
}

class PackedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "gptoss_packed_XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern + "/";
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::string Pack(const std::string& source, const PackOptions& options) {
    const std::string path = dir_ + std::to_string(count_++) + ".gptoss";
    const auto checkpoint = MustOpen(source);
    const Status status = WritePacked(*checkpoint, path, options);
    EXPECT_TRUE(status.ok()) << status.message();
    return path;
  }
  /// Inverts one bit of the file.
  static void Damage(const std::string& path, uint64_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
    ASSERT_TRUE(file.good());
  }
  static std::string CheckError(const std::string& path) {
    const Status status = static_cast<const PackedCheckpoint&>(*MustOpen(path)).VerifyChecksums(nullptr);
    return status.ok() ? "ok" : status.message();
  }

  const std::string micro_ = GoldenCheckpoint("micro", "hf");
  std::string dir_;
  int count_ = 0;
};

TEST_F(PackedTest, LogitsAreThoseOfTheSource) {
  const auto tokens = GoldenTokens("micro", GoldenJson("micro/sequences.json").begin().key());
  const std::string gguf = dir_ + "q8.gguf";
  ASSERT_TRUE(WriteGguf(*MustOpen(micro_), gguf, {}).ok());
  const RunnerOptions options{.max_context = static_cast<int>(tokens.size())};
  const auto ops = CpuOps("", Precision::kFast);
  ASSERT_TRUE(ops.ok()) << ops.status().message();
  const auto rows = static_cast<int>(std::min<size_t>(tokens.size(), 20));
  for (const std::string& source : {micro_, GoldenCheckpoint("micro", "original"), gguf}) {
    for (const DensePrecision dense : kPrecisions) {
      const std::string packed =
          Pack(source, {.dense = dense, .layout = (*ops)->weight_layout, .tokenizer_form = {}, .tokenizer_bytes = {}});
      const auto from_source = LoadGolden(source, **ops, dense, options);
      const auto from_packed = LoadGolden(packed, **ops, DensePrecision::kDefault, options);
      ASSERT_TRUE(from_source && from_packed);
      EXPECT_EQ(from_packed->weights.memory.size(), 0u);  // nothing was copied
      EXPECT_EQ(from_packed->weights.config, from_source->weights.config);
      const auto want = LastLogits(*from_source->runner, tokens, rows);
      const auto got = LastLogits(*from_packed->runner, tokens, rows);
      ASSERT_EQ(want.size(), got.size());
      EXPECT_EQ(std::memcmp(want.data(), got.data(), want.size() * sizeof(float)), 0) << source;
      EXPECT_EQ(CheckError(packed), "ok");
      from_packed->weights.ReleaseMappedPages();  // the rows come back when they are read again
      EXPECT_EQ(LastLogits(*from_packed->runner, tokens, 1),
                std::vector<float>(got.end() - static_cast<int64_t>(got.size()) / rows, got.end()));
    }
  }
}

TEST_F(PackedTest, RowsComeApartAgain) {
  const auto source = MustOpen(micro_);
  const auto packed = MustOpen(Pack(micro_, {.dense = DensePrecision::kAsStored,
                                             .layout = WeightLayout::kRows8,
                                             .tokenizer_form = {},
                                             .tokenizer_bytes = {}}));
  EXPECT_EQ(packed->config(), source->config());
  for (const char* name : {"embedding", "layers.1.q.weight", "layers.1.k.weight", "layers.1.v.weight",
                           "layers.0.gate_up.weight", "layers.3.out.weight", "unembedding"}) {
    const StoredTensor &a = *source->Find(name), &b = *packed->Find(name);
    ASSERT_EQ(a.dtype, b.dtype) << name;
    const uint64_t first = 3, count = a.spec.rows() - 5;
    const auto read = [&](const Checkpoint& checkpoint, const StoredTensor& tensor) {
      std::vector<std::byte> data(count * RowBytes(a.dtype, a.spec.cols()));
      std::vector<std::byte> scales(count * RowScaleBytes(a.dtype, a.spec.cols()));
      const Status status = checkpoint.ReadRows(tensor, first, count, data, scales);
      EXPECT_TRUE(status.ok()) << status.message();
      data.insert(data.end(), scales.begin(), scales.end());
      return data;
    };
    EXPECT_EQ(read(*source, a), read(*packed, b)) << name;
  }
  // The bias of k is in the middle of a row of three.
  const StoredTensor &a = *source->Find("layers.2.k.bias"), &b = *packed->Find("layers.2.k.bias");
  ASSERT_EQ(b.dtype, DType::kF32);
  std::vector<uint16_t> stored(a.spec.cols());
  std::vector<float> held(b.spec.cols());
  ASSERT_TRUE(source->ReadRows(a, 0, 1, std::as_writable_bytes(std::span(stored)), {}).ok());
  ASSERT_TRUE(packed->ReadRows(b, 0, 1, std::as_writable_bytes(std::span(held)), {}).ok());
  for (size_t i = 0; i < held.size(); ++i) EXPECT_EQ(held[i], Bf16ToF32(stored[i])) << i;
}

TEST_F(PackedTest, PlanCountsWhatIsMapped) {
  const auto source = MustOpen(micro_);
  const auto packed = MustOpen(Pack(micro_, {}));
  const WeightPlan a = PlanWeights(*source, DensePrecision::kDefault);
  const WeightPlan b = PlanWeights(*packed, DensePrecision::kDefault);
  EXPECT_EQ(a.total(), b.total());
  EXPECT_EQ(a.experts, b.experts);
  EXPECT_EQ(b.embedding, 0u);
  EXPECT_EQ(b.mapped_embedding, 640u * 128 * 2);
}

TEST_F(PackedTest, PrecisionIsFixed) {
  ThreadPool pool(1);
  const auto load = [&](const std::string& path, DensePrecision dense) {
    const auto weights = LoadWeights(MustOpen(path), dense, pool);
    return weights.ok() ? "ok" : weights.status().message();
  };
  const std::string rounded = Pack(micro_, {});
  EXPECT_EQ(load(rounded, DensePrecision::kDefault), "ok");
  EXPECT_THAT(load(rounded, DensePrecision::kAsStored), AllOf(HasSubstr(rounded), HasSubstr("--dense bf16")));
  EXPECT_THAT(load(rounded, DensePrecision::kInt8), AllOf(HasSubstr(rounded), HasSubstr("--dense int8")));
  const std::string as_stored =
      Pack(micro_, {.dense = DensePrecision::kAsStored, .tokenizer_form = {}, .tokenizer_bytes = {}});
  EXPECT_EQ(load(as_stored, DensePrecision::kAsStored), "ok");
  const std::string int8 = Pack(micro_, {.dense = DensePrecision::kInt8, .tokenizer_form = {}, .tokenizer_bytes = {}});
  EXPECT_EQ(load(int8, DensePrecision::kInt8), "ok");
}

TEST_F(PackedTest, DamageAndTruncationAreNoticed) {
  const std::string path = Pack(micro_, {.tokenizer_form = "tokenizer.json", .tokenizer_bytes = "{\"x\": 1}"});
  ASSERT_EQ(CheckError(path), "ok");
  PackedHeader header;
  {
    const auto opened = MustOpen(path);
    header = static_cast<const PackedCheckpoint&>(*opened).header();
    EXPECT_EQ(opened->TokenizerJson(), "{\"x\": 1}");
  }
  const PackedTensor& victim = header.tensors[5];
  Damage(path, victim.data.offset + victim.data.bytes - 1);
  EXPECT_THAT(CheckError(path), AllOf(HasSubstr(path), HasSubstr("\"" + victim.held.spec.name + "\"")));
  Damage(path, victim.data.offset + victim.data.bytes - 1);
  Damage(path, header.tokenizer.offset);
  EXPECT_THAT(CheckError(path), HasSubstr("the tokenizer"));
  Damage(path, header.tokenizer.offset);
  ASSERT_EQ(CheckError(path), "ok");
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  const auto truncated = OpenCheckpoint(path);
  ASSERT_FALSE(truncated.ok());
  EXPECT_THAT(truncated.status().message(), AllOf(HasSubstr(path), HasSubstr("truncated")));
}

TEST_F(PackedTest, UnknownLayoutsAreRefusedWhenLoading) {
  const std::string path = Pack(micro_, {});
  uint64_t file_bytes = std::filesystem::file_size(path);
  PackedHeader header;
  {
    const auto opened = MustOpen(path);
    header = static_cast<const PackedCheckpoint&>(*opened).header();
  }
  header.tensors[2].layout = "tiles-of-tomorrow";
  const auto text = FormatPackedHeader(header, file_bytes);
  ASSERT_TRUE(text.ok());
  std::fstream(path, std::ios::in | std::ios::out | std::ios::binary) << *text;
  const auto opened = MustOpen(path);
  ThreadPool pool(1);
  const auto weights = LoadWeights(opened, DensePrecision::kDefault, pool);
  ASSERT_FALSE(weights.ok());
  EXPECT_THAT(weights.status().message(),
              AllOf(HasSubstr(path), HasSubstr("tiles-of-tomorrow"), HasSubstr("convert --packed")));
  std::vector<std::byte> row(RowBytes(DType::kBF16, 128));
  EXPECT_EQ(opened->ReadRows(*opened->Find("layers.0.k.weight"), 0, 1, row, {}).code(), StatusCode::kUnsupported);
}

class StopAtOnce final : public WriteProgress {
 public:
  bool Update(uint64_t, uint64_t) override { return false; }
};

TEST_F(PackedTest, NothingIsLeftOfACancelledFile) {
  StopAtOnce stop;
  PackOptions options;
  options.progress = &stop;
  EXPECT_EQ(WritePacked(*MustOpen(micro_), dir_ + "x", options).code(), StatusCode::kCancelled);
  EXPECT_TRUE(std::filesystem::is_empty(dir_));
  std::ofstream(dir_ + "x") << "mine";
  EXPECT_EQ(WritePacked(*MustOpen(micro_), dir_ + "x", {}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(std::filesystem::file_size(dir_ + "x"), 4u);
}

}  // namespace
}  // namespace gptoss
