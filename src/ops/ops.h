// THE contract between the model and the hardware: a table of stage-sized ops. model/ calls nothing else; a backend
// fills the table; ops/reference/ is the plain implementation with which every other one is compared.
//
// Common rules. All activations are float, row-major, dense. n = rows (tokens) of the batch. Inputs and outputs do not
// overlap unless an op says so. Pointers, and the spans of Routing, are to memory of the context's device
// (parallel/device.h); spans of tokens, slots, sequences, block tables and active owners are the host's. Sums run over
// the full inner dimension in float (a backend may keep partial sums, and may round activations to the precision that
// its name states); nothing is fast-math. Ops cannot fail: arguments were checked when the model was loaded and the
// batch built.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "ops/forward_batch.h"
#include "parallel/exec_context.h"
#include "tensor/dtype.h"
#include "tensor/weight_layout.h"

namespace gptoss {

/// Weights [rows, cols] = [outputs, inputs], or several experts' matrices one after the other.
struct WeightMatrix {
  DType dtype = DType::kF32;
  WeightLayout layout = WeightLayout::kRowMajor;
  int64_t rows = 0;  // per expert
  int64_t cols = 0;
  const std::byte* data = nullptr;
  const std::byte* scales = nullptr;  // kMxfp4: uint8 E8M0; kQ8_0: binary16; null otherwise

  /// Where row `row` begins; of kRows8, where a group begins whose first row it is.
  const std::byte* Row(int64_t row) const { return data + row * static_cast<int64_t>(RowBytes(dtype, cols)); }
  const std::byte* RowScales(int64_t row) const {
    return scales == nullptr ? nullptr : scales + row * static_cast<int64_t>(RowScaleBytes(dtype, cols));
  }
};

/// An adapter of low rank: y += (x a^T) b^T beside a product with another matrix. Both float and row-major, the rank
/// (a.rows and b.cols) a multiple of kRankStep; of experts, one pair each. No rows: no adapter.
struct LowRankUpdate {
  WeightMatrix a;
  WeightMatrix b;
  /// Several adapters stand side by side: ranks kRankStep * i and the following belong to owner[i] (below 32), who
  /// takes part in the row of token t when that bit of active[t] is set. `active` empty: everyone does everywhere.
  const uint8_t* owner = nullptr;         // [a.rows / kRankStep]
  std::span<const uint32_t> active = {};  // [tokens]
  bool any() const { return a.rows > 0; }
};
inline constexpr int64_t kRankStep = 32;

/// What a backend keeps of a batch in its device's memory for all layers of a pass (Ops::bring_batch). Ops that are
/// given none bring what they need themselves.
class BatchOnDevice {
 public:
  virtual ~BatchOnDevice() = default;
};

struct BringBatchArgs {
  const ForwardBatch& batch;
  int num_heads, num_kv_heads, head_dim;
  DType kv_dtype;
};

struct EmbedLookupArgs {
  WeightMatrix table;               // [V, H]
  std::span<const int32_t> tokens;  // [n], each in [0, V)
  float* x;                         // out [n, H]
};

/// y = x / sqrt(mean(x^2) + eps) * scale, per row.
struct RmsNormArgs {
  const float* x;      // [n, width]
  const float* scale;  // [width]
  float eps;
  int64_t n, width;
  float* y;  // out [n, width]; may be x
};

/// y = x W^T + bias, or y += that.
struct LinearArgs {
  const float* x;  // [n, weight.cols]
  int64_t n;
  WeightMatrix weight;
  const float* bias;  // [weight.rows] or null
  bool accumulate;    // add to y (the residual stream) instead of overwriting it
  float* y;           // in/out [n, weight.rows]
  LowRankUpdate adapter = {};
};

/// Keys and values of one layer. Block b, head h, offset o: the head_dim values start at
/// ((b * kv_heads + h) * kKvBlockSize + o) * head_dim.
struct KvLayer {
  DType dtype = DType::kF32;  // kF32 or kBF16
  std::byte* k = nullptr;
  std::byte* v = nullptr;
};

/// The fused projection to q, k and v with bias, rotary embedding of q and k, and the append to the cache.
/// Rotary pairs are (i, i + head_dim/2): (a, b) -> (a cos - b sin, b cos + a sin).
struct QkvRopeArgs {
  const float* x;  // [n, H], normed
  int64_t n;
  WeightMatrix weight;  // [(heads + 2 kv_heads) * head_dim, H]: rows of q, then k, then v
  const float* bias;    // [weight.rows]
  int num_heads, num_kv_heads, head_dim;
  const float* cos;                // [n, head_dim / 2], concentration included
  const float* sin;                // [n, head_dim / 2]
  std::span<const int32_t> slots;  // [n] where each row's k and v go
  KvLayer kv;                      // out
  float* q;                        // out [n, heads * head_dim], after rotation
  LowRankUpdate adapter = {};
  const BatchOnDevice* on_device = nullptr;
  KvGroup kv_group = KvGroup::kSliding;  // whose slots these are, with on_device
};

/// Softmax attention with one sink logit per query head: the sink takes part in the softmax and has no value. Scores
/// are q·k * head_dim^-0.5. Query head h reads kv head h / (heads / kv_heads).
struct AttentionArgs {
  const float* q;  // [n, heads * head_dim]
  int num_heads, num_kv_heads, head_dim;
  std::span<const SequenceSpan> sequences;
  const KvGroupBatch* group;  // block tables
  KvLayer kv;
  int window;          // 0: all earlier positions; else only keys with query_pos - key_pos < window
  const float* sinks;  // [heads], not scaled
  float* out;          // out [n, heads * head_dim]
  const BatchOnDevice* on_device = nullptr;
  KvGroup kv_group = KvGroup::kSliding;  // whose block tables these are, with on_device
};

/// Which experts each token goes to, and the rows regrouped by expert. Filled by the router.
struct Routing {
  int64_t n = 0;
  int num_experts = 0;
  int experts_per_token = 0;          // k
  std::span<int32_t> expert;          // [n, k] by descending logit (ties: lower index first)
  std::span<float> weight;            // [n, k] softmax over the k chosen logits
  std::span<int32_t> expert_offsets;  // [experts + 1] into the grouped rows
  std::span<int32_t> grouped_token;   // [n * k] token of each grouped row; within an expert ascending
  std::span<int32_t> grouped_row;     // [n, k] grouped row of each (token, choice)
};

struct RouterArgs {
  const float* x;       // [n, H], normed
  WeightMatrix weight;  // [E, H]
  const float* bias;    // [E]
  float* logits;        // out [n, E]
  Routing* routing;     // out
  LowRankUpdate adapter = {};
};

/// h[r] = swiglu(x[token(r)] W_e^T + b_e) for each grouped row r of expert e. W_e has 2I rows: even = gate, odd = up.
/// swiglu: gate = min(gate, limit); up = clamp(up, -limit, limit); gate * sigmoid(1.702 gate) * (up + 1).
struct MoeGateUpArgs {
  const float* x;       // [n, H], normed
  WeightMatrix weight;  // experts' [2I, H]
  const float* bias;    // [E, 2I]
  float limit;
  const Routing* routing;
  float* h;  // out [n * k, I], grouped rows
  LowRankUpdate adapter = {};
};

/// x[t] += sum over choices j of routing.weight[t, j] * (h[row(t, j)] W_e^T + b_e), summed in the order of j.
struct MoeDownArgs {
  const float* h;       // [n * k, I], grouped rows
  WeightMatrix weight;  // experts' [H, I]
  const float* bias;    // [E, H]
  const Routing* routing;
  float* x;  // in/out [n, H], the residual stream
  LowRankUpdate adapter = {};
};

/// Copies matrices of the host's memory, which may lie in any layout, to a device, in the layout of its table.
struct BringWeightsArgs {
  WeightMatrix weight;    // on the host
  int64_t count = 1;      // matrices, one after the other: experts
  std::byte* memory;      // on the device: BroughtBytes(weight, count)
  WeightMatrix* brought;  // out: what the other ops take
};
/// Codes, then, at the next multiple of 64, scales.
uint64_t BroughtBytes(const WeightMatrix& weight, int64_t count);

/// False when no token has an owner of `update` that takes part: then it adds nothing.
bool TakesPart(const LowRankUpdate& update);
/// Makes inner [rows, update.a.rows] = x a^T zero where the owner takes no part. tokens [rows]: the token of each row;
/// null: row r is token r. Shared by all backends on the host, like what follows.
void DropInactive(const LowRankUpdate& update, const int32_t* tokens, int64_t rows, float* inner);

/// The k largest of `logits` [num_experts] in descending order, ties by lower index, and their softmax: expert [k],
/// weight [k]. Shared by all backends on the host.
void ChooseExperts(const float* logits, int num_experts, int k, int32_t* expert, float* weight);

/// Fills Routing's expert_offsets, grouped_token and grouped_row from `expert`. Shared by all backends on the host.
void GroupByExpert(Routing* routing);

/// A forward pass at its largest.
struct StepShape {
  int64_t rows = 0, sequences = 0;
  int positions = 0;  // of the longest sequence
  int num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int64_t hidden_size = 0, intermediate_size = 0, experts_per_token = 0;
  int64_t adapter_rank = 0;  // of the largest update; 0: no adapter
  bool brings_weights = false;
};

struct Ops {
  std::string_view name;  // e.g. "reference", "avx2", "avx2-exact"
  /// The arrangement of MXFP4 and Q8_0 matrices that these ops read fastest, and whether they read all others, too.
  WeightLayout weight_layout = WeightLayout::kRowMajor;
  bool reads_all_layouts = true;
  /// A row's results are the same, bit for bit, in every batch of at most this many rows.
  int32_t invariant_rows = INT32_MAX;
  /// Bytes of scratch that an op takes at most, so that they can be reserved; null where they come when needed.
  uint64_t (*scratch_bytes)(const StepShape&) = nullptr;
  /// Beside a table for another device than the host: what computes the layers that stay on the host.
  const Ops* host = nullptr;
  /// What samples on the device; null where its memory is the host's.
  const struct LogitOps* logits = nullptr;
  void (*embed_lookup)(ExecContext&, const EmbedLookupArgs&) = nullptr;
  void (*rms_norm)(ExecContext&, const RmsNormArgs&) = nullptr;
  void (*linear)(ExecContext&, const LinearArgs&) = nullptr;
  void (*qkv_rope)(ExecContext&, const QkvRopeArgs&) = nullptr;
  void (*attention)(ExecContext&, const AttentionArgs&) = nullptr;
  void (*router)(ExecContext&, const RouterArgs&) = nullptr;
  void (*moe_gate_up)(ExecContext&, const MoeGateUpArgs&) = nullptr;
  void (*moe_down)(ExecContext&, const MoeDownArgs&) = nullptr;
  // Both null where memory is the host's. The batch's memory is scratch, taken by the caller's frame.
  void (*bring_weights)(ExecContext&, const BringWeightsArgs&) = nullptr;
  std::unique_ptr<BatchOnDevice> (*bring_batch)(ExecContext&, const BringBatchArgs&) = nullptr;
};

/// The plain implementation: float, one thread, any dtype. Never optimised.
const Ops& ReferenceOps();

}  // namespace gptoss
