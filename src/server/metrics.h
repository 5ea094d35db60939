// Counters and histograms, written in the text format of Prometheus
// (prometheus.io/docs/instrumenting/exposition_formats).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "server/http_server.h"
#include "server/turn.h"

namespace gptoss::server {

class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds) : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}
  void Add(double value);
  void Write(const std::string& name, const std::string& help, std::string* out) const;

 private:
  std::vector<double> bounds_;    // upper, ascending
  std::vector<uint64_t> counts_;  // the last: above all bounds
  double sum_ = 0;
};

/// Thread-safe.
class Metrics {
 public:
  Metrics();
  void OnRequest(const RequestRecord& record);
  void OnTurn(const TurnResult& result);
  std::string Text(const EngineStats& engine, size_t connections) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, uint64_t> requests_;  // by route and status
  std::map<std::string, uint64_t> turns_;                     // by end
  uint64_t reasoning_tokens_ = 0;
  Histogram request_seconds_, queue_seconds_, prefill_seconds_, token_seconds_;
};

/// `turns` with every turn counted. Both must outlive the result.
std::unique_ptr<TurnService> CountTurns(TurnService& turns, Metrics& metrics);

}  // namespace gptoss::server
