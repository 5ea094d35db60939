#include "engine/expert_offload.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

namespace gptoss {
namespace {

constexpr size_t kUploadBytes = size_t{64} << 20;
constexpr int kUploads = 4;

/// Of the multiply-add peak, what a prefill of 64 and more tokens measured (docs/performance.md): 59 to 83 %.
constexpr double kReachedShare = 0.65;

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
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, static_cast<double>(kUploadBytes) / std::max(seconds, 1e-9));
  }
  return best;
}

double HostMacs(double flop_s) { return kReachedShare * flop_s / 2; }

int64_t RowsToBring(const ModelConfig& config, uint64_t layer_bytes, const OffloadRates& rates) {
  const double macs_a_row =
      3.0 * config.experts_per_token * static_cast<double>(config.hidden_size) * config.intermediate_size;
  const double rows = static_cast<double>(layer_bytes) / rates.upload_bytes_s * rates.host_macs_s / macs_a_row;
  constexpr double kMost = 1e15;  // and not a number: no pass is that large
  return rows < kMost ? static_cast<int64_t>(std::ceil(rows)) : std::numeric_limits<int64_t>::max();
}

}  // namespace gptoss
