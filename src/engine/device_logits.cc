#include "engine/device_logits.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace gptoss {
namespace {

TokenLogit TokenOf(LogitKey key) { return key == 0 ? TokenLogit{} : TokenLogit{IdOfKey(key), LogitOfKey(key)}; }

}  // namespace

uint64_t DeviceLogits::ScratchBytes(int64_t vocab) {
  constexpr uint64_t kResults = kMostLikeliest * sizeof(LogitKey) + sizeof(LogitSums);
  constexpr uint64_t kAlignment = 64;  // of each allocation
  return LogitScratchBytes(vocab) + static_cast<uint64_t>(vocab) * sizeof(float) + kResults + 3 * kAlignment;
}

Status DeviceLogits::Read(std::span<const int32_t> ids, std::span<float> values) {
  if (brought()) return on_host_.Read(ids, values);
  if (ids.empty()) return {};
  const ScratchFrame frame(context_.scratch);
  float* found = context_.scratch.Allocate<float>(ids.size());
  ops_.read(context_, row_, ids, found);
  context_.device().Download(values.data(), found, values.size_bytes());
  return context_.device().Wait();
}

Status DeviceLogits::Write(std::span<const int32_t> ids, std::span<const float> values) {
  if (brought()) return on_host_.Write(ids, values);
  if (!ids.empty()) ops_.write(context_, row_, ids, values);
  return {};
}

Status DeviceLogits::Forbid(std::span<const uint64_t> mask) {
  if (brought()) return on_host_.Forbid(mask);
  ops_.forbid(context_, row_, vocab(), mask);
  return {};
}

template <class Op>
Result<TokenLogit> DeviceLogits::Fetch(const Op& op) {
  const ScratchFrame frame(context_.scratch);
  LogitKey* on_device = context_.scratch.Allocate<LogitKey>(1);
  op(on_device);
  LogitKey key = 0;
  context_.device().Download(&key, on_device, sizeof(key));
  GPTOSS_RETURN_IF_ERROR(context_.device().Wait());
  return TokenOf(key);
}

Result<TokenLogit> DeviceLogits::Largest() {
  if (brought()) return on_host_.Largest();
  return Fetch([&](LogitKey* key) { ops_.largest(context_, row_, vocab(), key); });
}

Result<DeviceLogits::Likely> DeviceLogits::FindLikeliest(float inverse_temperature, size_t count) {
  const ScratchFrame frame(context_.scratch);
  LogitSums* sums = context_.scratch.Allocate<LogitSums>(1);
  ops_.sum(context_, row_, vocab(), inverse_temperature, sums);
  LogitKey* found = context_.scratch.Allocate<LogitKey>(count);
  if (count > 0) ops_.likeliest(context_, row_, vocab(), static_cast<int64_t>(count), found);
  Likely likely;
  std::vector<LogitKey> keys(count);
  context_.device().Download(&likely.sums, sums, sizeof(LogitSums));
  if (count > 0) context_.device().Download(keys.data(), found, count * sizeof(LogitKey));
  GPTOSS_RETURN_IF_ERROR(context_.device().Wait());
  std::ranges::sort(keys, std::greater());
  for (LogitKey key : keys) {
    if (key != 0) likely.likeliest.push_back(TokenOf(key));
  }
  return likely;
}

Result<LogitSummary> DeviceLogits::Summarize(size_t count) {
  count = std::min(count, vocab_);
  if (count > kMostLikeliest) GPTOSS_RETURN_IF_ERROR(OnHost().status());
  if (brought()) return on_host_.Summarize(count);
  GPTOSS_ASSIGN_OR_RETURN(Likely likely, FindLikeliest(1.0f, count));
  if (likely.sums.largest == 0) return LogitSummary{};
  return LogitSummary{static_cast<double>(LogitOfKey(likely.sums.largest)) + std::log(likely.sums.total),
                      std::move(likely.likeliest)};
}

Result<TokenLogit> DeviceLogits::Draw(const DrawParams& params) {
  if (brought()) return on_host_.Draw(params);
  const bool top_k = params.top_k > 0 && static_cast<size_t>(params.top_k) < vocab_;
  if (!top_k && params.top_p >= 1 && params.min_p <= 0) {
    return Fetch(
        [&](LogitKey* key) { ops_.draw(context_, row_, vocab(), InverseTemperature(params), params.uniform, key); });
  }
  if (!top_k || static_cast<size_t>(params.top_k) <= kMostLikeliest) {
    const size_t count = top_k ? static_cast<size_t>(params.top_k) : std::min(kMostLikeliest, vocab_);
    GPTOSS_ASSIGN_OR_RETURN(const Likely likely, FindLikeliest(InverseTemperature(params), count));
    if (likely.sums.largest == 0) return TokenLogit{};
    const bool all = count == vocab_ || likely.likeliest.size() < count;
    if (const auto drawn = DrawFromLikeliest(likely.likeliest, all, likely.sums.total, params)) return *drawn;
  }
  GPTOSS_RETURN_IF_ERROR(OnHost().status());
  return on_host_.Draw(params);
}

Result<std::span<float>> DeviceLogits::OnHost() {
  if (!brought()) {
    host_->logits.resize(vocab_);
    context_.device().Download(host_->logits.data(), row_, vocab_ * sizeof(float));
    GPTOSS_RETURN_IF_ERROR(context_.device().Wait());
    on_host_ = HostLogits(host_->logits, &host_->weights);
  }
  return on_host_.OnHost();
}

}  // namespace gptoss
