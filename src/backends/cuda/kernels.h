// The kernels as host functions: each puts its work on a stream and returns. All pointers are to the device's memory,
// except where an argument says "host".
#pragma once

#include <cstdint>

#include "ops/logit_ops.h"
#include "ops/ops.h"

namespace gptoss::cuda {

using Stream = void*;  // a cudaStream_t; nothing in the emulator

/// x [n, table.cols] = rows `tokens` [n] of the table.
void EmbedLookup(Stream stream, const WeightMatrix& table, const int32_t* tokens, int64_t n, float* x);

void RmsNorm(Stream stream, const RmsNormArgs& args);

enum class Epilogue {
  kStore,   // y = product + bias
  kAdd,     // y += product + bias
  kSwiglu,  // rows 2i and 2i + 1 are gate and up: y [rows / 2] = swiglu of them
  kRope,    // q, k and v: turned, written and appended as RopeAppend does; of FewRows only, and not of groups
};

/// y[r] = W_g x[gather[r]] + bias_g for the rows r of each group g, groups being experts. Without offsets all n rows
/// are of group 0.
struct Product {
  const float* x = nullptr;          // [rows of x, weight.cols]
  const int32_t* gather = nullptr;   // [n] row of x; null: r itself
  int64_t n = 0;                     // rows of y
  int64_t most_in_group = 0;         // no group has more rows
  const int32_t* offsets = nullptr;  // [groups + 1]
  int groups = 1;
  WeightMatrix weight;          // row-major
  const float* bias = nullptr;  // [groups, weight.rows] or null
  Epilogue epilogue = Epilogue::kStore;
  float limit = 0;                    // of kSwiglu
  float* y = nullptr;                 // [n, weight.rows], or half as wide with kSwiglu; unused with kRope
  const QkvRopeArgs* rope = nullptr;  // of kRope
  const int32_t* slots = nullptr;     // of kRope: [n], on the device
};

/// Float throughout. Each weight is read once for eight rows. A row's result does not depend on the others.
void FewRows(Stream stream, const Product& product);

/// On tensor cores, activations as the sum of two BF16. For MXFP4, Q8_0 and BF16 weights. A row's result does not
/// depend on the others, but differs from FewRows' in rounding.
void ManyRows(Stream stream, const Product& product);
bool ManyRowsTakes(const WeightMatrix& weight);

/// What ManyRows does at best, for measuring: blocks of kRateThreads threads, each warp of which multiplies registers
/// `rounds` times in kRateChains independent chains of m16n8k16. sums [blocks * kRateThreads]: 4 * kRateChains * 16 *
/// rounds in each, with ones everywhere.
inline constexpr int kRateThreads = 256, kRateChains = 8;
void MultiplyRegisters(Stream stream, int blocks, int rounds, float* sums);

/// h [rows, width] = swiglu of pre [rows, 2 * width].
void SwigluRows(Stream stream, const float* pre, int64_t rows, int64_t width, float limit, float* h);

/// Makes inner [rows, ranks] zero where the owner of a rank takes no part: `owner` and `active` of LowRankUpdate.
/// tokens [rows]: the token of each row; null: row r is token r.
void DropInactiveRanks(Stream stream, const uint8_t* owner, const uint32_t* active, const int32_t* tokens, int64_t rows,
                       int64_t ranks, float* inner);

/// Rotates q and k of qkv [n, (heads + 2 kv_heads) * head_dim], appends k and v at args.slots (here: device), writes q.
void RopeAppend(Stream stream, const QkvRopeArgs& args, const int32_t* slots, const float* qkv);

/// Where each row of a batch stands.
struct RowPlaces {
  const int32_t* sequence = nullptr;      // [n]
  const int32_t* position = nullptr;      // [n]
  const int32_t* block_tables = nullptr;  // [sequences, blocks_per_sequence]
  int blocks_per_sequence = 0;
};

/// For rows `rows` [n] of the batch; null: rows 0 … n - 1. No position of theirs is beyond `longest`. head_dim at most
/// 128; scratch as AttentionScratch (scratch_plan.h) says. Float throughout, or with `tensor_cores`, where
/// TiledAttentionTakes the arguments, queries and weights as the sum of two BF16. A row's result does not depend on the
/// others.
void Attention(Stream stream, const AttentionArgs& args, const RowPlaces& places, const int32_t* rows, int64_t n,
               int longest, bool tensor_cores, float* scratch);

/// Query vectors begin … end - 1 of one sequence, at most kTileVectors (scratch_plan.h). Those that share a key/value
/// head are numbered row * group + head in group, `group` being num_heads / num_kv_heads.
struct AttentionTile {
  int32_t begin = 0, end = 0;
};

/// On tensor cores, for the rows of `tiles` [count]: queries and weights as the sum of two BF16. For BF16 caches and a
/// head_dim that is a multiple of 16, at most 128. A row's result does not depend on the others, but differs from
/// Attention's in rounding.
void TiledAttention(Stream stream, const AttentionArgs& args, const RowPlaces& places, const AttentionTile* tiles,
                    int64_t count);
bool TiledAttentionTakes(DType kv_dtype, int head_dim);

/// Rows that lie side by side in groups of kRowGroup (tensor/weight_layout.h), as codes or scales of `unit` bytes (1, 2
/// or 4), one after the other: out [rows, units] from grouped [rows / kRowGroup, units, kRowGroup].
void UngroupRows(Stream stream, const std::byte* grouped, int64_t rows, int64_t units, int unit, std::byte* out);

/// Chooses experts from logits [n, experts] and fills the whole routing. At most 1024 experts.
void Route(Stream stream, const float* logits, const Routing& routing);

// Sampling, as ops/logit_ops.h says of each: all pointers are the device's.
/// [LogitChunks(vocab)] each.
struct LogitScratch {
  LogitKey* largest = nullptr;
  double* sums = nullptr;
};
int LogitChunks(int64_t vocab);
void ReadLogits(Stream stream, const float* row, const int32_t* ids, int64_t count, float* values);
void WriteLogits(Stream stream, float* row, const int32_t* ids, int64_t count, const float* values);
void ForbidLogits(Stream stream, float* row, int64_t vocab, const uint64_t* mask);
void LargestLogit(Stream stream, const float* logits, int64_t vocab, const LogitScratch& scratch, LogitKey* key);
void SumLogits(Stream stream, const float* logits, int64_t vocab, float inverse_temperature,
               const LogitScratch& scratch, LogitSums* sums);
void DrawLogit(Stream stream, const float* logits, int64_t vocab, float inverse_temperature, double uniform,
               const LogitScratch& scratch, LogitKey* drawn);
void LikeliestLogits(Stream stream, const float* logits, int64_t vocab, int64_t count, LogitKey* keys);

/// x[t] += sum over j of weight[t, j] * y[row(t, j)], y [n * k, width].
void CombineExperts(Stream stream, const Routing& routing, const float* y, int64_t width, float* x);

}  // namespace gptoss::cuda
