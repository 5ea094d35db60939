#include <gtest/gtest.h>

#include <filesystem>

#include "base/mmap_file.h"
#include "base/rng.h"
#include "base/status.h"
#include "base/utf8.h"

namespace gptoss {
namespace {

Result<int> Half(int v) {
  if (v % 2 != 0) return InvalidArgument("odd");
  return v / 2;
}
Result<int> Quarter(int v) {
  GPTOSS_ASSIGN_OR_RETURN(const int half, Half(v));
  return Half(half);
}

TEST(Status, ErrorsPropagateWithContext) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(6).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Quarter(6).status().WithContext("q").message(), "q: odd");
}

TEST(Utf8, KnowsWhatIsValid) {
  EXPECT_EQ(FirstInvalidUtf8("añ漢😀"), std::string("añ漢😀").size());
  EXPECT_EQ(FirstInvalidUtf8("a\xC0\x80"), 1u);         // overlong
  EXPECT_EQ(FirstInvalidUtf8("\xED\xA0\x80"), 0u);      // surrogate
  EXPECT_EQ(FirstInvalidUtf8("\xF4\x90\x80\x80"), 0u);  // past U+10FFFF
  EXPECT_EQ(DecodeUtf8("😀").code_point, 0x1F600u);
  EXPECT_EQ(ReplaceInvalidUtf8("x\xE6\xBC|\xFF"), "x\xEF\xBF\xBD|\xEF\xBF\xBD");
}

TEST(Utf8, HoldsBackOnlyWhatMayStillBecomeACharacter) {
  const std::string s = "a😀";
  for (size_t n = 1; n < s.size(); ++n) EXPECT_EQ(CompleteUtf8Prefix(s.substr(0, n)), 1u);
  EXPECT_EQ(CompleteUtf8Prefix(s), s.size());
  EXPECT_EQ(CompleteUtf8Prefix("a\xFF"), 2u);
  EXPECT_EQ(CompleteUtf8Prefix(""), 0u);
}

TEST(Utf8, AppendsEveryLength) {
  std::string s;
  for (uint32_t c : {0x41u, 0xF1u, 0x6F22u, 0x1F600u}) AppendUtf8(c, &s);
  EXPECT_EQ(s, "Añ漢😀");
}

TEST(RandomStream, DependsOnlyOnSeedNameAndCounter) {
  const RandomStream a(1, "x"), b(1, "x"), c(2, "x"), d(1, "y");
  EXPECT_EQ(a.Word(7), b.Word(7));
  EXPECT_NE(a.Word(7), c.Word(7));
  EXPECT_NE(a.Word(7), d.Word(7));
  double sum = 0;
  for (int i = 0; i < 10000; ++i) {
    const double u = a.Uniform(i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 5 * 0.2887 / 100);  // five standard errors
}

TEST(MappedFile, ReadsAndReportsShortFiles) {
  const std::string path = std::filesystem::temp_directory_path() / "gptoss_base_test.bin";
  ASSERT_TRUE(WriteFileAtomically(path, "hello").ok());
  EXPECT_EQ(*ReadTextFile(path), "hello");
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok());
  std::byte two[2];
  EXPECT_TRUE(file->ReadAt(3, two).ok());
  EXPECT_EQ(file->ReadAt(4, two).code(), StatusCode::kCorruptData);
  EXPECT_EQ(ReadTextFile(path, 3).status().code(), StatusCode::kResourceExhausted);
  std::filesystem::remove(path);
  EXPECT_EQ(MappedFile::Open(path).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace gptoss
