#include "server/connection.h"

#include <algorithm>
#include <utility>

namespace gptoss::server {
namespace {

constexpr size_t kMaxPipelined = 64u << 10;  // bytes of later requests that are read while one is answered
constexpr uint64_t kMaxDiscarded = 16u << 20;
constexpr std::chrono::seconds kLinger{2};

/// What a handler holds: when the last copy goes, an answer that was not given is.
class ResponseHandle : public Responder {
 public:
  explicit ResponseHandle(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)) {}
  ~ResponseHandle() override { exchange_->Abandon(); }
  void Send(int status, std::string_view content_type, std::string body, Headers headers) override {
    exchange_->Send(status, content_type, std::move(body), headers);
  }
  void BeginStream(int status, std::string_view content_type, Headers headers) override {
    exchange_->BeginStream(status, content_type, headers);
  }
  bool Write(std::string_view bytes) override { return exchange_->Write(bytes); }
  void End() override { exchange_->End(); }
  void OnClosed(std::function<void()> callback) override { exchange_->OnClosed(std::move(callback)); }

 private:
  const std::shared_ptr<Exchange> exchange_;
};

/// "http://localhost:3000" and the like: pages that this machine serves itself.
bool IsLocalOrigin(std::string_view origin) {
  const size_t scheme = origin.find("://");
  if (scheme == std::string_view::npos) return false;
  std::string_view host = origin.substr(scheme + 3);
  host = host.starts_with('[') ? host.substr(0, host.find(']') + 1) : host.substr(0, host.find(':'));
  return host == "localhost" || host.ends_with(".localhost") || host == "127.0.0.1" || host == "[::1]";
}

}  // namespace

Connection::Connection(ConnectionHost& host) : host_(host), reader_(host.options().limits) {
  last_read_ = last_write_ = request_begin_ = Clock::now();
}

void Connection::Start(bool crowded) {
  crowded_ = crowded;
  Handshake();
}

void Connection::OnReady(bool ok) {
  if (closed_) return;
  if (!ok) return Close();
  ready_ = true;
  last_read_ = Clock::now();
  Read();
}

void Connection::Read() {
  if (closed_ || reading_) return;
  reading_ = true;
  ReadSome();
}

void Connection::OnRead(bool ok, std::string_view bytes) {
  reading_ = false;
  if (closed_) return;
  if (!ok) return Close();
  last_read_ = Clock::now();
  if (lingering_ || refused_) {
    discarded_ += bytes.size();
    return discarded_ > kMaxDiscarded ? Close() : Read();
  }
  if (!reader_.has_input()) request_begin_ = last_read_;
  const RequestReader::State state = reader_.Feed(bytes);
  if (exchange_ == nullptr) return Process(state);
  // The next request has to wait. Reading goes on, for that is how a client's leaving is noticed.
  if (reader_.backlog() < kMaxPipelined) Read();
}

void Connection::Process(RequestReader::State state) {
  if (state == RequestReader::State::kHeader) return Read();
  if (state == RequestReader::State::kFailed) {
    BeginExchange();
    const int status = reader_.error_status();
    return Refuse({status, "invalid_request_error", reader_.error(), {}, {}, 0});
  }
  if (!seen_) {
    if (!Admit()) return;
    if (state == RequestReader::State::kBody) {
      if (reader_.expects_continue()) {
        urgent_ = "HTTP/1.1 100 Continue\r\n\r\n";
        Flush();
      }
      state = reader_.Continue();
      if (state == RequestReader::State::kFailed) return Process(state);
    }
  }
  if (state == RequestReader::State::kBody) return Read();
  Dispatch();
}

bool Connection::OriginAllowed(std::string_view origin) const {
  if (origin.empty() || IsLocalOrigin(origin)) return true;
  const auto& allowed = host_.options().allowed_origins;
  return std::any_of(allowed.begin(), allowed.end(), [&](const std::string& o) { return o == "*" || o == origin; });
}

void Connection::Note() {
  seen_ = true;
  headers_done_ = Clock::now();
  method_ = reader_.request().method;
  path_ = reader_.request().path;
  request_id_ = host_.NextRequestId();
}

bool Connection::Admit() {
  Note();
  HttpRequest& request = reader_.request();
  const bool origin_allowed = OriginAllowed(request.Header("origin"));
  origin_ = origin_allowed ? std::string(request.Header("origin")) : std::string();
  std::optional<ApiError> refusal;
  if (crowded_) {
    refusal = ApiError{503, "server_error", "too many connections are open; try again", {}, "overloaded", 1};
  } else if (!origin_allowed) {
    refusal =
        ApiError{403, "invalid_request_error", "web pages of this origin may not use this server; see --cors-origin",
                 {},  "origin_not_allowed",    0};
  } else if (request.method != "OPTIONS") {
    refusal = host_.observer().Admit(request);
    admitted_ = !refusal;
  }
  key_name_ = request.key_name;
  if (!refusal) return true;
  BeginExchange();
  Refuse(*refusal);
  return false;
}

void Connection::BeginExchange() {
  if (!seen_) Note();
  sent_ = 0;
  Exchange::Traits traits;
  traits.keep_alive = reader_.keep_alive() && !host_.draining();
  traits.http10 = reader_.is_http10();
  traits.head = method_ == "HEAD";
  traits.id = request_id_;
  traits.origin = origin_;
  exchange_ = std::make_shared<Exchange>(weak_from_this(), host_, std::move(traits));
}

/// The rest of the request is not read as one, so the connection ends with the answer.
void Connection::Refuse(const ApiError& error) {
  refused_ = true;
  exchange_->CloseAfter();
  ResponseHandle handle(exchange_);
  SendError(handle, error);
  Read();
}

void Connection::SendPreflight() {
  exchange_->Send(204, {}, {},
                  {{"Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS"},
                   {"Access-Control-Allow-Headers", "*, Authorization"},
                   {"Access-Control-Max-Age", "86400"}});
}

void Connection::Dispatch() {
  BeginExchange();
  auto responder = std::make_shared<ResponseHandle>(exchange_);
  HttpRequest request = std::move(reader_.request());
  const Router::Match match = host_.router().Find(request.method, request.path);
  route_ = match.pattern;
  if (request.method == "OPTIONS") {
    SendPreflight();
  } else if (match.handler != nullptr) {
    host_.Work([handler = match.handler, request = std::move(request), responder = std::move(responder)] {
      (*handler)(request, responder);
    });
  } else if (!match.allowed.empty()) {
    responder->Send(405, "application/json",
                    WriteJson(ErrorJson({405,
                                         "invalid_request_error",
                                         request.method + " is not a method of " + path_ + "; use " + match.allowed,
                                         {},
                                         "method_not_allowed",
                                         0})),
                    {{"Allow", match.allowed}});
  } else {
    SendError(*responder, {404, "invalid_request_error", "there is nothing at " + path_, {}, "not_found", 0});
  }
  Read();
}

void Connection::Flush() {
  if (closed_) return;
  if (exchange_ != nullptr && exchange_->must_close()) return Close();
  if (writing_ || !ready_) return;
  out_at_ = 0;
  if (!urgent_.empty()) {
    out_ = std::exchange(urgent_, {});
  } else if (exchange_ == nullptr || !exchange_->Take(&out_)) {
    if (exchange_ != nullptr && exchange_->complete()) FinishExchange();
    return;
  }
  writing_ = true;
  last_write_ = Clock::now();
  WriteSome(out_);
}

void Connection::OnWritten(bool ok, size_t bytes) {
  writing_ = false;
  if (closed_) return;
  if (!ok) return Close();
  last_write_ = Clock::now();
  out_at_ += bytes;
  sent_ += bytes;
  if (out_at_ < out_.size()) {
    writing_ = true;
    return WriteSome(std::string_view(out_).substr(out_at_));
  }
  Flush();
}

void Connection::Report(bool client_left) {
  RequestRecord record;
  record.id = request_id_;
  record.method = method_;
  record.path = path_;
  record.route = route_;
  record.key_name = key_name_;
  record.status = exchange_ == nullptr ? 0 : exchange_->status();
  record.sent_bytes = sent_;
  record.seconds = std::chrono::duration<double>(Clock::now() - headers_done_).count();
  record.client_left = client_left;
  record.admitted = admitted_;
  host_.observer().OnFinished(record);
}

void Connection::FinishExchange() {
  const bool go_on = exchange_->keep_alive() && !host_.draining();
  Report(false);
  exchange_->Close();
  exchange_ = nullptr;
  if (!go_on) return BeginLinger();
  seen_ = admitted_ = false;
  route_.clear();
  key_name_.clear();
  reader_.Next();
  request_begin_ = last_read_ = Clock::now();
  Process(reader_.Continue());
}

/// A socket that is closed with bytes unread takes back what was written; so the client may finish first.
void Connection::BeginLinger() {
  lingering_ = true;
  linger_begin_ = Clock::now();
  ShutdownSend();
  Read();
}

void Connection::Tick(Clock::time_point now) {
  if (closed_) return;
  const HttpServerOptions& o = host_.options();
  if (writing_) {
    if (now - last_write_ > o.write_timeout) Close();
    return;
  }
  if (lingering_) {
    if (now - linger_begin_ > kLinger) Close();
    return;
  }
  if (exchange_ != nullptr) {
    if (now - last_write_ > o.ping_interval) exchange_->Ping();
    return;
  }
  if (ready_ && !reader_.has_input()) {
    if (now - last_read_ > o.idle_timeout) Close();
  } else if (now - last_read_ > o.request_timeout || now - request_begin_ > o.upload_timeout) {
    Close();
  }
}

void Connection::CloseIfIdle() {
  if (exchange_ == nullptr && !reader_.has_input() && !lingering_) Close();
}

void Connection::Close() {
  if (std::exchange(closed_, true)) return;
  const auto self = shared_from_this();
  CloseSocket();
  // Whoever was admitted has to be let go, even in the middle of an upload.
  if (exchange_ != nullptr || (admitted_ && !lingering_)) Report(true);
  if (exchange_ != nullptr) exchange_->Close();
  exchange_ = nullptr;
  host_.Remove(self);
}

}  // namespace gptoss::server
