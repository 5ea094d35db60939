#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "base/rng.h"
#include "tensor/dtype.h"
#include "tensor/float_convert.h"
#include "tensor/mxfp4.h"
#include "tensor/npy.h"
#include "tensor/q8.h"
#include "tensor/weight_layout.h"

namespace gptoss {
namespace {

const std::string kGolden = std::string(GPTOSS_TEST_DATA) + "/golden/";

TEST(FloatConvert, EveryBf16AndF16SurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float b = Bf16ToF32(static_cast<uint16_t>(bits));
    if (!std::isnan(b)) {
      EXPECT_EQ(F32ToBf16(b), bits);
    }
    const float h = F16ToF32(static_cast<uint16_t>(bits));
    if (!std::isnan(h)) {
      EXPECT_EQ(F32ToF16(h), bits);
    }
    EXPECT_EQ(std::isnan(h), (bits & 0x7C00) == 0x7C00 && (bits & 0x3FF) != 0);
  }
  EXPECT_TRUE(std::isnan(Bf16ToF32(F32ToBf16(std::nanf("")))));
}

TEST(FloatConvert, RoundsToNearestEven) {
  EXPECT_EQ(F32ToBf16(1.0f + 0x1.0p-8f), 0x3F80);  // tie, even below
  EXPECT_EQ(F32ToBf16(1.0f + 0x1.8p-7f), 0x3F82);  // tie, even above
  EXPECT_EQ(F32ToF16(1.0f + 0x1.0p-11f), 0x3C00);
  EXPECT_EQ(F32ToF16(65520.0f), 0x7C00);
  EXPECT_EQ(F32ToF16(0x1.0p-25f), 0x0000);
  EXPECT_EQ(F32ToF16(0x1.8p-25f), 0x0001);
}

void ExpectSameValues(std::span<const float> got, std::span<const float> want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(want[i])) {
      EXPECT_TRUE(std::isnan(got[i])) << i;
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i])) << i;
    }
  }
}

TEST(Mxfp4, DecodesEveryCodeUnderEveryGoldenScaleExactly) {
  const auto blocks = ReadNpy(kGolden + "mxfp4/codes.blocks.npy"), scales = ReadNpy(kGolden + "mxfp4/codes.scales.npy"),
             values = ReadNpy(kGolden + "mxfp4/codes.values.npy");
  ASSERT_TRUE(blocks.ok() && scales.ok() && values.ok());
  std::vector<float> got(values->As<float>().size());
  DecodeMxfp4(blocks->As<uint8_t>(), scales->As<uint8_t>(), got);
  ExpectSameValues(got, values->As<float>());
}

TEST(Mxfp4, Scale255GivesInfinityAndNan) {
  const auto values = ReadNpy(kGolden + "mxfp4/scale255.values.npy");
  ASSERT_TRUE(values.ok());
  std::vector<uint8_t> codes(256), scales(16, 255);
  for (int i = 0; i < 256; ++i) codes[i] = static_cast<uint8_t>(i);
  std::vector<float> got(512);
  DecodeMxfp4(codes, scales, got);
  ExpectSameValues(got, values->As<float>());
}

TEST(Mxfp4, EncodingRepresentableValuesLosesNothing) {
  const RandomStream random(7, "mxfp4");
  std::vector<uint8_t> codes(16 * 64), scales(64);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(random.Word(i));
  for (size_t b = 0; b < scales.size(); ++b) {
    scales[b] = static_cast<uint8_t>(100 + b % 50);
    codes[16 * b] = 0x77;  // amax 6: the encoder must choose the same scale
  }
  std::vector<float> values(codes.size() * 2), again(values.size());
  DecodeMxfp4(codes, scales, values);
  std::vector<uint8_t> codes2(codes.size()), scales2(scales.size());
  EncodeMxfp4(values, codes2, scales2);
  EXPECT_EQ(codes, codes2);
  EXPECT_EQ(scales, scales2);
}

TEST(Mxfp4, EncodingErrorIsWithinHalfAStepAndSaturation) {
  const RandomStream random(8, "mxfp4");
  std::vector<float> values(32 * 100), back(values.size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.Uniform(i) * 2 - 1);
  std::vector<uint8_t> codes(values.size() / 2), scales(values.size() / 32);
  EncodeMxfp4(values, codes, scales);
  DecodeMxfp4(codes, scales, back);
  for (size_t i = 0; i < values.size(); ++i) {
    const float scale = E8m0ToF32(scales[i / 32]);
    const float a = std::abs(values[i]) / scale;            // < 8 by the choice of the scale
    const float step = a > 4 ? 2.0f : a > 2 ? 1.0f : 0.5f;  // above 6 it saturates: error below 2
    EXPECT_LE(std::abs(values[i] - back[i]), scale * (a > 6 ? 2.0f : step / 2));
  }
}

TEST(Q8, ErrorIsBoundedByHalfAStepPlusTheScalesRounding) {
  const RandomStream random(9, "q8");
  std::vector<float> values(32 * 100), back(values.size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.Uniform(i) * 2 - 1);
  std::vector<int8_t> quants(values.size());
  std::vector<uint16_t> scales(values.size() / 32);
  EncodeQ8(values, quants, scales);
  DecodeQ8(quants, scales, back);
  for (size_t i = 0; i < values.size(); ++i) {
    const float step = F16ToF32(scales[i / 32]);
    EXPECT_LE(std::abs(values[i] - back[i]), step * (0.5f + 127 * 0x1.0p-10f));
  }
}

TEST(Npy, RoundTripAndErrors) {
  const std::string path = std::filesystem::temp_directory_path() / "gptoss_tensor_test.npy";
  auto writer = NpyWriter::Create(path, 2, 3);
  ASSERT_TRUE(writer.ok());
  const std::vector<float> rows = {1, 2, 3, 4, 5, 6};
  ASSERT_TRUE(writer->Append(std::span(rows).first(3)).ok());
  ASSERT_TRUE(writer->Append(std::span(rows).last(3)).ok());
  EXPECT_EQ(writer->Append(std::span(rows).first(1)).code(), StatusCode::kInvalidArgument);
  ASSERT_TRUE(writer->Finish().ok());
  const auto array = ReadNpy(path);
  ASSERT_TRUE(array.ok()) << array.status().message();
  EXPECT_EQ(array->shape, (std::vector<uint64_t>{2, 3}));
  ExpectSameValues(array->As<float>(), rows);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 4);
  EXPECT_EQ(ReadNpy(path).status().code(), StatusCode::kCorruptData);
  std::filesystem::remove(path);
}

TEST(WeightLayout, EightRowsLieSideBySide) {
  // Two groups of two blocks: byte b of row r's codes is 32 r + b, scale b of row r is 200 + 2 r + b.
  std::vector<std::byte> data(16 * 32), scales(16 * 2), packed_data(data.size()), packed_scales(scales.size());
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i);
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<std::byte>(200 + i);
  PackRows8(DType::kMxfp4, 16, 64, data, scales, packed_data, packed_scales);
  for (size_t r = 0; r < 16; ++r) {
    for (size_t b = 0; b < 32; ++b) {
      EXPECT_EQ(packed_data[r / 8 * 256 + b / 4 * 32 + r % 8 * 4 + b % 4], data[32 * r + b]) << r << " " << b;
    }
    for (size_t b = 0; b < 2; ++b) EXPECT_EQ(packed_scales[r / 8 * 16 + b * 8 + r % 8], scales[2 * r + b]) << r;
  }
  for (size_t first = 0; first < 16; ++first) {
    const size_t count = 16 - first;
    std::vector<std::byte> rows(count * 32), row_scales(count * 2);
    UnpackRows8(DType::kMxfp4, 64, packed_data.data(), packed_scales.data(), static_cast<int64_t>(first),
                static_cast<int64_t>(count), rows.data(), row_scales.data());
    EXPECT_EQ(std::memcmp(rows.data(), data.data() + 32 * first, rows.size()), 0) << first;
    EXPECT_EQ(std::memcmp(row_scales.data(), scales.data() + 2 * first, row_scales.size()), 0) << first;
  }
  for (WeightLayout layout : {WeightLayout::kRowMajor, WeightLayout::kRows8}) {
    EXPECT_EQ(WeightLayoutOf(WeightLayoutName(layout)), layout);
  }
  EXPECT_EQ(WeightLayoutOf("columns"), std::nullopt);
}

TEST(WeightLayout, HoldsBlockFormatsOfWholeGroups) {
  EXPECT_TRUE(LayoutHolds(WeightLayout::kRows8, DType::kQ8_0, 2880));
  EXPECT_FALSE(LayoutHolds(WeightLayout::kRows8, DType::kQ8_0, 2884));
  EXPECT_FALSE(LayoutHolds(WeightLayout::kRows8, DType::kBF16, 2880));
  EXPECT_TRUE(LayoutHolds(WeightLayout::kRowMajor, DType::kBF16, 3));
}

}  // namespace
}  // namespace gptoss
