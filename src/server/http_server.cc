#include "server/http_server.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <random>
#include <unordered_set>
#include <utility>

#include "server/connection.h"

namespace gptoss::server {
namespace {

namespace asio = boost::asio;
namespace ssl = asio::ssl;
using boost::system::error_code;
using Socket = asio::generic::stream_protocol::socket;
using Tcp = asio::ip::tcp;
using Local = asio::local::stream_protocol;

constexpr std::chrono::milliseconds kTick{500};
constexpr size_t kReadBytes = 16u << 10;
constexpr size_t kToldNo = 64;

class SocketConnection : public Connection {
 public:
  SocketConnection(ConnectionHost& host, Socket socket) : Connection(host), socket_(std::move(socket)) {}

 protected:
  std::shared_ptr<SocketConnection> Self() { return std::static_pointer_cast<SocketConnection>(shared_from_this()); }

  void Handshake() override {
    asio::post(socket_.get_executor(), [self = Self()] { self->OnReady(true); });
  }
  void ReadSome() override {
    socket_.async_read_some(asio::buffer(input_), [self = Self()](error_code failure, size_t n) {
      self->OnRead(!failure, {self->input_.data(), n});
    });
  }
  void WriteSome(std::string_view bytes) override {
    socket_.async_write_some(asio::buffer(bytes.data(), bytes.size()),
                             [self = Self()](error_code failure, size_t n) { self->OnWritten(!failure, n); });
  }
  void ShutdownSend() override {
    error_code ignored;
    socket_.shutdown(Socket::shutdown_send, ignored);
  }
  void CloseSocket() override {
    error_code ignored;
    socket_.close(ignored);
  }

  Socket socket_;
  std::array<char, kReadBytes> input_;
};

class TlsConnection : public Connection {
 public:
  TlsConnection(ConnectionHost& host, Socket socket, ssl::context& context)
      : Connection(host), stream_(std::move(socket), context) {}

 private:
  std::shared_ptr<TlsConnection> Self() { return std::static_pointer_cast<TlsConnection>(shared_from_this()); }

  void Handshake() override {
    stream_.async_handshake(ssl::stream_base::server, [self = Self()](error_code failure) { self->OnReady(!failure); });
  }
  void ReadSome() override {
    stream_.async_read_some(asio::buffer(input_), [self = Self()](error_code failure, size_t n) {
      self->OnRead(!failure, {self->input_.data(), n});
    });
  }
  void WriteSome(std::string_view bytes) override {
    stream_.async_write_some(asio::buffer(bytes.data(), bytes.size()),
                             [self = Self()](error_code failure, size_t n) { self->OnWritten(!failure, n); });
  }
  void ShutdownSend() override {
    stream_.async_shutdown([self = Self()](error_code) {});
  }
  void CloseSocket() override {
    error_code ignored;
    stream_.lowest_layer().close(ignored);
  }

  ssl::stream<Socket> stream_;
  std::array<char, kReadBytes> input_;
};

/// As many open sockets as the system lets this process have.
void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

class AsioServer : public HttpServer, public ConnectionHost {
 public:
  AsioServer(HttpServerOptions options, const Router& router, HttpObserver& observer)
      : options_(std::move(options)),
        router_(router),
        observer_(observer),
        workers_(static_cast<size_t>(options_.workers)),
        timer_(io_),
        id_prefix_(std::random_device{}()) {}

  ~AsioServer() override {
    // What handlers still hold refers to this object only through connections, which are gone then.
    for (const auto& connection : std::unordered_set(connections_)) connection->Close();
    workers_.stop();
    workers_.join();
    if (!options_.unix_socket.empty() && listening_) unlink(options_.unix_socket.c_str());
  }

  Status Listen() {
    RaiseFileLimit();
    GPTOSS_RETURN_IF_ERROR(SetUpTls());
    return options_.unix_socket.empty() ? ListenTcp() : ListenUnix();
  }

  std::string address() const override { return address_; }

  void Run() override {
    for (auto& acceptor : tcp_) Accept(acceptor);
    if (unix_ != nullptr) Accept(*unix_);
    Tick();
    io_.run();
    workers_.join();
  }

  void Drain() override {
    asio::post(io_, [this] { BeginDrain(); });
  }

  void Stop() override {
    asio::post(io_, [this] {
      BeginDrain();
      for (const auto& connection : std::unordered_set(connections_)) connection->Close();
    });
  }

  size_t connections() const override { return count_.load(); }

  // ConnectionHost
  const HttpServerOptions& options() const override { return options_; }
  const Router& router() const override { return router_; }
  HttpObserver& observer() override { return observer_; }
  bool draining() const override { return draining_.load(); }
  std::string NextRequestId() override {
    std::array<char, 40> text{};
    std::snprintf(text.data(), text.size(), "req_%08x%08llx", id_prefix_, static_cast<unsigned long long>(++requests_));
    return text.data();
  }
  void Post(std::function<void()> task) override { asio::post(io_, std::move(task)); }
  void Work(std::function<void()> task) override { asio::post(workers_, std::move(task)); }
  void Remove(const std::shared_ptr<Connection>& connection) override {
    connections_.erase(connection);
    count_ = connections_.size();
    EndIfDrained();
  }

 private:
  Status SetUpTls() {
    if (options_.tls_cert.empty() != options_.tls_key.empty()) {
      return InvalidArgument("--tls-cert and --tls-key belong together");
    }
    if (options_.tls_cert.empty()) return {};
    tls_ = std::make_unique<ssl::context>(ssl::context::tls_server);
    error_code failure;
    tls_->set_options(ssl::context::default_workarounds | ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1, failure);
    if (!failure) tls_->use_certificate_chain_file(options_.tls_cert, failure);
    if (failure) return IoError("--tls-cert " + options_.tls_cert + ": " + failure.message());
    tls_->use_private_key_file(options_.tls_key, ssl::context::pem, failure);
    if (failure) return IoError("--tls-key " + options_.tls_key + ": " + failure.message());
    return {};
  }

  Status ListenTcp() {
    error_code failure;
    Tcp::resolver resolver(io_);
    const auto found = resolver.resolve(options_.host, std::to_string(options_.port),
                                        Tcp::resolver::passive | Tcp::resolver::numeric_service, failure);
    if (failure) return IoError("--host " + options_.host + ": " + failure.message());
    int port = options_.port;
    for (const auto& entry : found) {
      Tcp::endpoint endpoint = entry.endpoint();
      endpoint.port(static_cast<uint16_t>(port));  // a free one that was found counts for all addresses
      Tcp::acceptor acceptor(io_);
      acceptor.open(endpoint.protocol(), failure);
      if (!failure) acceptor.set_option(Tcp::acceptor::reuse_address(true), failure);
      if (!failure && endpoint.address().is_v6()) acceptor.set_option(asio::ip::v6_only(true), failure);
      if (!failure) acceptor.bind(endpoint, failure);
      if (!failure) acceptor.listen(asio::socket_base::max_listen_connections, failure);
      if (failure) {
        return IoError("cannot listen on " + options_.host + " port " + std::to_string(port) + ": " +
                       failure.message() + "; choose another --port, or 0 for a free one");
      }
      port = acceptor.local_endpoint().port();
      tcp_.push_back(std::move(acceptor));
    }
    const bool is_v6 = options_.host.find(':') != std::string::npos;
    address_ = std::string(tls_ != nullptr ? "https://" : "http://") +
               (is_v6 ? "[" + options_.host + "]" : options_.host) + ":" + std::to_string(port);
    listening_ = true;
    return {};
  }

  Status ListenUnix() {
    const std::string& path = options_.unix_socket;
    const auto fail = [&](const std::string& what) { return IoError("--unix-socket " + path + ": " + what); };
    if (path.size() >= sizeof(sockaddr_un::sun_path)) return fail("the path is too long for a socket");
    struct stat info {};
    if (lstat(path.c_str(), &info) == 0) {
      if (!S_ISSOCK(info.st_mode)) return fail("exists and is no socket");
      error_code refused;
      Local::socket probe(io_);
      probe.connect(Local::endpoint(path), refused);
      if (!refused) return fail("another server listens there");
      unlink(path.c_str());
    }
    error_code failure;
    unix_ = std::make_unique<Local::acceptor>(io_);
    unix_->open(Local(), failure);
    if (!failure) unix_->bind(Local::endpoint(path), failure);
    if (!failure && chmod(path.c_str(), 0660) != 0) return fail("its mode cannot be set");
    if (!failure) unix_->listen(asio::socket_base::max_listen_connections, failure);
    if (failure) return fail(failure.message());
    address_ = "unix:" + path;
    listening_ = true;
    return {};
  }

  template <typename Acceptor>
  void Accept(Acceptor& acceptor) {
    acceptor.async_accept([this, &acceptor](error_code failure, auto socket) {
      if (draining_) return;
      if (failure) {
        // Out of file descriptors, or a client that left at once: it must not end the server, nor spin. Each acceptor
        // has a timer of its own, for one that is set anew forgets who waited for it.
        auto retry = std::make_shared<asio::steady_timer>(io_, kTick / 5);
        retry->async_wait([this, &acceptor, retry](error_code) {
          if (!draining_) Accept(acceptor);
        });
        return;
      }
      if constexpr (std::is_same_v<Acceptor, Tcp::acceptor>) {
        error_code ignored;
        socket.set_option(Tcp::no_delay(true), ignored);
        socket.set_option(asio::socket_base::keep_alive(true), ignored);
      }
      // Somewhat more are let in, only to be told so.
      if (connections_.size() < options_.max_connections + kToldNo) Begin(Socket(std::move(socket)));
      Accept(acceptor);
    });
  }

  void Begin(Socket socket) {
    std::shared_ptr<Connection> connection;
    if (tls_ != nullptr) {
      connection = std::make_shared<TlsConnection>(*this, std::move(socket), *tls_);
    } else {
      connection = std::make_shared<SocketConnection>(*this, std::move(socket));
    }
    connections_.insert(connection);
    count_ = connections_.size();
    connection->Start(connections_.size() > options_.max_connections);
  }

  void Tick() {
    timer_.expires_after(kTick);
    timer_.async_wait([this](error_code cancelled) {
      if (cancelled) return;
      const auto now = Clock::now();
      for (const auto& connection : std::vector(connections_.begin(), connections_.end())) connection->Tick(now);
      if (!ended_) Tick();
    });
  }

  void BeginDrain() {
    if (draining_.exchange(true)) return;
    error_code ignored;
    for (auto& acceptor : tcp_) acceptor.close(ignored);
    if (unix_ != nullptr) unix_->close(ignored);
    for (const auto& connection : std::vector(connections_.begin(), connections_.end())) connection->CloseIfIdle();
    EndIfDrained();
  }

  void EndIfDrained() {
    if (!draining_ || !connections_.empty()) return;
    ended_ = true;
    timer_.cancel();
  }

  const HttpServerOptions options_;
  const Router& router_;
  HttpObserver& observer_;
  asio::io_context io_{1};
  asio::thread_pool workers_;
  asio::steady_timer timer_;
  std::unique_ptr<ssl::context> tls_;
  std::vector<Tcp::acceptor> tcp_;
  std::unique_ptr<Local::acceptor> unix_;
  std::string address_;
  std::unordered_set<std::shared_ptr<Connection>> connections_;
  std::atomic<size_t> count_{0};
  std::atomic<bool> draining_{false};
  bool listening_ = false, ended_ = false;
  const uint32_t id_prefix_;
  uint64_t requests_ = 0;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::Create(HttpServerOptions options, const Router& router,
                                                       HttpObserver& observer) {
  auto server = std::make_unique<AsioServer>(std::move(options), router, observer);
  GPTOSS_RETURN_IF_ERROR(server->Listen());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace gptoss::server
