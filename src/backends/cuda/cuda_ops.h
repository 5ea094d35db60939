// The op table of CUDA GPUs. It works in memory of the device of the ExecContext; spans of tokens, slots, sequences and
// block tables are the host's.
#pragma once

#include "ops/logit_ops.h"
#include "ops/ops.h"

namespace gptoss::cuda {

/// Products with more rows than this, of weights in MXFP4, Q8_0 or BF16, and attention of sequences with more rows in
/// the batch, of a BF16 cache, take the tensor cores, where a row's sum has another order.
inline constexpr int32_t kFewRows = 16;

extern const LogitOps kLogitOps;  // of both tables

/// Activations, and what attention multiplies, in float or as two BF16 with 16 bits of mantissa. Attention heads have
/// at most 128 values.
const Ops& FastOps();
/// Float everywhere, at the speed of it.
const Ops& ExactOps();

}  // namespace gptoss::cuda
