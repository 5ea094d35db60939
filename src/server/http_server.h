// The HTTP/1.1 server: sockets (TCP, Unix, TLS), limits and timeouts, many connections on one I/O thread, handlers on
// a few others. Boost.Asio, on which it stands, is seen by http_server.cc and the files beside it only.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "server/http.h"
#include "server/openai/errors.h"
#include "server/request_reader.h"

namespace gptoss::server {

struct HttpServerOptions {
  std::string host = "127.0.0.1";  // name or address; every address it has is listened on
  int port = 8080;                 // 0: a free one
  std::string unix_socket;         // path; then neither host nor port counts
  std::string tls_cert, tls_key;   // PEM files; both or none
  RequestLimits limits;
  size_t max_connections = 8192;                      // more are told 503 and closed
  size_t max_unsent_bytes = 4u << 20;                 // of one stream; a client that leaves more waiting has left
  int workers = 4;                                    // threads that handlers run on
  std::chrono::milliseconds request_timeout{30'000};  // without a byte of a request that has begun
  std::chrono::milliseconds upload_timeout{300'000};  // from a request's first byte to its last
  std::chrono::milliseconds idle_timeout{120'000};    // between requests
  std::chrono::milliseconds write_timeout{60'000};    // without a byte of an answer being taken
  std::chrono::milliseconds ping_interval{15'000};    // of a silent event stream: a comment keeps proxies from closing
  std::vector<std::string> allowed_origins;           // of web pages besides those of this machine; "*": any
};

/// One request that is over.
struct RequestRecord {
  std::string id, method, path, route, key_name;  // route: the pattern; empty when there is none
  int status = 0;                                 // 0: the client left before there was one
  uint64_t sent_bytes = 0;
  double seconds = 0;  // from the end of its headers
  bool client_left = false;
  bool admitted = false;  // Admit let it pass
};

/// Called on the I/O thread; must not block.
class HttpObserver {
 public:
  virtual ~HttpObserver() = default;
  /// May this request, whose headers are there, go on? Sets its key_name. The error is what the client is told.
  virtual std::optional<ApiError> Admit(HttpRequest& request) = 0;
  /// Once for each request.
  virtual void OnFinished(const RequestRecord& record) = 0;
};

class HttpServer {
 public:
  /// Binds and listens. `router` and `observer` must outlive the server. On failure: kIo or kInvalidArgument naming
  /// address, file or flag.
  static Result<std::unique_ptr<HttpServer>> Create(HttpServerOptions options, const Router& router,
                                                    HttpObserver& observer);
  virtual ~HttpServer() = default;

  /// "http://127.0.0.1:8080", "https://…", "unix:/run/gptoss.sock".
  virtual std::string address() const = 0;
  /// Serves until Drain or Stop has done its work.
  virtual void Run() = 0;
  /// Accepts nothing new and ends when the answers that are under way are complete. From any thread.
  virtual void Drain() = 0;
  /// Closes everything. From any thread.
  virtual void Stop() = 0;
  virtual size_t connections() const = 0;
};

}  // namespace gptoss::server
