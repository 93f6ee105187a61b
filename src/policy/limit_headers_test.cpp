#include "policy/limit_headers.hpp"

#include <initializer_list>
#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "policy/property_testing.hpp"

namespace penstock::policy {
namespace {

using namespace std::chrono_literals;
using Field = std::pair<std::string_view, std::string_view>;
using Refill = LimitReading::Refill;

constexpr WallTime kNow{std::chrono::sys_days{std::chrono::year{2026} / 3 / 10} + 12h};

LimitReadings read(std::initializer_list<Field> fields) {
  LimitHeaders headers;
  for (const auto& [name, value] : fields) headers.add(name, value);
  return headers.readings(kNow);
}

std::optional<LimitReading> read(LimitDimension dimension, std::initializer_list<Field> fields) {
  return read(fields)[static_cast<std::size_t>(dimension)];
}

constexpr auto kRequests = LimitDimension::requests;
constexpr auto kTokens = LimitDimension::tokens;

TEST(LimitHeadersTest, OpenAiTellsRequestsAndTokensWithGoDurations) {
  const auto readings = read({{"x-ratelimit-limit-requests", "60"},
                              {"X-RateLimit-Limit-Tokens", "150000"},
                              {"x-ratelimit-remaining-requests", "59"},
                              {"x-ratelimit-remaining-tokens", "149984"},
                              {"x-ratelimit-reset-requests", "1s"},
                              {"x-ratelimit-reset-tokens", "6m0s"}});
  EXPECT_EQ(readings[0],
            (LimitReading{.limit = 60, .remaining = 59, .reset = 1s, .refill = Refill::gradual}));
  EXPECT_EQ(readings[1],
            (LimitReading{.limit = 150'000, .remaining = 149'984, .reset = 6min, .refill = Refill::gradual}));
  EXPECT_FALSE(readings[2] || readings[3]);
}

// The limit of a project may be lower than that of the organisation.
TEST(LimitHeadersTest, TheFieldWithTheLeastLeftCounts) {
  EXPECT_EQ(read(kTokens, {{"x-ratelimit-remaining-tokens", "900"},
                           {"x-ratelimit-limit-tokens", "1000"},
                           {"x-ratelimit-remaining-project-tokens", "40"},
                           {"x-ratelimit-limit-project-tokens", "50"}})
                .value()
                .limit,
            50);
}

TEST(LimitHeadersTest, AzureCountsSecondsAndSaysMinusOneWhereItDoesNotKnow) {
  EXPECT_EQ(read(kRequests, {{"x-ratelimit-limit-requests", "100"},
                             {"x-ratelimit-remaining-requests", "0"},
                             {"x-ratelimit-reset-requests", "37"}})
                .value()
                .reset,
            37s);
  EXPECT_FALSE(read(kTokens, {{"x-ratelimit-limit-tokens", "-1"},
                              {"x-ratelimit-remaining-tokens", "-1"},
                              {"x-ratelimit-reset-tokens", "0"}}));
  EXPECT_FALSE(read(kTokens, {{"x-ratelimit-limit-tokens", "0"}, {"x-ratelimit-remaining-tokens", "0"}}));
  // Without a limit, what remains is still known.
  EXPECT_EQ(read(kTokens, {{"x-ratelimit-remaining-tokens", "7"}}).value(),
            (LimitReading{.limit = 0, .remaining = 7, .refill = Refill::gradual}));
}

TEST(LimitHeadersTest, AnthropicTellsTimesOfDayAndRounds) {
  const auto readings = read({{"anthropic-ratelimit-requests-limit", "50"},
                              {"anthropic-ratelimit-requests-remaining", "49"},
                              {"anthropic-ratelimit-requests-reset", "2026-03-10T12:00:02Z"},
                              {"anthropic-ratelimit-tokens-limit", "60000"},
                              {"anthropic-ratelimit-tokens-remaining", "58000"},
                              {"anthropic-ratelimit-tokens-reset", "2026-03-10T14:00:05+02:00"},
                              {"anthropic-ratelimit-input-tokens-limit", "50000"},
                              {"anthropic-ratelimit-input-tokens-remaining", "0"},
                              {"anthropic-ratelimit-input-tokens-reset", "2026-03-10T12:01:00.5Z"},
                              {"anthropic-ratelimit-output-tokens-limit", "10000"},
                              {"anthropic-ratelimit-output-tokens-remaining", "9000"},
                              {"anthropic-ratelimit-output-tokens-reset", "2026-03-10T12:00:00Z"}});
  EXPECT_EQ(readings[0],
            (LimitReading{.limit = 50, .remaining = 49, .reset = 2s, .refill = Refill::gradual}));
  EXPECT_EQ(readings[1].value().reset, 5s);
  EXPECT_EQ(readings[1].value().rounding, 500);
  EXPECT_EQ(readings[2].value().reset, 60'500ms);
  EXPECT_EQ(readings[3].value().reset, 1s);  // now: whole seconds are up to one early
}

TEST(LimitHeadersTest, GitHubTellsUnixSeconds) {
  const auto now = std::chrono::duration_cast<seconds>(kNow.time_since_epoch()).count();
  const std::string reset = std::to_string(now + 1800);
  const std::string reset_ms = std::to_string((now + 1800) * 1000);
  for (const std::string_view told : {std::string_view{reset}, std::string_view{reset_ms}})
    EXPECT_EQ(read(kRequests, {{"x-ratelimit-limit", "5000"},
                               {"x-ratelimit-remaining", "0"},
                               {"x-ratelimit-used", "5000"},
                               {"x-ratelimit-resource", "core"},
                               {"x-ratelimit-reset", told}})
                  .value(),
              (LimitReading{.limit = 5000, .remaining = 0, .reset = 30min, .refill = Refill::at_once}));
}

TEST(LimitHeadersTest, TheDraftsOfTheIetfInTheirThreeForms) {
  EXPECT_EQ(read(kRequests, {{"RateLimit-Policy", R"("hour";q=1000;w=3600, "burst";q=50;w=60)"},
                             {"RateLimit", R"("hour";r=900;t=1800, "burst";r=12;t=7)"}})
                .value(),
            (LimitReading{.limit = 50, .remaining = 12, .reset = 7s, .refill = Refill::at_once}));
  EXPECT_EQ(read(kTokens, {{"RateLimit", R"("t";r=12;t=7)"},
                           {"RateLimit-Policy", R"("t";q=90000;w=60;penstock-unit="tokens")"}})
                .value()
                .limit,
            90'000);
  const auto bytes =
      read({{"RateLimit", R"("b";r=0;t=7)"}, {"RateLimit-Policy", R"("b";q=9;w=60;qu="content-bytes")"}});
  EXPECT_EQ(bytes, LimitReadings{});
  EXPECT_EQ(read(kRequests, {{"RateLimit", "limit=100, remaining=50, reset=5"}}).value(),
            (LimitReading{.limit = 100, .remaining = 50, .reset = 5s, .refill = Refill::at_once}));
  EXPECT_EQ(
      read(kRequests,
           {{"RateLimit-Limit", "100, 100;w=60"}, {"RateLimit-Remaining", "50"}, {"RateLimit-Reset", "5"}})
          .value(),
      (LimitReading{.limit = 100, .remaining = 50, .reset = 5s, .refill = Refill::at_once}));
}

// A stranger's numbers: what makes no sense is as good as not told.
TEST(LimitHeadersTest, WhatIsAbsurdIsNotBelieved) {
  const auto requests = [](std::string_view limit, std::string_view remaining, std::string_view reset) {
    return read(kRequests, {{"x-ratelimit-limit-requests", limit},
                            {"x-ratelimit-remaining-requests", remaining},
                            {"x-ratelimit-reset-requests", reset}});
  };
  EXPECT_TRUE(requests("60", "60", "0s"));
  EXPECT_FALSE(requests("60", "61", "1s"));
  EXPECT_FALSE(requests("60", "", "1s"));
  EXPECT_FALSE(requests("60", "99999999999999999999", "1s"));
  EXPECT_FALSE(requests("1e3", "5", "1s"));
  EXPECT_FALSE(requests("0x10", "5", "1s"));
  EXPECT_FALSE(requests("60", "-5", "1s"));
  for (const std::string_view reset :
       {"", "-1s", "25h", "1y", "1m2", "99999999999999999s", "2026-13-01T00:00:00Z", "2026-03-12T12:00:00Z",
        "1700000000000000", ".5s", "5.s", "inf", "nan"})
    EXPECT_EQ(requests("60", "5", reset).value().reset, 0s) << reset;
}

TEST(LimitHeadersTest, OtherFieldsAreNoConcern) {
  for (const std::string_view name :
       {"", "x", "x-request-id", "retry-after", "x-ratelimit", "rate-limit", "anthropic-version",
        "x-ratelimit-limit-requests-of-a-name-that-goes-on-and-on"}) {
    EXPECT_FALSE(LimitHeaders::concerns(name)) << name;
  }
  EXPECT_TRUE(LimitHeaders::concerns("RATELIMIT"));
  EXPECT_EQ(read({{"x-ratelimit-limit-images", "5"}, {"x-ratelimit-remaining-images", "0"}}),
            LimitReadings{});
}

std::string two(std::int64_t number) { return (number < 10 ? "0" : "") + std::to_string(number); }

std::string rfc3339(WallTime at) {
  const auto day = std::chrono::floor<std::chrono::days>(at);
  const std::chrono::year_month_day date{day};
  const std::chrono::hh_mm_ss time{std::chrono::floor<seconds>(at - day)};
  return std::to_string(static_cast<int>(date.year())) + "-" + two(static_cast<unsigned>(date.month())) +
         "-" + two(static_cast<unsigned>(date.day())) + "T" + two(time.hours().count()) + ":" +
         two(time.minutes().count()) + ":" + two(time.seconds().count()) + "Z";
}

/// As Go prints durations: 6m0s, 1.5s, 12ms.
std::string go_duration(milliseconds time) {
  if (time < 1s) return std::to_string(time.count()) + "ms";
  std::string out;
  if (time >= 1h) out += std::to_string(time / 1h) + "h";
  if (time >= 1min) out += std::to_string(time % 1h / 1min) + "m";
  out += std::to_string(time % 1min / 1s);
  if (const auto rest = (time % 1s).count(); rest != 0)
    out += "." + std::string(rest < 10 ? "00" : rest < 100 ? "0" : "") + std::to_string(rest);
  return out + "s";
}

// U3: whatever is told in each of the four ways is read as it was meant.
TEST(LimitHeadersProperty, ResetsAreReadAsTheyWereWritten) {
  for_each_seed(20, [](Random& random) {
    for (int i = 0; i < 500; ++i) {
      const milliseconds time{random.between(0, 24 * 3'600'000)};
      const auto whole = std::chrono::floor<seconds>(time);
      const WallTime at = kNow + seconds{random.between(-1'000'000'000, 1'000'000'000)};
      const auto since = std::chrono::duration_cast<seconds>(at.time_since_epoch()).count();
      const auto go = LimitHeaders::parse_reset(go_duration(time));
      ASSERT_TRUE(go) << go_duration(time);
      EXPECT_EQ(go->after, time) << go_duration(time);
      EXPECT_EQ(LimitHeaders::parse_reset(std::to_string(whole.count())).value().after, whole);
      EXPECT_EQ(LimitHeaders::parse_reset(rfc3339(at)).value().at, at) << rfc3339(at);
      if (since < 1'000'000'000) continue;
      EXPECT_EQ(LimitHeaders::parse_reset(std::to_string(since)).value().at, at);
      EXPECT_EQ(LimitHeaders::parse_reset(std::to_string(since * 1000)).value().at, at);
    }
  });
}

// Bytes of all kinds: a reading that comes out keeps its promises.
TEST(LimitHeadersProperty, AnyBytesGiveASoundReadingOrNone) {
  constexpr std::array<std::string_view, 12> kNames{"x-ratelimit-limit-requests",
                                                    "x-ratelimit-remaining-requests",
                                                    "x-ratelimit-reset-requests",
                                                    "x-ratelimit-limit",
                                                    "x-ratelimit-remaining",
                                                    "x-ratelimit-reset",
                                                    "ratelimit",
                                                    "ratelimit-policy",
                                                    "anthropic-ratelimit-tokens-limit",
                                                    "anthropic-ratelimit-tokens-remaining",
                                                    "anthropic-ratelimit-tokens-reset",
                                                    "ratelimit-remaining"};
  constexpr std::string_view kBytes = "0123456789-+.,;=\"rtqwhms:TZ e";
  for_each_seed(20, [&](Random& random) {
    for (int i = 0; i < 2'000; ++i) {
      LimitHeaders headers;
      std::vector<std::string> values(kNames.size());
      for (std::size_t n = 0; n < kNames.size(); ++n) {
        for (auto length = random.between(0, 12); length > 0; --length)
          values[n] += random.chance(95)
                           ? kBytes[static_cast<std::size_t>(random.between(0, kBytes.size() - 1))]
                           : static_cast<char>(random.between(0, 255));
        if (random.chance(80)) headers.add(kNames[n], values[n]);
      }
      for (const auto& reading : headers.readings(kNow)) {
        if (!reading) continue;
        ASSERT_GE(reading->remaining, 0);
        ASSERT_GE(reading->limit, 0);
        if (reading->limit > 0) ASSERT_LE(reading->remaining, reading->limit);
        ASSERT_TRUE(reading->reset == 0s || (reading->reset >= 1s && reading->reset <= 24h));
      }
    }
  });
}

}  // namespace
}  // namespace penstock::policy
