#include "policy/budget.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <vector>

#include <date/tz.h>
#include <gtest/gtest.h>

#include "policy/property_testing.hpp"

namespace penstock::policy {
namespace {

using std::chrono::days;
using std::chrono::hours;
using std::chrono::minutes;

/// "2026-03-08T05:00:00Z"
WallTime utc(int year, unsigned month, unsigned day, nanoseconds time_of_day = {}) {
  return WallTime{date::sys_days{date::year{year} / date::month{month} / date::day{day}}} + time_of_day;
}

constexpr NanoUsd usd(std::int64_t dollars) { return {dollars * kNanoPerUsd}; }

BudgetSpec daily(NanoUsd limit, std::string zone = "UTC") {
  return {
      .window = BudgetWindow::daily, .limit = limit, .mode = BudgetMode::hard, .time_zone = std::move(zone)};
}

const WallTime kNoon = utc(2026, 1, 15, hours{12});

Budget started(BudgetSpec spec, WallTime now = kNoon) {
  Budget budget(std::move(spec));
  budget.advance(now);
  return budget;
}

// ---- windows

TEST(TimeZone, KnowsTheMachinesZonesOnly) {
  for (const char* zone : {"UTC", "Etc/UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"})
    EXPECT_TRUE(is_known_time_zone(zone)) << zone;
  for (const char* zone : {"", "Mars/Olympus_Mons", "europe/berlin", "../../etc/passwd", "GMT+25"})
    EXPECT_FALSE(is_known_time_zone(zone)) << zone;
}

TEST(BudgetWindow, HasAName) {
  EXPECT_EQ(to_string(BudgetWindow::daily), "daily");
  EXPECT_EQ(to_string(BudgetWindow::monthly), "monthly");
}

struct WindowCase {
  const char* name;
  BudgetWindow window;
  const char* zone;
  WallTime now;
  WindowSpan expected;
};

class WindowAt : public testing::TestWithParam<WindowCase> {};

TEST_P(WindowAt, IsTheCalendars) {
  const WindowCase& c = GetParam();
  const WindowSpan span = window_at(c.window, c.zone, c.now);
  EXPECT_EQ(date::format("%FT%TZ", span.start), date::format("%FT%TZ", c.expected.start));
  EXPECT_EQ(date::format("%FT%TZ", span.end), date::format("%FT%TZ", c.expected.end));
}

constexpr auto kDaily = BudgetWindow::daily;
constexpr auto kMonthly = BudgetWindow::monthly;

INSTANTIATE_TEST_SUITE_P(
    Zones, WindowAt,
    testing::Values(
        WindowCase{
            "utc_day", kDaily, "UTC", utc(2026, 2, 28, hours{23}), {utc(2026, 2, 28), utc(2026, 3, 1)}},
        WindowCase{
            "utc_leap_day", kDaily, "UTC", utc(2028, 2, 29, hours{3}), {utc(2028, 2, 29), utc(2028, 3, 1)}},
        WindowCase{
            "before_1970", kDaily, "UTC", utc(1969, 12, 31, hours{1}), {utc(1969, 12, 31), utc(1970, 1, 1)}},
        WindowCase{
            "utc_month", kMonthly, "UTC", utc(2026, 12, 31, hours{23}), {utc(2026, 12, 1), utc(2027, 1, 1)}},
        WindowCase{"february", kMonthly, "Etc/UTC", utc(2026, 2, 1), {utc(2026, 2, 1), utc(2026, 3, 1)}},
        WindowCase{"leap_february", kMonthly, "UTC", utc(2028, 2, 29), {utc(2028, 2, 1), utc(2028, 3, 1)}},
        WindowCase{"quarter_hour_zone",
                   kDaily,
                   "Asia/Kathmandu",
                   utc(2026, 5, 5, hours{18} + minutes{15}),
                   {utc(2026, 5, 5, hours{18} + minutes{15}), utc(2026, 5, 6, hours{18} + minutes{15})}},
        WindowCase{"day_of_23_hours",
                   kDaily,
                   "America/New_York",
                   utc(2026, 3, 8, hours{12}),
                   {utc(2026, 3, 8, hours{5}), utc(2026, 3, 9, hours{4})}},
        WindowCase{"day_of_25_hours",
                   kDaily,
                   "America/New_York",
                   utc(2026, 11, 1, hours{12}),
                   {utc(2026, 11, 1, hours{4}), utc(2026, 11, 2, hours{5})}},
        WindowCase{"month_with_a_short_day",
                   kMonthly,
                   "America/New_York",
                   utc(2026, 3, 31, hours{12}),
                   {utc(2026, 3, 1, hours{5}), utc(2026, 4, 1, hours{4})}},
        WindowCase{"day_of_24_and_a_half_hours",
                   kDaily,
                   "Australia/Lord_Howe",
                   utc(2026, 4, 5, hours{3}),
                   {utc(2026, 4, 4, hours{13}), utc(2026, 4, 5, hours{13} + minutes{30})}},
        // The clocks go from 24:00 to 01:00: that day has no midnight.
        WindowCase{"midnight_skipped",
                   kDaily,
                   "America/Sao_Paulo",
                   utc(2018, 11, 4, hours{3}),
                   {utc(2018, 11, 4, hours{3}), utc(2018, 11, 5, hours{2})}},
        WindowCase{"before_midnight_skipped",
                   kDaily,
                   "America/Sao_Paulo",
                   utc(2018, 11, 4, hours{3} - minutes{1}),
                   {utc(2018, 11, 3, hours{3}), utc(2018, 11, 4, hours{3})}},
        // From 23:30 to 00:30: the day begins with the jump, half an hour before where its midnight would be.
        WindowCase{"jump_from_before_midnight",
                   kDaily,
                   "America/Toronto",
                   utc(1919, 3, 31, hours{4} + minutes{45}),
                   {utc(1919, 3, 31, hours{4} + minutes{30}), utc(1919, 4, 1, hours{4})}},
        // The clocks go from 01:00 back to 00:00: midnight comes twice, the day begins with the first.
        WindowCase{"midnight_twice",
                   kDaily,
                   "America/Havana",
                   utc(2025, 11, 2, hours{5}),
                   {utc(2025, 11, 2, hours{4}), utc(2025, 11, 3, hours{5})}},
        // From 00:01 back to 23:01 of the day before: the new day goes on all the same.
        WindowCase{"back_over_midnight",
                   kDaily,
                   "America/St_Johns",
                   utc(2010, 11, 7, hours{3}),
                   {utc(2010, 11, 7, hours{2} + minutes{30}), utc(2010, 11, 8, hours{3} + minutes{30})}},
        // Samoa crossed the date line: the 30th of December 2011 did not exist.
        WindowCase{"day_that_never_was",
                   kDaily,
                   "Pacific/Apia",
                   utc(2011, 12, 30, hours{10}),
                   {utc(2011, 12, 30, hours{10}), utc(2011, 12, 31, hours{10})}},
        WindowCase{"day_before_it",
                   kDaily,
                   "Pacific/Apia",
                   utc(2011, 12, 30, hours{9}),
                   {utc(2011, 12, 29, hours{10}), utc(2011, 12, 30, hours{10})}},
        WindowCase{"month_that_ends_in_it",
                   kMonthly,
                   "Pacific/Apia",
                   utc(2011, 12, 30, hours{9}),
                   {utc(2011, 12, 1, hours{10}), utc(2011, 12, 31, hours{10})}}),
    [](const auto& info) { return info.param.name; });

// Windows tile the time: every instant is in exactly one, and they meet at their ends; over decades of clock
// changes.
TEST(WindowAtProperty, WindowsTileTheTime) {
  const std::vector<std::string> zones{
      "UTC",          "America/New_York",    "America/Sao_Paulo", "America/Havana", "America/St_Johns",
      "Pacific/Apia", "Australia/Lord_Howe", "Africa/Cairo",      "Asia/Beirut",    "Europe/Lisbon",
      "America/Nuuk", "Africa/Casablanca"};
  for_each_seed(10, [&](Random& random) {
    for (const std::string& zone : zones) {
      const auto window = random.chance(70) ? kDaily : kMonthly;
      WallTime now = utc(1975, 1, 1) + seconds{random.between(0, 75LL * 365 * 86'400)} +
                     nanoseconds{random.between(0, 999)};
      WindowSpan span = window_at(window, zone, now);
      for (int i = 0; i < 400; ++i) {
        ASSERT_LE(span.start, now) << zone;
        ASSERT_LT(now, span.end) << zone;
        ASSERT_EQ(window_at(window, zone, span.start), span) << zone;
        ASSERT_EQ(window_at(window, zone, span.end - nanoseconds{1}), span) << zone;
        ASSERT_LE(span.end - span.start, window == kDaily ? hours{26} : hours{24 * 31 + 2}) << zone;
        ASSERT_GE(span.end - span.start, window == kDaily ? hours{22} : hours{24 * 27}) << zone;
        const WindowSpan following = window_at(window, zone, span.end);
        ASSERT_EQ(following.start, span.end) << zone;
        span = following;
        now = span.start + nanoseconds{random.between(0, (span.end - span.start).count() - 1)};
      }
    }
  });
}

// ---- one budget

TEST(Budget, HoldsThenSettles) {
  Budget budget = started(daily(usd(10)));
  ASSERT_TRUE(budget.may_reserve(usd(4)));
  const auto pin = budget.reserve(usd(4));
  EXPECT_EQ(budget.held(), usd(4));
  EXPECT_EQ(budget.settle(pin, usd(4), usd(3)), usd(0));
  EXPECT_EQ(budget.held(), usd(0));
  EXPECT_EQ(budget.settled(), usd(3));
  EXPECT_EQ(budget.spent(), usd(3));
}

TEST(Budget, FitsToTheNanoDollar) {
  Budget budget = started(daily(usd(10)));
  (void)budget.reserve(usd(4));
  EXPECT_TRUE(budget.may_reserve(usd(6)));
  EXPECT_FALSE(budget.may_reserve(usd(6) + NanoUsd{1}));
  (void)budget.reserve(usd(6));
  EXPECT_TRUE(budget.may_reserve(usd(0)));
  EXPECT_FALSE(budget.may_reserve(NanoUsd{1}));
}

TEST(Budget, ReleaseLeavesNothingBehind) {
  Budget budget = started(daily(usd(10)));
  budget.release(budget.reserve(usd(10)), usd(10));
  EXPECT_EQ(budget.held(), usd(0));
  EXPECT_EQ(budget.spent(), usd(0));
  EXPECT_TRUE(budget.may_reserve(usd(10)));
}

// A provider billed more than its stated most: told, kept apart, and not there to be spent again.
TEST(Budget, OverrunIsCountedApartAndSpent) {
  Budget budget = started(daily(usd(10)));
  const auto pin = budget.reserve(usd(4));
  EXPECT_EQ(budget.settle(pin, usd(4), usd(5)), usd(1));
  EXPECT_EQ(budget.settled(), usd(4));
  EXPECT_EQ(budget.overrun(), usd(1));
  EXPECT_EQ(budget.spent(), usd(5));
  EXPECT_TRUE(budget.may_reserve(usd(5)));
  EXPECT_FALSE(budget.may_reserve(usd(5) + NanoUsd{1}));
}

TEST(Budget, LateSettlementCorrectsAnExpiredLease) {
  Budget budget = started(daily(usd(10)));
  const auto pin = budget.reserve(usd(4));
  (void)budget.settle(pin, usd(4), usd(4));  // the lease ended: spent at its estimate
  EXPECT_EQ(budget.correct(pin, usd(4), usd(1)), usd(0));
  EXPECT_EQ(budget.settled(), usd(1));
  const auto other = budget.reserve(usd(2));
  (void)budget.settle(other, usd(2), usd(2));
  EXPECT_EQ(budget.correct(other, usd(2), usd(3)), usd(1));
  EXPECT_EQ(budget.settled(), usd(3));
  EXPECT_EQ(budget.overrun(), usd(1));
}

TEST(Budget, WarnBudgetAdmitsAllAndCountsAll) {
  BudgetSpec spec = daily(usd(1));
  spec.mode = BudgetMode::warn;
  Budget budget = started(spec);
  EXPECT_TRUE(budget.may_reserve(kMaxNanoUsd));
  const auto pin = budget.reserve(usd(5));
  (void)budget.settle(pin, usd(5), usd(5));
  EXPECT_EQ(budget.settled(), usd(5));
}

TEST(Budget, WarnBudgetStopsAtTheEndOfItsNumbers) {
  BudgetSpec spec = daily(usd(1));
  spec.mode = BudgetMode::warn;
  Budget budget = started(spec);
  for (int i = 0; i < 1'100; ++i) (void)budget.reserve(kMaxNanoUsd);
  EXPECT_EQ(budget.held().count, std::numeric_limits<std::int64_t>::max());
  spec.mode = BudgetMode::hard;
  budget.reconfigure(spec, kNoon);
  EXPECT_FALSE(budget.may_reserve(NanoUsd{0}));
}

TEST(Budget, RollsOverAtItsEndAndNotBefore) {
  Budget budget = started(daily(usd(10)), utc(2026, 1, 15));
  (void)budget.settle(budget.reserve(usd(10)), usd(10), usd(10));
  budget.advance(utc(2026, 1, 16) - nanoseconds{1});
  EXPECT_FALSE(budget.may_reserve(NanoUsd{1}));
  budget.advance(utc(2026, 1, 16));
  EXPECT_EQ(budget.settled(), usd(0));
  EXPECT_EQ(budget.span(), (WindowSpan{utc(2026, 1, 16), utc(2026, 1, 17)}));
  EXPECT_TRUE(budget.may_reserve(usd(10)));
}

// A clock that jumps back must not reopen a window that has ended, nor open a second one for the same day.
TEST(Budget, NeverMovesBack) {
  Budget budget = started(daily(usd(10)), utc(2026, 1, 15));
  budget.advance(utc(2026, 1, 16));
  const auto pin = budget.reserve(usd(10));
  for (const WallTime now : {utc(2026, 1, 15, hours{23}), utc(2020, 1, 1), utc(2026, 1, 16, hours{1})}) {
    budget.advance(now);
    EXPECT_EQ(budget.span().start, utc(2026, 1, 16));
    EXPECT_FALSE(budget.may_reserve(NanoUsd{1}));
  }
  (void)budget.settle(pin, usd(10), usd(10));
  EXPECT_EQ(budget.settled(), usd(10));
}

TEST(Budget, SettlesIntoTheWindowThatReserved) {
  Budget budget = started(daily(usd(10)), utc(2026, 1, 15, hours{23}));
  const auto pin = budget.reserve(usd(8));
  budget.advance(utc(2026, 1, 16));
  EXPECT_TRUE(budget.may_reserve(usd(10)));  // yesterday's holds are yesterday's
  EXPECT_EQ(budget.settle(pin, usd(8), usd(9)), usd(1));
  EXPECT_EQ(budget.settled(), usd(0));
  EXPECT_EQ(budget.overrun(), usd(0));
  EXPECT_EQ(budget.stray(), usd(0));
}

TEST(Budget, WhatEndsAfterTwoWindowsIsStray) {
  Budget budget = started(daily(usd(10)), utc(2026, 1, 15));
  const auto a = budget.reserve(usd(2));
  const auto b = budget.reserve(usd(3));
  const auto c = budget.reserve(usd(4));
  (void)budget.settle(c, usd(4), usd(4));
  budget.advance(utc(2026, 1, 16));
  budget.advance(utc(2026, 1, 17));
  EXPECT_EQ(budget.settle(a, usd(2), usd(5)), usd(3));
  budget.release(b, usd(3));
  EXPECT_EQ(budget.stray(), usd(5));
  EXPECT_EQ(budget.correct(c, usd(4), usd(1)), usd(0));
  EXPECT_EQ(budget.stray(), usd(2));
  EXPECT_EQ(budget.held(), usd(0));
  EXPECT_EQ(budget.spent(), usd(0));
  EXPECT_TRUE(budget.may_reserve(usd(10)));
}

TEST(Budget, NewLimitAndModeHoldAtOnce) {
  Budget budget = started(daily(usd(10)));
  const auto pin = budget.reserve(usd(6));
  budget.reconfigure(daily(usd(5)), kNoon);
  EXPECT_FALSE(budget.may_reserve(NanoUsd{1}));
  (void)budget.settle(pin, usd(6), usd(4));
  EXPECT_TRUE(budget.may_reserve(usd(1)));
  EXPECT_FALSE(budget.may_reserve(usd(2)));
  budget.reconfigure(daily(usd(20)), kNoon);
  EXPECT_TRUE(budget.may_reserve(usd(16)));
  BudgetSpec warn = daily(usd(1));
  warn.mode = BudgetMode::warn;
  budget.reconfigure(warn, kNoon);
  EXPECT_TRUE(budget.may_reserve(usd(100)));
}

TEST(Budget, NewZoneWaitsForTheEndOfTheWindow) {
  Budget budget = started(daily(usd(10)), utc(2026, 1, 15, hours{12}));
  (void)budget.reserve(usd(10));
  budget.reconfigure(daily(usd(10), "America/New_York"), kNoon);
  budget.advance(utc(2026, 1, 15, hours{23}));
  EXPECT_EQ(budget.span(), (WindowSpan{utc(2026, 1, 15), utc(2026, 1, 16)}));
  EXPECT_EQ(budget.spec().time_zone, "UTC");
  EXPECT_FALSE(budget.may_reserve(NanoUsd{1}));
  budget.advance(utc(2026, 1, 16));
  EXPECT_EQ(budget.span(), (WindowSpan{utc(2026, 1, 16), utc(2026, 1, 16, hours{5})}));
  EXPECT_EQ(budget.spec().time_zone, "America/New_York");
}

// From daily to monthly on the first of a month both windows would start at one instant, and pins could not
// tell them apart.
TEST(Budget, ChangedWindowStartsWhereTheOldOneEnded) {
  Budget budget = started(daily(usd(10)), utc(2026, 1, 1, hours{12}));
  const auto pin = budget.reserve(usd(10));
  BudgetSpec monthly = daily(usd(10));
  monthly.window = BudgetWindow::monthly;
  budget.reconfigure(monthly, utc(2026, 1, 1, hours{12}));
  budget.advance(utc(2026, 1, 2, hours{1}));
  EXPECT_EQ(budget.span(), (WindowSpan{utc(2026, 1, 2), utc(2026, 2, 1)}));
  (void)budget.settle(pin, usd(10), usd(10));
  EXPECT_EQ(budget.settled(), usd(0));
  budget.advance(utc(2026, 2, 14));
  EXPECT_EQ(budget.span(), (WindowSpan{utc(2026, 2, 1), utc(2026, 3, 1)}));
}

// A machine without a battery may believe that it is 1969.
TEST(Budget, StartsWhateverTheClockSays) {
  for (const WallTime now : {utc(1969, 12, 31, hours{12}), utc(1970, 1, 1), utc(2200, 1, 1)}) {
    Budget budget = started(daily(usd(10)), now);
    EXPECT_LE(budget.span().start, now);
    EXPECT_GT(budget.span().end, now);
  }
}

TEST(Budget, ReconfiguredBeforeItsFirstWindowTakesAllAtOnce) {
  Budget budget(daily(usd(10)));
  budget.reconfigure(daily(usd(5), "America/New_York"), utc(2026, 1, 15, hours{12}));
  EXPECT_EQ(budget.spec(), daily(usd(5), "America/New_York"));
  EXPECT_EQ(budget.span().start, utc(2026, 1, 15, hours{5}));
}

// ---- overrides

BudgetSpec with_override(NanoUsd limit, NanoUsd other, WallTime until) {
  BudgetSpec spec = daily(limit);
  spec.temporary = {.limit = other, .until = until, .reason = "launch"};
  return spec;
}

// An override ends by itself, at its instant, and nobody has to reload anything.
TEST(BudgetOverride, HoldsUntilItsInstantAndNotLonger) {
  const WallTime until = kNoon + hours{2};
  Budget budget = started(with_override(usd(10), usd(50), until));
  EXPECT_EQ(budget.limit(), usd(50));
  (void)budget.settle(budget.reserve(usd(30)), usd(30), usd(30));
  budget.advance(until - nanoseconds{1});
  EXPECT_TRUE(budget.may_reserve(usd(20)));
  budget.advance(until);
  EXPECT_EQ(budget.limit(), usd(10));
  EXPECT_FALSE(budget.may_reserve(NanoUsd{1}));
  budget.advance(utc(2026, 1, 16));
  EXPECT_TRUE(budget.may_reserve(usd(10)));
  EXPECT_FALSE(budget.may_reserve(usd(11)));
}

TEST(BudgetOverride, SpansWindows) {
  Budget budget = started(with_override(usd(10), usd(50), utc(2026, 1, 17, hours{6})));
  (void)budget.reserve(usd(50));
  budget.advance(utc(2026, 1, 16, hours{1}));
  EXPECT_TRUE(budget.may_reserve(usd(50)));
  budget.advance(utc(2026, 1, 17, hours{7}));
  EXPECT_FALSE(budget.may_reserve(usd(11)));
}

TEST(BudgetOverride, LapsedOneHasNoEffect) {
  Budget budget = started(with_override(usd(10), usd(50), kNoon));
  EXPECT_EQ(budget.limit(), usd(10));
  EXPECT_FALSE(budget.may_reserve(usd(11)));
}

TEST(BudgetOverride, DoesNotComeBackWithTheClock) {
  Budget budget = started(with_override(usd(10), usd(50), kNoon + hours{1}));
  budget.advance(kNoon + hours{1});
  budget.advance(kNoon);
  EXPECT_FALSE(budget.may_reserve(usd(11)));
}

TEST(BudgetOverride, ReloadBringsAndTakesIt) {
  Budget budget = started(daily(usd(10)));
  (void)budget.reserve(usd(10));
  budget.reconfigure(with_override(usd(10), usd(50), kNoon + hours{1}), kNoon);
  EXPECT_TRUE(budget.may_reserve(usd(40)));
  budget.reconfigure(daily(usd(10)), kNoon);
  EXPECT_FALSE(budget.may_reserve(NanoUsd{1}));
}

TEST(BudgetOverride, TellsWhenItMayFit) {
  Budget lowered = started(with_override(usd(10), usd(1), kNoon + hours{2}));
  EXPECT_EQ(lowered.wait_for(usd(5), kNoon), hours{2});
  EXPECT_EQ(lowered.wait_for(usd(11), kNoon), nanoseconds::max());
  (void)lowered.reserve(usd(1));
  EXPECT_EQ(lowered.wait_for(usd(10), kNoon), hours{12}) << "its end makes no room for so much";
  Budget raised = started(with_override(usd(10), usd(50), kNoon + hours{2}));
  (void)raised.reserve(usd(50));
  EXPECT_EQ(raised.wait_for(usd(5), kNoon), hours{12});
  EXPECT_EQ(raised.wait_for(usd(51), kNoon), nanoseconds::max());
  EXPECT_EQ(raised.wait_for(usd(40), kNoon), hours{12}) << "something that is held may be released";
}

// A wall clock that may be ahead is where the override has ended: it must fit there, too.
TEST(BudgetOverride, EndsInTheDoubtedWindowAsTheDoubtedClockSays) {
  Budget budget = started(with_override(usd(10), usd(50), kNoon + hours{20}));
  budget.advance(kNoon, hours{24});
  EXPECT_TRUE(budget.may_reserve(usd(10)));
  EXPECT_FALSE(budget.may_reserve(usd(11)));
  EXPECT_GT(budget.wait_for(usd(11), kNoon), nanoseconds{0});
  EXPECT_LE(budget.wait_for(usd(11), kNoon), minutes{1});
  budget.advance(kNoon);
  EXPECT_TRUE(budget.may_reserve(usd(50)));
}

TEST(BudgetSpec, IsToldInWords) {
  BudgetSpec spec = daily(usd(20), "Europe/Berlin");
  EXPECT_EQ(to_string(spec), "20 USD daily hard Europe/Berlin");
  spec = with_override(NanoUsd{kNanoPerUsd / 2}, usd(50), utc(2026, 12, 1));
  spec.mode = BudgetMode::warn;
  spec.window = BudgetWindow::monthly;
  EXPECT_EQ(to_string(spec), "0.5 USD monthly warn UTC, 50 USD until 2026-12-01T00:00:00Z (launch)");
}

TEST(Budget, TakesOverWhatWasReservedBeforeIt) {
  Budget budget = started(daily(usd(10)));
  budget.count_past(usd(8), usd(0));
  const auto pin = budget.take_over(usd(5));
  EXPECT_EQ(budget.held(), usd(5));
  EXPECT_FALSE(budget.may_reserve(NanoUsd{0}));
  budget.release(pin, usd(5));
  EXPECT_TRUE(budget.may_reserve(usd(2)));
}

/// One budget under random use, beside a ledger that keeps every window for ever.
class BudgetDriver {
 public:
  BudgetDriver(Random& random, BudgetSpec spec) : random_(random), spec_(std::move(spec)), budget_(spec_) {
    now_ = utc(2025, 1, 1) + seconds{random_.between(0, 500LL * 86'400)};
    budget_.advance(now_);
  }

  void step() {
    move_clock();
    budget_.advance(now_);
    (void)limit();
    ASSERT_GE(budget_.span().start, last_start_) << "windows only move forward";
    if (budget_.span().start != last_start_) {
      order_.push_back(budget_.span().start);
      last_start_ = budget_.span().start;
    }
    switch (random_.between(0, 9)) {
      case 0: change_limit(); break;
      case 1:
      case 2:
      case 3:
      case 4: try_reserve(); break;
      case 5: end_one(true); break;
      case 6:
      case 7:
      case 8: end_one(false); break;
      default: correct_one(); break;
    }
    compare();
  }

 private:
  struct Books {
    std::int64_t settled = 0, held = 0, overrun = 0;
  };
  struct Open {
    Budget::Pin pin;
    WallTime window;
    NanoUsd amount;
  };

  void move_clock() {
    switch (random_.between(0, 19)) {
      case 0: now_ += hours{random_.between(1, 60)}; break;
      case 1: now_ -= hours{random_.between(1, 60)}; break;  // a backward jump
      case 2: now_ = budget_.span().end - nanoseconds{1}; break;
      case 3: now_ = std::max(now_, budget_.span().end); break;
      case 4: break;  // a stall
      default: now_ += seconds{random_.between(0, 600)}; break;
    }
  }

  void change_limit() {
    spec_.limit = NanoUsd{random_.between(0, 2'000)};
    if (random_.chance(10)) spec_.window = random_.chance(50) ? BudgetWindow::daily : BudgetWindow::monthly;
    spec_.temporary.reset();
    if (random_.chance(40))
      spec_.temporary = {.limit = NanoUsd{random_.between(0, 2'000)},
                         .until = now_ + minutes{random_.between(-60, 3'000)},
                         .reason = {}};
    over_ = false;
    (void)limit();
    budget_.reconfigure(spec_, now_);
  }

  void try_reserve() {
    const NanoUsd estimate{random_.between(0, 400)};
    Books& books = books_[budget_.span().start];
    const bool fits = books.settled + books.held + books.overrun + estimate.count <= limit().count;
    ASSERT_EQ(budget_.may_reserve(estimate), fits);
    if (!fits) return;
    const auto pin = budget_.reserve(estimate);
    books.held += estimate.count;
    open_.push_back({pin, budget_.span().start, estimate});
    // B1, where it counts: at the moment of every admission.
    ASSERT_LE((budget_.settled() + budget_.held()).count, limit().count);
  }

  /// The limit in force: an override that has ended does not come back with the clock.
  NanoUsd limit() {
    if (!spec_.temporary || now_ >= spec_.temporary->until) over_ = true;
    return over_ ? spec_.limit : spec_.temporary->limit;
  }

  void end_one(bool never_left) {
    if (open_.empty()) return;
    const Open ended = take(open_);
    Books& books = books_[ended.window];
    books.held -= ended.amount.count;
    if (never_left) return budget_.release(ended.pin, ended.amount);
    const bool overruns = random_.chance(10);
    const NanoUsd actual{overruns ? ended.amount.count + random_.between(1, 50)
                                  : random_.between(0, ended.amount.count)};
    const std::int64_t overrun = std::max<std::int64_t>(0, actual.count - ended.amount.count);
    books.settled += actual.count - overrun;
    books.overrun += overrun;
    if (!is_kept(ended.window)) stray_ += actual.count;
    ASSERT_EQ(budget_.settle(ended.pin, ended.amount, actual).count, overrun);
    if (!overruns) charged_.push_back({ended.pin, ended.window, actual});
  }

  void correct_one() {
    if (charged_.empty()) return;
    const Open charged = take(charged_);
    const NanoUsd actual{random_.between(0, charged.amount.count + 20)};
    Books& books = books_[charged.window];
    const std::int64_t overrun = std::max<std::int64_t>(0, actual.count - charged.amount.count);
    books.settled -= std::max<std::int64_t>(0, charged.amount.count - actual.count);
    books.overrun += overrun;
    if (!is_kept(charged.window)) stray_ += actual.count - charged.amount.count;
    ASSERT_EQ(budget_.correct(charged.pin, charged.amount, actual).count, overrun);
  }

  void compare() {
    const Books& books = books_[budget_.span().start];
    ASSERT_EQ(budget_.settled().count, books.settled);
    ASSERT_EQ(budget_.held().count, books.held);
    ASSERT_EQ(budget_.overrun().count, books.overrun);
    ASSERT_EQ(budget_.stray().count, stray_);
    // B2: what is held is what is open.
    std::int64_t open = 0;
    for (const Open& reservation : open_)
      if (reservation.window == budget_.span().start) open += reservation.amount.count;
    ASSERT_EQ(budget_.held().count, open);
  }

  [[nodiscard]] bool is_kept(WallTime window) const {
    return std::find(order_.end() - std::min<std::ptrdiff_t>(2, std::ssize(order_)), order_.end(), window) !=
           order_.end();
  }

  Open take(std::vector<Open>& from) {
    const auto i = random_.between(0, std::ssize(from) - 1);
    const Open taken = from[static_cast<std::size_t>(i)];
    from.erase(from.begin() + i);
    return taken;
  }

  Random& random_;
  BudgetSpec spec_;
  Budget budget_;
  WallTime now_;
  WallTime last_start_ = WallTime::min();
  std::map<WallTime, Books> books_;
  std::vector<WallTime> order_;
  std::vector<Open> open_;
  std::vector<Open> charged_;
  std::int64_t stray_ = 0;
  bool over_ = false;  // spec_.temporary
};

// B1, B2, B3, B4 and B7, with a clock that stalls and goes back, in zones with short and long days.
TEST(BudgetProperty, BooksBalanceAndTheLimitHolds) {
  for_each_seed(150, [](Random& random) {
    static constexpr const char* kZones[] = {"UTC", "America/New_York", "America/Sao_Paulo",
                                             "Australia/Lord_Howe", "America/Havana"};
    BudgetSpec spec = daily(NanoUsd{random.between(0, 2'000)}, kZones[random.between(0, 4)]);
    if (random.chance(30)) spec.window = BudgetWindow::monthly;
    BudgetDriver driver(random, spec);
    for (int step = 0; step < 600; ++step) {
      driver.step();
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

// B4: in whatever order reservations end, and whichever way, the books come out the same.
TEST(BudgetProperty, EndsCommute) {
  for_each_seed(50, [](Random& random) {
    struct End {
      NanoUsd reserved;
      std::int64_t actual;  // -1: released
    };
    std::vector<End> ends;
    for (int i = 0; i < 20; ++i) {
      const NanoUsd reserved{random.between(0, 1'000)};
      ends.push_back({reserved, random.chance(20) ? -1 : random.between(0, 1'100)});
    }
    std::vector<std::vector<std::int64_t>> outcomes;
    for (int order = 0; order < 5; ++order) {
      Budget budget = started(daily(usd(1)));
      Budget::Pin pin;
      for (const End& end : ends) pin = budget.reserve(end.reserved);
      for (std::size_t i = ends.size(); i > 1; --i)
        std::swap(ends[i - 1],
                  ends[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(i) - 1))]);
      for (const End& end : ends) {
        if (end.actual < 0) {
          budget.release(pin, end.reserved);
        } else {
          (void)budget.settle(pin, end.reserved, {end.actual});
        }
      }
      outcomes.push_back({budget.settled().count, budget.held().count, budget.overrun().count});
      ASSERT_EQ(outcomes.back(), outcomes.front());
      ASSERT_EQ(budget.held(), NanoUsd{0});
    }
  });
}

}  // namespace
}  // namespace penstock::policy
