// The server over real sockets, seen from the client's side as bytes.
#include "server/http_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

namespace gptoss::server {
namespace {

using std::chrono::milliseconds;

/// A client that says exactly what it is told to.
class Client {
 public:
  explicit Client(const std::string& address) {
    if (address.starts_with("unix:")) {
      fd_ = socket(AF_UNIX, SOCK_STREAM, 0);
      sockaddr_un name{};
      name.sun_family = AF_UNIX;
      std::strncpy(name.sun_path, address.c_str() + 5, sizeof(name.sun_path) - 1);
      connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0;
    } else {
      fd_ = socket(AF_INET, SOCK_STREAM, 0);
      sockaddr_in name{};
      name.sin_family = AF_INET;
      name.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
      inet_pton(AF_INET, "127.0.0.1", &name.sin_addr);
      connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0;
    }
    const timeval patience = {10, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  }
  ~Client() { Close(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return connected_; }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  void Say(std::string_view text) { (void)!send(fd_, text.data(), text.size(), MSG_NOSIGNAL); }
  /// Reads until `text` has come; false at the end of the connection or after ten seconds.
  bool ReadTo(std::string_view text) {
    while (seen_.find(text) == std::string::npos) {
      if (!ReadSome()) return false;
    }
    return true;
  }
  /// Everything up to the end of the connection.
  std::string ReadAll() {
    while (ReadSome()) {
    }
    return seen_;
  }
  std::string& seen() { return seen_; }
  bool at_end() const { return at_end_; }

 private:
  bool ReadSome() {
    std::array<char, 4096> bytes{};
    const ssize_t n = recv(fd_, bytes.data(), bytes.size(), 0);
    at_end_ = n == 0 || (n < 0 && errno == ECONNRESET);
    if (n <= 0) return false;
    seen_.append(bytes.data(), static_cast<size_t>(n));
    return true;
  }

  int fd_ = -1;
  bool connected_ = false, at_end_ = false;
  std::string seen_;
};

class Observer : public HttpObserver {
 public:
  std::optional<ApiError> Admit(HttpRequest& request) override {
    if (request.Header("x-refuse") == "yes")
      return ApiError{401, "invalid_request_error", "no", {}, "invalid_api_key", 0};
    request.key_name = "key";
    return std::nullopt;
  }
  void OnFinished(const RequestRecord& record) override {
    const std::lock_guard lock(mutex_);
    records_.push_back(record);
    changed_.notify_all();
  }
  std::vector<RequestRecord> WaitFor(size_t n) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(10), [&] { return records_.size() >= n; });
    return records_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<RequestRecord> records_;
};

class HttpServerTest : public testing::Test {
 protected:
  void Begin(HttpServerOptions options = {}) {
    options.port = 0;
    router_.Add("GET", "/hello", [](const HttpRequest& request, std::shared_ptr<Responder> responder) {
      responder->Send(200, "text/plain", "hello " + std::string(request.Query("name")));
    });
    router_.Add("POST", "/echo", [](const HttpRequest& request, std::shared_ptr<Responder> responder) {
      responder->Send(200, "application/octet-stream", request.body);
    });
    router_.Add("GET", "/forget", [](const HttpRequest&, std::shared_ptr<Responder>) {});
    router_.Add("GET", "/stream", [this](const HttpRequest&, std::shared_ptr<Responder> responder) {
      responder->BeginStream(200, "text/event-stream");
      responder->OnClosed([this] {
        ++left_;
        changed_.notify_all();
      });
      const std::lock_guard lock(mutex_);
      streams_.push_back(std::move(responder));
      changed_.notify_all();
    });
    auto server = HttpServer::Create(std::move(options), router_, observer_);
    ASSERT_TRUE(server.ok()) << server.status().message();
    server_ = *std::move(server);
    thread_ = std::thread([this] { server_->Run(); });
  }

  void TearDown() override {
    {
      const std::lock_guard lock(mutex_);
      streams_.clear();
    }
    if (server_ == nullptr) return;
    server_->Stop();
    thread_.join();
  }

  std::shared_ptr<Responder> WaitForStream(size_t n = 1) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(10), [&] { return streams_.size() >= n; });
    return streams_.size() >= n ? streams_[n - 1] : nullptr;
  }

  bool WaitForLeft(int n) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return left_ >= n; });
  }

  std::string Ask(const std::string& request) {
    Client client(server_->address());
    client.Say(request);
    return client.ReadAll();
  }

  Router router_;
  Observer observer_;
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Responder>> streams_;
  std::atomic<int> left_{0};
};

constexpr char kClose[] = "Host: x\r\nConnection: close\r\n\r\n";

TEST_F(HttpServerTest, AnswersAndKeepsTheConnection) {
  Begin();
  Client client(server_->address());
  // Two requests at once: the second waits for the first, and both are answered in order.
  client.Say("GET /hello?name=a%20b HTTP/1.1\r\nHost: x\r\n\r\nGET /hello?name=c+d HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(client.ReadTo("hello a b"));
  ASSERT_TRUE(client.ReadTo("hello c d"));
  EXPECT_NE(client.seen().find("X-Request-Id: req_"), std::string::npos);
  client.Say("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  ASSERT_TRUE(client.ReadTo("abcde"));
  const auto records = observer_.WaitFor(3);
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[2].route, "/echo");
  EXPECT_EQ(records[2].status, 200);
  EXPECT_EQ(records[2].key_name, "key");
  EXPECT_FALSE(records[2].client_left);
}

TEST_F(HttpServerTest, WrongRequestsGetClearErrors) {
  HttpServerOptions options;
  options.limits.max_body_bytes = 1000;
  options.limits.max_header_bytes = 2000;
  Begin(options);
  const auto status = [&](const std::string& request) {
    const std::string answer = Ask(request);
    // Every error has OpenAI's shape.
    const size_t body = answer.find("\r\n\r\n");
    const auto json = ParseJson(body == std::string::npos ? "" : answer.substr(body + 4));
    EXPECT_TRUE(json.ok() && json->contains("error") && (*json)["error"]["message"].is_string()) << answer;
    return answer.substr(0, 12);
  };
  EXPECT_EQ(status("GET /absent HTTP/1.1\r\n" + std::string(kClose)), "HTTP/1.1 404");
  EXPECT_EQ(status("GET /echo HTTP/1.1\r\n" + std::string(kClose)), "HTTP/1.1 405");
  EXPECT_EQ(status("GET /forget HTTP/1.1\r\n" + std::string(kClose)), "HTTP/1.1 500");
  EXPECT_EQ(status("nonsense\r\n\r\n"), "HTTP/1.1 400");
  EXPECT_EQ(status("GET /%zz HTTP/1.1\r\n" + std::string(kClose)), "HTTP/1.1 400");
  EXPECT_EQ(status("GET / HTTP/3.0\r\n\r\n"), "HTTP/1.1 505");
  EXPECT_EQ(status("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n"), "HTTP/1.1 413");
  EXPECT_EQ(status("GET / HTTP/1.1\r\nX: " + std::string(3000, 'x') + "\r\n\r\n"), "HTTP/1.1 431");
  EXPECT_EQ(status("POST /echo HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"), "HTTP/1.1 400");
  EXPECT_EQ(status("GET /hello HTTP/1.1\r\nX-Refuse: yes\r\n" + std::string(kClose)), "HTTP/1.1 401");
  EXPECT_EQ(status("GET /hello HTTP/1.1\r\nOrigin: https://evil.example\r\n" + std::string(kClose)), "HTTP/1.1 403");
  // And the server lives.
  EXPECT_NE(Ask("GET /hello HTTP/1.1\r\n" + std::string(kClose)).find("200 OK"), std::string::npos);
}

TEST_F(HttpServerTest, RefusesABodyBeforeItIsSent) {
  Begin();
  Client refused(server_->address());
  refused.Say("POST /echo HTTP/1.1\r\nX-Refuse: yes\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_NE(refused.ReadAll().find("401"), std::string::npos);
  EXPECT_EQ(refused.seen().find("100 Continue"), std::string::npos);
  Client client(server_->address());
  client.Say("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  ASSERT_TRUE(client.ReadTo("100 Continue\r\n\r\n"));
  client.Say("xyz");
  EXPECT_TRUE(client.ReadTo("\r\n\r\nxyz"));
}

TEST_F(HttpServerTest, StreamsAndNoticesThatTheClientLeft) {
  Begin();
  Client client(server_->address());
  client.Say("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto stream = WaitForStream();
  ASSERT_NE(stream, nullptr);
  EXPECT_TRUE(stream->Write("data: 1\n\n"));
  ASSERT_TRUE(client.ReadTo("9\r\ndata: 1\n\n\r\n"));
  client.Close();
  ASSERT_TRUE(WaitForLeft(1));
  EXPECT_FALSE(stream->Write("data: 2\n\n"));
  const auto records = observer_.WaitFor(1);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_TRUE(records[0].client_left);
  bool told = false;
  stream->OnClosed([&] { told = true; });  // at once, since it has left
  EXPECT_TRUE(told);
}

TEST_F(HttpServerTest, AStreamEndsWhole) {
  Begin();
  Client client(server_->address());
  client.Say("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto stream = WaitForStream();
  ASSERT_NE(stream, nullptr);
  stream->Write("a");
  stream->End();
  EXPECT_FALSE(stream->Write("b"));
  ASSERT_TRUE(client.ReadTo("0\r\n\r\n"));
  client.seen().clear();
  client.Say("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");  // on the same connection
  EXPECT_TRUE(client.ReadTo("hello"));
}

TEST_F(HttpServerTest, AClientThatDoesNotReadIsDropped) {
  HttpServerOptions options;
  options.max_unsent_bytes = 1 << 20;
  Begin(options);
  Client client(server_->address());
  client.Say("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto stream = WaitForStream();
  ASSERT_NE(stream, nullptr);
  const std::string piece(1 << 16, 'x');
  bool more = true;
  for (int i = 0; i < 4096 && more; ++i) more = stream->Write(piece);  // far more than sockets buffer
  EXPECT_FALSE(more);
  EXPECT_TRUE(WaitForLeft(1));
}

TEST_F(HttpServerTest, SlowAndIdleClientsAreDropped) {
  HttpServerOptions options;
  options.request_timeout = milliseconds(300);
  options.idle_timeout = milliseconds(300);
  Begin(options);
  Client half(server_->address()), idle(server_->address());
  half.Say("GET /hello HTTP/1.1\r\nHos");
  half.ReadAll();
  idle.ReadAll();
  EXPECT_TRUE(half.at_end());
  EXPECT_TRUE(idle.at_end());
}

TEST_F(HttpServerTest, ASilentEventStreamHasComments) {
  HttpServerOptions options;
  options.ping_interval = milliseconds(100);
  Begin(options);
  Client client(server_->address());
  client.Say("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(client.ReadTo("3\r\n:\n\n\r\n"));
}

TEST_F(HttpServerTest, DrainLetsAnswersEnd) {
  Begin();
  Client busy(server_->address()), idle(server_->address());
  busy.Say("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto stream = WaitForStream();
  ASSERT_NE(stream, nullptr);
  server_->Drain();
  idle.ReadAll();
  EXPECT_TRUE(idle.at_end());
  EXPECT_TRUE(stream->Write("last"));
  stream->End();
  EXPECT_NE(busy.ReadAll().find("0\r\n\r\n"), std::string::npos);
  thread_.join();
  thread_ = std::thread([] {});
}

TEST_F(HttpServerTest, UnixSocket) {
  HttpServerOptions options;
  options.unix_socket = testing::TempDir() + "gptoss_http_test.sock";
  Begin(options);
  EXPECT_EQ(server_->address(), "unix:" + options.unix_socket);
  EXPECT_NE(Ask("GET /hello HTTP/1.1\r\n" + std::string(kClose)).find("hello"), std::string::npos);
  // A second server does not take the path away from the first.
  EXPECT_FALSE(HttpServer::Create(options, router_, observer_).ok());
}

TEST_F(HttpServerTest, OptionsThatCannotWork) {
  HttpServerOptions options;
  options.tls_cert = "cert.pem";
  EXPECT_NE(HttpServer::Create(options, router_, observer_).status().message().find("--tls-key"), std::string::npos);
  options.tls_key = "absent.pem";
  EXPECT_NE(HttpServer::Create(options, router_, observer_).status().message().find("cert.pem"), std::string::npos);
  Begin();
  HttpServerOptions taken;
  taken.port = std::stoi(server_->address().substr(server_->address().rfind(':') + 1));
  EXPECT_NE(HttpServer::Create(taken, router_, observer_).status().message().find("--port"), std::string::npos);
}

TEST_F(HttpServerTest, MoreConnectionsThanAllowedAreToldSo) {
  HttpServerOptions options;
  options.max_connections = 1;
  Begin(options);
  auto first = std::make_unique<Client>(server_->address());
  first->Say("GET /hello?name=a HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(first->ReadTo("hello a"));
  const std::string refused = Ask("GET /hello HTTP/1.1\r\n" + std::string(kClose));
  EXPECT_NE(refused.find("HTTP/1.1 503"), std::string::npos) << refused;
  EXPECT_NE(refused.find("Retry-After: 1"), std::string::npos);
  first.reset();
  std::string later;
  for (int i = 0; i < 100 && later.find("200 OK") == std::string::npos; ++i) {
    std::this_thread::sleep_for(milliseconds(20));  // until the server knows that the first has left
    later = Ask("GET /hello HTTP/1.1\r\n" + std::string(kClose));
  }
  EXPECT_NE(later.find("200 OK"), std::string::npos);
}

TEST_F(HttpServerTest, PagesOfThisMachineMayAsk) {
  Begin();
  const std::string answer =
      Ask("OPTIONS /echo HTTP/1.1\r\nOrigin: http://localhost:3000\r\nAccess-Control-Request-Method: POST\r\n" +
          std::string(kClose));
  EXPECT_NE(answer.find("204 No Content"), std::string::npos);
  EXPECT_NE(answer.find("Access-Control-Allow-Origin: http://localhost:3000"), std::string::npos);
}

TEST_F(HttpServerTest, ManyClientsAtOnce) {
  Begin();
  std::vector<std::thread> threads;
  std::atomic<int> whole{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 25; ++i) {
        Client client(server_->address());
        const std::string body(static_cast<size_t>(1000 + i), static_cast<char>('a' + i));
        client.Say("POST /echo HTTP/1.1\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + kClose);
        client.Say(body);
        whole += client.ReadAll().ends_with("\r\n\r\n" + body) ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(whole, 100);
}

}  // namespace
}  // namespace gptoss::server
