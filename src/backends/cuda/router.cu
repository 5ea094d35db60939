// The choice of experts and the tables that group rows by expert.
#include <climits>

#include "backends/cuda/launch.cuh"
#include "base/check.h"

namespace gptoss::cuda {
namespace {

constexpr int kMaxExperts = 1024;
constexpr unsigned kThreads = 256;
constexpr unsigned kGroupThreads = 1024;

struct Arguments {
  int64_t n;
  int experts, k;
  int32_t* expert;
  float* weight;
  int32_t *offsets, *token, *row;
};

struct Candidate {
  float logit;
  int expert;
};

/// The better of two: larger logit, then lower index.
__device__ Candidate Better(Candidate a, Candidate b) {
  return a.logit > b.logit || (a.logit == b.logit && a.expert < b.expert) ? a : b;
}

/// One warp a token; `k` rounds of finding the largest logit that is left. What is not a number counts as minus
/// infinity, so that every choice is an expert.
__global__ void ChooseKernel(const float* logits, Arguments a) {
  const int64_t token = static_cast<int64_t>(blockIdx.x) * (blockDim.x / kWarp) + WarpInBlock();
  if (token >= a.n) return;
  unsigned taken = 0;  // bit i: expert lane + 32 i
  float largest = 0.0f, sum = 0.0f;
  for (int j = 0; j < a.k; ++j) {
    Candidate best{-INFINITY, INT_MAX};
    for (int e = Lane(), i = 0; e < a.experts; e += kWarp, ++i) {
      const float logit = logits[token * a.experts + e];
      if ((taken >> i & 1u) == 0) best = Better(Candidate{logit == logit ? logit : -INFINITY, e}, best);
    }
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
      best = Better(best, Candidate{__shfl_xor_sync(kAllLanes, best.logit, distance),
                                    __shfl_xor_sync(kAllLanes, best.expert, distance)});
    }
    if (best.expert % kWarp == Lane()) taken |= 1u << (best.expert / kWarp);
    if (j == 0) largest = best.logit;
    const float weight = expf(best.logit - largest);
    sum += weight;
    if (Lane() == 0) {
      a.expert[token * a.k + j] = best.expert;
      a.weight[token * a.k + j] = weight;
    }
  }
  if (Lane() == 0) {
    for (int j = 0; j < a.k; ++j) a.weight[token * a.k + j] /= sum;
  }
}

/// Choices of `expert`, in ascending order: how many, and with `begin` not negative their places in the tables, too.
__device__ int Scan(const Arguments& a, int expert, int begin) {
  const int64_t choices = a.n * a.k;
  int count = 0;
  for (int64_t first = 0; first < choices; first += kWarp) {
    const int64_t i = first + Lane();
    const bool mine = i < choices && a.expert[i] == expert;
    const unsigned all = __ballot_sync(kAllLanes, mine ? 1 : 0);
    if (mine && begin >= 0) {
      const int place = begin + count + __popc(all & ((1u << Lane()) - 1u));
      a.token[place] = static_cast<int32_t>(i / a.k);
      a.row[i] = place;
    }
    count += __popc(all);
  }
  return count;
}

/// One block; a warp an expert.
__global__ void GroupKernel(Arguments a) {
  GPTOSS_SHARED(int32_t, counts);
  const auto warps = static_cast<int>(blockDim.x / kWarp);
  for (int e = WarpInBlock(); e < a.experts; e += warps) {
    const int count = Scan(a, e, -1);
    if (Lane() == 0) counts[e] = count;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t sum = 0;
    for (int e = 0; e < a.experts; ++e) {
      const int32_t count = counts[e];
      a.offsets[e] = counts[e] = sum;
      sum += count;
    }
    a.offsets[a.experts] = sum;
  }
  __syncthreads();
  for (int e = WarpInBlock(); e < a.experts; e += warps) Scan(a, e, counts[e]);
}

}  // namespace

void Route(Stream stream, const float* logits, const Routing& routing) {
  GPTOSS_CHECK(routing.num_experts <= kMaxExperts);
  const Arguments a{routing.n,
                    routing.num_experts,
                    routing.experts_per_token,
                    routing.expert.data(),
                    routing.weight.data(),
                    routing.expert_offsets.data(),
                    routing.grouped_token.data(),
                    routing.grouped_row.data()};
  if (a.n > 0) {
    Launch(stream, dim3{BlocksFor(a.n, kThreads / kWarp), 1, 1}, kThreads, 0, ChooseKernel, logits, a);
  }
  Launch(stream, dim3{1, 1, 1}, kGroupThreads, sizeof(int32_t) * static_cast<size_t>(a.experts), GroupKernel, a);
}

}  // namespace gptoss::cuda
