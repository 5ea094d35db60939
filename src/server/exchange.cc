#include <array>
#include <cstdio>
#include <ctime>
#include <utility>

#include "server/connection.h"

namespace gptoss::server {
namespace {

std::string_view Reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return status < 400 ? "Success" : status < 500 ? "Client Error" : "Server Error";
  }
}

std::string HttpDate() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::array<char, 40> text{};
  // The process runs in the C locale, whose names are those that HTTP wants.
  return {text.data(), std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &utc)};
}

/// A header's value cannot end its line.
void AppendHeader(std::string_view name, std::string_view value, std::string* out) {
  *out += name;
  *out += ": ";
  for (const char c : value) {
    if (c != '\r' && c != '\n' && c != '\0') *out += c;
  }
  *out += "\r\n";
}

}  // namespace

void Exchange::AppendHead(int status, std::string_view content_type, const Responder::Headers& headers,
                          int64_t length) {
  status_ = status;
  if (host_.draining()) traits_.keep_alive = false;
  // A client of HTTP/1.0 knows no chunks: for it, the stream ends where the connection does.
  if (length < 0 && traits_.http10) traits_.keep_alive = false;
  out_ += "HTTP/1.1 " + std::to_string(status) + " " + std::string(Reason(status)) + "\r\n";
  AppendHeader("Date", HttpDate(), &out_);
  if (!content_type.empty()) AppendHeader("Content-Type", content_type, &out_);
  if (length >= 0) {
    AppendHeader("Content-Length", std::to_string(length), &out_);
  } else if (!traits_.http10) {
    AppendHeader("Transfer-Encoding", "chunked", &out_);
  }
  if (!traits_.keep_alive) {
    AppendHeader("Connection", "close", &out_);
  } else if (traits_.http10) {
    AppendHeader("Connection", "keep-alive", &out_);
  }
  if (!traits_.origin.empty()) {
    AppendHeader("Access-Control-Allow-Origin", traits_.origin, &out_);
    AppendHeader("Access-Control-Expose-Headers", "X-Request-Id, Retry-After", &out_);
    AppendHeader("Vary", "Origin", &out_);
  }
  AppendHeader("X-Request-Id", traits_.id, &out_);
  for (const auto& [name, value] : headers) AppendHeader(name, value, &out_);
  out_ += "\r\n";
}

void Exchange::AppendChunk(std::string_view bytes) {
  if (traits_.head || bytes.empty()) return;
  if (traits_.http10) {
    out_ += bytes;
    return;
  }
  std::array<char, 20> size{};
  std::snprintf(size.data(), size.size(), "%zx\r\n", bytes.size());
  out_ += size.data();
  out_ += bytes;
  out_ += "\r\n";
}

/// Called with the mutex held.
void Exchange::Flush() {
  if (std::exchange(flushing_, true)) return;
  host_.Post([weak = connection_] {
    if (const auto connection = weak.lock()) connection->Flush();
  });
}

void Exchange::Send(int status, std::string_view content_type, std::string body, const Responder::Headers& headers) {
  const std::lock_guard lock(mutex_);
  if (closed_ || state_ != State::kWaiting) return;
  state_ = State::kEnded;
  AppendHead(status, content_type, headers, static_cast<int64_t>(body.size()));
  if (!traits_.head && status != 204) out_ += body;
  Flush();
}

void Exchange::BeginStream(int status, std::string_view content_type, const Responder::Headers& headers) {
  const std::lock_guard lock(mutex_);
  if (closed_ || state_ != State::kWaiting) return;
  state_ = State::kStreaming;
  events_ = content_type.starts_with("text/event-stream");
  AppendHead(status, content_type, headers, -1);
  Flush();
}

bool Exchange::Write(std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  if (closed_ || overflowed_ || state_ != State::kStreaming) return false;
  AppendChunk(bytes);
  overflowed_ = out_.size() > host_.options().max_unsent_bytes;
  // While a write is stuck, what was told before is not looked at; that the stream is over must be.
  if (overflowed_) flushing_ = false;
  Flush();
  return !overflowed_;
}

void Exchange::End() {
  const std::lock_guard lock(mutex_);
  if (closed_ || state_ != State::kStreaming) return;
  state_ = State::kEnded;
  if (!traits_.head && !traits_.http10) out_ += "0\r\n\r\n";
  Flush();
}

void Exchange::OnClosed(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!closed_) {
      if (state_ != State::kEnded) on_closed_ = std::move(callback);
      return;
    }
  }
  callback();
}

void Exchange::Abandon() {
  {
    const std::lock_guard lock(mutex_);
    if (closed_ || state_ == State::kEnded) return;
    if (state_ == State::kStreaming) {
      broken_ = true;  // a stream without its end must not look like a whole one
      flushing_ = false;
      Flush();
      return;
    }
  }
  Send(500, "application/json", WriteJson(ErrorJson({500, "server_error", "the request was not answered", {}, {}, 0})),
       {});
}

void Exchange::Ping() {
  const std::lock_guard lock(mutex_);
  if (closed_ || state_ != State::kStreaming || !events_ || !out_.empty()) return;
  AppendChunk(":\n\n");
  Flush();
}

bool Exchange::Take(std::string* out) {
  const std::lock_guard lock(mutex_);
  flushing_ = false;
  out->clear();
  std::swap(*out, out_);
  return !out->empty();
}

bool Exchange::complete() const {
  const std::lock_guard lock(mutex_);
  return state_ == State::kEnded && out_.empty();
}

bool Exchange::must_close() const {
  const std::lock_guard lock(mutex_);
  return overflowed_ || broken_;
}

bool Exchange::keep_alive() const {
  const std::lock_guard lock(mutex_);
  return traits_.keep_alive;
}

int Exchange::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

void Exchange::CloseAfter() {
  const std::lock_guard lock(mutex_);
  traits_.keep_alive = false;
}

void Exchange::Close() {
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    out_.clear();
    callback = std::move(on_closed_);
    on_closed_ = nullptr;
    if (state_ == State::kEnded) return;
  }
  if (callback) host_.Work(std::move(callback));
}

}  // namespace gptoss::server
