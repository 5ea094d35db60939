// How a grouped product is cut into pieces for the threads: (matrix, panel of weight rows). Common to all kernels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "backends/cpu/kernels.h"
#include "parallel/exec_context.h"

namespace gptoss::cpu {

/// A piece: rows [row_begin, row_end) of the weights of `matrix`, for all output rows [first, end) of its group. The
/// same thread goes on with the rows up to stream_end.
struct Panel {
  int64_t matrix;
  int64_t first, end;
  int64_t row_begin, row_end;
  int64_t stream_end;
};

/// Bytes of weights that a thread claims at once when there are few activations: a stream that is long against its
/// beginning, where nothing has been fetched yet; 30 µs, so that threads finish together.
inline constexpr int64_t kStreamBytes = int64_t{1} << 19;
/// Less for many threads: each shall claim this often at least.
inline constexpr int64_t kClaimsPerThread = 8, kLeastStreamBytes = int64_t{1} << 17;
/// Rows of activations from which a stream becomes shorter.
inline constexpr int64_t kLongRows = 16;

/// Calls run(panel, worker) for panels of at most `panel_rows` rows that cover all groups that `args` does not leave
/// out. Panels of one matrix follow each other, so that its activations stay in the caches.
template <typename Run>
void ForEachPanel(ExecContext& context, const MatmulArgs& args, int64_t panel_rows, const Run& run) {
  std::vector<Panel> groups;
  int64_t most = 0;
  for (size_t m = 0; m + 1 < args.offsets.size(); ++m) {
    const int64_t first = args.offsets[m], end = args.offsets[m + 1];
    if (end - first < args.min_group_rows || end - first > args.max_group_rows) continue;
    most = std::max(most, end - first);
    groups.push_back({static_cast<int64_t>(m), first, end, 0, args.weight.rows, 0});
  }
  const auto row_bytes = static_cast<int64_t>(RowBytes(args.weight.dtype, static_cast<uint64_t>(args.weight.cols)));
  const int64_t panel_bytes = panel_rows * row_bytes;
  const int64_t all_bytes = static_cast<int64_t>(groups.size()) * args.weight.rows * row_bytes;
  const int64_t share = all_bytes / (kClaimsPerThread * context.pool.num_threads());
  const int64_t stream_bytes = std::clamp(share, kLeastStreamBytes, kStreamBytes);
  // With more rows a panel takes long enough by itself, and its fetching is a small part of that.
  const int64_t stream = std::max<int64_t>(1, stream_bytes / panel_bytes / std::max<int64_t>(1, most / kLongRows));
  const int64_t task_rows = panel_rows * stream;
  const int64_t per_group = (args.weight.rows + task_rows - 1) / task_rows;
  context.pool.Run(static_cast<int64_t>(groups.size()) * per_group, [&](int64_t task, int worker) {
    Panel panel = groups[task / per_group];
    const int64_t begin = task % per_group * task_rows;
    const int64_t end = panel.stream_end = std::min(begin + task_rows, args.weight.rows);
    for (panel.row_begin = begin; panel.row_begin < end; panel.row_begin += panel_rows) {
      panel.row_end = std::min(panel.row_begin + panel_rows, end);
      run(panel, worker);
    }
  });
}

}  // namespace gptoss::cpu
