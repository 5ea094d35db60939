#include "server/request_reader.h"

#include <gtest/gtest.h>

#include "server/access_keys.h"
#include "server/http.h"

namespace gptoss::server {
namespace {

using State = RequestReader::State;

TEST(RequestReader, AnyCutGivesTheSame) {
  const std::string text =
      "\r\nPOST http://h/v1/x%2Fy?a=1&b=%C3%BC+c HTTP/1.1\r\nX-Key: Value\r\nContent-Length: 5\r\n\r\nhello"
      "GET / HTTP/1.0\r\n\r\n";
  for (size_t step = 1; step <= text.size(); ++step) {
    RequestReader reader({});
    std::vector<HttpRequest> requests;
    for (size_t at = 0; at < text.size(); at += step) {
      State state = reader.Feed(text.substr(at, step));
      if (state == State::kBody) state = reader.Continue();
      while (state == State::kDone) {
        requests.push_back(reader.request());
        EXPECT_EQ(reader.keep_alive(), requests.size() == 1);
        reader.Next();
        state = reader.Continue();
        if (state == State::kBody) state = reader.Continue();
      }
      ASSERT_NE(reader.state(), State::kFailed) << reader.error();
    }
    ASSERT_EQ(requests.size(), 2u) << "in pieces of " << step;
    EXPECT_EQ(requests[0].path, "/v1/x/y");
    EXPECT_EQ(requests[0].Query("b"), "\xC3\xBC c");
    EXPECT_EQ(requests[0].Header("x-key"), "Value");
    EXPECT_EQ(requests[0].body, "hello");
    EXPECT_EQ(requests[1].method, "GET");
  }
}

TEST(RequestReader, AChunkHeaderWithoutEndIsRefused) {
  RequestReader reader({.max_header_bytes = 1000, .max_body_bytes = 1 << 20});
  EXPECT_EQ(reader.Feed("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), State::kBody);
  State state = reader.Continue();
  for (int i = 0; i < 100 && state != State::kFailed; ++i) state = reader.Feed("1;" + std::string(100, 'x'));
  EXPECT_EQ(state, State::kFailed);
  EXPECT_EQ(reader.error_status(), 400);
}

TEST(PercentDecode, IsStrict) {
  std::string out;
  EXPECT_TRUE(PercentDecode("a%41+", false, &out));
  EXPECT_EQ(out, "aA+");
  for (const char* wrong : {"%", "%4", "%4g", "%%41"}) EXPECT_FALSE(PercentDecode(wrong, true, &out)) << wrong;
}

TEST(Router, FindsByMethodAndPattern) {
  Router router;
  router.Add("GET", "/v1/x/{}", [](const HttpRequest&, std::shared_ptr<Responder>) {});
  router.Add("DELETE", "/v1/x/{}", [](const HttpRequest&, std::shared_ptr<Responder>) {});
  EXPECT_EQ(router.Find("GET", "/v1/x/7").pattern, "/v1/x/{}");
  EXPECT_NE(router.Find("HEAD", "/v1/x/7").handler, nullptr);
  EXPECT_EQ(router.Find("POST", "/v1/x/7").handler, nullptr);
  EXPECT_EQ(router.Find("POST", "/v1/x/7").allowed, "GET, DELETE");
  for (const char* path : {"/v1/x", "/v1/x/", "/v1/x/7/8", "/v1/y/7", ""})
    EXPECT_EQ(router.Find("GET", path).allowed, "");
}

HttpRequest With(const std::string& name, const std::string& value) {
  HttpRequest request;
  request.headers.emplace_back(name, value);
  return request;
}

TEST(AccessKeys, WhoMayAndHowMuch) {
  auto keys = ParseAccessKeys("# team\nsecret1\nana secret2 requests_per_minute=2\n\nbob secret3 concurrent=1\n");
  ASSERT_TRUE(keys.ok()) << keys.status().message();
  AccessControl access;
  HttpRequest open;
  EXPECT_FALSE(access.Admit(open)) << "without keys everybody may";
  access.SetKeys(*keys);
  HttpRequest none, wrong = With("authorization", "Bearer secret"), first = With("authorization", "bearer secret1");
  EXPECT_EQ(access.Admit(none)->http_status, 401);
  EXPECT_EQ(access.Admit(wrong)->http_status, 401);
  EXPECT_FALSE(access.Admit(first));
  EXPECT_EQ(first.key_name, "key1");
  HttpRequest ana = With("x-api-key", "secret2");
  EXPECT_FALSE(access.Admit(ana));
  EXPECT_FALSE(access.Admit(ana));
  const auto refused = access.Admit(ana);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->http_status, 429);
  EXPECT_GT(refused->retry_after_s, 0);
  HttpRequest bob = With("api-key", "secret3");
  EXPECT_FALSE(access.Admit(bob));
  EXPECT_EQ(access.Admit(bob)->http_status, 429);
  access.Release("bob");
  EXPECT_FALSE(access.Admit(bob));
}

TEST(AccessKeys, ErrorsNameTheLineAndNeverTheKey) {
  for (const char* text : {"a k1\nb k2 speed=3", "a k1\nb k2 concurrent=x", "a k1\na k2"}) {
    const auto keys = ParseAccessKeys(text);
    ASSERT_FALSE(keys.ok()) << text;
    EXPECT_NE(keys.status().message().find("line 2"), std::string::npos);
    EXPECT_EQ(keys.status().message().find("k2"), std::string::npos);
  }
}

}  // namespace
}  // namespace gptoss::server
