#include "engine/speculation.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace gptoss {
namespace {

std::vector<int32_t> Proposed(std::vector<int32_t> history, int count) {
  return ProposeFromHistory(history, count).tokens;
}

TEST(ProposeFromHistory, NeedsTwoTokensThatOccurredBefore) {
  EXPECT_TRUE(Proposed({}, 4).empty());
  EXPECT_TRUE(Proposed({7}, 4).empty());
  EXPECT_TRUE(Proposed({7, 7}, 4).empty());
  EXPECT_TRUE(Proposed({1, 2, 3, 4, 2}, 4).empty());  // 2 alone
  EXPECT_EQ(Proposed({1, 2, 3, 4, 1, 2}, 2), (std::vector<int32_t>{3, 4}));
  EXPECT_TRUE(Proposed({1, 2, 3, 4, 1, 2}, 0).empty());
}

TEST(ProposeFromHistory, PrefersTheLongestMatchThenTheLatest) {
  // "2 3" last came before 9, "1 2 3" before 8.
  EXPECT_EQ(Proposed({1, 2, 3, 8, 5, 2, 3, 9, 5, 1, 2, 3}, 1), (std::vector<int32_t>{8}));
  EXPECT_EQ(Proposed({2, 3, 8, 5, 2, 3, 9, 6, 2, 3}, 1), (std::vector<int32_t>{9}));
  // Beyond four equal tokens the latest wins.
  EXPECT_EQ(Proposed({0, 1, 2, 3, 4, 10, 9, 1, 2, 3, 4, 11, 0, 1, 2, 3, 4}, 1), (std::vector<int32_t>{11}));
  EXPECT_EQ(ProposeFromHistory(std::vector<int32_t>{5, 1, 2, 3, 4, 9, 1, 2, 3, 4}, 1).matched, 4);
  EXPECT_EQ(ProposeFromHistory(std::vector<int32_t>{3, 4, 9, 3, 4}, 1).matched, 2);
}

TEST(ProposeFromHistory, ContinuesRepetitions) {
  EXPECT_EQ(Proposed({7, 7, 7}, 5), (std::vector<int32_t>{7, 7, 7, 7, 7}));
  EXPECT_EQ(Proposed({9, 1, 2, 1, 2}, 5), (std::vector<int32_t>{1, 2, 1, 2, 1}));
}

/// What the controller makes of a machine where a pass over k proposed tokens costs 1 + extra k steps, and of proposals
/// each of whose tokens holds with probability `rate`.
struct Simulation {
  double seconds = 0;  // in all
  int tokens = 0;
  int proposed = 0;

  Simulation(double step, double extra, double rate, int length, SpeculationController controller, double found = 1.0) {
    const RandomStream random(7, 1);
    uint64_t draw = 0;
    while (tokens < length) {
      const bool any = random.Uniform(draw++) < found;
      const int k = any ? controller.Choose(3) : 0;
      const double pass = step * (1 + extra * k);
      seconds += pass;
      int accepted = 0;
      while (accepted < k && random.Uniform(draw++) < rate) ++accepted;
      tokens += 1 + accepted;
      proposed += k;
      if (k == 0) {
        controller.OnPlainStep(pass);
      } else {
        controller.OnSpeculativePass(3, k, accepted, pass);
      }
    }
  }
};

TEST(SpeculationController, NeverCostsMuchWhenNothingHolds) {
  for (double extra : {0.05, 0.35, 1.0, 3.0}) {
    const Simulation s(0.1, extra, 0.0, 2000, SpeculationController(8));
    EXPECT_LE(s.seconds, 0.1 * 2000 * 1.011 + 0.1 * (0.5 + 8 * extra)) << extra;
    EXPECT_GT(s.proposed, 0) << "tries now and then";
  }
}

TEST(SpeculationController, NeverCostsMuchWhateverTheRate) {
  for (double extra : {0.1, 0.35, 0.7, 1.2}) {
    for (double rate = 0.0; rate <= 1.0; rate += 0.1) {
      const Simulation s(0.1, extra, rate, 2000, SpeculationController(8));
      EXPECT_LE(s.seconds, 0.1 * s.tokens * 1.02) << extra << " " << rate;
    }
  }
}

TEST(SpeculationController, PaysWhenProposalsHold) {
  // A pass of 9 tokens at 0.35 a token costs 3.8 steps: 2.4 times as fast at most.
  EXPECT_LT(Simulation(0.1, 0.35, 1.0, 500, SpeculationController(8)).seconds, 500 * 0.1 / 1.9);
  EXPECT_LT(Simulation(0.1, 0.2, 0.8, 500, SpeculationController(8)).seconds, 500 * 0.1 / 1.4);
  // Cheap rows: everything is proposed.
  EXPECT_LT(Simulation(0.1, 0.02, 1.0, 500, SpeculationController(8)).seconds, 500 * 0.1 / 5);
}

TEST(SpeculationController, WaitsForAStepToCompareWithAndForAMatch) {
  SpeculationController controller(8);
  EXPECT_EQ(controller.Choose(4), 0);
  controller.OnPlainStep(0.1);
  EXPECT_EQ(controller.Choose(0), 0);
  EXPECT_GT(controller.Choose(4), 0);
  EXPECT_EQ(SpeculationController(0).Choose(4), 0);
}

TEST(SpeculationController, RecoversFromABadStretch) {
  SpeculationController controller(8);
  controller.OnPlainStep(0.1);
  for (int i = 0; i < 50; ++i) {
    const int k = controller.Choose(4);
    k == 0 ? controller.OnPlainStep(0.1) : controller.OnSpeculativePass(4, k, 0, 0.1 * (1 + 5 * k));
  }
  int passes = 0;
  double held = 0;
  for (int i = 0; i < 2000; ++i) {
    const int k = controller.Choose(4);
    if (k == 0) {
      controller.OnPlainStep(0.1);
    } else {
      controller.OnSpeculativePass(4, k, k, 0.1 * (1 + 0.2 * k));
      ++passes;
      held += k;
    }
  }
  EXPECT_GT(passes, 500);
  EXPECT_GT(held / passes, 4);
}

}  // namespace
}  // namespace gptoss
