#include "json/json.h"

#include <gtest/gtest.h>

namespace gptoss {
namespace {

TEST(Json, KeepsOrderAndReportsWhere) {
  EXPECT_EQ(WriteJson(*ParseJson(R"({"b":1,"a":[2.0,"x"]})")), R"({"b":1,"a":[2.0,"x"]})");
  EXPECT_EQ(ParseJson("{\"a\":}").status().code(), StatusCode::kCorruptData);
  EXPECT_NE(ParseJson("{\"a\":}").status().message().find("byte 6"), std::string::npos);
  EXPECT_EQ(ParseJson("").status().code(), StatusCode::kCorruptData);
}

TEST(Json, LimitsDepthAndSize) {
  const std::string deep(200, '[');
  EXPECT_EQ(ParseJson(deep).status().code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(ParseJson("[\"" + deep + "\"]").ok());  // brackets in a string are not nesting
  EXPECT_TRUE(ParseJson("[\"\\\"[[[[\"]", {.max_bytes = 100, .max_depth = 1}).ok());
  EXPECT_EQ(ParseJson("[1, 2, 3]", {.max_bytes = 4}).status().code(), StatusCode::kResourceExhausted);
}

TEST(Json, TypedAccessNeverThrows) {
  const Json j = *ParseJson(R"({"i":3,"f":32.0,"g":0.5,"s":"t","n":null})");
  EXPECT_EQ(*GetInt(j, "i"), 3);
  EXPECT_EQ(*GetInt(j, "f"), 32);
  EXPECT_FALSE(GetInt(j, "g").ok());
  EXPECT_FALSE(GetInt(j, "missing").ok());
  EXPECT_EQ(*GetDouble(j, "g"), 0.5);
  EXPECT_EQ(*FindString(j, "s"), "t");
  EXPECT_EQ(FindString(j, "i"), nullptr);
  EXPECT_EQ(FindField(Json(3), "x"), nullptr);
}

TEST(Json, WritesBrokenUtf8AsReplacement) { EXPECT_EQ(WriteJson(Json("a\xFF")), "\"a\xEF\xBF\xBD\""); }

}  // namespace
}  // namespace gptoss
