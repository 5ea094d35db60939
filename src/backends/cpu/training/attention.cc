// Attention of whole sequences and its gradient, in blocks of queries and keys, so that memory is linear in the length
// (Dao et al., arXiv 2205.14135). One task is one sequence and one kv head with all query heads that read it: nothing
// else writes its gradients, so no sum depends on the number of threads.

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/training/attention.cc"
#include <cmath>
#include <vector>

#include "backends/cpu/training/training_kernels.h"
#include "hwy/foreach_target.h"
// After foreach_target: these are included once per target.
#include "backends/cpu/training/micro-inl.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gptoss::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

constexpr int64_t kBlock = 64;  // queries or keys: a block of scores is 16 KB
constexpr float kHidden = -1e30f;

static_assert(kBlock % kPanelCols == 0);

/// What one task works on.
struct Piece {
  int64_t first, count;  // rows of the sequence
  int kv_head;
};

std::vector<Piece> Pieces(std::span<const SequenceSpan> sequences, const HeadShape& heads) {
  std::vector<Piece> pieces;
  for (const SequenceSpan& span : sequences) {
    for (int h = 0; h < heads.num_kv_heads && span.num_rows > 0; ++h)
      pieces.push_back({span.first_row, span.num_rows, h});
  }
  return pieces;
}

int64_t LongestSequence(std::span<const SequenceSpan> sequences) {
  int64_t longest = 0;
  for (const SequenceSpan& span : sequences) longest = std::max<int64_t>(longest, span.num_rows);
  return (longest + kBlock - 1) / kBlock * kBlock;
}

/// Keys that any query of rows [begin, end) sees begin here, rounded down to a block.
int64_t FirstKeyBlock(int64_t begin, int window) {
  return window == 0 ? 0 : std::max<int64_t>(0, begin - window + 1) / kBlock * kBlock;
}

/// [count, dim] rows with this stride, as panels of their transpose: [count / kPanelCols][dim][kPanelCols].
void PackKeys(const float* rows, int64_t stride, int64_t count, int64_t dim, float* panels) {
  for (int64_t r = 0; r < count; r += kPanelCols, panels += dim * kPanelCols) {
    PackTransposed(
        std::min(kPanelCols, count - r), dim, [&](int64_t i) { return rows + (r + i) * stride; }, panels);
  }
}

/// The same rows as panels of themselves: [dim / kPanelCols][padded][kPanelCols].
void PackValues(const float* rows, int64_t stride, int64_t count, int64_t dim, int64_t padded, float* panels) {
  for (int64_t r = 0; r < count; ++r) PackRow(rows + r * stride, dim, r, padded * kPanelCols, panels);
}

/// Keys [0, keys) of the block at `key` that row `row` sees: [from, to).
struct Visible {
  int64_t from, to;
};
Visible VisibleKeys(int64_t row, int64_t key, int64_t keys, int window) {
  const int64_t to = std::clamp<int64_t>(row + 1 - key, 0, keys);
  const int64_t from = window == 0 ? 0 : std::clamp<int64_t>(row - window + 1 - key, 0, to);
  return {from, to};
}

/// The blocks of scores [rows, kBlock] of queries against one block of keys.
struct Block {
  int64_t row, rows;  // queries, within the sequence
  int64_t key, keys;
};

void HideKeys(const Block& b, int window, float* scores) {
  for (int64_t r = 0; r < b.rows; ++r) {
    const Visible v = VisibleKeys(b.row + r, b.key, b.keys, window);
    std::fill_n(scores + r * kBlock, v.from, kHidden);
    std::fill(scores + r * kBlock + v.to, scores + (r + 1) * kBlock, kHidden);
  }
}

/// Softmax over what was seen so far of one query head, the sink being the first.
struct Running {
  float* max;     // [kBlock]
  float* sum;     // [kBlock]
  float* values;  // [kBlock, dim]
};

/// Takes in one block: scores become exp(score * scale - max).
void Accumulate(const Block& b, float scale, int64_t dim, float* scores, const Running& state) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t r = 0; r < b.rows; ++r) {
    float* s = scores + r * kBlock;
    const auto scales = hn::Set(d, scale);
    auto top = hn::Set(d, state.max[r]);
    for (int64_t i = 0; i < kBlock; i += lanes) top = hn::Max(top, hn::Mul(hn::LoadU(d, s + i), scales));
    const float max = hn::GetLane(hn::MaxOfLanes(d, top));
    const auto shift = hn::Set(d, max);
    auto sum = hn::Zero(d);
    for (int64_t i = 0; i < kBlock; i += lanes) {
      const auto p = hn::Exp(d, hn::Sub(hn::Mul(hn::LoadU(d, s + i), scales), shift));
      hn::StoreU(p, d, s + i);
      sum = hn::Add(sum, p);
    }
    const float shrink = std::exp(state.max[r] - max);
    state.sum[r] = state.sum[r] * shrink + hn::GetLane(hn::SumOfLanes(d, sum));
    state.max[r] = max;
    if (shrink == 1.0f) continue;
    float* values = state.values + r * dim;
    for (int64_t i = 0; i < dim; ++i) values[i] *= shrink;
  }
}

struct ForwardScratch {
  float *keys, *values, *scores;
  Running state;
};

void ForwardHead(const AttentionTrainArgs<float>& args, const Piece& piece, int head, int64_t padded,
                 const ForwardScratch& s) {
  const HeadShape& shape = args.heads;
  const int64_t dim = shape.head_dim, width = shape.qkv_size();
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  const float* q = args.qkv + piece.first * width + head * dim;
  for (int64_t row = 0; row < piece.count; row += kBlock) {
    const int64_t rows = std::min(kBlock, piece.count - row);
    std::fill_n(s.state.max, rows, args.sinks[head]);
    std::fill_n(s.state.sum, rows, 1.0f);
    std::fill_n(s.state.values, rows * dim, 0.0f);
    for (int64_t key = FirstKeyBlock(row, args.window); key < row + rows; key += kBlock) {
      const Block block{row, rows, key, std::min(kBlock, piece.count - key)};
      PanelProduct(q + row * width, width, 1, rows, dim, s.keys + key * dim, dim * kPanelCols, kBlock, false, s.scores,
                   kBlock);
      HideKeys(block, args.window, s.scores);
      Accumulate(block, scale, dim, s.scores, s.state);
      PanelProduct(s.scores, kBlock, 1, rows, block.keys, s.values + key * kPanelCols, padded * kPanelCols, dim, true,
                   s.state.values, dim);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = piece.first + row + r;
      float* out = args.out + at * shape.q_size() + head * dim;
      const float inverse = 1.0f / s.state.sum[r];
      for (int64_t i = 0; i < dim; ++i) out[i] = s.state.values[r * dim + i] * inverse;
      args.log_sum_exp[at * shape.num_heads + head] = s.state.max[r] + std::log(s.state.sum[r]);
    }
  }
}

struct BackwardScratch {
  float *keys, *values;        // transposed panels of K and V
  float* key_rows;             // panels of K itself
  float *queries, *gradients;  // panels of Q and of dOut itself
  float *scores, *dscores;     // [kBlock, kBlock]
  float* mean;                 // [padded] dOut · Out
};

/// P = exp(s scale - lse) in place of the scores, dS = P (dP - mean) scale in place of dP.
void ScoreGradients(const Block& b, float scale, const float* lse, int64_t lse_stride, const float* mean, float* scores,
                    float* dscores) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto scales = hn::Set(d, scale);
  for (int64_t r = 0; r < b.rows; ++r) {
    float *s = scores + r * kBlock, *ds = dscores + r * kBlock;
    const auto shift = hn::Set(d, lse[r * lse_stride]), center = hn::Set(d, mean[r]);
    for (int64_t i = 0; i < kBlock; i += lanes) {
      const auto p = hn::Exp(d, hn::Sub(hn::Mul(hn::LoadU(d, s + i), scales), shift));
      hn::StoreU(p, d, s + i);
      hn::StoreU(hn::Mul(hn::Mul(p, hn::Sub(hn::LoadU(d, ds + i), center)), scales), d, ds + i);
    }
  }
}

/// Adds one query head's part to the gradients of q, k and v. Returns the gradient of its sink.
float BackwardHead(const AttentionBackwardArgs<float>& args, const Piece& piece, int head, int64_t padded,
                   const BackwardScratch& s) {
  const HeadShape& shape = args.heads;
  const int64_t dim = shape.head_dim, width = shape.qkv_size(), out_width = shape.q_size();
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  const int64_t q_at = piece.first * width + head * dim, out_at = piece.first * out_width + head * dim;
  const int64_t k_at = piece.first * width + shape.q_size() + piece.kv_head * dim, v_at = k_at + shape.kv_size();
  const float* lse = args.log_sum_exp + piece.first * shape.num_heads + head;
  PackValues(args.qkv + q_at, width, piece.count, dim, padded, s.queries);
  PackValues(args.dout + out_at, out_width, piece.count, dim, padded, s.gradients);
  float dsink = 0.0f;
  for (int64_t r = 0; r < piece.count; ++r) {
    const float *a = args.dout + out_at + r * out_width, *b = args.out + out_at + r * out_width;
    float sum = 0.0f;
    for (int64_t i = 0; i < dim; ++i) sum += a[i] * b[i];
    s.mean[r] = sum;
    dsink -= std::exp(args.sinks[head] - lse[r * shape.num_heads]) * sum;
  }
  for (int64_t row = 0; row < piece.count; row += kBlock) {
    const int64_t rows = std::min(kBlock, piece.count - row);
    for (int64_t key = FirstKeyBlock(row, args.window); key < row + rows; key += kBlock) {
      const Block block{row, rows, key, std::min(kBlock, piece.count - key)};
      PanelProduct(args.qkv + q_at + row * width, width, 1, rows, dim, s.keys + key * dim, dim * kPanelCols, kBlock,
                   false, s.scores, kBlock);
      HideKeys(block, args.window, s.scores);
      PanelProduct(args.dout + out_at + row * out_width, out_width, 1, rows, dim, s.values + key * dim,
                   dim * kPanelCols, kBlock, false, s.dscores, kBlock);
      ScoreGradients(block, scale, lse + row * shape.num_heads, shape.num_heads, s.mean + row, s.scores, s.dscores);
      PanelProduct(s.dscores, kBlock, 1, rows, block.keys, s.key_rows + key * kPanelCols, padded * kPanelCols, dim,
                   true, args.dqkv + q_at + row * width, width);
      PanelProduct(s.dscores, 1, kBlock, block.keys, rows, s.queries + row * kPanelCols, padded * kPanelCols, dim, true,
                   args.dqkv + k_at + key * width, width);
      PanelProduct(s.scores, 1, kBlock, block.keys, rows, s.gradients + row * kPanelCols, padded * kPanelCols, dim,
                   true, args.dqkv + v_at + key * width, width);
    }
  }
  return dsink;
}

void ClearGradients(const AttentionBackwardArgs<float>& args, const Piece& piece, int group) {
  const HeadShape& shape = args.heads;
  const int64_t dim = shape.head_dim;
  for (int64_t r = piece.first; r < piece.first + piece.count; ++r) {
    float* row = args.dqkv + r * shape.qkv_size();
    std::fill_n(row + piece.kv_head * group * dim, group * dim, 0.0f);
    std::fill_n(row + shape.q_size() + piece.kv_head * dim, dim, 0.0f);
    std::fill_n(row + shape.q_size() + shape.kv_size() + piece.kv_head * dim, dim, 0.0f);
  }
}

}  // namespace

void TrainAttention(ExecContext& context, const AttentionTrainArgs<float>& args) {
  const ScratchFrame frame(context.scratch);
  const HeadShape& shape = args.heads;
  const int64_t dim = shape.head_dim, padded = LongestSequence(args.sequences), width = shape.qkv_size();
  const int group = shape.num_heads / shape.num_kv_heads;
  std::vector<ForwardScratch> scratch(static_cast<size_t>(context.pool.num_threads()));
  const auto allocate = [&](int64_t n) { return context.scratch.Allocate<float>(static_cast<size_t>(n)); };
  for (ForwardScratch& s : scratch) {
    s = {allocate(padded * dim),
         allocate(padded * PanelCount(dim) * kPanelCols),
         allocate(kBlock * kBlock),
         {allocate(kBlock), allocate(kBlock), allocate(kBlock * dim)}};
  }
  const std::vector<Piece> pieces = Pieces(args.sequences, shape);
  context.pool.Run(static_cast<int64_t>(pieces.size()), [&](int64_t task, int worker) {
    const Piece& piece = pieces[static_cast<size_t>(task)];
    const ForwardScratch& s = scratch[static_cast<size_t>(worker)];
    const float* k = args.qkv + piece.first * width + shape.q_size() + piece.kv_head * dim;
    PackKeys(k, width, piece.count, dim, s.keys);
    PackValues(k + shape.kv_size(), width, piece.count, dim, padded, s.values);
    for (int h = 0; h < group; ++h) ForwardHead(args, piece, piece.kv_head * group + h, padded, s);
  });
}

void TrainAttentionBackward(ExecContext& context, const AttentionBackwardArgs<float>& args) {
  const ScratchFrame frame(context.scratch);
  const HeadShape& shape = args.heads;
  const int64_t dim = shape.head_dim, padded = LongestSequence(args.sequences), width = shape.qkv_size();
  const int group = shape.num_heads / shape.num_kv_heads;
  const int64_t panels = padded * PanelCount(dim) * kPanelCols;
  const auto allocate = [&](int64_t n) { return context.scratch.Allocate<float>(static_cast<size_t>(n)); };
  std::vector<BackwardScratch> scratch(static_cast<size_t>(context.pool.num_threads()));
  for (BackwardScratch& s : scratch) {
    s = {allocate(padded * dim), allocate(padded * dim),    allocate(panels),          allocate(panels),
         allocate(panels),       allocate(kBlock * kBlock), allocate(kBlock * kBlock), allocate(padded)};
  }
  const std::vector<Piece> pieces = Pieces(args.sequences, shape);
  std::vector<float> dsinks(pieces.size() * static_cast<size_t>(group));
  context.pool.Run(static_cast<int64_t>(pieces.size()), [&](int64_t task, int worker) {
    const Piece& piece = pieces[static_cast<size_t>(task)];
    const BackwardScratch& s = scratch[static_cast<size_t>(worker)];
    const float* k = args.qkv + piece.first * width + shape.q_size() + piece.kv_head * dim;
    PackKeys(k, width, piece.count, dim, s.keys);
    PackKeys(k + shape.kv_size(), width, piece.count, dim, s.values);
    PackValues(k, width, piece.count, dim, padded, s.key_rows);
    ClearGradients(args, piece, group);
    for (int h = 0; h < group; ++h) {
      dsinks[static_cast<size_t>(task * group + h)] = BackwardHead(args, piece, piece.kv_head * group + h, padded, s);
    }
  });
  for (size_t i = 0; i < dsinks.size() && args.dsinks != nullptr; ++i) {
    const Piece& piece = pieces[i / static_cast<size_t>(group)];
    args.dsinks[piece.kv_head * group + static_cast<int>(i % static_cast<size_t>(group))] += dsinks[i];
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace gptoss::cpu
HWY_AFTER_NAMESPACE();
