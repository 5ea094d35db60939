// API keys: who may use the server, and how much. Keys are kept as digests and compared in constant time.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "server/http.h"
#include "server/openai/errors.h"

namespace gptoss::server {

struct AccessKey {
  std::string name;                  // in logs and as the owner of stored responses
  std::array<uint8_t, 32> digest{};  // SHA-256
  int requests_per_minute = 0;       // 0: no limit
  int concurrent = 0;                // 0: no limit
};

/// One key a line: "KEY", or "NAME KEY [requests_per_minute=N] [concurrent=N]"; empty lines and those that begin with
/// '#' do not count. Keys without a name are key1, key2, … On failure: kInvalidArgument naming the line, never the key.
Result<std::vector<AccessKey>> ParseAccessKeys(std::string_view text);

/// Thread-safe.
class AccessControl {
 public:
  /// No keys at all: everybody may.
  void SetKeys(std::vector<AccessKey> keys);
  bool has_keys() const;

  /// The key of "Authorization: Bearer KEY", "x-api-key: KEY" or "api-key: KEY". Sets the request's key_name and counts
  /// the request, which Release ends. On refusal: 401, or 429 with Retry-After.
  std::optional<ApiError> Admit(HttpRequest& request);
  void Release(const std::string& key_name);

 private:
  struct Use {
    int concurrent = 0;
    double allowance = 0;  // requests that may still come at once; grows with time
    std::chrono::steady_clock::time_point updated;
  };
  mutable std::mutex mutex_;
  std::vector<AccessKey> keys_;
  std::map<std::string, Use> uses_;  // by key name
};

}  // namespace gptoss::server
