#include "policy/circuit.hpp"

#include <algorithm>
#include <deque>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "policy/property_testing.hpp"

namespace penstock::policy {
namespace {

using State = CircuitBreaker::State;
using Outcome = CircuitBreaker::Outcome;

constexpr nanoseconds kFast = milliseconds{10};
constexpr nanoseconds kNone{0};

class CircuitBreakerTest : public testing::Test {
 protected:
  CircuitBreaker::Permit admit() {
    const auto permit = breaker_.try_admit(now_);
    EXPECT_TRUE(permit.has_value());
    return permit.value_or(CircuitBreaker::Permit{});
  }
  bool is_refused() { return !breaker_.try_admit(now_).has_value(); }
  void report(CircuitBreaker::Permit permit, Outcome outcome, nanoseconds first_byte = kFast) {
    breaker_.report(permit, outcome, first_byte, now_);
  }
  void call(Outcome outcome, nanoseconds first_byte = kFast) { report(admit(), outcome, first_byte); }
  void open() {
    for (int i = 0; i < 10; ++i) call(Outcome::failure, kNone);
    ASSERT_EQ(breaker_.state(now_), State::open);
  }
  /// The circuit as it is after its first cooldown.
  void half_open() {
    open();
    now_ += spec_.cooldown;
    ASSERT_EQ(breaker_.state(now_), State::half_open);
  }
  State state() { return breaker_.state(now_); }
  void reconfigure(CircuitSpec spec) {
    spec_ = spec;
    breaker_.reconfigure(spec);
  }

  CircuitSpec spec_{};
  CircuitBreaker breaker_{spec_};
  MonotonicTime now_{seconds{1'000}};
};

TEST(CircuitState, HasAName) {
  EXPECT_EQ(to_string(State::closed), "closed");
  EXPECT_EQ(to_string(State::half_open), "half_open");
  EXPECT_EQ(to_string(State::open), "open");
}

TEST_F(CircuitBreakerTest, StartsClosed) {
  EXPECT_EQ(state(), State::closed);
  EXPECT_EQ(breaker_.retry_after(now_), kNone);
  EXPECT_EQ(breaker_.failure_count(now_), 0);
}

TEST_F(CircuitBreakerTest, OpensAtTheRatioAmongEnoughCalls) {
  for (int i = 0; i < 5; ++i) call(Outcome::success);
  for (int i = 0; i < 4; ++i) call(Outcome::failure, kNone);
  EXPECT_EQ(state(), State::closed);
  EXPECT_EQ(breaker_.failure_count(now_), 4);
  EXPECT_EQ(breaker_.call_count(now_), 9);
  call(Outcome::failure, kNone);
  EXPECT_EQ(state(), State::open);
  EXPECT_TRUE(is_refused());
}

TEST_F(CircuitBreakerTest, StaysClosedBelowTheRatio) {
  for (int i = 0; i < 300; ++i) call(i % 5 == 0 || i % 5 == 2 ? Outcome::failure : Outcome::success);
  EXPECT_EQ(state(), State::closed);
}

TEST_F(CircuitBreakerTest, FewCallsAreNoEvidence) {
  for (int i = 0; i < 9; ++i) call(Outcome::failure, kNone);
  EXPECT_EQ(state(), State::closed);
}

// The call that completes the number may be a good one.
TEST_F(CircuitBreakerTest, SuccessThatCompletesTheNumberOpens) {
  for (int i = 0; i < 9; ++i) call(Outcome::failure, kNone);
  call(Outcome::success);
  EXPECT_EQ(state(), State::open);
}

// 0.07 * 100 is a little more than 7 to a double.
TEST_F(CircuitBreakerTest, SevenOfAHundredIsSevenPercent) {
  reconfigure({.failure_ratio = 0.07, .min_calls = 100});
  for (int i = 0; i < 7; ++i) call(Outcome::failure, kNone);
  for (int i = 0; i < 92; ++i) call(Outcome::success);
  EXPECT_EQ(state(), State::closed);
  call(Outcome::success);
  EXPECT_EQ(state(), State::open);
}

TEST_F(CircuitBreakerTest, CallersFaultsAndDeparturesAreNoEvidence) {
  for (int i = 0; i < 100; ++i) {
    call(Outcome::neutral);
    call(Outcome::abandoned, kNone);
  }
  EXPECT_EQ(state(), State::closed);
  EXPECT_EQ(breaker_.call_count(now_), 0);
  open();  // and they do not water down the ratio
}

TEST_F(CircuitBreakerTest, OpensForSlowFirstBytes) {
  for (int i = 0; i < 2; ++i) call(Outcome::success);
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(state(), State::closed);
    call(Outcome::success, spec_.slow_after + nanoseconds{1});
  }
  EXPECT_EQ(state(), State::open);
}

TEST_F(CircuitBreakerTest, ExactlyInTimeIsNotSlow) {
  for (int i = 0; i < 50; ++i) call(Outcome::success, spec_.slow_after);
  EXPECT_EQ(state(), State::closed);
}

TEST_F(CircuitBreakerTest, ForgetsFailuresThatLeftTheWindow) {
  for (int i = 0; i < 9; ++i) call(Outcome::failure, kNone);
  now_ += spec_.window;
  EXPECT_EQ(breaker_.failure_count(now_), 0);
  call(Outcome::failure, kNone);
  EXPECT_EQ(state(), State::closed);
  EXPECT_EQ(breaker_.failure_count(now_), 1);
}

TEST_F(CircuitBreakerTest, LetsNothingThroughWhileOpen) {
  open();
  for (nanoseconds waited{0}; waited < spec_.cooldown; waited += milliseconds{100}) {
    EXPECT_TRUE(is_refused());
    EXPECT_EQ(state(), State::open);
    EXPECT_EQ(breaker_.retry_after(now_), spec_.cooldown - waited);
    now_ += milliseconds{100};
  }
  EXPECT_EQ(state(), State::half_open);
  EXPECT_EQ(breaker_.retry_after(now_), kNone);
}

TEST_F(CircuitBreakerTest, HalfOpenAdmitsExactlyTheTrials) {
  half_open();
  for (std::uint32_t i = 0; i < spec_.half_open_trials; ++i) (void)admit();
  EXPECT_TRUE(is_refused());
  now_ += seconds{20};
  EXPECT_TRUE(is_refused());
  EXPECT_EQ(breaker_.retry_after(now_), spec_.half_open_timeout - seconds{20});
}

// Success of one does not make room for a fourth before the circuit has closed.
TEST_F(CircuitBreakerTest, GoodTrialsAreNotRepeated) {
  half_open();
  call(Outcome::success);
  call(Outcome::success);
  const auto last = admit();
  EXPECT_TRUE(is_refused());
  EXPECT_EQ(state(), State::half_open);
  report(last, Outcome::success);
  EXPECT_EQ(state(), State::closed);
}

TEST_F(CircuitBreakerTest, ClosesWhenAllTrialsSucceed) {
  half_open();
  for (std::uint32_t i = 0; i < spec_.half_open_trials; ++i) {
    EXPECT_EQ(state(), State::half_open);
    call(i == 1 ? Outcome::neutral : Outcome::success);  // a 429 is an answer: the provider is there
  }
  EXPECT_EQ(state(), State::closed);
  EXPECT_EQ(breaker_.failure_count(now_), 0);  // the failures before are no longer evidence
  for (int i = 0; i < 9; ++i) call(Outcome::failure, kNone);
  EXPECT_EQ(state(), State::closed);
}

TEST_F(CircuitBreakerTest, OneFailedTrialReopensWithTwiceTheCooldown) {
  half_open();
  call(Outcome::success);
  call(Outcome::failure, kNone);
  EXPECT_EQ(state(), State::open);
  EXPECT_EQ(breaker_.retry_after(now_), 2 * spec_.cooldown);
}

TEST_F(CircuitBreakerTest, SlowTrialsReopen) {
  half_open();
  const nanoseconds slow = spec_.slow_after + nanoseconds{1};
  call(Outcome::success, slow);
  call(Outcome::success, slow);
  call(Outcome::success, slow);
  EXPECT_EQ(state(), State::open);
  now_ += 2 * spec_.cooldown;
  call(Outcome::success, slow);
  call(Outcome::success, slow);
  call(Outcome::success);
  EXPECT_EQ(state(), State::closed);  // two of three are below 0.8
}

TEST_F(CircuitBreakerTest, CooldownDoublesUpToItsCapAndStartsAnewAfterClosing) {
  open();
  for (const int factor : {1, 2, 4, 8, 16, 24, 24, 24}) {  // 5 s * 32 would be above 120 s
    EXPECT_EQ(breaker_.retry_after(now_), factor * spec_.cooldown);
    now_ += factor * spec_.cooldown;
    call(Outcome::failure, kNone);
  }
  now_ += spec_.max_cooldown;
  for (std::uint32_t i = 0; i < spec_.half_open_trials; ++i) call(Outcome::success);
  EXPECT_EQ(state(), State::closed);
  open();
  EXPECT_EQ(breaker_.retry_after(now_), spec_.cooldown);
}

// A caller who hangs up during the trial must not wedge the circuit half-open.
TEST_F(CircuitBreakerTest, AbandonedTrialFreesItsSlot) {
  half_open();
  for (int i = 0; i < 20; ++i) call(Outcome::abandoned, kNone);
  EXPECT_EQ(state(), State::half_open);
  for (std::uint32_t i = 0; i < spec_.half_open_trials; ++i) (void)admit();
  EXPECT_TRUE(is_refused());
}

TEST_F(CircuitBreakerTest, TrialsThatNeverReportReopenIt) {
  half_open();
  std::vector<CircuitBreaker::Permit> lost;
  lost.reserve(spec_.half_open_trials);
  for (std::uint32_t i = 0; i < spec_.half_open_trials; ++i) lost.push_back(admit());
  now_ += spec_.half_open_timeout - nanoseconds{1};
  EXPECT_EQ(state(), State::half_open);
  now_ += nanoseconds{1};
  EXPECT_EQ(state(), State::open);
  EXPECT_EQ(breaker_.retry_after(now_), 2 * spec_.cooldown);
  EXPECT_TRUE(is_refused());
  now_ += 2 * spec_.cooldown;
  EXPECT_EQ(state(), State::half_open);
  for (const auto& permit : lost) report(permit, Outcome::success);  // too late to be evidence
  EXPECT_EQ(state(), State::half_open);
  for (std::uint32_t i = 0; i < spec_.half_open_trials; ++i) (void)admit();
  EXPECT_TRUE(is_refused());
}

// Long after: the lost trials, the reopening and its cooldown all lie in the past, and nobody called in
// between.
TEST_F(CircuitBreakerTest, LostTrialsAreMadeUpForInOneStep) {
  half_open();
  (void)admit();
  now_ += std::chrono::hours{5};
  EXPECT_EQ(state(), State::half_open);
  EXPECT_EQ(breaker_.retry_after(now_), kNone);
  call(Outcome::failure, kNone);
  EXPECT_EQ(breaker_.retry_after(now_), 4 * spec_.cooldown);
}

// A provider that is called every few minutes must be able to prove itself.
TEST_F(CircuitBreakerTest, SlowTrafficWithoutLostTrialsDoesNotReopen) {
  half_open();
  for (std::uint32_t i = 0; i < spec_.half_open_trials; ++i) {
    EXPECT_EQ(state(), State::half_open);
    call(Outcome::success);
    now_ += 3 * spec_.half_open_timeout;
  }
  EXPECT_EQ(state(), State::closed);
}

TEST_F(CircuitBreakerTest, DropsReportsFromBeforeTheLastChange) {
  std::vector<CircuitBreaker::Permit> early;
  early.reserve(20);
  for (int i = 0; i < 20; ++i) early.push_back(admit());
  open();
  report(early[0], Outcome::success);
  EXPECT_EQ(state(), State::open);
  now_ += spec_.cooldown;
  const auto trial = admit();
  for (int i = 1; i < 10; ++i) report(early[static_cast<std::size_t>(i)], Outcome::success);
  EXPECT_EQ(state(), State::half_open);
  report(early[10], Outcome::failure);
  EXPECT_EQ(state(), State::half_open);
  report(trial, Outcome::success);
  call(Outcome::success);
  call(Outcome::success);
  ASSERT_EQ(state(), State::closed);
  for (int i = 11; i < 20; ++i) report(early[static_cast<std::size_t>(i)], Outcome::failure);
  call(Outcome::failure);
  EXPECT_EQ(breaker_.failure_count(now_), 1);
}

TEST_F(CircuitBreakerTest, ReconfigureKeepsStateAndResultsThatStillCount) {
  for (int i = 0; i < 4; ++i) call(Outcome::failure, kNone);
  now_ += seconds{20};
  for (int i = 0; i < 3; ++i) call(Outcome::failure, kNone);
  CircuitSpec spec;
  spec.window = seconds{300};
  reconfigure(spec);
  EXPECT_EQ(breaker_.failure_count(now_), 7);
  now_ += seconds{100};
  EXPECT_EQ(breaker_.failure_count(now_), 7);
  spec.window = seconds{101};
  reconfigure(spec);
  EXPECT_EQ(breaker_.failure_count(now_), 3);
  now_ += seconds{1};
  EXPECT_EQ(breaker_.failure_count(now_), 0);
  open();
  reconfigure(spec);
  EXPECT_EQ(state(), State::open);
}

// Fewer trials asked for than already succeeded: without care nobody would be left to close the circuit.
TEST_F(CircuitBreakerTest, FewerTrialsThanSucceededCloseAtOnce) {
  half_open();
  call(Outcome::success);
  call(Outcome::success);
  const auto third = admit();
  CircuitSpec spec = spec_;
  spec.half_open_trials = 2;
  reconfigure(spec);
  EXPECT_EQ(state(), State::closed);
  report(third, Outcome::failure, kNone);  // a trial of the state before
  EXPECT_EQ(breaker_.failure_count(now_), 0);
}

TEST_F(CircuitBreakerTest, SettingsOutOfBoundsAreBroughtBack) {
  CircuitSpec spec;
  spec.window = seconds{0};
  spec.half_open_trials = 0;
  spec.min_calls = 0;
  reconfigure(spec);
  call(Outcome::failure, kNone);
  ASSERT_EQ(state(), State::open);
  now_ += spec.cooldown;
  call(Outcome::success);
  EXPECT_EQ(state(), State::closed);
  spec.window = seconds{1'000'000};
  spec.min_calls = 10;
  reconfigure(spec);
  call(Outcome::failure, kNone);
  now_ += seconds{599};
  EXPECT_EQ(breaker_.failure_count(now_), 1);
  now_ += seconds{1};
  EXPECT_EQ(breaker_.failure_count(now_), 0);
}

bool is_legal(State from, State to) {
  static const std::set<std::pair<State, State>> kLegal{{State::closed, State::open},
                                                        {State::open, State::half_open},
                                                        {State::half_open, State::open},
                                                        {State::half_open, State::closed}};
  return from == to || kLegal.contains({from, to});
}

// K1 to K5 under random traffic, cancels, reports that come late or never, and idle gaps.
TEST(CircuitBreakerProperty, TrialsTransitionsPermitsEpochsAndTotals) {
  for_each_seed(150, [](Random& random) {
    CircuitSpec spec;
    spec.failure_ratio = static_cast<double>(random.between(1, 10)) / 10;
    spec.min_calls = random.between(1, 10);
    spec.window = seconds{random.between(1, 30)};
    spec.cooldown = milliseconds{random.between(1, 5'000)};
    spec.max_cooldown = spec.cooldown * random.between(1, 8);
    spec.half_open_trials = static_cast<std::uint32_t>(random.between(1, 4));
    spec.half_open_timeout = milliseconds{random.between(10, 20'000)};
    const int failing = static_cast<int>(random.between(0, 100));
    CircuitBreaker breaker(spec);

    struct Result {
      std::int64_t second;
      bool failed;
    };
    std::vector<CircuitBreaker::Permit> in_flight;
    std::deque<Result> results;  // K5: what the window should hold
    MonotonicTime now{seconds{random.between(0, 100'000)}};
    State last = breaker.state(now);
    std::uint32_t epoch = 0;       // of the newest permit
    std::uint32_t trials_out = 0;  // K1: admitted in this half-open state, less those that were abandoned

    for (int step = 0; step < 1'200; ++step) {
      switch (random.between(0, 29)) {
        case 0: now += spec.window + seconds{random.between(-1, 20)}; break;
        case 1: now += spec.cooldown; break;
        case 2: now += spec.half_open_timeout; break;
        case 3:
        case 4: break;
        default: now += milliseconds{random.between(0, 200)}; break;
      }
      // What the clock alone does: at most back to open (lost trials), then half-open again.
      State timely = breaker.state(now);
      ASSERT_TRUE(is_legal(last, timely)) << to_string(last) << " to " << to_string(timely);
      last = timely;
      const nanoseconds wait = breaker.retry_after(now);
      ASSERT_GE(wait, kNone);
      ASSERT_LE(wait, std::max(nanoseconds{spec.max_cooldown}, nanoseconds{spec.half_open_timeout}));

      if (random.chance(55)) {
        const auto permit = breaker.try_admit(now);
        ASSERT_EQ(permit.has_value(), wait == kNone) << "retry_after is zero exactly when an attempt may go";
        if (timely == State::open) {
          ASSERT_FALSE(permit.has_value());
        }
        if (timely == State::closed) {
          ASSERT_TRUE(permit.has_value());
        }
        if (permit) {
          if (permit->epoch != epoch) trials_out = 0;
          epoch = permit->epoch;
          in_flight.push_back(*permit);
          if (timely == State::half_open) ++trials_out;
          if (timely == State::half_open) {
            ASSERT_LE(trials_out, spec.half_open_trials);
          }
        }
      } else if (!in_flight.empty()) {
        const auto i = random.between(0, std::ssize(in_flight) - 1);
        const auto permit = in_flight[static_cast<std::size_t>(i)];
        in_flight.erase(in_flight.begin() + i);
        if (random.chance(3)) continue;  // never reports
        const auto outcome = random.chance(failing) ? Outcome::failure
                             : random.chance(60)    ? Outcome::success
                             : random.chance(50)    ? Outcome::neutral
                                                    : Outcome::abandoned;
        const std::int64_t calls = breaker.call_count(now);
        const std::int64_t failures = breaker.failure_count(now);
        breaker.report(permit, outcome, kFast, now);
        const State after = breaker.state(now);
        if (permit.epoch != epoch) {  // K4: stale
          ASSERT_EQ(after, timely);
          ASSERT_EQ(breaker.call_count(now), calls);
          ASSERT_EQ(breaker.failure_count(now), failures);
        } else if (breaker.call_count(now) > calls) {
          results.push_back({now.time_since_epoch() / seconds{1}, outcome == Outcome::failure});
        }
        if (permit.epoch == epoch && outcome == Outcome::abandoned) --trials_out;  // K3
        ASSERT_TRUE(is_legal(timely, after));
        if (outcome == Outcome::abandoned) {
          ASSERT_EQ(after, timely);
        }
        if (outcome == Outcome::neutral && after == State::open) {
          ASSERT_EQ(timely, State::open);
        }
        last = after;
        if (after == State::closed && timely != State::closed) results.clear();
      }

      // K5
      const std::int64_t oldest = now.time_since_epoch() / seconds{1} - spec.window.count() + 1;
      while (!results.empty() && results.front().second < oldest) results.pop_front();
      ASSERT_EQ(breaker.call_count(now), std::ssize(results));
      ASSERT_EQ(breaker.failure_count(now), std::ranges::count_if(results, &Result::failed));
    }
    // K3: with everything reported or lost, it is not wedged: a healthy provider closes it within bounds.
    now += spec.half_open_timeout + spec.max_cooldown;
    for (std::uint32_t i = 0; i < spec.half_open_trials && breaker.state(now) != State::closed; ++i) {
      const auto permit = breaker.try_admit(now);
      ASSERT_TRUE(permit.has_value());
      breaker.report(*permit, Outcome::success, kFast, now);
    }
    ASSERT_EQ(breaker.state(now), State::closed);
  });
}

// state() and retry_after() are const: whatever is asked in between, the circuit does the same.
TEST(CircuitBreakerProperty, AskingChangesNothing) {
  for_each_seed(40, [](Random& random) {
    const CircuitSpec spec{.min_calls = 3, .window = seconds{10}, .half_open_timeout = milliseconds{8'000}};
    CircuitBreaker asked(spec);
    CircuitBreaker left_alone(spec);
    std::vector<CircuitBreaker::Permit> in_flight;
    MonotonicTime now{seconds{50}};
    for (int step = 0; step < 400; ++step) {
      for (int i = 0; i < 3; ++i) {
        now += milliseconds{random.between(0, 4'000)};
        (void)asked.state(now);
        (void)asked.retry_after(now);
        (void)asked.failure_count(now);
      }
      if (random.chance(50) || in_flight.empty()) {
        const auto permit = asked.try_admit(now);
        const auto other = left_alone.try_admit(now);
        ASSERT_EQ(permit.has_value(), other.has_value());
        if (!permit) continue;
        ASSERT_EQ(permit->epoch, other->epoch);
        in_flight.push_back(*permit);
      } else {
        const auto outcome = random.chance(50) ? Outcome::failure : Outcome::success;
        asked.report(in_flight.back(), outcome, kFast, now);
        left_alone.report(in_flight.back(), outcome, kFast, now);
        in_flight.pop_back();
        ASSERT_EQ(asked.state(now), left_alone.state(now));
      }
    }
  });
}

}  // namespace
}  // namespace penstock::policy
