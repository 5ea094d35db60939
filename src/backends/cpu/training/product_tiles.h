// How the products of training are cut into tiles of their result C. Common to all targets.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace gptoss::cpu {

struct ProductTile {
  int64_t group;
  int64_t row, rows;  // of C, within the group
  int64_t col, cols;
};

/// Sizes of C of one group.
struct GroupShape {
  int64_t group, rows, cols;
};

struct TileSize {
  int64_t most_rows, row_step, cols;  // heights are multiples of row_step
};

/// Tiles of at most `size`, lower when there would be too few of them for the threads.
inline std::vector<ProductTile> CutTiles(const std::vector<GroupShape>& groups, const TileSize& size, int threads) {
  constexpr int64_t kTasksPerThread = 4, kLeastSteps = 8;
  std::vector<ProductTile> tiles;
  for (int64_t limit = size.most_rows;; limit = limit / 2 / size.row_step * size.row_step) {
    tiles.clear();
    for (const GroupShape& g : groups) {
      const int64_t blocks = (g.rows + limit - 1) / limit;
      const int64_t height = ((g.rows + blocks - 1) / blocks + size.row_step - 1) / size.row_step * size.row_step;
      for (int64_t col = 0; col < g.cols; col += size.cols) {
        for (int64_t row = 0; row < g.rows; row += height) {
          tiles.push_back({g.group, row, std::min(height, g.rows - row), col, std::min(size.cols, g.cols - col)});
        }
      }
    }
    const bool enough = static_cast<int64_t>(tiles.size()) >= kTasksPerThread * threads;
    if (threads == 1 || enough || limit < kLeastSteps * size.row_step) return tiles;
  }
}

/// The groups that have rows, each with C of all its rows and `cols` columns.
inline std::vector<GroupShape> RowGroups(std::span<const int32_t> offsets, int64_t cols) {
  std::vector<GroupShape> groups;
  for (size_t g = 0; g + 1 < offsets.size(); ++g) {
    if (offsets[g] < offsets[g + 1]) groups.push_back({static_cast<int64_t>(g), offsets[g + 1] - offsets[g], cols});
  }
  return groups;
}

inline int64_t RowOf(const int32_t* gather, int64_t row) { return gather == nullptr ? row : gather[row]; }

}  // namespace gptoss::cpu
