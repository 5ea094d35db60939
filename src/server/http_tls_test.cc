// HTTPS as a client sees it, with a certificate that the test makes for itself.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <thread>

#include "server/http_server.h"

namespace gptoss::server {
namespace {

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
template <typename T, auto Free>
using Owned = std::unique_ptr<T, Freer<Free>>;

/// A key and a certificate for 127.0.0.1 that is its own authority, in two files.
void WriteCertificate(const std::string& cert_path, const std::string& key_path) {
  const Owned<EVP_PKEY, EVP_PKEY_free> key(EVP_EC_gen("P-256"));
  const Owned<X509, X509_free> cert(X509_new());
  ASSERT_TRUE(key != nullptr && cert != nullptr);
  X509_set_version(cert.get(), X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(cert.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(cert.get()), -60);
  X509_gmtime_adj(X509_getm_notAfter(cert.get()), 3600);
  X509_set_pubkey(cert.get(), key.get());
  X509_NAME* name = X509_get_subject_name(cert.get());
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("gptoss test"), -1, -1,
                             0);
  X509_set_issuer_name(cert.get(), name);
  for (const auto& [id, value] : {std::pair{NID_basic_constraints, "critical,CA:TRUE"},
                                  std::pair{NID_subject_alt_name, "IP:127.0.0.1,DNS:localhost"}}) {
    const Owned<X509_EXTENSION, X509_EXTENSION_free> extension(X509V3_EXT_conf_nid(nullptr, nullptr, id, value));
    ASSERT_NE(extension, nullptr);
    X509_add_ext(cert.get(), extension.get(), -1);
  }
  ASSERT_GT(X509_sign(cert.get(), key.get(), EVP_sha256()), 0);
  const Owned<BIO, BIO_free> cert_file(BIO_new_file(cert_path.c_str(), "w")),
      key_file(BIO_new_file(key_path.c_str(), "w"));
  ASSERT_EQ(PEM_write_bio_X509(cert_file.get(), cert.get()), 1);
  ASSERT_EQ(PEM_write_bio_PrivateKey(key_file.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr), 1);
}

int Connect(const std::string& address) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  inet_pton(AF_INET, "127.0.0.1", &name.sin_addr);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  const timeval patience = {10, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  return fd;
}

/// Trusts the given certificate and nothing else.
class TlsClient {
 public:
  TlsClient(const std::string& address, const std::string& trusted, int most_version = 0) : fd_(Connect(address)) {
    SSL_CTX_load_verify_locations(context_.get(), trusted.c_str(), nullptr);
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
    if (most_version != 0) {
      SSL_CTX_set_security_level(context_.get(), 0);  // else this library would not even offer what is old
      SSL_CTX_set_max_proto_version(context_.get(), most_version);
    }
    ssl_.reset(SSL_new(context_.get()));
    SSL_set_fd(ssl_.get(), fd_);
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_.get()), "127.0.0.1");
    connected_ = SSL_connect(ssl_.get()) == 1;
  }
  ~TlsClient() { close(fd_); }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  bool connected() const { return connected_; }
  void Say(const std::string& text) { EXPECT_GT(SSL_write(ssl_.get(), text.data(), static_cast<int>(text.size())), 0); }
  bool ReadTo(const std::string& text) {
    while (seen_.find(text) == std::string::npos) {
      if (!ReadSome()) return false;
    }
    return true;
  }
  std::string ReadAll() {
    while (ReadSome()) {
    }
    return seen_;
  }
  /// The server said that it will send no more, which nobody between could have said for it.
  bool ended_properly() const { return (SSL_get_shutdown(ssl_.get()) & SSL_RECEIVED_SHUTDOWN) != 0; }

 private:
  bool ReadSome() {
    std::array<char, 4096> bytes{};
    const int n = SSL_read(ssl_.get(), bytes.data(), static_cast<int>(bytes.size()));
    if (n > 0) seen_.append(bytes.data(), static_cast<size_t>(n));
    return n > 0;
  }

  const int fd_;
  const Owned<SSL_CTX, SSL_CTX_free> context_{SSL_CTX_new(TLS_client_method())};
  Owned<SSL, SSL_free> ssl_;
  bool connected_ = false;
  std::string seen_;
};

class Nobody : public HttpObserver {
 public:
  std::optional<ApiError> Admit(HttpRequest&) override { return std::nullopt; }
  void OnFinished(const RequestRecord&) override {}
};

class HttpTlsTest : public testing::Test {
 protected:
  void SetUp() override {
    WriteCertificate(cert_, key_);
    router_.Add("POST", "/echo", [](const HttpRequest& request, std::shared_ptr<Responder> responder) {
      responder->Send(200, "application/octet-stream", request.body);
    });
    router_.Add("GET", "/stream", [](const HttpRequest&, std::shared_ptr<Responder> responder) {
      responder->BeginStream(200, "text/event-stream");
      for (int i = 0; i < 3; ++i) responder->Write("data: " + std::to_string(i) + "\n\n");
      responder->End();
    });
    HttpServerOptions options;
    options.port = 0;
    options.tls_cert = cert_;
    options.tls_key = key_;
    options.request_timeout = std::chrono::milliseconds(2000);
    auto server = HttpServer::Create(options, router_, observer_);
    ASSERT_TRUE(server.ok()) << server.status().message();
    server_ = *std::move(server);
    thread_ = std::thread([this] { server_->Run(); });
  }
  void TearDown() override {
    if (server_ == nullptr) return;
    server_->Stop();
    thread_.join();
    for (const std::string& path : {cert_, key_}) unlink(path.c_str());
  }

  const std::string cert_ = testing::TempDir() + "gptoss_tls_" + std::to_string(getpid()) + ".crt";
  const std::string key_ = testing::TempDir() + "gptoss_tls_" + std::to_string(getpid()) + ".key";
  Router router_;
  Nobody observer_;
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
};

TEST_F(HttpTlsTest, RequestsAndStreamsOverOneConnection) {
  EXPECT_TRUE(server_->address().starts_with("https://")) << server_->address();
  TlsClient client(server_->address(), cert_);
  ASSERT_TRUE(client.connected()) << ERR_error_string(ERR_get_error(), nullptr);
  const std::string body(300'000, 'x');  // many records
  client.Say("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n");
  client.Say(body);
  EXPECT_TRUE(client.ReadTo("\r\n\r\n" + body));
  client.Say("GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(client.ReadAll().ends_with("data: 2\n\n\r\n0\r\n\r\n"));
  EXPECT_TRUE(client.ended_properly());
}

TEST_F(HttpTlsTest, WhoeverSpeaksNoProperTlsIsDroppedAndNobodyElse) {
  for (const int version : {TLS1_VERSION, TLS1_1_VERSION}) {
    EXPECT_FALSE(TlsClient(server_->address(), cert_, version).connected());
  }
  ERR_clear_error();
  const int plain = Connect(server_->address());
  const std::string text = "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n";
  ASSERT_EQ(send(plain, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  std::array<char, 1024> bytes{};
  std::string seen;
  for (ssize_t n; (n = recv(plain, bytes.data(), bytes.size(), 0)) > 0;)
    seen.append(bytes.data(), static_cast<size_t>(n));
  EXPECT_EQ(seen.find("HTTP/"), std::string::npos);
  close(plain);
  const int silent = Connect(server_->address());  // never begins its handshake
  EXPECT_LE(recv(silent, bytes.data(), bytes.size(), 0), 0);
  EXPECT_NE(errno, EAGAIN) << "the server lets it go";
  close(silent);
  TlsClient client(server_->address(), cert_);
  ASSERT_TRUE(client.connected());
  client.Say("GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_NE(client.ReadAll().find("data: 2"), std::string::npos);
}

TEST_F(HttpTlsTest, FilesThatAreNoCertificateOrKeyAreNamed) {
  HttpServerOptions options;
  options.port = 0;
  options.tls_cert = key_;
  options.tls_key = key_;
  EXPECT_NE(HttpServer::Create(options, router_, observer_).status().message().find("--tls-cert"), std::string::npos);
  options.tls_cert = cert_;
  options.tls_key = cert_;
  EXPECT_NE(HttpServer::Create(options, router_, observer_).status().message().find("--tls-key"), std::string::npos);
}

}  // namespace
}  // namespace gptoss::server
