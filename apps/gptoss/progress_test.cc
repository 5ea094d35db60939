#include "progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace gptoss::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(ProgressTest, Bytes) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(999), "999 B");
  EXPECT_EQ(FormatBytes(1000), "1.0 kB");
  EXPECT_EQ(FormatBytes(999949), "999.9 kB");
  EXPECT_EQ(FormatBytes(999999), "1.0 MB");
  EXPECT_EQ(FormatBytes(13.76e9), "13.76 GB");
  EXPECT_EQ(FormatBytes(2.5e15), "2500.00 TB");
}

TEST(ProgressTest, Durations) {
  EXPECT_EQ(FormatDuration(0), "0:00");
  EXPECT_EQ(FormatDuration(59.6), "1:00");
  EXPECT_EQ(FormatDuration(65), "1:05");
  EXPECT_EQ(FormatDuration(7384), "2:03:04");
  EXPECT_EQ(FormatDuration(1e9), "-:--");
  EXPECT_EQ(FormatDuration(NAN), "-:--");
  EXPECT_EQ(FormatDuration(INFINITY), "-:--");
}

TEST(ProgressTest, RateIsOfTheLastSeconds) {
  RateMeter rate(10);
  EXPECT_EQ(rate.PerSecond(), 0);
  rate.Add(0, 1000);
  EXPECT_EQ(rate.PerSecond(), 0);
  rate.Add(1, 2000);
  EXPECT_DOUBLE_EQ(rate.PerSecond(), 1000);
  for (int t = 2; t <= 20; ++t) rate.Add(t, 2000);  // nothing more arrives
  EXPECT_DOUBLE_EQ(rate.PerSecond(), 0);
  rate.Add(21, 500);  // started over
  EXPECT_EQ(rate.PerSecond(), 0);
  rate.Add(22, 700);
  EXPECT_DOUBLE_EQ(rate.PerSecond(), 200);
}

TEST(ProgressTest, ShowsAmountRateAndTimeLeft) {
  const ProgressState state{"model", 250'000'000, 1'000'000'000, 50e6, "3/9 files", ProgressUnit::kBytes};
  const std::string line = RenderProgress(state, 120, ProgressStyle::kBar);
  EXPECT_EQ(line,
            "model  [##########------------------------------]   25%  250.0 MB of 1.00 GB  50.0 MB/s  0:15 left  "
            "3/9 files");
  EXPECT_THAT(RenderProgress(state, 120, ProgressStyle::kText), Not(HasSubstr("[")));
  EXPECT_THAT(RenderProgress(state, 120, ProgressStyle::kColourBar), HasSubstr("\x1b[32m##########\x1b[0m-"));
}

TEST(ProgressTest, TheBarGoesBeforeTheDetail) {
  const ProgressState state{"gpt-oss-20b", 250'000'000, 1'000'000'000, 50e6, "3/9 files", ProgressUnit::kBytes};
  EXPECT_EQ(RenderProgress(state, 79, ProgressStyle::kBar),
            "gpt-oss-20b  [###------------]   25%  250.0 MB of 1.00 GB  50.0 MB/s  0:15 left");
  EXPECT_EQ(RenderProgress(state, 60, ProgressStyle::kBar),
            "gpt-oss-20b   25%  250.0 MB of 1.00 GB  50.0 MB/s  0:15 left");
}

TEST(ProgressTest, NeverWiderThanTheTerminal) {
  const ProgressState state{"a label with \xC3\xA4", 999'999'999,         1'000'000'000, 123456,
                            "1/2 files, verifying",  ProgressUnit::kBytes};
  for (int columns = 0; columns < 140; ++columns) {
    const std::string line = RenderProgress(state, columns, ProgressStyle::kBar);
    const auto characters = std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; });
    ASSERT_LE(characters, columns) << line;
  }
}

TEST(ProgressTest, HundredPercentOnlyWhenComplete) {
  ProgressState state{"m", 999'999, 1'000'000, 0, "", ProgressUnit::kBytes};
  EXPECT_THAT(RenderProgress(state, 80, ProgressStyle::kBar), HasSubstr(" 99%"));
  state.done = 1'000'000;
  EXPECT_THAT(RenderProgress(state, 80, ProgressStyle::kBar), HasSubstr("100%"));
}

TEST(ProgressTest, CountsAndUnknownTotals) {
  const ProgressState counted{"layers", 3, 24, 1.5, "", ProgressUnit::kCount};
  EXPECT_THAT(RenderProgress(counted, 80, ProgressStyle::kText), HasSubstr("3 of 24  1.5/s  0:14 left"));
  const ProgressState unknown{"rows", 7, 0, 2, "", ProgressUnit::kCount};
  EXPECT_EQ(RenderProgress(unknown, 80, ProgressStyle::kBar), "rows  7  2/s");
}

}  // namespace
}  // namespace gptoss::cli
