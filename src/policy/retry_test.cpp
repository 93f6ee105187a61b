#include "policy/retry.hpp"

#include <deque>
#include <limits>

#include <gtest/gtest.h>

#include "policy/property_testing.hpp"

namespace penstock::policy {
namespace {

MonotonicTime at(nanoseconds since_epoch) { return MonotonicTime{since_epoch}; }

int withdraw_all(RetryBudget& budget, MonotonicTime now) {
  int count = 0;
  while (budget.try_withdraw(now)) ++count;
  return count;
}

TEST(RetryBudget, StartsWithTenSecondsOfItsReserve) {
  RetryBudget budget(0.1, 1.0);
  EXPECT_EQ(withdraw_all(budget, at(seconds{1'000})), 10);
  EXPECT_FALSE(budget.try_withdraw(at(seconds{1'000})));
}

TEST(RetryBudget, SavesOneRetryEachSecondForTenSeconds) {
  RetryBudget budget(0.0, 1.0);
  (void)withdraw_all(budget, at(seconds{100}));
  EXPECT_EQ(withdraw_all(budget, at(seconds{100} + milliseconds{999})), 0);
  EXPECT_EQ(withdraw_all(budget, at(seconds{101})), 1);
  EXPECT_EQ(withdraw_all(budget, at(seconds{105})), 4);
  EXPECT_EQ(withdraw_all(budget, at(seconds{3'000})), 10);
}

TEST(RetryBudget, FirstAttemptsEarnTheirShare) {
  RetryBudget budget(0.1, 0.0);
  EXPECT_FALSE(budget.try_withdraw(at(seconds{5})));
  for (int i = 0; i < 9; ++i) budget.deposit(at(seconds{5}));
  EXPECT_FALSE(budget.try_withdraw(at(seconds{5})));
  budget.deposit(at(seconds{6}));
  EXPECT_TRUE(budget.try_withdraw(at(seconds{6})));
  EXPECT_FALSE(budget.try_withdraw(at(seconds{6})));
}

TEST(RetryBudget, ForgetsWhatWasNotUsedForTenSeconds) {
  RetryBudget budget(1.0, 0.0);
  budget.deposit(at(seconds{5}));
  budget.deposit(at(seconds{8}));
  EXPECT_TRUE(budget.try_withdraw(at(seconds{14})));  // takes the older one
  EXPECT_TRUE(budget.try_withdraw(at(seconds{17})));
  budget.deposit(at(seconds{20}));
  EXPECT_FALSE(budget.try_withdraw(at(seconds{30})));
  budget.deposit(at(seconds{40}));
  EXPECT_FALSE(budget.try_withdraw(at(seconds{4'000})));
}

TEST(RetryBudget, ClockThatGoesBackEarnsNothing) {
  RetryBudget budget(0.0, 1.0);
  (void)withdraw_all(budget, at(seconds{100}));
  EXPECT_FALSE(budget.try_withdraw(at(seconds{50})));
  EXPECT_EQ(withdraw_all(budget, at(seconds{102})), 2);
}

TEST(RetryBudget, ReconfigureHoldsFromThen) {
  RetryBudget budget(0.0, 1.0);
  (void)withdraw_all(budget, at(seconds{100}));
  budget.reconfigure(1.0, 0.0);
  EXPECT_FALSE(budget.try_withdraw(at(seconds{105})));
  budget.deposit(at(seconds{105}));
  EXPECT_TRUE(budget.try_withdraw(at(seconds{105})));
}

TEST(RetryBudget, NonsenseMeansNoRetries) {
  RetryBudget budget(-1.0, std::numeric_limits<double>::quiet_NaN());
  budget.deposit(at(seconds{1}));
  EXPECT_FALSE(budget.try_withdraw(at(seconds{100})));
}

TEST(RetryBudget, HugeSettingsDoNotOverflow) {
  RetryBudget budget(std::numeric_limits<double>::infinity(), 1e300);
  for (int i = 0; i < 1'000; ++i) budget.deposit(at(seconds{i}));
  EXPECT_TRUE(budget.try_withdraw(at(seconds{1'000})));
}

// R1: in every span of time, retries stay within ratio * first attempts of that span and the 10 s before it,
// plus per_second for as long.
TEST(RetryBudgetProperty, RetriesStayWithinWhatWasEarnedInAnySpan) {
  for_each_seed(60, [](Random& random) {
    const std::int64_t ratio = random.between(0, 500);  // thousandths
    const std::int64_t per_second = random.between(0, 3'000);
    RetryBudget budget(static_cast<double>(ratio) / 1'000, static_cast<double>(per_second) / 1'000);
    struct Event {
      std::int64_t second;
      bool is_retry;
    };
    std::vector<Event> events;
    MonotonicTime now = at(seconds{random.between(0, 1'000)});
    for (int step = 0; step < 2'000; ++step) {
      const bool is_idle = random.chance(1);
      now += milliseconds{random.between(0, is_idle ? 30'000 : 200)};
      const std::int64_t second = now.time_since_epoch() / seconds{1};
      if (random.chance(50)) {
        budget.deposit(now);
        events.push_back({second, false});
      } else if (budget.try_withdraw(now)) {
        events.push_back({second, true});
      }
    }
    for (int check = 0; check < 200; ++check) {
      const auto first = random.between(0, std::ssize(events) - 1);
      const auto last = random.between(first, std::ssize(events) - 1);
      const std::int64_t from = events[static_cast<std::size_t>(first)].second;
      const std::int64_t to = events[static_cast<std::size_t>(last)].second;
      std::int64_t spent = 0;
      std::int64_t earned = (to - from + 10) * per_second;
      for (const auto& [second, is_retry] : events) {
        if (is_retry && second >= from && second <= to) spent += 1'000;
        if (!is_retry && second > from - 10 && second <= to) earned += ratio;
      }
      ASSERT_LE(spent, earned) << from << " to " << to;
    }
  });
}

// R2: a provider that fails wholly is not hit harder than 1 + ratio, whatever the callers do.
TEST(RetryBudgetProperty, TotalFailureIsAmplifiedByTheRatioOnly) {
  for_each_seed(5, [](Random& random) {
    RetryBudget budget(0.1, 0.0);
    std::int64_t firsts = 0;
    std::int64_t retries = 0;
    MonotonicTime now = at(seconds{1});
    for (; firsts < 50'000; ++firsts) {
      now += nanoseconds{random.between(0, 20'000'000)};
      budget.deposit(now);
      for (int attempt = 1; attempt < 5 && budget.try_withdraw(now); ++attempt) ++retries;
    }
    EXPECT_LE(retries * 10, firsts);
    EXPECT_GE(retries * 10, firsts - 10);  // and what is allowed can be used
  });
}

constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();

TEST(Backoff, DoublesUpToItsCap) {
  const RetrySpec spec{.backoff = milliseconds{250}, .max_backoff = milliseconds{4'000}};
  const nanoseconds expected[] = {milliseconds{250},   milliseconds{500},   milliseconds{1'000},
                                  milliseconds{2'000}, milliseconds{4'000}, milliseconds{4'000}};
  for (std::uint32_t attempt = 1; attempt <= 6; ++attempt)
    EXPECT_EQ(backoff_before(attempt, spec, kMost, {}), expected[attempt - 1]) << attempt;
  EXPECT_EQ(backoff_before(kMost & 0xFFFFFFFF, spec, kMost, {}), milliseconds{4'000});
  EXPECT_EQ(backoff_before(0, spec, kMost, {}), milliseconds{250});
}

// Full jitter: any time from at once to the ceiling.
TEST(Backoff, IsSpreadOverTheWholeRange) {
  const RetrySpec spec{.backoff = milliseconds{250}};
  EXPECT_EQ(backoff_before(1, spec, 0, {}), nanoseconds{0});
  EXPECT_EQ(backoff_before(1, spec, kMost / 2, {}), nanoseconds{125'000'000});
  for_each_seed(1, [&](Random& random) {
    int below_half = 0;
    for (int i = 0; i < 10'000; ++i) {
      const nanoseconds wait = backoff_before(2, spec, random.next(), {});
      ASSERT_GE(wait, nanoseconds{0});
      ASSERT_LE(wait, milliseconds{500});
      below_half += wait < milliseconds{250} ? 1 : 0;
    }
    EXPECT_GT(below_half, 4'500);
    EXPECT_LT(below_half, 5'500);
  });
}

TEST(Backoff, RetryAfterIsALowerBoundAndStillSpread) {
  const RetrySpec spec{.backoff = milliseconds{250}};
  EXPECT_EQ(backoff_before(1, spec, 0, seconds{30}), seconds{30});
  EXPECT_EQ(backoff_before(1, spec, kMost, seconds{30}), seconds{30} + milliseconds{250});
  EXPECT_EQ(backoff_before(1, spec, kMost, seconds{-30}), milliseconds{250});
  EXPECT_EQ(backoff_before(1, spec, kMost, nanoseconds::max()), nanoseconds::max());
}

TEST(Backoff, ZeroAndUpsideDownSettingsAreHarmless) {
  EXPECT_EQ(backoff_before(5, {.backoff = milliseconds{0}}, kMost, {}), nanoseconds{0});
  EXPECT_EQ(backoff_before(5, {.backoff = milliseconds{-1}, .max_backoff = milliseconds{-5}}, kMost, {}),
            nanoseconds{0});
  EXPECT_EQ(backoff_before(1, {.backoff = milliseconds{500}, .max_backoff = milliseconds{100}}, kMost, {}),
            milliseconds{100});
}

TEST(IsIdempotent, AsRfc9110Says) {
  for (const char* method : {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
    EXPECT_TRUE(is_idempotent(method)) << method;
  for (const char* method : {"POST", "PATCH", "CONNECT", "get", "", "GETX"})
    EXPECT_FALSE(is_idempotent(method)) << method;
}

}  // namespace
}  // namespace penstock::policy
