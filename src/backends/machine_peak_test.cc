#include "backends/cpu/machine_peak.h"

#include <gtest/gtest.h>

#include "backends/registry.h"

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
  for (const Precision precision : {Precision::kFast, Precision::kExact}) {
    const double compute = MeasureCompute(pool, **CpuOps("", precision));
    EXPECT_GT(compute, 1e-5);
    EXPECT_LT(compute, 1e3);
  }
}

}  // namespace
}  // namespace gptoss
