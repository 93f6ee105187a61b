#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "policy/property_testing.hpp"
#include "store/caller_limits.hpp"

/// What every backend of CallerLimits must do.
namespace penstock::store::contract {

struct CallerLimitsBackend {
  std::string name;
  std::function<std::unique_ptr<CallerLimits>()> make;  ///< one that remembers at least 1000 callers
};
inline void PrintTo(const CallerLimitsBackend& backend, std::ostream* out) { *out << backend.name; }

class CallerLimitsContract : public testing::TestWithParam<CallerLimitsBackend> {
 protected:
  std::unique_ptr<CallerLimits> limits_ = GetParam().make();
  MonotonicTime now_{std::chrono::hours{1'000}};
  static policy::LimitSpec per_minute(std::int64_t amount) {
    return {amount, std::chrono::minutes{1}, policy::LimitUnit::calls};
  }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(CallerLimitsContract);

TEST_P(CallerLimitsContract, CountsEachCallerForItself) {
  EXPECT_EQ(limits_->count(1, per_minute(3), now_).remaining, 2);
  EXPECT_EQ(limits_->count(1, per_minute(3), now_).remaining, 1);
  EXPECT_EQ(limits_->count(2, per_minute(3), now_).remaining, 2);
  EXPECT_EQ(limits_->count(1, per_minute(3), now_).remaining, 0);
  EXPECT_FALSE(limits_->count(1, per_minute(3), now_).allowed);
  EXPECT_TRUE(limits_->count(2, per_minute(3), now_).allowed);
}

// A refused caller who keeps on asking is not kept out for longer by it.
TEST_P(CallerLimitsContract, ARefusalCountsNothingAndTellsTheMoment) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(limits_->count(1, per_minute(3), now_).allowed);
  const auto refused = limits_->count(1, per_minute(3), now_);
  ASSERT_FALSE(refused.allowed);
  EXPECT_EQ(refused.remaining, 0);
  EXPECT_GT(refused.retry_after, nanoseconds{0});
  EXPECT_GE(refused.reset_after, refused.retry_after);
  for (int i = 0; i < 50; ++i)
    EXPECT_FALSE(limits_->count(1, per_minute(3), now_ + refused.retry_after - nanoseconds{1}).allowed);
  EXPECT_TRUE(limits_->count(1, per_minute(3), now_ + refused.retry_after).allowed);
}

TEST_P(CallerLimitsContract, AnAllowedCallTellsWhenTheWholeLimitIsFreeAgain) {
  const auto answer = limits_->count(1, per_minute(3), now_);
  EXPECT_TRUE(answer.allowed);
  EXPECT_GE(answer.reset_after, std::chrono::minutes{1});
  EXPECT_EQ(limits_->count(1, per_minute(3), now_ + answer.reset_after).remaining, 2);
}

// After a reload: the caller's calls are not forgotten.
TEST_P(CallerLimitsContract, AChangedLimitKeepsWhatWasCounted) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(limits_->count(1, per_minute(10), now_).allowed);
  EXPECT_EQ(limits_->count(1, per_minute(5), now_).remaining, 1);
  EXPECT_TRUE(limits_->count(1, per_minute(5), now_).allowed);
  EXPECT_FALSE(limits_->count(1, per_minute(5), now_).allowed);
  EXPECT_EQ(limits_->count(1, per_minute(10), now_).remaining, 4);
}

TEST_P(CallerLimitsContract, NoWindowSeesMoreThanTheLimit) {
  policy::for_each_seed(10, [&](policy::Random& random) {
    limits_ = GetParam().make();
    const policy::LimitSpec limit{random.between(1, 9), seconds{random.between(1, 60)},
                                  policy::LimitUnit::calls};
    std::vector<std::vector<MonotonicTime>> starts(5);
    MonotonicTime now = now_;
    for (int step = 0; step < 1'000; ++step) {
      const auto caller = static_cast<std::size_t>(random.between(0, 4));
      if (limits_->count(caller, limit, now).allowed) starts[caller].push_back(now);
      now += nanoseconds{random.between(0, limit.period.count() / 20)};
    }
    const auto amount = static_cast<std::size_t>(limit.amount);
    for (const auto& of_one : starts) {
      ASSERT_GE(of_one.size(), amount);
      for (std::size_t first = 0; first + amount < of_one.size(); ++first)
        ASSERT_GE(of_one[first + amount] - of_one[first], limit.period);
    }
  });
}

TEST_P(CallerLimitsContract, ThreadsShareOneCount) {
  std::atomic<int> allowed{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int call = 0; call < 500; ++call)
        for (std::uint64_t caller = 0; caller < 3; ++caller)
          if (limits_->count(caller, per_minute(100), now_).allowed) ++allowed;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(allowed, 300);
}

}  // namespace penstock::store::contract
