// Bytes of a connection to HTTP/1.x requests. A total function of its input: what is no request gives a status to
// answer with. The parsing itself is Boost.Beast's, which only request_reader.cc sees.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "server/http.h"

namespace gptoss::server {

struct RequestLimits {
  size_t max_header_bytes = 64u << 10;  // request line and headers
  size_t max_body_bytes = 64u << 20;
};

/// Not thread-safe.
class RequestReader {
 public:
  enum class State : uint8_t {
    kHeader,  // waiting for the end of the headers
    kBody,    // request() holds all but the body
    kDone,    // request() is whole
    kFailed,  // error_status() and error() say why; nothing more is read
  };

  explicit RequestReader(const RequestLimits& limits);
  ~RequestReader();

  /// Adds bytes. Those beyond the end of the request are kept for the next. Returns the new state; kBody is returned
  /// at least once for each request with a body, so that a caller can refuse it: call Continue to go on.
  State Feed(std::string_view bytes);
  /// Reads on with what is there, after kBody, and after Next.
  State Continue();
  /// Drops the request that is done; the next one begins.
  void Next();

  State state() const { return state_; }
  /// Bytes were fed that are not read yet, or that belong to a request that is not whole.
  bool has_input() const { return begun_ || !input_.empty(); }
  size_t backlog() const { return input_.size(); }
  HttpRequest& request() { return request_; }
  bool keep_alive() const { return keep_alive_; }
  bool is_http10() const { return http10_; }
  /// The client sends the body only after "100 Continue".
  bool expects_continue() const { return expects_continue_; }
  int error_status() const { return error_status_; }
  const std::string& error() const { return error_; }

 private:
  struct Parser;
  void TakeHeader();
  State Fail(int status, std::string message);

  const RequestLimits limits_;
  std::unique_ptr<Parser> parser_;
  std::string input_;
  State state_ = State::kHeader;
  HttpRequest request_;
  bool begun_ = false, keep_alive_ = false, http10_ = false, expects_continue_ = false;
  int error_status_ = 0;
  std::string error_;
};

/// Decodes %XX (and '+' as a space if `plus`). False for a '%' that is not followed by two hexadecimal digits.
bool PercentDecode(std::string_view text, bool plus, std::string* out);

}  // namespace gptoss::server
