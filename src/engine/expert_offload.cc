#include "engine/expert_offload.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <vector>

namespace gptoss {
namespace {

constexpr size_t kUploadBytes = size_t{64} << 20;
constexpr int kUploads = 4;

/// A product of this shape takes 10 ms at 100 GMAC/s.
constexpr int64_t kProductRows = 128, kOutputs = 2880, kColumns = 2880;
constexpr int kProducts = 4;

double SecondsFrom(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Result<double> MeasureUpload(Device& device) {
  GPTOSS_ASSIGN_OR_RETURN(DeviceBuffer to, DeviceBuffer::Allocate(device, kUploadBytes));
  GPTOSS_ASSIGN_OR_RETURN(DeviceBuffer from, DeviceBuffer::Allocate(HostDevice(), kUploadBytes));
  GPTOSS_RETURN_IF_ERROR(from.Commit());
  double best = 0;
  for (int i = 0; i < kUploads; ++i) {
    const auto start = std::chrono::steady_clock::now();
    device.Upload(to.data(), from.data(), kUploadBytes);
    GPTOSS_RETURN_IF_ERROR(device.Wait());
    best = std::max(best, static_cast<double>(kUploadBytes) / std::max(SecondsFrom(start), 1e-9));
  }
  return best;
}

Result<double> MeasureHostMacs(const Ops& ops, ThreadPool& pool) {
  WeightMatrix w{.dtype = DType::kQ8_0, .layout = ops.weight_layout, .rows = kOutputs, .cols = kColumns};
  const uint64_t codes = kOutputs * RowBytes(w.dtype, kColumns), scales = kOutputs * RowScaleBytes(w.dtype, kColumns);
  constexpr uint64_t kSlack = 4096;  // for kernels that read whole vectors
  GPTOSS_ASSIGN_OR_RETURN(HostBuffer weights, HostBuffer::Allocate(codes + scales + kSlack));
  GPTOSS_RETURN_IF_ERROR(weights.Commit());
  w.data = weights.data();
  w.scales = weights.data() + codes;
  const std::vector<float> x(kProductRows * kColumns, 1.0f);
  std::vector<float> y(kProductRows * kOutputs);
  ScratchArena scratch;
  ExecContext context{pool, scratch};
  double best = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kProducts && (i == 0 || SecondsFrom(begin) < 0.2); ++i) {
    const auto start = std::chrono::steady_clock::now();
    ops.linear(context, {x.data(), kProductRows, w, nullptr, false, y.data()});
    best = std::max(best, static_cast<double>(kProductRows * kOutputs * kColumns) / std::max(SecondsFrom(start), 1e-9));
  }
  return best;
}

int64_t RowsToBring(const ModelConfig& config, uint64_t layer_bytes, const OffloadRates& rates) {
  const double macs_a_row =
      3.0 * config.experts_per_token * static_cast<double>(config.hidden_size) * config.intermediate_size;
  const double rows = static_cast<double>(layer_bytes) / rates.upload_bytes_s * rates.host_macs_s / macs_a_row;
  constexpr double kMost = 1e15;  // and not a number: no pass is that large
  return rows < kMost ? static_cast<int64_t>(std::ceil(rows)) : std::numeric_limits<int64_t>::max();
}

}  // namespace gptoss
