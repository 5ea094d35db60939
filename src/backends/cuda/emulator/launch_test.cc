// How work is cut into blocks: arithmetic of the host, and the part of it that blocks do for themselves.

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "backends/cuda/emulator/emulator.h"
#include "backends/cuda/product.cuh"
#include "backends/cuda/scratch_plan.h"
#include "base/rng.h"

namespace gptoss::cuda {
namespace {

int Below(const RandomStream& random, uint64_t i, int bound) { return static_cast<int>(random.Uniform(i) * bound); }

/// Offsets of `groups` groups, many of them empty, some long.
std::vector<int32_t> Offsets(int groups, uint64_t seed) {
  const RandomStream random(seed, "groups");
  std::vector<int32_t> offsets = {0};
  for (int g = 0; g < groups; ++g) {
    const int rows = std::max(0, Below(random, 2 * static_cast<uint64_t>(g), g % 7 == 0 ? 90 : 12) - 4);
    offsets.push_back(offsets.back() + rows);
  }
  return offsets;
}

// One warp a tile, as products have it: every row is some tile's and only one's, and no tile reaches into another
// group.
TEST(Launch, TilesCoverTheRowsOfAllGroupsOnce) {
  for (const int groups : {1, 4, 32, 33, 128}) {
    for (const int tile_rows : {1, 4, 8, 64}) {
      const std::vector<int32_t> offsets = Offsets(groups, static_cast<uint64_t>(groups));
      const int64_t n = offsets.back();
      std::vector<int> covered(static_cast<size_t>(n), 0);
      const int64_t tiles = MostTiles(n, groups, tile_rows, true);
      RunGrid(dim3{1, static_cast<unsigned>(tiles), 1}, dim3{kWarp, 1, 1}, 0, [&] {
        const GroupRows rows = FindTile(offsets.data(), groups, n, tile_rows, blockIdx.y);
        if (Lane() != 0 || rows.begin >= rows.end) return;
        EXPECT_LE(rows.end - rows.begin, tile_rows);
        EXPECT_GE(rows.begin, offsets[static_cast<size_t>(rows.group)]);
        EXPECT_LE(rows.end, offsets[static_cast<size_t>(rows.group) + 1]);
        for (int64_t r = rows.begin; r < rows.end; ++r) ++covered[static_cast<size_t>(r)];
      });
      EXPECT_TRUE(std::ranges::all_of(covered, [](int times) { return times == 1; })) << groups << " " << tile_rows;
    }
  }
}

TEST(Launch, WithoutGroupsTilesFollowOneAnother) {
  EXPECT_EQ(MostTiles(65, 1, 64, false), 2);
  const GroupRows last = FindTile(nullptr, 1, 65, 64, 1), none = FindTile(nullptr, 1, 65, 64, 2);
  EXPECT_EQ(last.begin, 64);
  EXPECT_EQ(last.end, 65);
  EXPECT_GE(none.begin, none.end);
}

TEST(Launch, ChunksOfAttention) {
  AttentionArgs args{};
  args.num_heads = 64;
  args.num_kv_heads = 8;
  args.head_dim = 64;
  EXPECT_EQ(HeadBlocks(args), 8);
  EXPECT_EQ(MostChunks(args, 1), 1);
  EXPECT_EQ(MostChunks(args, 512), 1);
  EXPECT_EQ(MostChunks(args, 513), 2);
  // A token at 32768 positions: chunks side by side, head_dim sums, a maximum and a sum for each.
  EXPECT_EQ(AttentionScratch(args, 1, 32768), 64 * 64 * 66);
  EXPECT_EQ(AttentionScratch(args, 64, 32768), 0) << "rows alone keep the GPU busy";
  args.window = 128;
  EXPECT_EQ(MostChunks(args, 32768), 2) << "a window may lie across a border";
}

TEST(Launch, TheMostScratchIsNoLessThanAnyBatchNeeds) {
  const RandomStream random(1, "shapes");
  for (uint64_t i = 0; i < 3000; ++i) {
    AttentionArgs args{};
    args.num_kv_heads = 1 + Below(random, 6 * i, 16);
    args.num_heads = args.num_kv_heads * (1 + Below(random, 6 * i + 1, 20));
    args.head_dim = 32 * (1 + Below(random, 6 * i + 2, 4));
    args.window = Below(random, 6 * i + 3, 2) * 128;
    const int rows = 1 + Below(random, 6 * i + 4, 600), positions = 1 + Below(random, 6 * i + 5, 200000);
    const int64_t most = MostAttentionScratch(args, rows, positions);
    for (const int n : {1, rows / 2 + 1, rows}) {
      for (const int longest : {1, positions / 3 + 1, positions}) {
        EXPECT_LE(AttentionScratch(args, n, longest), most) << args.num_heads << " " << n << " " << longest;
      }
    }
  }
}

}  // namespace
}  // namespace gptoss::cuda
