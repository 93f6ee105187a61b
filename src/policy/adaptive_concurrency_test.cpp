#include "policy/adaptive_concurrency.hpp"

#include <cmath>
#include <queue>

#include <gtest/gtest.h>

#include "policy/property_testing.hpp"

namespace penstock::policy {
namespace {

using namespace std::chrono_literals;

constexpr MonotonicTime kStart{1'000h};

std::uint64_t start_many(AdaptiveConcurrency& limit, std::uint32_t count) {
  std::uint64_t number = 0;
  for (std::uint32_t i = 0; i < count; ++i) number = limit.start();
  return number;
}

// Nobody waits for a guess.
TEST(AdaptiveConcurrencyTest, ThereIsNoLimitUntilSomethingIsDropped) {
  AdaptiveConcurrency limit;
  start_many(limit, 500);
  EXPECT_TRUE(limit.may_start(kStart));
  EXPECT_EQ(limit.limit(), std::nullopt);
  limit.dropped(500, kStart);
  EXPECT_EQ(limit.limit(), 450U);
  EXPECT_FALSE(limit.may_start(kStart));
}

TEST(AdaptiveConcurrencyTest, ADropInQuietTrafficDoesNotPutAllBehindOneCall) {
  AdaptiveConcurrency limit;
  limit.dropped(limit.start(), kStart);
  EXPECT_EQ(limit.limit(), AdaptiveConcurrency::kFirst);
}

// What started before the decrease could not heed it.
TEST(AdaptiveConcurrencyTest, OneRoundTripDecreasesOnce) {
  AdaptiveConcurrency limit;
  start_many(limit, 100);
  for (std::uint64_t number = 1; number <= 100; ++number) limit.dropped(number, kStart);
  EXPECT_EQ(limit.limit(), 90U);
  limit.dropped(limit.start(), kStart);
  EXPECT_EQ(limit.limit(), 81U);
}

// A2.
TEST(AdaptiveConcurrencyTest, TrafficThatDoesNotUseTheLimitNeverGrowsIt) {
  AdaptiveConcurrency limit;
  start_many(limit, 100);
  limit.dropped(100, kStart);
  for (int i = 0; i < 56; ++i) limit.end();  // 44 of 90
  for (int i = 0; i < 100'000; ++i) limit.succeeded();
  EXPECT_EQ(limit.limit(), 90U);
  start_many(limit, 2);  // 46
  for (int i = 0; i < 180; ++i) limit.succeeded();
  EXPECT_GT(limit.limit(), 90U);
}

TEST(AdaptiveConcurrencyTest, WhatMetNoDropForTenMinutesIsForgotten) {
  AdaptiveConcurrency limit;
  start_many(limit, 100);
  limit.dropped(100, kStart);
  EXPECT_FALSE(limit.may_start(kStart + AdaptiveConcurrency::kForgetAfter));
  EXPECT_TRUE(limit.may_start(kStart + AdaptiveConcurrency::kForgetAfter + 1ns));
}

// A1, A4: whatever is reported in whatever order.
TEST(AdaptiveConcurrencyProperty, TheLimitKeepsItsBoundsAndIsKept) {
  for_each_seed(30, [](Random& random) {
    AdaptiveConcurrency limit;
    std::vector<std::uint64_t> running;
    MonotonicTime now = kStart;
    for (int step = 0; step < 5'000; ++step) {
      now += milliseconds{random.between(0, 100)};
      if (limit.may_start(now) && random.chance(70)) {
        running.push_back(limit.start());
        if (limit.limit()) ASSERT_LE(limit.in_flight(), *limit.limit());
      } else if (!running.empty()) {
        const auto at =
            static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(running.size()) - 1));
        if (random.chance(80))
          limit.succeeded();
        else
          limit.dropped(running[at], now);
        limit.end();
        running.erase(running.begin() + static_cast<std::ptrdiff_t>(at));
      }
      ASSERT_EQ(limit.in_flight(), running.size());
      if (limit.limit()) {
        ASSERT_GE(*limit.limit(), AdaptiveConcurrency::kLeast);
        ASSERT_LE(*limit.limit(), AdaptiveConcurrency::kMost);
      }
    }
  });
}

/// A provider with so many places, each busy for an exponential time of 1 s on average; what finds none free
/// is dropped 20 ms later. More callers than places, always.
class Crowd {
 public:
  explicit Crowd(Random& random, std::size_t places) : random_(random), places_(places) {}

  void set_places(std::size_t places) { places_ = places; }
  MonotonicTime now() const { return now_; }

  /// The mean limit over the last third of that time.
  double run(seconds time) {
    const MonotonicTime end = now_ + time;
    double sum = 0;
    int samples = 0;
    while (now_ < end) {
      while (limit_.in_flight() < 300 && limit_.may_start(now_)) begin();
      const Event event = events_.top();
      events_.pop();
      now_ = event.at;
      if (event.is_served) {
        --served_;
        limit_.succeeded();
      } else {
        limit_.dropped(event.number, now_);
      }
      limit_.end();
      if (now_ > end - time / 3 && limit_.limit()) {
        sum += *limit_.limit();
        ++samples;
      }
    }
    return samples == 0 ? 0 : sum / samples;
  }

 private:
  struct Event {
    MonotonicTime at;
    std::uint64_t number;
    bool is_served;
    bool operator<(const Event& other) const { return at > other.at; }
  };

  void begin() {
    const std::uint64_t number = limit_.start();
    const bool is_served = served_ < places_;
    const double uniform = (static_cast<double>(random_.next() >> 11) + 1) * 0x1.0p-53;
    const nanoseconds takes =
        is_served ? nanoseconds{static_cast<std::int64_t>(-std::log(uniform) * 1e9)} : nanoseconds{20ms};
    if (is_served) ++served_;
    events_.push({now_ + takes, number, is_served});
  }

  Random& random_;
  std::size_t places_;
  std::size_t served_ = 0;
  MonotonicTime now_ = kStart;
  AdaptiveConcurrency limit_;
  std::priority_queue<Event> events_;
};

// A3: M/M/c without a queue.
TEST(AdaptiveConcurrencyProperty, FindsTheProvidersCapacityAndFollowsIt) {
  for_each_seed(10, [](Random& random) {
    Crowd crowd(random, 60);
    EXPECT_NEAR(crowd.run(180s), 60, 6);
    crowd.set_places(30);
    EXPECT_NEAR(crowd.run(45s), 30, 3);  // the mean of its last 15 s: found within 30 s
    crowd.set_places(60);
    EXPECT_NEAR(crowd.run(180s), 60, 6);
  });
}

}  // namespace
}  // namespace penstock::policy
