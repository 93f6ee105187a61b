#include <random>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "gateway/meter/usage_reader.hpp"

namespace penstock::gateway {
namespace {

const std::string kUsage =
    "data: "
    "{\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":10,\"total_tokens\":"
    "29}}\n\n";
const std::string kBefore =
    "\xEF\xBB\xBF: hello\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"\\\"choices\\\":[] "
    "\\\"usage\\\":{}\"}}],\"usage\":null}\n\n"
    "data: {\"choices\":[],\"prompt_filter_results\":[],\"usage\":null}\r\n\r\n"
    "event: x\rdata: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":1}}\r\r";
const std::string kAfter = "data: [DONE]\n\n";

std::string filtered(std::string_view text) {
  InjectedUsageFilter filter;
  std::string out;
  filter.feed(text, out);
  filter.finish(out);
  return out;
}

TEST(InjectedUsageFilterTest, TakesTheUsageEventAndNothingElse) {
  EXPECT_EQ(filtered(kBefore + kUsage + kAfter), kBefore + kAfter);
  EXPECT_EQ(filtered(kBefore + kAfter), kBefore + kAfter);
  EXPECT_EQ(filtered(kUsage), "");
}

TEST(InjectedUsageFilterTest, CommentsInsideTheEventStay) {
  EXPECT_EQ(filtered(": one\n" + kUsage + kAfter), ": one\n" + kAfter);
  EXPECT_EQ(filtered(": one\r\n:two\r\ndata: {\"choices\" : [ ],\r\ndata: \"usage\":{}}\r\n\r\n" + kAfter),
            ": one\r\n:two\r\n" + kAfter);
}

TEST(InjectedUsageFilterTest, AnySplitGivesTheSameBytes) {
  for (const std::string end : {"\n", "\r\n", "\r"}) {
    auto usage = kUsage.substr(0, kUsage.size() - 2) + end + end;
    const auto text = kBefore + usage + ": c" + end + usage + kAfter;
    const auto wanted = kBefore + ": c" + end + kAfter;
    for (std::size_t at = 0; at <= text.size(); ++at) {
      InjectedUsageFilter filter;
      std::string out;
      filter.feed(std::string_view(text).substr(0, at), out);
      filter.feed(std::string_view(text).substr(at), out);
      filter.finish(out);
      ASSERT_EQ(out, wanted) << at;
    }
  }
}

// An event passes with its last byte: nothing waits for the event after it.
TEST(InjectedUsageFilterTest, WholeEventsAreNotDelayed) {
  InjectedUsageFilter filter;
  std::string out;
  filter.feed("data: 1\n\ndata: 2\r\n\r\ndata: 3\r\r", out);
  EXPECT_EQ(out, "data: 1\n\ndata: 2\r\n\r\ndata: 3\r\r");
}

TEST(InjectedUsageFilterTest, AnEndInsideAnEventLosesNothing) {
  const auto cut = kUsage.substr(0, kUsage.size() - 1);
  EXPECT_EQ(filtered(kBefore + cut), kBefore + cut);
  EXPECT_EQ(filtered("data"), "data");
}

// What is held is bounded; a large event passes on the way, and the next is looked at again.
TEST(InjectedUsageFilterTest, LargeEventsAreNotHeld) {
  InjectedUsageFilter filter;
  std::string out;
  const std::string large = "data: {\"choices\":[],\"usage\":{},\"x\":\"" + std::string(200'000, 'x');
  for (std::size_t at = 0; at < large.size(); at += 1000)
    filter.feed(std::string_view(large).substr(at, 1000), out);
  EXPECT_EQ(out, large.substr(0, out.size()));
  EXPECT_GT(out.size(), large.size() - 70'000);
  filter.feed("\"}\r\n\r\n" + kUsage + kAfter, out);
  filter.finish(out);
  EXPECT_EQ(out, large + "\"}\r\n\r\n" + kAfter);
}

// Streams without a usage event pass byte for byte, whatever they hold.
TEST(InjectedUsageFilterTest, RandomBytesPass) {
  const auto seed = std::random_device{}();
  RecordProperty("seed", std::to_string(seed));
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto below = [&](std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(random);
  };
  constexpr std::string_view kPieces[] = {
      "\n", "\r",           "\r\n",      "data:",          "data: {\"choices\":[{}],\"usage\":{}}",
      ":",  "event: x",     "\"usage\"", "\"choices\":[]", "{",
      "}",  "\xEF\xBB\xBF", "x"};
  for (int round = 0; round < 500; ++round) {
    InjectedUsageFilter filter;
    std::string in;
    std::string out;
    for (auto pieces = below(40); pieces > 0; --pieces) {
      const auto piece = kPieces[below(std::size(kPieces))];
      in += piece;
      const auto at = below(piece.size() + 1);
      filter.feed(piece.substr(0, at), out);
      filter.feed(piece.substr(at), out);
      ASSERT_TRUE(in.starts_with(out));
    }
    filter.finish(out);
    ASSERT_EQ(out, in);
  }
}

}  // namespace
}  // namespace penstock::gateway
