#include "ops/logit_ops.h"

#include "backends/cuda/cuda_ops.h"
#include "backends/cuda/upload.h"

namespace gptoss::cuda {
namespace {

LogitScratch ScratchOf(ExecContext& context, int64_t vocab) {
  const auto chunks = static_cast<size_t>(LogitChunks(vocab));
  return {context.scratch.Allocate<LogitKey>(chunks), context.scratch.Allocate<double>(chunks)};
}

void Read(ExecContext& context, const float* row, std::span<const int32_t> ids, float* values) {
  const ScratchFrame frame(context.scratch);
  ReadLogits(StreamOf(context), row, ToDevice(context, ids), static_cast<int64_t>(ids.size()), values);
}

void Write(ExecContext& context, float* row, std::span<const int32_t> ids, std::span<const float> values) {
  const ScratchFrame frame(context.scratch);
  WriteLogits(StreamOf(context), row, ToDevice(context, ids), static_cast<int64_t>(ids.size()),
              ToDevice(context, values));
}

void Forbid(ExecContext& context, float* row, int64_t vocab, std::span<const uint64_t> mask) {
  const ScratchFrame frame(context.scratch);
  ForbidLogits(StreamOf(context), row, vocab, ToDevice(context, mask));
}

void Largest(ExecContext& context, const float* row, int64_t vocab, LogitKey* key) {
  const ScratchFrame frame(context.scratch);
  LargestLogit(StreamOf(context), row, vocab, ScratchOf(context, vocab), key);
}

void Sum(ExecContext& context, const float* row, int64_t vocab, float inverse_temperature, LogitSums* sums) {
  const ScratchFrame frame(context.scratch);
  SumLogits(StreamOf(context), row, vocab, inverse_temperature, ScratchOf(context, vocab), sums);
}

void Draw(ExecContext& context, const float* row, int64_t vocab, float inverse_temperature, double uniform,
          LogitKey* drawn) {
  const ScratchFrame frame(context.scratch);
  DrawLogit(StreamOf(context), row, vocab, inverse_temperature, uniform, ScratchOf(context, vocab), drawn);
}

void Likeliest(ExecContext& context, const float* row, int64_t vocab, int64_t count, LogitKey* keys) {
  LikeliestLogits(StreamOf(context), row, vocab, count, keys);
}

}  // namespace

const LogitOps kLogitOps = {.read = Read,
                            .write = Write,
                            .forbid = Forbid,
                            .largest = Largest,
                            .sum = Sum,
                            .likeliest = Likeliest,
                            .draw = Draw};

}  // namespace gptoss::cuda
