#include "kv_cache/block_pool.h"

#include <gtest/gtest.h>

#include <set>

#include "base/rng.h"

namespace gptoss {
namespace {

TEST(BlockPool, GivesEachBlockOnceLowestFirst) {
  BlockPool pool(3);
  EXPECT_EQ(pool.Allocate(), 0);
  EXPECT_EQ(pool.Allocate(), 1);
  EXPECT_EQ(pool.Allocate(), 2);
  EXPECT_EQ(pool.Allocate(), std::nullopt);
  pool.Free(1);
  EXPECT_EQ(pool.Allocate(), 1);
}

TEST(BlockTable, ReserveIsAllOrNothing) {
  BlockPool pool(3);
  BlockTable table(&pool, 32);
  EXPECT_TRUE(table.Reserve(0, 33));
  EXPECT_EQ(pool.free_blocks(), 1);
  EXPECT_FALSE(table.Reserve(33, 160));
  EXPECT_EQ(pool.free_blocks(), 1);
  EXPECT_TRUE(table.Covers(0, 64));
  EXPECT_FALSE(table.Covers(0, 65));
  EXPECT_EQ(table.Slot(40), 40);
}

TEST(BlockTable, WindowReleasesWhatNoQueryCanSee) {
  BlockPool pool(4);
  BlockTable table(&pool, 32);
  // A window of 64 over any number of positions fits into 4 blocks when chunks have at most 32.
  for (int position = 0; position < 1000; position += 32) {
    ASSERT_TRUE(table.Reserve(position, position + 32)) << position;
    table.ReleaseBefore(position + 32 - 64 + 1);
    EXPECT_TRUE(table.Covers(std::max(0, position + 32 - 63), position + 32));
  }
  table.Truncate(992);
  EXPECT_FALSE(table.Covers(960, 993));
  table.Clear();
  EXPECT_EQ(pool.free_blocks(), 4);
}

// Random operations on several sequences: a block is never shared, never lost, and tables agree with a plain model.
TEST(BlockTable, RandomOperationsKeepTheInvariants) {
  const RandomStream random(3, "kv");
  uint64_t draw = 0;
  BlockPool pool(40);
  {
    std::vector<BlockTable> tables;
    for (int i = 0; i < 4; ++i) tables.emplace_back(&pool, 16);
    std::vector<int> lengths(4, 0);
    for (int step = 0; step < 20000; ++step) {
      const size_t s = random.Word(draw++) % 4;
      BlockTable& table = tables[s];
      const int n = static_cast<int>(random.Word(draw++) % 50);
      switch (random.Word(draw++) % 4) {
        case 0:
        case 1:
          if (table.Reserve(lengths[s], lengths[s] + n)) {
            EXPECT_TRUE(table.Covers(lengths[s], lengths[s] + n));
            lengths[s] += n;
          }
          break;
        case 2:
          table.ReleaseBefore(std::max(0, lengths[s] - n));
          break;
        default:
          lengths[s] = std::max(0, lengths[s] - n);
          table.Truncate(lengths[s]);
      }
      std::set<int32_t> used;
      for (const BlockTable& t : tables) {
        for (int32_t b : t.blocks()) {
          if (b != BlockTable::kReleased) {
            ASSERT_TRUE(used.insert(b).second);
          }
        }
      }
      ASSERT_EQ(static_cast<int>(used.size()) + pool.free_blocks(), pool.size());
    }
  }
  EXPECT_EQ(pool.free_blocks(), 40);
}

}  // namespace
}  // namespace gptoss
