#include "checkpoint/checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <set>
#include <vector>

#include "checkpoint/ggml_blocks.h"
#include "checkpoint/name_map.h"
#include "checkpoint/name_map_gguf.h"
#include "checkpoint/row_convert.h"
#include "checkpoint/test_util.h"

namespace gptoss {
namespace {

TEST(TensorSpec, CountsAreThoseOfThePublishedFiles) {
  const Result<ModelConfig> config = NamedConfig("20b");
  ASSERT_TRUE(config.ok());
  std::set<std::string> hf, original, gguf;
  for (const LayoutTensor& t : HfLayout(*config)) hf.insert({t.name, t.scales_name});
  for (const LayoutTensor& t : OriginalLayout(*config)) original.insert({t.name, t.scales_name});
  for (const GgufLayoutTensor& t : GgufLayout(*config)) gguf.insert({t.name, t.up_name});
  // One more than the names: the empty name of what has no second tensor.
  EXPECT_EQ(hf.size(), 459u + 1);
  EXPECT_EQ(original.size(), 363u + 1);
  EXPECT_EQ(gguf.size(), 459u + 1);
  EXPECT_TRUE(hf.contains("model.layers.23.mlp.experts.gate_up_proj_blocks"));
  EXPECT_TRUE(original.contains("block.23.mlp.mlp2_weight.scales"));
  EXPECT_TRUE(gguf.contains("blk.23.ffn_up_exps.bias"));
}

TEST(Checkpoint, BothGoldenLayoutsHoldTheSameBytes) {
  const auto hf = MustOpen(kMicro + "hf"), original = MustOpen(kMicro + "original");
  ASSERT_TRUE(hf && original);
  EXPECT_EQ(hf->format(), CheckpointFormat::kHf);
  EXPECT_EQ(original->format(), CheckpointFormat::kOriginal);
  EXPECT_EQ(hf->TotalBytes(), 2516352u);  // "total_size" of the index
  ExpectSameContents(*hf, *original);
}

TEST(Checkpoint, MappedBytesAreWhatReadRowsGives) {
  const auto original = MustOpen(kMicro + "original");
  ASSERT_TRUE(original);
  for (const StoredTensor& tensor : original->tensors()) {
    const auto mapped = original->MappedBytes(tensor);
    ASSERT_EQ(mapped.has_value(), tensor.dtype == DType::kBF16) << tensor.spec.name;
    if (mapped) {
      const std::vector<std::byte> read = AllBytes(*original, tensor);
      EXPECT_TRUE(std::equal(mapped->begin(), mapped->end(), read.begin(), read.end())) << tensor.spec.name;
    }
  }
}

TEST(Checkpoint, RowRangesAndBufferSizesAreChecked) {
  const auto hf = MustOpen(kMicro + "hf");
  ASSERT_TRUE(hf);
  const StoredTensor* tensor = hf->Find("layers.1.gate_up.weight");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(hf->Find("layers.4.q.weight"), nullptr);
  const uint64_t rows = tensor->spec.rows();
  std::vector<std::byte> data(RowBytes(DType::kMxfp4, 128) * 2), scales(RowScaleBytes(DType::kMxfp4, 128) * 2);
  EXPECT_TRUE(hf->ReadRows(*tensor, rows - 2, 2, data, scales).ok());
  EXPECT_FALSE(hf->ReadRows(*tensor, rows - 1, 2, data, scales).ok());
  EXPECT_FALSE(hf->ReadRows(*tensor, UINT64_MAX, 2, data, scales).ok());
  EXPECT_FALSE(hf->ReadRows(*tensor, 0, 1, data, scales).ok());
  const StoredTensor copy = *tensor;  // found by name
  std::vector<std::byte> only_scales(scales.size());
  EXPECT_TRUE(hf->ReadRows(copy, rows - 2, 2, {}, only_scales).ok());
  EXPECT_EQ(only_scales, scales);
  StoredTensor unknown = *tensor;
  unknown.spec.name = "layers.1.gate_up";
  EXPECT_FALSE(hf->ReadRows(unknown, 0, 2, data, scales).ok());
}

TEST(Writers, ReproduceTheGoldenFilesByteForByte) {
  const TempDir dir;
  const auto golden = MustOpen(kMicro + "hf");
  ASSERT_TRUE(golden);
  WriteOptions options;
  options.max_shard_bytes = 880'000;  // three shards, as the golden checkpoint has
  Status status = WriteHf(*golden, dir / "hf", options);
  ASSERT_TRUE(status.ok()) << status.message();
  status = WriteOriginal(*golden, dir / "original", {});
  ASSERT_TRUE(status.ok()) << status.message();
  for (const std::string layout : {"hf", "original"}) {
    size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(kMicro + layout)) {
      const std::string name = layout + "/" + entry.path().filename().string();
      EXPECT_EQ(ReadFile(dir / name), ReadFile(kMicro + name)) << name;
      ++files;
    }
    const auto written = std::filesystem::directory_iterator(dir / layout);
    EXPECT_EQ(static_cast<size_t>(std::distance(begin(written), end(written))), files);
  }
}

TEST(Writers, FormsRoundTripBitForBit) {
  const TempDir dir;
  const auto golden = MustOpen(kMicro + "hf");
  ASSERT_TRUE(golden);
  WriteOptions options;
  options.gguf_dense = DType::kBF16;
  Status status = WriteGguf(*golden, dir / "m.gguf", options);
  ASSERT_TRUE(status.ok()) << status.message();
  const auto gguf = MustOpen(dir / "m.gguf");
  ASSERT_TRUE(gguf);
  EXPECT_EQ(gguf->format(), CheckpointFormat::kGguf);
  EXPECT_EQ(gguf->config(), golden->config());
  EXPECT_TRUE(gguf->VocabularyTokens().empty());
  status = WriteHf(*gguf, dir / "hf", {});
  ASSERT_TRUE(status.ok()) << status.message();
  const auto hf = MustOpen(dir / "hf");
  ASSERT_TRUE(hf);
  ExpectSameContents(*hf, *golden);
  EXPECT_TRUE(std::filesystem::exists(dir / "hf/model.safetensors"));  // all fits into one

  options.max_shard_bytes = 700'000;
  status = WriteOriginal(*hf, dir / "original", options);
  ASSERT_TRUE(status.ok()) << status.message();
  size_t shards = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir / "original")) {
    if (entry.path().extension() != ".safetensors") continue;
    ++shards;
    EXPECT_LE(entry.file_size(), options.max_shard_bytes + 8192) << entry.path();  // and the header
  }
  EXPECT_GE(shards, 4u);
  std::filesystem::remove(dir / "original/model.safetensors.index.json");  // then the shards are found by listing
  const auto original = MustOpen(dir / "original");
  ASSERT_TRUE(original);
  ExpectSameContents(*original, *golden);
}

/// As float, whatever the type.
std::vector<float> Values(const Checkpoint& checkpoint, const StoredTensor& tensor) {
  const uint64_t cols = tensor.spec.cols(), rows = tensor.spec.rows();
  const uint64_t row_bytes = RowBytes(tensor.dtype, cols), scale_bytes = RowScaleBytes(tensor.dtype, cols);
  std::vector<std::byte> data(rows * row_bytes), scales(rows * scale_bytes);
  const Status status = checkpoint.ReadRows(tensor, 0, rows, data, scales);
  EXPECT_TRUE(status.ok()) << status.message();
  std::vector<float> values(rows * cols);
  RowConverter convert(tensor.dtype, DType::kF32, cols, false);
  for (uint64_t r = 0; r < rows; ++r) {
    const auto part = [r](std::span<std::byte> all, uint64_t bytes) { return all.subspan(r * bytes, bytes); };
    EXPECT_TRUE(convert
                    .Row(part(data, row_bytes), part(scales, scale_bytes),
                         std::as_writable_bytes(std::span(values).subspan(r * cols, cols)), {})
                    .ok());
  }
  return values;
}

TEST(Writers, ExpertsInBf16KeepEveryValueAndComeBack) {
  const TempDir dir;
  const auto golden = MustOpen(kMicro + "hf");
  ASSERT_TRUE(golden);
  WriteOptions plain;
  plain.bf16_experts = true;
  plain.gguf_dense = DType::kBF16;
  ASSERT_TRUE(WriteHf(*golden, dir / "hf", plain).ok());
  ASSERT_TRUE(WriteGguf(*golden, dir / "m.gguf", plain).ok());
  EXPECT_EQ(WriteOriginal(*golden, dir / "o", plain).code(), StatusCode::kUnsupported);
  EXPECT_EQ(ReadFile(dir / "hf/config.json").find("mxfp4"), std::string::npos);
  const auto hf = MustOpen(dir / "hf"), gguf = MustOpen(dir / "m.gguf");
  ASSERT_TRUE(hf && gguf);
  ASSERT_TRUE(WriteHf(*gguf, dir / "again", {}).ok());  // MXFP4 again, and nothing is lost: no lossy flag
  const auto again = MustOpen(dir / "again");
  ASSERT_TRUE(again);
  for (const StoredTensor& tensor : golden->tensors()) {
    const std::vector<float> want = Values(*golden, tensor);
    for (const Checkpoint* other : {hf.get(), gguf.get(), again.get()}) {
      const StoredTensor* own = other->Find(tensor.spec.name);
      ASSERT_NE(own, nullptr);
      if (tensor.spec.is_expert_weight) {
        EXPECT_EQ(own->dtype, other == again.get() ? DType::kMxfp4 : DType::kBF16) << tensor.spec.name;
      }
      EXPECT_EQ(Values(*other, *own), want) << tensor.spec.name;
    }
  }
  // Any range of rows of the transposed matrices, also across experts.
  const StoredTensor* tensor = hf->Find("layers.1.gate_up.weight");
  EXPECT_FALSE(hf->MappedBytes(*tensor).has_value());
  const std::vector<std::byte> all = AllBytes(*hf, *tensor);
  const uint64_t rows = tensor->spec.shape[1], bytes = RowBytes(DType::kBF16, tensor->spec.cols());
  for (const auto& [first, count] :
       std::vector<std::pair<uint64_t, uint64_t>>{{0, 1}, {rows - 1, 2}, {3, 2 * rows}, {rows + 5, 7}, {5, 0}}) {
    const std::vector<std::byte> want(all.begin() + static_cast<int64_t>(first * bytes),
                                      all.begin() + static_cast<int64_t>((first + count) * bytes));
    EXPECT_EQ(RowBytesOf(*hf, *tensor, first, count), want) << first << "+" << count;
  }
}

TEST(Writers, GgufHoldsDenseMatricesInTheChosenType) {
  const TempDir dir;
  const auto synthetic = Synthetic(MicroOptions());
  ASSERT_TRUE(synthetic);
  for (const DType dense : {DType::kQ8_0, DType::kBF16, DType::kF16, DType::kF32}) {
    WriteOptions options;
    options.gguf_dense = dense;
    options.allow_lossy = dense == DType::kF16;
    const std::string path = dir / (std::string(DTypeName(dense)) + ".gguf");
    const Status status = WriteGguf(*synthetic, path, options);
    ASSERT_TRUE(status.ok()) << status.message();
    SynthOptions same = MicroOptions();
    same.dense = dense;
    const auto gguf = MustOpen(path), expected = Synthetic(same);
    ASSERT_TRUE(gguf && expected);
    for (const StoredTensor& tensor : gguf->tensors()) {
      const StoredTensor* other = expected->Find(tensor.spec.name);
      ASSERT_NE(other, nullptr);
      if (tensor.spec.is_expert_weight || IsDenseMatrix(tensor.spec)) {
        ASSERT_EQ(tensor.dtype, tensor.spec.is_expert_weight ? DType::kMxfp4 : dense);
        EXPECT_EQ(AllBytes(*gguf, tensor), AllBytes(*expected, *other)) << tensor.spec.name;
      } else {
        EXPECT_EQ(tensor.dtype, DType::kF32) << tensor.spec.name;
      }
    }
  }
}

TEST(Gguf, AnyRowRangeOfTheInterleavedTensorsIsRight) {
  const TempDir dir;
  const auto synthetic = Synthetic(MicroOptions());
  ASSERT_TRUE(synthetic);
  ASSERT_TRUE(WriteGguf(*synthetic, dir / "m.gguf", {}).ok());
  const auto gguf = MustOpen(dir / "m.gguf");
  ASSERT_TRUE(gguf);
  const StoredTensor *a = synthetic->Find("layers.2.gate_up.weight"), *b = gguf->Find("layers.2.gate_up.weight");
  ASSERT_TRUE(a != nullptr && b != nullptr);
  for (const auto& [first, count] : std::vector<std::pair<uint64_t, uint64_t>>{
           {0, 1}, {1, 1}, {1, 2}, {255, 2}, {254, 5}, {3, 400}, {2047, 1}, {5, 0}}) {
    EXPECT_EQ(RowBytesOf(*gguf, *b, first, count), RowBytesOf(*synthetic, *a, first, count)) << first << "+" << count;
  }
  std::vector<std::byte> scales(7 * 4);
  EXPECT_TRUE(gguf->ReadRows(*b, 11, 7, {}, scales).ok());
  const std::vector<std::byte> both = RowBytesOf(*synthetic, *a, 11, 7);
  EXPECT_TRUE(std::equal(scales.begin(), scales.end(), both.end() - 7 * 4));
}

TEST(Gguf, VocabularyIsKept) {
  const TempDir dir;
  const auto synthetic = Synthetic(MicroOptions());
  ASSERT_TRUE(synthetic);
  GgufVocabularyData vocabulary;
  for (int i = 0; i < 640; ++i) vocabulary.tokens.push_back("t" + std::to_string(i) + "\xC4\xA0");
  vocabulary.types.assign(640, 1);
  vocabulary.types[639] = 3;
  vocabulary.merges = {"a b", "ab c"};
  WriteOptions options;
  options.vocabulary = &vocabulary;
  ASSERT_TRUE(WriteGguf(*synthetic, dir / "m.gguf", options).ok());
  const auto gguf = MustOpen(dir / "m.gguf");
  ASSERT_TRUE(gguf);
  EXPECT_EQ(gguf->VocabularyTokens(), vocabulary.tokens);
  EXPECT_EQ(gguf->VocabularyTokenTypes(), vocabulary.types);
  vocabulary.tokens.pop_back();
  const Status status = WriteGguf(*synthetic, dir / "n.gguf", options);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_FALSE(std::filesystem::exists(dir / "n.gguf"));
}

TEST(Writers, RefuseLossesUnlessAllowed) {
  const TempDir dir;
  SynthOptions options = MicroOptions();
  options.dense = DType::kQ8_0;
  const auto quantised = Synthetic(options);
  ASSERT_TRUE(quantised);
  const Status refused = WriteHf(*quantised, dir / "hf", {});
  EXPECT_EQ(refused.code(), StatusCode::kUnsupported);
  EXPECT_NE(refused.message().find("BF16"), std::string::npos) << refused.message();
  EXPECT_FALSE(std::filesystem::exists(dir / "hf"));
  EXPECT_TRUE(std::filesystem::is_empty(dir / ""));  // nothing half-written stays
  WriteOptions lossy;
  lossy.allow_lossy = true;
  EXPECT_TRUE(WriteHf(*quantised, dir / "hf", lossy).ok());
  EXPECT_TRUE(MustOpen(dir / "hf"));
}

TEST(Writers, KeepWhatIsThereAndHonourCancelling) {
  const TempDir dir;
  const auto synthetic = Synthetic(MicroOptions());
  ASSERT_TRUE(synthetic);
  WriteFile(dir / "file", "precious");
  EXPECT_EQ(WriteGguf(*synthetic, dir / "file", {}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(WriteHf(*synthetic, dir / "file", {}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadFile(dir / "file"), "precious");
  std::filesystem::create_directory(dir / "empty");
  EXPECT_TRUE(WriteOriginal(*synthetic, dir / "empty/", {}).ok());
  EXPECT_EQ(WriteOriginal(*synthetic, dir / "empty/", {}).code(), StatusCode::kInvalidArgument);

  struct Stop final : WriteProgress {
    bool Update(uint64_t done, uint64_t total) override {
      largest = std::max(largest, done);
      return done < total / 2;
    }
    uint64_t largest = 0;
  } stop;
  WriteOptions options;
  options.progress = &stop;
  EXPECT_EQ(WriteGguf(*synthetic, dir / "m.gguf", options).code(), StatusCode::kCancelled);
  EXPECT_GT(stop.largest, 0u);
  EXPECT_FALSE(std::filesystem::exists(dir / "m.gguf"));
}

TEST(Writers, OriginalLayoutRefusesWhatItCannotSay) {
  const TempDir dir;
  SynthOptions options = MicroOptions();
  options.config.rms_eps = 1e-6f;
  const auto synthetic = Synthetic(options);
  ASSERT_TRUE(synthetic);
  EXPECT_EQ(WriteOriginal(*synthetic, dir / "o", {}).code(), StatusCode::kUnsupported);
  ASSERT_TRUE(WriteHf(*synthetic, dir / "h", {}).ok());
  ASSERT_TRUE(WriteGguf(*synthetic, dir / "g.gguf", {}).ok());
  EXPECT_EQ(MustOpen(dir / "h")->config(), options.config);
  EXPECT_EQ(MustOpen(dir / "g.gguf")->config(), options.config);
}

TEST(Synthetic, RandomAccessEqualsSequentialReading) {
  for (const DType dense : {DType::kBF16, DType::kQ8_0}) {
    SynthOptions options = MicroOptions();
    options.dense = dense;
    const auto a = Synthetic(options), b = Synthetic(options);
    ASSERT_TRUE(a && b);
    for (const StoredTensor& tensor : a->tensors()) {
      const uint64_t rows = tensor.spec.rows();
      const std::vector<std::byte> whole = AllBytes(*a, tensor);
      const uint64_t data_bytes = RowBytes(tensor.dtype, tensor.spec.cols());
      for (const uint64_t row : {rows - 1, rows / 2, uint64_t{0}}) {
        const std::vector<std::byte> one = RowBytesOf(*b, tensor, row, 1);
        EXPECT_EQ(std::memcmp(one.data(), whole.data() + row * data_bytes, data_bytes), 0) << tensor.spec.name;
      }
    }
  }
}

TEST(Synthetic, SeedAndNameDecide) {
  SynthOptions options = MicroOptions();
  const auto a = Synthetic(options);
  options.seed = 8;
  const auto b = Synthetic(options);
  ASSERT_TRUE(a && b);
  const StoredTensor *x = a->Find("layers.0.q.weight"), *y = a->Find("layers.1.q.weight");
  EXPECT_NE(AllBytes(*a, *x), AllBytes(*a, *y));
  EXPECT_NE(AllBytes(*a, *x), AllBytes(*b, *x));
  // Pinned: checkpoints of one seed must stay the same from version to version, and on every machine.
  uint64_t hash = 0xCBF29CE484222325;
  for (const StoredTensor& tensor : a->tensors()) {
    for (const std::byte byte : AllBytes(*a, tensor)) hash = (hash ^ static_cast<uint64_t>(byte)) * 0x100000001B3;
  }
  EXPECT_EQ(hash, 17455611985521151341u);
}

TEST(Synthetic, ScalesAreThoseIntended) {
  const auto synthetic = Synthetic(MicroOptions());
  ASSERT_TRUE(synthetic);
  const auto deviation = [&](const char* name) {
    const StoredTensor* tensor = synthetic->Find(name);
    const uint64_t rows = tensor->spec.rows(), cols = tensor->spec.cols();
    std::vector<std::byte> data(rows * RowBytes(tensor->dtype, cols)),
        scales(rows * RowScaleBytes(tensor->dtype, cols));
    EXPECT_TRUE(synthetic->ReadRows(*tensor, 0, rows, data, scales).ok());
    std::vector<float> values(cols);
    double squares = 0;
    RowConverter convert(tensor->dtype, DType::kF32, cols, false);
    for (uint64_t r = 0; r < rows; ++r) {
      const uint64_t d = data.size() / rows, s = scales.size() / rows;
      EXPECT_TRUE(convert
                      .Row(std::span(data).subspan(r * d, d), std::span(scales).subspan(r * s, s),
                           std::as_writable_bytes(std::span(values)), {})
                      .ok());
      for (const float v : values) squares += static_cast<double>(v) * v;
    }
    return std::sqrt(squares / static_cast<double>(rows * cols));
  };
  EXPECT_NEAR(deviation("embedding"), 1.0, 0.02);  // 81920 values: standard error 0.0025
  EXPECT_NEAR(deviation("unembedding"), 3.0 / std::sqrt(128.0), 0.006);
  // Powers of two come within a factor of sqrt(2) of the intended 2 / sqrt(128) and 0.3 / sqrt(128).
  EXPECT_NEAR(std::log2(deviation("layers.0.gate_up.weight") / (2.0 / std::sqrt(128.0))), 0.0, 0.55);
  EXPECT_NEAR(std::log2(deviation("layers.0.down.weight") / (0.3 / std::sqrt(128.0))), 0.0, 0.55);
}

TEST(GgmlBlocks, NibblesAreReorderedAsTheFormatsDiffer) {
  std::array<std::byte, 17> block{};
  block[0] = std::byte{0x7F};
  for (size_t j = 0; j < 16; ++j)
    block[j + 1] = static_cast<std::byte>(j | (15 - j) << 4);  // value j: j, j + 16: 15 - j
  std::array<std::byte, 16> codes{};
  std::array<std::byte, 1> scale{};
  UnpackGgml(DType::kMxfp4, block, codes, scale);
  EXPECT_EQ(scale[0], std::byte{0x7F});
  for (size_t value = 0; value < 32; ++value) {
    const auto code = static_cast<size_t>(codes[value / 2]) >> (4 * (value % 2)) & 0xF;
    EXPECT_EQ(code, value < 16 ? value : 31 - value) << value;
  }
  std::array<std::byte, 17> back{};
  PackGgml(DType::kMxfp4, codes, scale, back);
  EXPECT_EQ(back, block);
}

TEST(RowConvert, SaysWhenBitsAreLost) {
  std::vector<float> values(32, 1.0f);
  std::vector<std::byte> out(64);
  RowConverter convert(DType::kF32, DType::kBF16, 32, false);
  EXPECT_TRUE(convert.Row(std::as_bytes(std::span(values)), {}, out, {}).ok());
  values[31] = 1.0f + 0x1p-8f;
  const Status status = convert.Row(std::as_bytes(std::span(values)), {}, out, {});
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  RowConverter lossy(DType::kF32, DType::kBF16, 32, true);
  EXPECT_TRUE(lossy.Row(std::as_bytes(std::span(values)), {}, out, {}).ok());
  values[3] = INFINITY;
  std::vector<std::byte> quants(32), scales(2);
  RowConverter q8(DType::kF32, DType::kQ8_0, 32, true);
  EXPECT_FALSE(q8.Row(std::as_bytes(std::span(values)), {}, quants, scales).ok());
}

}  // namespace
}  // namespace gptoss
