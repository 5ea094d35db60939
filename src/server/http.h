// What an API's handler sees of HTTP: a request whose body has arrived whole, and a responder for one answer or a
// stream. No socket and no library appears here.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gptoss::server {

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // decoded, without query: "/v1/responses/resp_1"
  std::vector<std::pair<std::string, std::string>> query;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  std::string key_name;  // of the API key that was shown; empty when none is needed

  /// Empty when absent. `name` in lower case.
  std::string_view Header(std::string_view name) const;
  std::string_view Query(std::string_view name) const;
};

/// For one request; every method may be called from any thread, and none of them blocks. Exactly one of Send or
/// (BeginStream, Write*, End) is called. After the client has left, all of them do nothing.
class Responder {
 public:
  virtual ~Responder() = default;
  using Headers = std::vector<std::pair<std::string, std::string>>;

  virtual void Send(int status, std::string_view content_type, std::string body, Headers headers = {}) = 0;
  virtual void BeginStream(int status, std::string_view content_type, Headers headers = {}) = 0;
  /// False when the client has left or does not read (more than the limit is waiting): the stream is over then.
  virtual bool Write(std::string_view bytes) = 0;
  virtual void End() = 0;
  /// Called once, from another thread, when the client leaves before the answer is complete; at once if it has left.
  virtual void OnClosed(std::function<void()> callback) = 0;
};

using Handler = std::function<void(const HttpRequest& request, std::shared_ptr<Responder> responder)>;

/// Paths to handlers. A pattern's segment "{}" stands for any one segment: "/v1/responses/{}/cancel".
class Router {
 public:
  void Add(std::string method, std::string pattern, Handler handler);

  struct Match {
    const Handler* handler = nullptr;  // null: no such path, or not with this method
    std::string allowed;               // methods of the path, for 405; empty: no such path
    std::string_view pattern;          // of the handler's route; empty without one
  };
  Match Find(std::string_view method, std::string_view path) const;

  struct RouteName {
    std::string method, pattern;
  };
  std::vector<RouteName> routes() const;

 private:
  struct Route {
    RouteName name;
    std::vector<std::string> segments;
    Handler handler;
  };
  std::vector<Route> routes_;
};

}  // namespace gptoss::server
