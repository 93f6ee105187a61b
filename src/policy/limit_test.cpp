#include "policy/limit.hpp"

#include <deque>
#include <limits>

#include <gtest/gtest.h>

#include "policy/property_testing.hpp"

namespace penstock::policy {
namespace {

using std::chrono::days;
using std::chrono::hours;
using std::chrono::minutes;

constexpr nanoseconds kNow{0};

MonotonicTime at(nanoseconds since_epoch) { return MonotonicTime{since_epoch}; }

WindowLimit calls_per(std::int64_t amount, nanoseconds period) {
  return WindowLimit({.amount = amount, .period = period, .unit = LimitUnit::calls});
}

/// Everything that a caller can see.
std::vector<std::int64_t> observe(WindowLimit& limit, MonotonicTime now) {
  std::vector<std::int64_t> seen{limit.used(now), limit.remaining(now), limit.reset_after(now).count()};
  for (const std::int64_t cost :
       {std::int64_t{0}, std::int64_t{1}, limit.spec().amount / 2, limit.spec().amount})
    seen.push_back(limit.wait_for(cost, now).count());
  return seen;
}

TEST(ParseLimit, ReadsAmountUnitAndPeriod) {
  const struct {
    const char* text;
    LimitSpec spec;
  } cases[] = {
      {"100/minute", {100, minutes{1}, LimitUnit::calls}},
      {"5/10s", {5, seconds{10}, LimitUnit::calls}},
      {"90000 tokens/minute", {90'000, minutes{1}, LimitUnit::tokens}},
      {"1 token / 2 hours", {1, hours{2}, LimitUnit::tokens}},
      {" 7 calls/day ", {7, days{1}, LimitUnit::calls}},
      {"1 call/31d", {1, days{31}, LimitUnit::calls}},
      {"3/90m", {3, minutes{90}, LimitUnit::calls}},
      {"3/min", {3, minutes{1}, LimitUnit::calls}},
      {"3/1500ms", {3, milliseconds{1500}, LimitUnit::calls}},
      {"3/second", {3, seconds{1}, LimitUnit::calls}},
      {"9007199254740991/h", {9'007'199'254'740'991, hours{1}, LimitUnit::calls}},
  };
  for (const auto& [text, spec] : cases) {
    const auto parsed = parse_limit(text);
    ASSERT_TRUE(parsed.has_value()) << text << ": " << parsed.error();
    EXPECT_EQ(*parsed, spec) << text;
  }
}

// Whoever wrote it must see how it is written, whatever was wrong.
TEST(ParseLimit, RefusesWithAnExample) {
  for (const char* text : {"",
                           "fast",
                           "/minute",
                           "-1/minute",
                           "0/minute",
                           "1.5/minute",
                           "100",
                           "100 per minute",
                           "100/",
                           "100/0s",
                           "100/fortnight",
                           "100/minute!",
                           "100 apples/minute",
                           "100/32d",
                           "100/999ms",
                           "100/745h",
                           "9007199254740992/h",
                           "99999999999999999999/h",
                           "100/99999999999999999999s",
                           "100//minute",
                           "100/minute/minute",
                           "100/s s",
                           "100 /"}) {
    const auto parsed = parse_limit(text);
    ASSERT_FALSE(parsed.has_value()) << text;
    EXPECT_NE(parsed.error().find("100/minute, 5/10s or 90000 tokens/minute"), std::string::npos)
        << parsed.error();
  }
}

TEST(ParseLimit, ReadsBackWhatToStringWrites) {
  for (const char* text : {"100/minute", "5/10s", "90000 tokens/minute", "1/second", "1/hour", "2/day",
                           "3/31d", "3/90m", "4 tokens/1500ms"})
    EXPECT_EQ(to_string(*parse_limit(text)), text);
  EXPECT_EQ(to_string({1, nanoseconds{1'000'000'001}, LimitUnit::calls}), "1/1000000001ns");
}

TEST(WindowLimit, AdmitsUpToTheAmountAndThenWaitsForTheFirstToLeave) {
  WindowLimit limit = calls_per(3, minutes{1});
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(limit.wait_for(1, at(seconds{100 + i})), kNow);
    (void)limit.take(1, at(seconds{100 + i}));
  }
  EXPECT_EQ(limit.remaining(at(seconds{102})), 0);
  // The call of second 100 leaves when its bucket is surely a whole minute old: at 161.
  EXPECT_EQ(limit.wait_for(1, at(seconds{102})), seconds{59});
  EXPECT_EQ(limit.wait_for(2, at(seconds{102})), seconds{60});
  EXPECT_EQ(limit.wait_for(1, at(seconds{161})), kNow);
  EXPECT_EQ(limit.used(at(seconds{161})), 2);
}

TEST(WindowLimit, NeverFitsMoreThanTheWholeAmount) {
  WindowLimit limit = calls_per(10, seconds{10});
  EXPECT_EQ(limit.wait_for(11, at(kNow)), nanoseconds::max());
  EXPECT_EQ(limit.wait_for(10, at(kNow)), kNow);
  EXPECT_EQ(limit.wait_for(0, at(kNow)), kNow);
}

TEST(WindowLimit, CostOfNothingWaitsOnlyForDebt) {
  WindowLimit limit = calls_per(10, seconds{60});
  const auto ticket = limit.take(10, at(kNow));
  EXPECT_EQ(limit.wait_for(0, at(kNow)), kNow);
  limit.correct(ticket, 1, at(kNow));
  EXPECT_EQ(limit.wait_for(0, at(kNow)), seconds{61});
}

// A burst at the end of one calendar minute and another at the start of the next: what fixed windows let
// through.
TEST(WindowLimit, KeepsTheLimitAcrossACalendarBoundary) {
  WindowLimit limit = calls_per(60, minutes{1});
  (void)limit.take(60, at(milliseconds{59'999}));
  EXPECT_GT(limit.wait_for(1, at(seconds{60})), seconds{59});
}

// 60 buckets of the rounded-down length would be 39 ns shorter than this period.
TEST(WindowLimit, PeriodThatBucketsDoNotDivideIsKeptWhole) {
  const nanoseconds period{1'000'000'059};
  WindowLimit limit = calls_per(1, period);
  for (std::int64_t ns = 50'000'000; ns < 50'000'200; ++ns) {  // some of them end a bucket
    WindowLimit fresh = limit;
    (void)fresh.take(1, at(nanoseconds{ns}));
    ASSERT_GE(fresh.wait_for(1, at(nanoseconds{ns})), period) << ns;
  }
}

TEST(WindowLimit, ClearsAfterAnIdleGap) {
  WindowLimit limit = calls_per(5, seconds{60});
  (void)limit.take(5, at(seconds{5}));
  EXPECT_EQ(limit.used(at(hours{24 * 365})), 0);
  EXPECT_EQ(limit.reset_after(at(hours{24 * 365})), kNow);
  (void)limit.take(5, at(hours{24 * 365}));
  EXPECT_EQ(limit.remaining(at(hours{24 * 365})), 0);
}

TEST(WindowLimit, ResetIsWhenTheLastCountLeaves) {
  WindowLimit limit = calls_per(5, seconds{60});
  EXPECT_EQ(limit.reset_after(at(seconds{4})), kNow);
  (void)limit.take(1, at(seconds{5}));
  const auto last = limit.take(1, at(seconds{9}));
  EXPECT_EQ(limit.reset_after(at(seconds{20})), seconds{9 + 61 - 20});
  limit.correct(last, -1, at(seconds{20}));
  EXPECT_EQ(limit.reset_after(at(seconds{20})), seconds{5 + 61 - 20});
}

// It should not happen to a monotonic clock; if it does, nothing is forgotten and nothing leaves early.
TEST(WindowLimit, CountsInTheNewestBucketWhenTheClockGoesBack) {
  WindowLimit limit = calls_per(2, seconds{60});
  (void)limit.take(1, at(seconds{500}));
  (void)limit.take(1, at(seconds{100}));
  EXPECT_EQ(limit.used(at(seconds{100})), 2);
  EXPECT_EQ(limit.wait_for(1, at(seconds{500})), seconds{61});
}

TEST(WindowLimit, GivesBackWhatWasEstimatedTooHigh) {
  WindowLimit limit = calls_per(100, seconds{60});
  const auto ticket = limit.take(90, at(seconds{1}));
  limit.correct(ticket, -60, at(seconds{30}));
  EXPECT_EQ(limit.used(at(seconds{30})), 30);
  EXPECT_EQ(limit.wait_for(70, at(seconds{30})), kNow);
  limit.correct(ticket, -1'000, at(seconds{30}));  // never below nothing
  EXPECT_EQ(limit.used(at(seconds{30})), 0);
  limit.correct(ticket, std::numeric_limits<std::int64_t>::min(), at(seconds{30}));
  EXPECT_EQ(limit.used(at(seconds{30})), 0);
}

// More used than estimated delays later attempts, but for no longer than a window.
TEST(WindowLimit, CountsDebtAndForgetsItWithItsWindow) {
  WindowLimit limit = calls_per(100, seconds{60});
  const auto ticket = limit.take(100, at(seconds{1}));
  limit.correct(ticket, 400, at(seconds{2}));
  EXPECT_EQ(limit.used(at(seconds{2})), 500);
  EXPECT_EQ(limit.remaining(at(seconds{2})), 0);
  EXPECT_EQ(limit.wait_for(100, at(seconds{2})), seconds{60});
  EXPECT_EQ(limit.wait_for(100, at(seconds{62})), kNow);
  limit.correct(ticket, std::numeric_limits<std::int64_t>::max(), at(seconds{61}));
  EXPECT_EQ(limit.remaining(at(seconds{62})), 100);  // its bucket had left
}

TEST(WindowLimit, SaturatesInsteadOfOverflowing) {
  WindowLimit limit = calls_per(std::int64_t{1} << 53, days{1});
  const auto ticket = limit.take(1, at(kNow));
  limit.correct(ticket, std::numeric_limits<std::int64_t>::max(), at(kNow));
  EXPECT_EQ(limit.used(at(kNow)), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(limit.remaining(at(kNow)), 0);
  EXPECT_GT(limit.wait_for(1, at(kNow)), hours{24});
  EXPECT_EQ(limit.wait_for(1, at(days{2})), kNow);
}

TEST(WindowLimit, IgnoresTicketsThatHaveLeft) {
  WindowLimit limit = calls_per(100, seconds{60});
  const auto ticket = limit.take(10, at(seconds{1}));
  (void)limit.take(10, at(seconds{62}));
  limit.correct(ticket, -10, at(seconds{62}));
  limit.correct(ticket, 10, at(seconds{62}));
  EXPECT_EQ(limit.used(at(seconds{62})), 10);
}

TEST(WindowLimit, KeepsCountsWhenTheAmountChanges) {
  WindowLimit limit = calls_per(10, seconds{60});
  (void)limit.take(10, at(seconds{1}));
  limit.reconfigure({.amount = 5, .period = seconds{60}, .unit = LimitUnit::calls}, at(seconds{2}));
  EXPECT_EQ(limit.used(at(seconds{2})), 10);
  EXPECT_EQ(limit.remaining(at(seconds{2})), 0);
  EXPECT_EQ(limit.wait_for(5, at(seconds{2})), seconds{60});
  limit.reconfigure({.amount = 12, .period = seconds{60}, .unit = LimitUnit::calls}, at(seconds{2}));
  EXPECT_EQ(limit.remaining(at(seconds{2})), 2);
}

TEST(WindowLimit, CountsAllAsOfNowWhenThePeriodChanges) {
  WindowLimit limit = calls_per(10, seconds{60});
  const auto ticket = limit.take(8, at(seconds{1'000}));
  limit.reconfigure({.amount = 10, .period = seconds{59}, .unit = LimitUnit::calls}, at(seconds{1'050}));
  EXPECT_EQ(limit.used(at(seconds{1'050})), 8);
  EXPECT_GE(limit.wait_for(3, at(seconds{1'050})), seconds{59});
  limit.reconfigure({.amount = 10, .period = hours{1}, .unit = LimitUnit::calls}, at(seconds{1'051}));
  limit.correct(ticket, -5, at(seconds{1'052}));  // found through both changes
  EXPECT_EQ(limit.used(at(seconds{1'052})), 3);
  const auto later = limit.take(2, at(seconds{1'052}));
  limit.correct(later, -2, at(seconds{1'052}));
  EXPECT_EQ(limit.used(at(seconds{1'052})), 3);
}

TEST(WindowLimit, TicketsThatHadLeftBeforeAChangeOfThePeriodStayIgnored) {
  WindowLimit limit = calls_per(10, seconds{60});
  const auto ticket = limit.take(8, at(seconds{1}));
  (void)limit.take(8, at(seconds{100}));
  limit.reconfigure({.amount = 10, .period = seconds{30}, .unit = LimitUnit::calls}, at(seconds{100}));
  limit.correct(ticket, -8, at(seconds{100}));
  EXPECT_EQ(limit.used(at(seconds{100})), 8);
}

TEST(WindowLimit, StartsFromNothingWhenTheUnitChanges) {
  WindowLimit limit = calls_per(10, seconds{60});
  const auto ticket = limit.take(8, at(seconds{100}));
  limit.reconfigure({.amount = 10, .period = seconds{60}, .unit = LimitUnit::tokens}, at(seconds{100}));
  EXPECT_EQ(limit.used(at(seconds{100})), 0);
  (void)limit.take(5, at(seconds{100}));
  limit.correct(ticket, -5, at(seconds{100}));  // calls are not tokens
  EXPECT_EQ(limit.used(at(seconds{100})), 5);
}

/// Every attempt that started, as a provider that looks closely would remember it.
class SlidingLog {
 public:
  explicit SlidingLog(nanoseconds period) : period_(period) {}

  void add(MonotonicTime start, std::int64_t cost) {
    while (!starts_.empty() && starts_.front().first <= start - period_) {
      sum_ -= starts_.front().second;
      starts_.pop_front();
    }
    starts_.emplace_back(start, cost);
    sum_ += cost;
  }
  /// In the window of the period's length that ends with the last start.
  [[nodiscard]] std::int64_t sum() const { return sum_; }

 private:
  nanoseconds period_;
  std::deque<std::pair<MonotonicTime, std::int64_t>> starts_;
  std::int64_t sum_ = 0;
};

/// Bursts, trickles, stalls of the clock, and gaps shorter and longer than the window.
nanoseconds random_step(Random& random, nanoseconds period) {
  switch (random.between(0, 9)) {
    case 0: return nanoseconds{random.between(0, 3 * period.count())};
    case 1: return period;
    case 2: return nanoseconds{random.between(0, period.count())};
    case 3:
    case 4: return kNow;
    default: return nanoseconds{random.between(0, period.count() / 40)};
  }
}

LimitSpec random_spec(Random& random) {
  static constexpr std::int64_t kPeriods[] = {1'000'000'000, 10'000'000'000, 60'000'000'000,
                                              3'600'000'000'000, 1'000'000'007};
  return {.amount = random.chance(50) ? random.between(1, 20) : random.between(1, 1'000'000),
          .period = nanoseconds{kPeriods[random.between(0, 4)]},
          .unit = LimitUnit::tokens};
}

// L1, L2 and L3 on random traffic, against an exact log: no window of the period's length ever holds more
// than the amount; a wait is enough and not a nanosecond too long; who is refused leaves no trace.
TEST(WindowLimitProperty, ExactInEveryWindowTightAndWithoutTrace) {
  for_each_seed(120, [](Random& random) {
    const LimitSpec spec = random_spec(random);
    WindowLimit limit(spec);
    SlidingLog log(spec.period);
    MonotonicTime now = at(nanoseconds{random.between(0, 1'000'000'000'000)});
    for (int step = 0; step < 1'500; ++step) {
      now += random_step(random, spec.period);
      const std::int64_t cost =
          random.between(0, random.chance(80) ? std::max<std::int64_t>(1, spec.amount / 10) : spec.amount);
      const auto before = observe(limit, now);
      const nanoseconds wait = limit.wait_for(cost, now);
      ASSERT_EQ(observe(limit, now), before);
      if (wait > kNow) {
        ASSERT_LE(wait, spec.period + spec.period / 60 + seconds{1});
        WindowLimit later = limit;
        ASSERT_GT(later.wait_for(cost, now + wait - nanoseconds{1}), kNow);
        ASSERT_EQ(later.wait_for(cost, now + wait), kNow);
        if (random.chance(70)) continue;
        now += wait;
      }
      (void)limit.take(cost, now);
      log.add(now, cost);
      ASSERT_LE(log.sum(), spec.amount);
    }
  });
}

// What is lost to the buckets' width: traffic as fast as it may go gets at least 60/61 of the limit.
TEST(WindowLimitProperty, GivesAwayAtMostOneBucket) {
  WindowLimit limit = calls_per(600, seconds{60});
  std::int64_t admitted = 0;
  constexpr int kSeconds = 6'100;
  for (int tick = 0; tick < kSeconds * 100; ++tick) {
    const MonotonicTime now = at(milliseconds{10} * tick);
    if (limit.wait_for(1, now) > kNow) continue;
    (void)limit.take(1, now);
    ++admitted;
  }
  EXPECT_GE(admitted, 600 * kSeconds / 61 - 1);
}

// Refunds and debts in any order: used is the sum of what is counted in the buckets of the window, never
// negative; and but for refunds and time, remaining never grows (L4).
TEST(WindowLimitProperty, CorrectionsAddUp) {
  for_each_seed(60, [](Random& random) {
    const LimitSpec spec = random_spec(random);
    const nanoseconds width = (spec.period + nanoseconds{59}) / 60;
    WindowLimit limit(spec);
    struct Counted {
      WindowLimit::Ticket ticket;
      std::int64_t bucket;
      std::int64_t amount;
    };
    std::vector<Counted> model;
    MonotonicTime now = at(nanoseconds{random.between(0, 1'000'000'000'000)});
    for (int step = 0; step < 400; ++step) {
      now += random_step(random, spec.period);
      const std::int64_t bucket = now.time_since_epoch() / width;
      const std::int64_t remaining = limit.remaining(now);
      const std::int64_t cost = random.between(0, spec.amount);
      if (limit.wait_for(cost, now) == kNow) {
        model.push_back({limit.take(cost, now), bucket, cost});
        ASSERT_EQ(limit.remaining(now), remaining - cost);
      }
      if (!model.empty() && random.chance(50)) {
        Counted& counted =
            model[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(model.size()) - 1))];
        const std::int64_t delta =
            random.chance(50) ? -random.between(0, counted.amount) : random.between(0, 2 * spec.amount);
        limit.correct(counted.ticket, delta, now);
        counted.amount += delta;
      }
      std::int64_t used = 0;
      for (const Counted& counted : model)
        if (counted.bucket >= bucket - 60) used += counted.amount;
      ASSERT_EQ(limit.used(now), used);
    }
  });
}

// Random changes of amount and period in between: still never more than the smallest amount in force allows
// at a take.
TEST(WindowLimitProperty, ChangesOfTheSpecNeverForget) {
  for_each_seed(60, [](Random& random) {
    LimitSpec spec = random_spec(random);
    WindowLimit limit(spec);
    std::vector<std::pair<MonotonicTime, std::int64_t>> starts;
    MonotonicTime now = at(nanoseconds{random.between(0, 1'000'000'000'000)});
    for (int step = 0; step < 300; ++step) {
      now += random_step(random, spec.period);
      if (random.chance(5)) {
        const nanoseconds old_period = spec.period;
        spec = random_spec(random);
        limit.reconfigure(spec, now);
        // A longer period knows only what the shorter one still remembered.
        if (spec.period > old_period)
          std::erase_if(starts, [&](const auto& start) { return start.first <= now - old_period; });
      }
      const std::int64_t cost = random.between(0, spec.amount / 3);
      if (limit.wait_for(cost, now) > kNow) continue;
      (void)limit.take(cost, now);
      starts.emplace_back(now, cost);
      std::int64_t sum = 0;
      for (const auto& [start, amount] : starts)
        if (start > now - spec.period) sum += amount;
      ASSERT_LE(sum, spec.amount);
    }
  });
}

}  // namespace
}  // namespace penstock::policy
