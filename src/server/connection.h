// One connection: requests in, answers out, one after the other. Everything here runs on the I/O thread, except what
// handlers call of an Exchange. The socket is behind a few virtual functions (http_server.cc).
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "server/http.h"
#include "server/http_server.h"
#include "server/request_reader.h"

namespace gptoss::server {

using Clock = std::chrono::steady_clock;
class Connection;

/// What connections need of the server.
class ConnectionHost {
 public:
  virtual ~ConnectionHost() = default;
  virtual const HttpServerOptions& options() const = 0;
  virtual const Router& router() const = 0;
  virtual HttpObserver& observer() = 0;
  virtual bool draining() const = 0;
  virtual std::string NextRequestId() = 0;
  /// Runs on the I/O thread soon.
  virtual void Post(std::function<void()> task) = 0;
  /// Runs on a worker soon.
  virtual void Work(std::function<void()> task) = 0;
  /// The connection has closed.
  virtual void Remove(const std::shared_ptr<Connection>& connection) = 0;
};

/// One answer: what handlers put in on any thread, the connection takes out on its own.
class Exchange {
 public:
  struct Traits {
    bool keep_alive = true, http10 = false, head = false;
    std::string id, origin;  // the latter for CORS; empty: none
  };
  Exchange(std::weak_ptr<Connection> connection, ConnectionHost& host, Traits traits)
      : connection_(std::move(connection)), host_(host), traits_(std::move(traits)) {}

  void Send(int status, std::string_view content_type, std::string body, const Responder::Headers& headers);
  void BeginStream(int status, std::string_view content_type, const Responder::Headers& headers);
  bool Write(std::string_view bytes);
  void End();
  void OnClosed(std::function<void()> callback);
  /// The handler is gone without having answered in full.
  void Abandon();
  /// A comment, if this is an event stream under way.
  void Ping();

  /// Moves what waits into `out`; false when there is nothing.
  bool Take(std::string* out);
  bool complete() const;  // all was put in
  bool keep_alive() const;
  int status() const;
  bool must_close() const;  // the client does not read, or the handler broke off
  /// The connection ends with this answer.
  void CloseAfter();
  /// Nothing is taken out any more; tells the handler unless the answer was complete.
  void Close();

 private:
  enum class State : uint8_t { kWaiting, kStreaming, kEnded };
  void AppendHead(int status, std::string_view content_type, const Responder::Headers& headers, int64_t length);
  void AppendChunk(std::string_view bytes);
  void Flush();

  const std::weak_ptr<Connection> connection_;
  ConnectionHost& host_;
  mutable std::mutex mutex_;
  Traits traits_;
  State state_ = State::kWaiting;
  std::string out_;
  bool flushing_ = false;  // the I/O thread has been told
  bool closed_ = false, overflowed_ = false, events_ = false, broken_ = false;
  int status_ = 0;
  std::function<void()> on_closed_;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  explicit Connection(ConnectionHost& host);
  virtual ~Connection() = default;

  /// `crowded`: whatever is asked, the answer is that there are too many connections.
  void Start(bool crowded);
  /// Every now and then: timeouts.
  void Tick(Clock::time_point now);
  /// Closes unless a request is under way.
  void CloseIfIdle();
  void Close();
  /// Writes what the exchange has.
  void Flush();

 protected:
  // The socket: each call is answered by one call of the function named.
  virtual void Handshake() = 0;                  // OnReady
  virtual void ReadSome() = 0;                   // OnRead
  virtual void WriteSome(std::string_view) = 0;  // OnWritten
  virtual void ShutdownSend() = 0;               // -
  virtual void CloseSocket() = 0;                // -
  void OnReady(bool ok);
  void OnRead(bool ok, std::string_view bytes);
  void OnWritten(bool ok, size_t bytes);

 private:
  void Read();
  void Process(RequestReader::State state);
  void Note();
  bool Admit();
  void BeginExchange();
  void Dispatch();
  void Refuse(const ApiError& error);
  void FinishExchange();
  void Report(bool client_left);
  void BeginLinger();
  bool OriginAllowed(std::string_view origin) const;
  void SendPreflight();

  ConnectionHost& host_;
  RequestReader reader_;
  std::shared_ptr<Exchange> exchange_;
  std::string method_, path_, route_, key_name_, request_id_, origin_;
  std::string out_;  // being written, from out_at_ on
  size_t out_at_ = 0;
  std::string urgent_;  // "100 Continue"
  bool ready_ = false, reading_ = false, writing_ = false, closed_ = false, lingering_ = false;
  bool seen_ = false, admitted_ = false, refused_ = false, crowded_ = false;
  uint64_t sent_ = 0, discarded_ = 0;
  Clock::time_point last_read_, last_write_, request_begin_, headers_done_, linger_begin_;
};

}  // namespace gptoss::server
