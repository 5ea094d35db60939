#include "hub/http_client.h"

#include <curl/curl.h>

#include <algorithm>
#include <charconv>
#include <mutex>

#include "hub/names.h"

namespace gptoss::hub {
namespace {

constexpr int kMaxRedirects = 10;

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::string_view Trim(std::string_view s) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = s.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return s.substr(begin, s.find_last_not_of(kSpace) - begin + 1);
}

std::optional<uint64_t> ParseUint(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct FreeUrl {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
struct FreeEasy {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

/// One part of a URL, or nothing.
std::optional<std::string> UrlPart(CURLU* url, CURLUPart part, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, flags) != CURLUE_OK || text == nullptr) return std::nullopt;
  std::string out(text);
  curl_free(text);
  return out;
}

/// What the callbacks of one transfer share.
struct Transfer {
  HttpResponse head;
  const HttpClient::BodySink* sink = nullptr;
  const std::atomic<bool>* cancel = nullptr;
};

size_t OnHeader(char* data, size_t size, size_t count, void* user) {
  auto* transfer = static_cast<Transfer*>(user);
  const std::string_view line(data, size * count);
  if (line.starts_with("HTTP/")) {  // a new header block; "100 Continue" may precede the real one
    transfer->head = HttpResponse{};
    const size_t space = line.find(' ');
    if (space != std::string_view::npos) {
      transfer->head.status = static_cast<int>(ParseUint(Trim(line.substr(space + 1, 3))).value_or(0));
    }
    return size * count;
  }
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return size * count;
  const std::string name = Lower(line.substr(0, colon));
  const std::string_view value = Trim(line.substr(colon + 1));
  HttpResponse& head = transfer->head;
  if (name == "content-length") head.content_length = ParseUint(value);
  if (name == "content-range") head.content_range = ParseContentRange(value);
  if (name == "etag") head.etag = Printable(value);
  if (name == "x-error-code") head.error_code = Printable(value);
  if (name == "x-error-message") head.error_message = Printable(value);
  return size * count;
}

size_t OnBody(char* data, size_t size, size_t count, void* user) {
  auto* transfer = static_cast<Transfer*>(user);
  const size_t bytes = size * count;
  if (transfer->head.status / 100 != 2) return bytes;  // the text of an error page is of no use
  if ((*transfer->sink)(transfer->head, {data, bytes})) return bytes;
  transfer->head.stopped_by_sink = true;
  return 0;
}

int OnProgress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const auto* transfer = static_cast<const Transfer*>(user);
  return transfer->cancel != nullptr && transfer->cancel->load(std::memory_order_relaxed) ? 1 : 0;
}

/// Failures that another attempt will not change.
bool IsPermanent(CURLcode code) {
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_OUT_OF_MEMORY:
      return true;
    default:
      return false;
  }
}

bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

}  // namespace

Result<Origin> ParseOrigin(const std::string& url) {
  const std::unique_ptr<CURLU, FreeUrl> parsed(curl_url());
  if (parsed == nullptr || curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) {
    return InvalidArgument("\"" + Printable(url) + "\" is not an absolute URL such as https://huggingface.co");
  }
  if (UrlPart(parsed.get(), CURLUPART_USER) || UrlPart(parsed.get(), CURLUPART_PASSWORD)) {
    return InvalidArgument("the endpoint's URL holds a user name or password; set HF_TOKEN instead");
  }
  const auto scheme = UrlPart(parsed.get(), CURLUPART_SCHEME);
  const auto host = UrlPart(parsed.get(), CURLUPART_HOST);
  const auto port = UrlPart(parsed.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT);
  if (!scheme || !host || !port || (*scheme != "http" && *scheme != "https")) {
    return InvalidArgument("\"" + Printable(url) + "\" is not an http or https URL");
  }
  return Origin{*scheme, Lower(*host), *port};
}

bool IsLoopback(const Origin& origin) {
  if (origin.host == "localhost" || origin.host == "[::1]") return true;
  // Only the four-number form: "127.evil.example" is a name.
  if (!origin.host.starts_with("127.") || std::count(origin.host.begin(), origin.host.end(), '.') != 3) return false;
  return origin.host.find_first_not_of("0123456789.") == std::string::npos;
}

std::optional<ContentRange> ParseContentRange(std::string_view value) {
  if (!Lower(value.substr(0, 6)).starts_with("bytes ")) return std::nullopt;
  value = Trim(value.substr(6));
  const size_t dash = value.find('-'), slash = value.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || dash > slash) return std::nullopt;
  const auto first = ParseUint(value.substr(0, dash));
  const auto last = ParseUint(value.substr(dash + 1, slash - dash - 1));
  if (!first || !last || *last < *first || *last == UINT64_MAX) return std::nullopt;
  ContentRange out{{*first, *last + 1}, std::nullopt};
  if (value.substr(slash + 1) != "*") {
    out.total = ParseUint(value.substr(slash + 1));
    if (!out.total) return std::nullopt;
  }
  return out;
}

struct HttpClient::Impl {
  HttpOptions options;
  Origin endpoint;
  std::unique_ptr<CURL, FreeEasy> easy;

  Result<HttpResponse> Once(const std::string& url, std::optional<ByteRange> range, Transfer* transfer);
  Status CheckTarget(const std::string& url, Origin* origin) const;
  Status Fail(CURLcode code, const char* detail, const Origin& origin) const;
};

HttpClient::HttpClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpClient::HttpClient(HttpClient&&) noexcept = default;
HttpClient& HttpClient::operator=(HttpClient&&) noexcept = default;
HttpClient::~HttpClient() = default;

Result<HttpClient> HttpClient::Create(HttpOptions options) {
  static std::once_flag once;
  static CURLcode started = CURLE_OK;
  std::call_once(once, [] { started = curl_global_init(CURL_GLOBAL_DEFAULT); });
  auto impl = std::make_unique<Impl>();
  impl->easy.reset(started == CURLE_OK ? curl_easy_init() : nullptr);
  if (impl->easy == nullptr) return Unsupported("the curl library failed to start");
  GPTOSS_ASSIGN_OR_RETURN(impl->endpoint, ParseOrigin(options.endpoint));
  const auto is_token_char = [](char c) { return c > 0x20 && c < 0x7F; };
  if (!std::all_of(options.token.begin(), options.token.end(), is_token_char)) {
    return InvalidArgument("HF_TOKEN holds a space, a line end or another character that no token has");
  }
  impl->options = std::move(options);
  Origin unused;
  GPTOSS_RETURN_IF_ERROR(impl->CheckTarget(impl->options.endpoint, &unused));
  return HttpClient(std::move(impl));
}

/// Plain http only where the endpoint itself was allowed to use it, and then only on loopback unless permitted.
Status HttpClient::Impl::CheckTarget(const std::string& url, Origin* origin) const {
  GPTOSS_ASSIGN_OR_RETURN(*origin, ParseOrigin(url));
  if (origin->scheme == "https" || options.allow_plain_http) return Status();
  if (endpoint.scheme == "https") {
    return Unsupported("the endpoint redirects to plain http (host " + Printable(origin->host) +
                       "), which is refused; pass --insecure to allow it");
  }
  if (!IsLoopback(*origin)) {
    return InvalidArgument("plain http to " + Printable(origin->host) +
                           " is refused; use an https:// URL, or pass --insecure to allow it");
  }
  return Status();
}

Status HttpClient::Impl::Fail(CURLcode code, const char* detail, const Origin& origin) const {
  const std::string why = detail[0] != '\0' ? detail : curl_easy_strerror(code);
  const std::string message = origin.host + ": " + Printable(why);
  return IsPermanent(code) ? Unsupported(message) : IoError(message);
}

Result<HttpResponse> HttpClient::Impl::Once(const std::string& url, std::optional<ByteRange> range,
                                            Transfer* transfer) {
  Origin origin;
  GPTOSS_RETURN_IF_ERROR(CheckTarget(url, &origin));
  CURL* c = easy.get();
  curl_easy_reset(c);  // keeps the connections
  char detail[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(c, CURLOPT_ERRORBUFFER, detail);
  curl_easy_setopt(c, CURLOPT_URL, url.c_str());
  curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
  // Several connections are the point; over HTTP/2 they would share one server's flow control.
  curl_easy_setopt(c, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(c, CURLOPT_USERAGENT, "gptoss");
  curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, static_cast<long>(options.connect_timeout_s));
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, static_cast<long>(options.stall_timeout_s));
  if (!options.ca_file.empty()) curl_easy_setopt(c, CURLOPT_CAINFO, options.ca_file.c_str());
  curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, &OnHeader);
  curl_easy_setopt(c, CURLOPT_HEADERDATA, transfer);
  curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, &OnBody);
  curl_easy_setopt(c, CURLOPT_WRITEDATA, transfer);
  curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, &OnProgress);
  curl_easy_setopt(c, CURLOPT_XFERINFODATA, transfer);
  std::unique_ptr<curl_slist, FreeList> headers;
  if (!options.token.empty() && origin == endpoint) {
    headers.reset(curl_slist_append(nullptr, ("Authorization: Bearer " + options.token).c_str()));
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers.get());
    curl_easy_setopt(c, CURLOPT_HEADEROPT, static_cast<long>(CURLHEADER_SEPARATE));  // not to a proxy's CONNECT
  }
  std::string range_text;
  if (range) {
    range_text = std::to_string(range->begin) + "-" + std::to_string(range->end - 1);
    curl_easy_setopt(c, CURLOPT_RANGE, range_text.c_str());
  }
  const CURLcode code = curl_easy_perform(c);
  if (code == CURLE_ABORTED_BY_CALLBACK) return Cancelled("stopped");
  if (code != CURLE_OK && !transfer->head.stopped_by_sink) return Fail(code, detail, origin);
  curl_off_t retry_after = 0;
  if (curl_easy_getinfo(c, CURLINFO_RETRY_AFTER, &retry_after) == CURLE_OK && retry_after > 0) {
    transfer->head.retry_after_s = retry_after;
  }
  return transfer->head;
}

Result<HttpResponse> HttpClient::Get(const std::string& url, std::optional<ByteRange> range,
                                     const std::atomic<bool>* cancel, const BodySink& sink) {
  std::string target = url;
  for (int hop = 0; hop <= kMaxRedirects; ++hop) {
    Transfer transfer{{}, &sink, cancel};
    GPTOSS_ASSIGN_OR_RETURN(HttpResponse response, impl_->Once(target, range, &transfer));
    if (!IsRedirect(response.status)) return response;
    char* next = nullptr;
    curl_easy_getinfo(impl_->easy.get(), CURLINFO_REDIRECT_URL, &next);
    if (next == nullptr) return Unsupported(impl_->endpoint.host + ": a redirect names no target");
    target = next;
  }
  return Unsupported(impl_->endpoint.host + ": more than 10 redirects");
}

}  // namespace gptoss::hub
