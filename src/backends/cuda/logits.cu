// What sampling asks of a row of logits (ops/logit_ops.h). The vocabulary is cut into chunks of kChunk; each gives its
// largest key and its sum, which one block then goes through in order, so that results do not depend on which block
// came first.
#include "backends/cuda/launch.cuh"

namespace gptoss::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kThreadLogits = 4;  // that lie side by side
constexpr int kChunk = kThreads * kThreadLogits;
constexpr unsigned kSelectThreads = 1024;
constexpr int kDigitBits = 11;  // of a key: the first digit is sign, exponent and two bits of mantissa
constexpr int kDigits = 1 << kDigitBits;
constexpr int kGroup = 32;  // digits that one thread adds up

using Key = LogitKey;

__device__ Key KeyOf(float logit, int64_t id) {
  uint32_t bits = __float_as_uint(logit);
  if ((bits & 0x7F800000u) == 0x7F800000u) return 0;
  if (bits == 0x80000000u) bits = 0;  // minus zero ties with zero
  const uint32_t order = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<Key>(order) << 32 | (0xFFFFFFFFu - static_cast<uint32_t>(id));
}

__device__ float LogitOf(Key key) {
  const auto order = static_cast<uint32_t>(key >> 32);
  return __uint_as_float((order & 0x80000000u) != 0 ? order & 0x7FFFFFFFu : ~order);
}

struct Row {
  const float* logits;
  int64_t vocab;
  float inverse_temperature;
  /// Key 0 past the end.
  __device__ Key At(int64_t id) const { return id < vocab ? KeyOf(logits[id], id) : 0; }
  __device__ double Weight(Key key, float largest) const {
    return key == 0 ? 0.0 : static_cast<double>(expf((LogitOf(key) - largest) * inverse_temperature));
  }
};

__device__ Key LargerKey(Key a, Key b) { return a > b ? a : b; }

/// The largest of all threads' keys, for all threads. shared [kThreads / kWarp] is read until the block's next barrier.
__device__ Key LargestInBlock(Key key, Key* shared) {
  key = OverWarp(key, LargerKey);
  if (Lane() == 0) shared[WarpInBlock()] = key;
  __syncthreads();
  key = shared[0];
  for (int w = 1; w < kThreads / kWarp; ++w) key = LargerKey(key, shared[w]);
  return key;
}

/// The largest of `count` keys.
__device__ Key LargestOf(const Key* keys, int count, Key* shared) {
  Key largest = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) largest = LargerKey(largest, keys[i]);
  return LargestInBlock(largest, shared);
}

/// largest [chunks].
__global__ void ChunkLargestKernel(Row row, Key* largest) {
  GPTOSS_SHARED(Key, shared);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kChunk + threadIdx.x * kThreadLogits;
  Key key = 0;
  for (int i = 0; i < kThreadLogits; ++i) key = LargerKey(key, row.At(first + i));
  key = LargestInBlock(key, shared);
  if (threadIdx.x == 0) largest[blockIdx.x] = key;
}

__global__ void LargestKernel(const Key* chunk_largest, int chunks, Key* largest) {
  GPTOSS_SHARED(Key, shared);
  const Key key = LargestOf(chunk_largest, chunks, shared);
  if (threadIdx.x == 0) *largest = key;
}

/// Shared by sums and draws, whose partial sums must be the same.
struct SumMemory {
  Key keys[kThreads / kWarp];
  double sums[kThreads];
};

/// The weights of a chunk by threads, in memory.sums, and their sum in thread 0.
__device__ double SumChunk(const Row& row, int chunk, float largest, SumMemory& memory) {
  const int64_t first = static_cast<int64_t>(chunk) * kChunk + threadIdx.x * kThreadLogits;
  double sum = 0.0;
  for (int i = 0; i < kThreadLogits; ++i) sum += row.Weight(row.At(first + i), largest);
  memory.sums[threadIdx.x] = sum;
  __syncthreads();
  sum = 0.0;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kThreads; ++i) sum += memory.sums[i];
  }
  return sum;
}

/// sums [chunks].
__global__ void ChunkSumsKernel(Row row, const Key* chunk_largest, int chunks, double* sums) {
  GPTOSS_SHARED(SumMemory, memory);
  const Key largest = LargestOf(chunk_largest, chunks, memory->keys);
  const double sum = SumChunk(row, static_cast<int>(blockIdx.x), LogitOf(largest), *memory);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__device__ double TotalOf(const double* sums, int chunks) {
  double total = 0.0;
  for (int c = 0; c < chunks; ++c) total += sums[c];
  return total;
}

__global__ void TotalKernel(const Key* chunk_largest, const double* sums, int chunks, LogitSums* out) {
  GPTOSS_SHARED(Key, shared);
  const Key largest = LargestOf(chunk_largest, chunks, shared);
  if (threadIdx.x != 0) return;
  out->largest = largest;
  out->total = TotalOf(sums, chunks);
}

/// Index of the sum at which the running sum, from `reached` on, first exceeds `target`; the last sum that is not zero
/// where rounding keeps it from that. `reached` becomes the sum before it.
__device__ int Find(const double* sums, int count, double target, double& reached) {
  int found = 0;
  double before = reached;
  for (int i = 0; i < count; ++i) {
    if (!(sums[i] > 0.0)) continue;
    found = i;
    before = reached;
    reached += sums[i];
    if (reached > target) break;
  }
  reached = before;
  return found;
}

struct DrawMemory {
  SumMemory chunk;
  double target, reached;
  int found;
};

__global__ void DrawKernel(Row row, const Key* chunk_largest, const double* sums, int chunks, double uniform,
                           Key* drawn) {
  GPTOSS_SHARED(DrawMemory, memory);
  const Key largest_key = LargestOf(chunk_largest, chunks, memory->chunk.keys);
  const float largest = LogitOf(largest_key);
  if (threadIdx.x == 0) {
    memory->target = uniform * TotalOf(sums, chunks);
    memory->reached = 0.0;
    memory->found = Find(sums, chunks, memory->target, memory->reached);
  }
  __syncthreads();
  const int chunk = memory->found;
  SumChunk(row, chunk, largest, memory->chunk);
  if (threadIdx.x != 0) return;
  double reached = memory->reached;
  const int thread = Find(memory->chunk.sums, kThreads, memory->target, reached);
  const int64_t first = static_cast<int64_t>(chunk) * kChunk + thread * kThreadLogits;
  double weights[kThreadLogits];
  for (int i = 0; i < kThreadLogits; ++i) weights[i] = row.Weight(row.At(first + i), largest);
  const Key found = row.At(first + Find(weights, kThreadLogits, memory->target, reached));
  *drawn = largest_key == 0 ? 0 : found;
}

struct SelectMemory {
  unsigned histogram[kDigits], groups[kDigits / kGroup];
  Key prefix;      // of the keys that are still in question
  unsigned left;   // of these, how many are wanted
  unsigned whole;  // all of them are
  unsigned taken;
};

/// Finds the digit (bits low … high - 1) of the last wanted key among those with the prefix.
__device__ void ChooseDigit(int low, SelectMemory& m) {
  for (unsigned g = threadIdx.x; g < kDigits / kGroup; g += blockDim.x) {
    m.groups[g] = 0;
    for (int i = 0; i < kGroup; ++i) m.groups[g] += m.histogram[g * kGroup + i];
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int g = kDigits / kGroup - 1;
    while (g > 0 && m.groups[g] < m.left) m.left -= m.groups[g--];
    int digit = g * kGroup + kGroup - 1;
    while (digit > g * kGroup && m.histogram[digit] < m.left) m.left -= m.histogram[digit--];
    m.prefix |= static_cast<Key>(digit) << low;
    m.whole = m.histogram[digit] == m.left ? 1 : 0;
  }
  __syncthreads();
}

/// One block. Selection by digits from the highest on, then one pass that collects. keys [count].
__global__ void LikeliestKernel(Row row, int64_t count, Key* keys) {
  GPTOSS_SHARED(SelectMemory, m);
  const int64_t begin = threadIdx.x, step = blockDim.x;
  for (int64_t i = begin; i < count; i += step) keys[i] = 0;
  if (threadIdx.x == 0) {
    m->prefix = 0;
    m->left = static_cast<unsigned>(count);
    m->whole = 0;
    m->taken = 0;
  }
  for (int high = 64; high > 0 && (high == 64 || m->whole == 0); high -= kDigitBits) {
    const int low = max(high - kDigitBits, 0);
    for (int64_t i = begin; i < kDigits; i += step) m->histogram[i] = 0;
    __syncthreads();
    for (int64_t i = begin; i < row.vocab; i += step) {
      const Key key = row.At(i);
      if (high < 64 && key >> high != m->prefix >> high) continue;
      atomicAdd(&m->histogram[key >> low & (kDigits - 1)], 1u);
    }
    __syncthreads();
    ChooseDigit(low, *m);
  }
  for (int64_t i = begin; i < row.vocab; i += step) {
    const Key key = row.At(i);
    if (key != 0 && key >= m->prefix) keys[atomicAdd(&m->taken, 1u)] = key;
  }
}

__global__ void ReadKernel(const float* row, const int32_t* ids, int64_t count, float* values) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) values[i] = row[ids[i]];
}

__global__ void WriteKernel(float* row, const int32_t* ids, int64_t count, const float* values) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) row[ids[i]] = values[i];
}

__global__ void ForbidKernel(float* row, int64_t vocab, const uint64_t* mask) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < vocab && (mask[i / 64] >> (i % 64) & 1) == 0) row[i] = -INFINITY;
}

dim3 GridOf(int64_t items) { return dim3{BlocksFor(items, kThreads), 1, 1}; }

/// Fills scratch.largest; returns the number of chunks.
int FindLargestOfChunks(Stream stream, const Row& row, const LogitScratch& scratch) {
  const int chunks = LogitChunks(row.vocab);
  Launch(stream, dim3{static_cast<unsigned>(chunks), 1, 1}, kThreads, sizeof(SumMemory::keys), ChunkLargestKernel, row,
         scratch.largest);
  return chunks;
}

/// Fills both; returns the number of chunks.
int SumUpChunks(Stream stream, const Row& row, const LogitScratch& scratch) {
  const int chunks = FindLargestOfChunks(stream, row, scratch);
  Launch(stream, dim3{static_cast<unsigned>(chunks), 1, 1}, kThreads, sizeof(SumMemory), ChunkSumsKernel, row,
         scratch.largest, chunks, scratch.sums);
  return chunks;
}

}  // namespace

int LogitChunks(int64_t vocab) { return static_cast<int>(BlocksFor(vocab, kChunk)); }

void ReadLogits(Stream stream, const float* row, const int32_t* ids, int64_t count, float* values) {
  Launch(stream, GridOf(count), kThreads, 0, ReadKernel, row, ids, count, values);
}

void WriteLogits(Stream stream, float* row, const int32_t* ids, int64_t count, const float* values) {
  Launch(stream, GridOf(count), kThreads, 0, WriteKernel, row, ids, count, values);
}

void ForbidLogits(Stream stream, float* row, int64_t vocab, const uint64_t* mask) {
  Launch(stream, GridOf(vocab), kThreads, 0, ForbidKernel, row, vocab, mask);
}

void LargestLogit(Stream stream, const float* logits, int64_t vocab, const LogitScratch& scratch, LogitKey* key) {
  const int chunks = FindLargestOfChunks(stream, Row{logits, vocab, 1.0f}, scratch);
  Launch(stream, dim3{1, 1, 1}, kThreads, sizeof(SumMemory::keys), LargestKernel, scratch.largest, chunks, key);
}

void SumLogits(Stream stream, const float* logits, int64_t vocab, float inverse_temperature,
               const LogitScratch& scratch, LogitSums* sums) {
  const int chunks = SumUpChunks(stream, Row{logits, vocab, inverse_temperature}, scratch);
  Launch(stream, dim3{1, 1, 1}, kThreads, sizeof(SumMemory::keys), TotalKernel, scratch.largest, scratch.sums, chunks,
         sums);
}

void DrawLogit(Stream stream, const float* logits, int64_t vocab, float inverse_temperature, double uniform,
               const LogitScratch& scratch, LogitKey* drawn) {
  const Row row{logits, vocab, inverse_temperature};
  const int chunks = SumUpChunks(stream, row, scratch);
  Launch(stream, dim3{1, 1, 1}, kThreads, sizeof(DrawMemory), DrawKernel, row, scratch.largest, scratch.sums, chunks,
         uniform, drawn);
}

void LikeliestLogits(Stream stream, const float* logits, int64_t vocab, int64_t count, LogitKey* keys) {
  Launch(stream, dim3{1, 1, 1}, kSelectThreads, sizeof(SelectMemory), LikeliestKernel, Row{logits, vocab, 1.0f}, count,
         keys);
}

}  // namespace gptoss::cuda
