#include "server/access_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>
#include <utility>

namespace gptoss::server {
namespace {

std::array<uint8_t, 32> DigestOf(std::string_view key) {
  std::array<uint8_t, 32> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

std::string_view ShownKey(const HttpRequest& request) {
  const std::string_view authorization = request.Header("authorization");
  constexpr std::string_view kBearer = "bearer ";
  const bool bearer = authorization.size() > kBearer.size() &&
                      std::equal(kBearer.begin(), kBearer.end(), authorization.begin(),
                                 [](char a, char b) { return a == (b >= 'A' && b <= 'Z' ? b + 32 : b); });
  if (bearer) return authorization.substr(kBearer.size());
  const std::string_view anthropic = request.Header("x-api-key");
  return anthropic.empty() ? request.Header("api-key") : anthropic;
}

Status ReadLimit(const std::string& word, const std::string& where, AccessKey* key) {
  const size_t equals = word.find('=');
  const std::string name = word.substr(0, equals);
  int value = 0;
  const char* end = word.data() + word.size();
  const bool number = equals != std::string::npos &&
                      std::from_chars(word.data() + equals + 1, end, value) == std::from_chars_result{end, std::errc()};
  if (!number || value < 1 || (name != "requests_per_minute" && name != "concurrent")) {
    return InvalidArgument(where + ": after the key come requests_per_minute=N and concurrent=N only");
  }
  (name == "concurrent" ? key->concurrent : key->requests_per_minute) = value;
  return {};
}

}  // namespace

Result<std::vector<AccessKey>> ParseAccessKeys(std::string_view text) {
  std::vector<AccessKey> keys;
  std::istringstream lines{std::string(text)};
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    const std::string where = "line " + std::to_string(++number);
    std::istringstream words(line);
    std::vector<std::string> parts;
    for (std::string word; words >> word;) parts.push_back(std::move(word));
    if (parts.empty() || parts[0].starts_with('#')) continue;
    AccessKey key;
    key.name = parts.size() == 1 ? "key" + std::to_string(keys.size() + 1) : parts[0];
    key.digest = DigestOf(parts.size() == 1 ? parts[0] : parts[1]);
    for (size_t i = 2; i < parts.size(); ++i) GPTOSS_RETURN_IF_ERROR(ReadLimit(parts[i], where, &key));
    if (std::any_of(keys.begin(), keys.end(), [&](const AccessKey& k) { return k.name == key.name; })) {
      return InvalidArgument(where + ": the name '" + key.name + "' is given twice");
    }
    keys.push_back(std::move(key));
  }
  return keys;
}

void AccessControl::SetKeys(std::vector<AccessKey> keys) {
  const std::lock_guard lock(mutex_);
  keys_ = std::move(keys);
}

bool AccessControl::has_keys() const {
  const std::lock_guard lock(mutex_);
  return !keys_.empty();
}

std::optional<ApiError> AccessControl::Admit(HttpRequest& request) {
  const std::lock_guard lock(mutex_);
  if (keys_.empty()) return std::nullopt;
  const std::string_view shown = ShownKey(request);
  const auto digest = DigestOf(shown);
  const AccessKey* found = nullptr;
  for (const AccessKey& key : keys_) {  // all of them, so that the time tells nothing
    if (CRYPTO_memcmp(key.digest.data(), digest.data(), digest.size()) == 0) found = &key;
  }
  if (found == nullptr) {
    const char* message = shown.empty() ? "no API key was given; send it as 'Authorization: Bearer KEY'"
                                        : "the API key is not one of this server's";
    return ApiError{401, "invalid_request_error", message, {}, "invalid_api_key", 0};
  }
  Use& use = uses_[found->name];
  const auto now = std::chrono::steady_clock::now();
  if (found->concurrent > 0 && use.concurrent >= found->concurrent) {
    return ApiError{
        429, "rate_limit_error",    "this key may have " + std::to_string(found->concurrent) + " requests open at once",
        {},  "rate_limit_exceeded", 1};
  }
  if (found->requests_per_minute > 0) {
    const double rate = found->requests_per_minute / 60.0;
    const double passed = std::chrono::duration<double>(now - use.updated).count();
    const double most = found->requests_per_minute;
    use.allowance = use.updated == decltype(use.updated)() ? most : std::min(most, use.allowance + passed * rate);
    use.updated = now;
    if (use.allowance < 1) {
      const int wait = static_cast<int>(std::ceil((1 - use.allowance) / rate));
      return ApiError{429,
                      "rate_limit_error",
                      "this key may make " + std::to_string(found->requests_per_minute) + " requests a minute",
                      {},
                      "rate_limit_exceeded",
                      std::max(1, wait)};
    }
    use.allowance -= 1;
  }
  ++use.concurrent;
  request.key_name = found->name;
  return std::nullopt;
}

void AccessControl::Release(const std::string& key_name) {
  const std::lock_guard lock(mutex_);
  const auto use = uses_.find(key_name);
  if (use != uses_.end() && use->second.concurrent > 0) --use->second.concurrent;
}

}  // namespace gptoss::server
