#include "server/request_reader.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <utility>

namespace gptoss::server {
namespace {

namespace http = boost::beast::http;

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

std::string Lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

std::string_view View(boost::beast::string_view text) { return {text.data(), text.size()}; }

/// "http://host/path" -> "/path", as proxies write it.
std::string_view PathOf(std::string_view target) {
  if (target.starts_with('/') || target == "*") return target;
  const size_t scheme = target.find("://");
  if (scheme == std::string_view::npos) return target;
  const size_t slash = target.find('/', scheme + 3);
  return slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
}

bool ReadTarget(std::string_view target, HttpRequest* request) {
  target = PathOf(target.substr(0, target.find('#')));
  const size_t mark = target.find('?');
  if (!PercentDecode(target.substr(0, mark), false, &request->path)) return false;
  if (request->path.find('\0') != std::string::npos) return false;
  if (mark == std::string_view::npos) return request->path.starts_with('/') || request->path == "*";
  std::string_view rest = target.substr(mark + 1);
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(rest.size(), pair.size() + 1));
    const size_t equals = pair.find('=');
    auto& [name, value] = request->query.emplace_back();
    if (!PercentDecode(pair.substr(0, equals), true, &name)) return false;
    if (equals != std::string_view::npos && !PercentDecode(pair.substr(equals + 1), true, &value)) return false;
  }
  return request->path.starts_with('/');
}

std::pair<int, std::string> ErrorOf(const boost::beast::error_code& failure, const RequestLimits& limits) {
  if (failure == http::error::header_limit) return {431, "the headers are too long"};
  if (failure == http::error::body_limit) {
    return {413, "the body is over the limit of " + std::to_string(limits.max_body_bytes) + " bytes"};
  }
  if (failure == http::error::bad_version) return {505, "only HTTP/1.0 and HTTP/1.1 are spoken"};
  return {400, "not an HTTP request: " + failure.message()};
}

}  // namespace

bool PercentDecode(std::string_view text, bool plus, std::string* out) {
  out->clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && plus) {
      *out += ' ';
    } else if (text[i] != '%') {
      *out += text[i];
    } else {
      if (i + 2 >= text.size()) return false;
      const int high = HexDigit(text[i + 1]), low = HexDigit(text[i + 2]);
      if (high < 0 || low < 0) return false;
      *out += static_cast<char>(high * 16 + low);
      i += 2;
    }
  }
  return true;
}

struct RequestReader::Parser {
  http::request_parser<http::string_body> parser;
};

RequestReader::RequestReader(const RequestLimits& limits) : limits_(limits) { Next(); }
RequestReader::~RequestReader() = default;

void RequestReader::Next() {
  parser_ = std::make_unique<Parser>();
  parser_->parser.header_limit(static_cast<uint32_t>(limits_.max_header_bytes));
  parser_->parser.body_limit(limits_.max_body_bytes);
  parser_->parser.eager(false);
  request_ = HttpRequest();
  begun_ = expects_continue_ = false;
  if (state_ != State::kFailed) state_ = State::kHeader;
}

RequestReader::State RequestReader::Fail(int status, std::string message) {
  error_status_ = status;
  error_ = std::move(message);
  keep_alive_ = false;
  input_.clear();
  return state_ = State::kFailed;
}

void RequestReader::TakeHeader() {
  const auto& message = parser_->parser.get();
  request_.method = std::string(View(message.method_string()));
  for (const auto& field : message) {
    request_.headers.emplace_back(Lower(View(field.name_string())), std::string(View(field.value())));
  }
  keep_alive_ = parser_->parser.keep_alive();
  http10_ = message.version() < 11;
  expects_continue_ = !http10_ && Lower(request_.Header("expect")) == "100-continue";
}

RequestReader::State RequestReader::Feed(std::string_view bytes) {
  if (state_ == State::kFailed) return state_;
  input_ += bytes;
  return state_ == State::kDone ? state_ : Continue();
}

RequestReader::State RequestReader::Continue() {
  if (state_ == State::kDone || state_ == State::kFailed) return state_;
  auto& parser = parser_->parser;
  // Empty lines before a request are legal (RFC 9112, 2.2).
  size_t at = begun_ ? 0 : std::min(input_.find_first_not_of("\r\n"), input_.size());
  bool starved = false, header_only = false;
  while (at < input_.size() && !parser.is_done() && !starved && !header_only) {
    begun_ = true;
    boost::beast::error_code failure;
    at += parser.put(boost::asio::buffer(input_.data() + at, input_.size() - at), failure);
    starved = failure == http::error::need_more;
    if (failure && !starved) {
      const auto [status, message] = ErrorOf(failure, limits_);
      return Fail(status, message);
    }
    if (state_ == State::kHeader && parser.is_header_done()) {
      TakeHeader();
      if (!ReadTarget(View(parser.get().target()), &request_)) return Fail(400, "the request's path is not legal");
      state_ = State::kBody;
      header_only = !parser.is_done();
    }
  }
  input_.erase(0, at);
  // What the parser leaves for want of more is the header of a chunk without end.
  if (starved && state_ == State::kBody && input_.size() > limits_.max_header_bytes) {
    return Fail(400, "the header of a chunk is too long");
  }
  if (parser.is_done() && state_ == State::kBody) {
    request_.body = std::move(parser.get().body());
    state_ = State::kDone;
  }
  return state_;
}

}  // namespace gptoss::server
