// HTTP GET for downloads: redirects followed by hand, so that a secret goes to the endpoint's own origin and no
// further.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "hub/range_set.h"

namespace gptoss::hub {

struct Origin {
  std::string scheme;  // "https" or "http"
  std::string host;    // lower case; IPv6 in brackets
  std::string port;
  bool operator==(const Origin&) const = default;
};

/// On failure: kInvalidArgument when `url` is not an absolute http or https URL, or holds a user name or password.
Result<Origin> ParseOrigin(const std::string& url);

/// localhost, 127.0.0.0/8 and ::1.
bool IsLoopback(const Origin& origin);

/// "bytes 0-9/100": what a 206 carries. `total` is absent for "*".
struct ContentRange {
  ByteRange range;
  std::optional<uint64_t> total;
};
std::optional<ContentRange> ParseContentRange(std::string_view value);

struct HttpResponse {
  int status = 0;
  std::optional<uint64_t> content_length;
  std::optional<ContentRange> content_range;
  std::string etag;
  std::string error_code;     // X-Error-Code, e.g. "GatedRepo"
  std::string error_message;  // X-Error-Message, printable ASCII
  std::optional<int64_t> retry_after_s;
  bool stopped_by_sink = false;
};

struct HttpOptions {
  std::string endpoint;           // absolute URL without a trailing slash; its origin alone receives the token
  std::string token = {};         // empty: no Authorization header
  std::string ca_file = {};       // empty: the system's certificates
  bool allow_plain_http = false;  // otherwise http is for loopback only
  int connect_timeout_s = 30;
  int stall_timeout_s = 60;  // below one byte a second for this long, a transfer counts as dropped
};

/// One client belongs to one thread at a time; it keeps its connections open between calls.
class HttpClient {
 public:
  /// On failure: kInvalidArgument for an endpoint or token that may not be used, kUnsupported when curl fails to start.
  static Result<HttpClient> Create(HttpOptions options);

  HttpClient(HttpClient&&) noexcept;
  HttpClient& operator=(HttpClient&&) noexcept;
  ~HttpClient();

  /// Receives pieces of a 2xx body after its headers. Returning false ends the transfer.
  using BodySink = std::function<bool(const HttpResponse& head, std::string_view bytes)>;

  /// GET `url`, following up to 10 redirects. An https endpoint is never left for plain http. Any HTTP status is a
  /// success here. On failure: kIo when trying again may help (dropped, timed out, refused), kCancelled once `*cancel`
  /// is true, any other code when it will not help (certificate, refused redirect, malformed URL).
  Result<HttpResponse> Get(const std::string& url, std::optional<ByteRange> range, const std::atomic<bool>* cancel,
                           const BodySink& sink);

 private:
  struct Impl;
  explicit HttpClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace gptoss::hub
