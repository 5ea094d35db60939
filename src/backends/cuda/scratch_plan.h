// How attention is cut into blocks, and the scratch memory that follows: arithmetic of the host, in every build, so
// that a model can be planned where there is no GPU.
#pragma once

#include <cstdint>

#include "ops/ops.h"

namespace gptoss::cuda {

/// Positions whose scores are summed apart and then joined, aligned to absolute positions.
inline constexpr int kAttentionChunk = 512;
/// Query heads that share a key/value head and a block, one warp each.
inline constexpr int kHeadsInBlock = 8;

/// Query vectors that a block of tiled attention takes.
inline constexpr int kTileVectors = 64;

/// Scratch memory through which weights come from the host.
inline constexpr int64_t kStagingBytes = int64_t{16} << 20;

/// Blocks of one row, when its chunks are not apart.
int64_t HeadBlocks(const AttentionArgs& args);
/// Chunks that one row can touch when no position is beyond `longest`.
int MostChunks(const AttentionArgs& args, int longest);
/// Floats of scratch that Attention needs for n rows of sequences of at most `longest` positions; 0 when a row's chunks
/// are taken by one block one after the other.
int64_t AttentionScratch(const AttentionArgs& args, int64_t n, int longest);
/// The most of it that any batch of up to n rows needs.
int64_t MostAttentionScratch(const AttentionArgs& args, int64_t n, int longest);

/// Ops::scratch_bytes of this backend's tables.
uint64_t ScratchBytes(const StepShape& step);

}  // namespace gptoss::cuda
