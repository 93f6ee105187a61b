// Field names, writers, dates.

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "http/message.hpp"

namespace penstock::http {
namespace {

const std::vector<std::pair<std::string, FieldId>> kNames = {
    {"accept-encoding", FieldId::accept_encoding},
    {"authorization", FieldId::authorization},
    {"connection", FieldId::connection},
    {"content-encoding", FieldId::content_encoding},
    {"content-length", FieldId::content_length},
    {"content-type", FieldId::content_type},
    {"cookie", FieldId::cookie},
    {"date", FieldId::date},
    {"expect", FieldId::expect},
    {"forwarded", FieldId::forwarded},
    {"host", FieldId::host},
    {"keep-alive", FieldId::keep_alive},
    {"max-forwards", FieldId::max_forwards},
    {"penstock-cache", FieldId::penstock_cache},
    {"penstock-lane", FieldId::penstock_lane},
    {"penstock-tag", FieldId::penstock_tag},
    {"penstock-wait", FieldId::penstock_wait},
    {"proxy-authenticate", FieldId::proxy_authenticate},
    {"proxy-authorization", FieldId::proxy_authorization},
    {"proxy-connection", FieldId::proxy_connection},
    {"retry-after", FieldId::retry_after},
    {"server", FieldId::server},
    {"te", FieldId::te},
    {"trailer", FieldId::trailer},
    {"transfer-encoding", FieldId::transfer_encoding},
    {"upgrade", FieldId::upgrade},
    {"via", FieldId::via},
    {"x-api-key", FieldId::x_api_key},
    {"x-forwarded-for", FieldId::x_forwarded_for},
    {"x-goog-api-key", FieldId::x_goog_api_key},
    {"x-penstock-key", FieldId::x_penstock_key},
};

TEST(FieldId, EveryNameIsFoundInAnyCaseAndNoNearMissIs) {
  EXPECT_EQ(kNames.size(), static_cast<std::size_t>(FieldId::x_penstock_key));  // one row per id but `other`
  for (const auto& [name, id] : kNames) {
    EXPECT_EQ(field_id(name), id) << name;
    std::string upper = name;
    for (char& c : upper) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
    EXPECT_EQ(field_id(upper), id) << upper;
    for (std::size_t i = 0; i < name.size(); ++i) {
      std::string other = name;
      other[i] = static_cast<char>(other[i] ^ 0x01);
      EXPECT_EQ(field_id(other), FieldId::other) << other;
      other[i] = static_cast<char>(
          name[i] == '-' ? '\r' : name[i] ^ 0x40);  // what a mere "| 0x20" would take for it
      EXPECT_EQ(field_id(other), FieldId::other) << other;
    }
    EXPECT_EQ(field_id(name + "x"), FieldId::other);
  }
  EXPECT_EQ(field_id(""), FieldId::other);
}

TEST(EqualsIgnoringCase, OnlyAsciiLettersFold) {
  EXPECT_TRUE(equals_ignoring_case("aZ-9", "Az-9"));
  EXPECT_FALSE(equals_ignoring_case("a", "ab"));
  EXPECT_FALSE(equals_ignoring_case("[", "{"));
  EXPECT_FALSE(equals_ignoring_case("@", "`"));
}

TEST(Writers, HeadsAreWritten) {
  std::string out;
  append_status_line(out, 200);
  append_status_line(out, 429);
  append_status_line(out, 299);
  append_field(out, "X-A", "b c");
  append_number_field(out, "Content-Length", 18446744073709551615U);
  EXPECT_EQ(out,
            "HTTP/1.1 200 OK\r\nHTTP/1.1 429 Too Many Requests\r\nHTTP/1.1 299 \r\nX-A: b c\r\n"
            "Content-Length: 18446744073709551615\r\n");
}

TEST(Writers, ChunkHeadersAreHex) {
  for (const auto& [size, text] : {std::pair{std::size_t{1}, "1\r\n"},
                                   {0xabcd, "abcd\r\n"},
                                   {~std::size_t{0}, "ffffffffffffffff\r\n"}}) {
    char buffer[18];
    EXPECT_EQ(std::string(buffer, write_chunk_header(size, buffer)), text);
  }
}

TEST(HttpDate, ThreeFormsAreReadAndOneIsWritten) {
  EXPECT_EQ(format_http_date(784111777), "Sun, 06 Nov 1994 08:49:37 GMT");  // the example of RFC 9110 5.6.7
  EXPECT_EQ(format_http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
  EXPECT_EQ(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), 784111777);
  EXPECT_EQ(parse_http_date("Sunday, 06-Nov-94 08:49:37 GMT"), 784111777);
  EXPECT_EQ(parse_http_date("Sun Nov  6 08:49:37 1994"), 784111777);
  EXPECT_EQ(parse_http_date("Sun Nov 16 08:49:37 1994"), 784111777 + 10 * 86400);
  for (std::int64_t time = 0; time < 8'000'000'000; time += 86'400 * 13 + 3'671) {
    ASSERT_EQ(parse_http_date(format_http_date(time)), time);
  }
  EXPECT_EQ(parse_http_date("Thu, 29 Feb 2024 00:00:00 GMT"), 1709164800);
}

TEST(HttpDate, OtherTextsAreNoDates) {
  for (const char* text :
       {"", "Sun", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 GMT ", "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 30 Feb 2025 00:00:00 GMT",
        "Wed, 29 Feb 2023 00:00:00 GMT", "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT", "Sun, 00 Nov 1994 08:49:37 GMT", "1994-11-06T08:49:37Z"}) {
    EXPECT_EQ(parse_http_date(text), std::nullopt) << text;
  }
}

TEST(RetryAfter, SecondsFractionsAndDates) {
  constexpr std::int64_t kNow = 784111777;
  EXPECT_EQ(parse_retry_after_ms("0", kNow), 0);
  EXPECT_EQ(parse_retry_after_ms(" 56 ", kNow), 56'000);
  EXPECT_EQ(parse_retry_after_ms("56.5", kNow), 56'500);
  EXPECT_EQ(parse_retry_after_ms("0.0049", kNow), 4);
  EXPECT_EQ(parse_retry_after_ms("7s", kNow), 7'000);
  EXPECT_EQ(parse_retry_after_ms("Sun, 06 Nov 1994 08:49:47 GMT", kNow), 10'000);
  EXPECT_EQ(parse_retry_after_ms("Sun, 06 Nov 1994 08:49:07 GMT", kNow), 0);  // it has passed
}

TEST(RetryAfter, CappedAtADay) {
  EXPECT_EQ(parse_retry_after_ms("86400.9", 0), 86'400'000);
  EXPECT_EQ(parse_retry_after_ms("99999999999999999999999999", 0), 86'400'000);
  EXPECT_EQ(parse_retry_after_ms("Sun, 06 Nov 1994 08:49:47 GMT", 0), 86'400'000);
}

TEST(RetryAfter, NonsenseIsNone) {
  for (const char* text :
       {"", " ", "-1", "+1", "soon", "1,2", "1 2", "0x1", "1e3", ".5", "1.2.3", "s", "5ss"}) {
    EXPECT_EQ(parse_retry_after_ms(text, 0), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace penstock::http
