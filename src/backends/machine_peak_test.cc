#include "backends/cpu/machine_peak.h"

#include <gtest/gtest.h>

namespace gptoss {
namespace {

// No absolute speed can be required of an unknown machine; a measurement must be a positive, finite number in a range
// that no machine leaves.
TEST(MachinePeak, MeasuresSomethingPlausible) {
  ThreadPool pool(2);
  const Result<double> bandwidth = MeasureReadBandwidth(pool);
  ASSERT_TRUE(bandwidth.ok()) << bandwidth.status().message();
  EXPECT_GT(*bandwidth, 0.01);
  EXPECT_LT(*bandwidth, 1e5);
  const Result<double> compute = MeasureCompute(pool);
  ASSERT_TRUE(compute.ok()) << compute.status().message();
  EXPECT_GT(*compute, 1e-5);
  EXPECT_LT(*compute, 1e3);
}

TEST(MachinePeak, AnUnknownTargetIsAnError) {
  ThreadPool pool(1);
  const Result<double> compute = MeasureCompute(pool, "mmx");
  ASSERT_FALSE(compute.ok());
  EXPECT_NE(compute.status().message().find("mmx"), std::string::npos);
}

}  // namespace
}  // namespace gptoss
