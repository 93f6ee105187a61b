#include "gateway/meter/json_text.hpp"

#include <limits>
#include <string>

#include <gtest/gtest.h>

namespace penstock::gateway {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

// Money depends on them: decimals are read digit by digit, never through a double.
TEST(JsonTextTest, QuantitiesAreExactToBillionthsAndRoundedUp) {
  EXPECT_EQ(parse_nano("1"), 1'000'000'000);
  EXPECT_EQ(parse_nano("0"), 0);
  EXPECT_EQ(parse_nano("0.1"), 100'000'000);
  EXPECT_EQ(parse_nano("0.000000001"), 1);
  EXPECT_EQ(parse_nano("0.0000000001"), 1);
  EXPECT_EQ(parse_nano("1.0000000000000000000000000001"), 1'000'000'001);
  EXPECT_EQ(parse_nano("1.000000000000000000000000000"), 1'000'000'000);
  EXPECT_EQ(parse_nano("12.5e-3"), 12'500'000);
  EXPECT_EQ(parse_nano("1E+2"), 100'000'000'000);
  EXPECT_EQ(parse_nano("1e-400"), 1);
  EXPECT_EQ(parse_nano("0e999999999999999999999"), 0);
  EXPECT_EQ(parse_nano(" 0042.50 "), 42'500'000'000);
  EXPECT_EQ(parse_nano("9223372036.854775807"), kMost);
}

TEST(JsonTextTest, WhatIsNoQuantityIsNone) {
  for (const char* text :
       {"", " ", "-1", "-0", "+1", "NaN", "Infinity", "1,000", "1.", ".5", "1e", "1e+", "0x10", "1 2",
        "9223372036.854775808", "9223372036.8547758070001", "1e10", "1e999999999999999999999"}) {
    EXPECT_EQ(parse_nano(text), std::nullopt) << text;
  }
}

TEST(JsonTextTest, CountsAreWholeAndBounded) {
  EXPECT_EQ(parse_whole("12", 100), 12);
  EXPECT_EQ(parse_whole("12.0", 100), 12);
  EXPECT_EQ(parse_whole("1.2e1", 100), 12);
  EXPECT_EQ(parse_whole("12.5", 100), std::nullopt);
  EXPECT_EQ(parse_whole("101", 100), std::nullopt);
  EXPECT_EQ(parse_up("12.5", 100), 13);
  EXPECT_EQ(parse_up("100.5", 100), std::nullopt);
}

std::optional<std::int64_t> find(std::string_view text, std::string_view pointer) {
  std::optional<std::int64_t> found;
  with_json(text, [&](simdjson::ondemand::value root) {
    found = find_nano(root, pointer);
    return true;
  });
  return found;
}

TEST(JsonTextTest, PointersAreThoseOfRfc6901) {
  const std::string text =
      R"({"a":{"b":[1,{"c":"2.5"},[3]]},"x/y":4,"m~n":5,"":6,"e\u0063\"ho":7,"~1":8,"n":null,"t":true,"o":{}})";
  EXPECT_EQ(find(text, "/a/b/0"), 1'000'000'000);
  EXPECT_EQ(find(text, "/a/b/1/c"), 2'500'000'000);
  EXPECT_EQ(find(text, "/a/b/2/0"), 3'000'000'000);
  EXPECT_EQ(find(text, "/x~1y"), 4'000'000'000);
  EXPECT_EQ(find(text, "/m~0n"), 5'000'000'000);
  EXPECT_EQ(find(text, "/"), 6'000'000'000);
  EXPECT_EQ(find(text, "/ec\"ho"), 7'000'000'000);
  EXPECT_EQ(find(text, "/~01"), 8'000'000'000);
  EXPECT_EQ(find("[[7]]", "/0/0"), 7'000'000'000);
  for (const char* absent :
       {"/a/b/3", "/a/b/-", "/a/b/00", "/a/b/x", "/a/b/0/0", "/A", "/m~n", "/x~", "x", "/n", "/o/"}) {
    EXPECT_EQ(find(text, absent), std::nullopt) << absent;
  }
  // There, but no quantity: that is not the same as absent.
  EXPECT_EQ(find(text, "/t"), -1);
  EXPECT_EQ(find(text, "/o"), -1);
}

TEST(JsonTextTest, ReadsWholeTextsOnly) {
  const auto is_whole = [](std::string_view text) {
    return with_json(text, [](simdjson::ondemand::value root) {
      return for_each_member(root, [](std::string_view, simdjson::ondemand::value) { return true; });
    });
  };
  EXPECT_TRUE(is_whole(" {} "));
  EXPECT_TRUE(is_whole(R"({"a":[1,{"b":"}"}]})"));
  for (const char* text :
       {"", " ", "1", "\"a\"", "{", "}", "{}x", "{} {}", R"({"a":1}})", R"({"a":1)", R"({"a"})",
        R"({"a":1,})", R"({"a":1 "b":2})", "{\"a\":\"\xff\"}", "{\"a\":\"\n\"}", R"({a:1})", R"(["a"])"}) {
    EXPECT_FALSE(is_whole(text)) << text;
  }
}

// One scratch serves texts of any size in any order.
TEST(JsonTextTest, LargeAndSmallTextsTakeTurns) {
  for (const std::size_t size : {10UL, 5'000'000UL, 20UL, 4'096UL, 4'097UL, 200'000UL, 0UL}) {
    const std::string text = R"({"a":")" + std::string(size, 'x') + R"(","b":7})";
    EXPECT_EQ(find(text, "/b"), 7'000'000'000) << size;
  }
}

}  // namespace
}  // namespace penstock::gateway
