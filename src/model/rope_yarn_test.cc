#include "model/rope_yarn.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tensor/npy.h"

namespace gptoss {
namespace {

NpyArray Golden(const std::string& name) {
  auto array = ReadNpy(std::string(GPTOSS_TEST_DATA) + "/golden/rope/" + name + ".npy");
  EXPECT_TRUE(array.ok()) << array.status().message();
  return array.ok() ? *std::move(array) : NpyArray{};
}

// The official frequencies come from a vectorised float power that is within 1 ulp; ours is rounded correctly. 30 of
// the 32 are equal bit for bit, two differ in the last bit (docs/numerics.md).
TEST(RopeYarn, FrequenciesAreTheOfficialOnesToTheLastBit) {
  const RopeTable table = MakeRopeTable(ModelConfig{});
  const NpyArray want = Golden("real.inv_freq"), exact = Golden("real.inv_freq_f64");
  int equal = 0;
  for (int i = 0; i < 32; ++i) {
    const float got = table.inverse_frequencies[i], official = want.As<float>()[i];
    EXPECT_TRUE(got == official || std::nextafter(got, official) == official) << i;
    equal += got == official ? 1 : 0;
    // Six roundings at most on the way: power, product, quotient, ramp, two products, sum.
    EXPECT_NEAR(got, exact.As<double>()[i], exact.As<double>()[i] * 6 * 0x1.0p-24) << i;
  }
  EXPECT_GE(equal, 30);
  EXPECT_EQ(table.concentration, static_cast<float>(1.3465735902799727));
}

TEST(RopeYarn, AnglesMatchTheOfficialTables) {
  const RopeTable table = MakeRopeTable(ModelConfig{});
  const std::vector<int32_t> positions = {0, 1, 127, 128, 4095, 4096, 131071};
  std::vector<float> cos(positions.size() * 32), sin(cos.size());
  table.Angles(positions, cos.data(), sin.data());
  const NpyArray want_cos = Golden("real.cos"), want_sin = Golden("real.sin"), frequency = Golden("real.inv_freq");
  for (size_t i = 0; i < cos.size(); ++i) {
    // Equal frequencies give equal angles, and then only the rounding of cosine (1 ulp there) and of the product with
    // the concentration can differ. A frequency off by one ulp turns the angle by position * ulp, and rounds it anew.
    const float official = frequency.As<float>()[i % 32];
    const float angle = static_cast<float>(positions[i / 32]) * official;
    const float turned = table.inverse_frequencies[i % 32] == official ? 0.0f : 2 * angle * 0x1.0p-23f;
    const float tolerance = 1.35f * (turned + 3 * 0x1.0p-24f);
    EXPECT_NEAR(cos[i], want_cos.As<float>()[i], tolerance) << i;
    EXPECT_NEAR(sin[i], want_sin.As<float>()[i], tolerance) << i;
  }
}

TEST(RopeYarn, WithoutScalingItIsPlainRotaryEmbedding) {
  ModelConfig config;
  config.rope_factor = 1.0;
  const RopeTable table = MakeRopeTable(config);
  EXPECT_EQ(table.concentration, 1.0f);
  for (int i = 0; i < 32; ++i) {
    const double want = std::pow(150000.0, -2.0 * i / 64);
    EXPECT_NEAR(table.inverse_frequencies[i], want, want * 4 * 0x1.0p-24);
  }
}

}  // namespace
}  // namespace gptoss
