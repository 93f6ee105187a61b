#include "policy/line.hpp"

#include <algorithm>
#include <deque>

#include <gtest/gtest.h>

#include "policy/property_testing.hpp"

namespace penstock::policy {
namespace {

using Id = WaitingLine::Id;
using Subject = WaitingLine::Subject;
using Ids = std::vector<Id>;

constexpr Subject kProvider = 1;

MonotonicTime at(nanoseconds since_epoch) { return MonotonicTime{since_epoch}; }
const MonotonicTime kNow = at(seconds{1'000});

/// What a test says of a call; the rest is as in most of them.
struct Wish {
  WaitLane lane = WaitLane::standard;
  std::uint64_t consumer = 1;
  std::vector<Subject> own{};
  nanoseconds patience = seconds{60};
  std::uint64_t bytes = 1;
};

class Line : public ::testing::Test {
 protected:
  std::optional<Id> try_enter(const Wish& wish) {
    displaced_.clear();
    return line_.enter(arrival(wish), displaced_);
  }
  Id enter(const Wish& wish) { return try_enter(wish).value(); }
  WaitingLine::Arrival arrival(const Wish& wish) const {
    return {.lane = wish.lane,
            .consumer = wish.consumer,
            .own = wish.own,
            .deadline = now_ + wish.patience,
            .bytes = wish.bytes,
            .tokens = 0};
  }
  /// Everybody who may start now, in that order.
  Ids start_all() {
    Ids order;
    while (const auto id = line_.next(now_)) {
      line_.start(*id, now_);
      order.push_back(*id);
    }
    return order;
  }
  WaitingLine::Gate gate(nanoseconds wait, bool opens_early = false) const {
    return {.reason = Reason::policy_rate_limited, .until = now_ + wait, .opens_early = opens_early};
  }

  MonotonicTime now_ = kNow;
  WaitingLine line_{{.max_calls = 1'000, .max_bytes = 1'000'000, .limits = {}}};
  Ids displaced_;
};

// Within a consumer the one that must start first does, and arrival decides between equals.
TEST_F(Line, EarliestDeadlineFirstThenFirstCome) {
  const Id late = enter({.patience = seconds{30}});
  const Id first = enter({.patience = seconds{10}});
  const Id second = enter({.patience = seconds{10}});
  const Id urgent = enter({.patience = seconds{1}});
  EXPECT_EQ(start_all(), (Ids{urgent, first, second, late}));
}

// A consumer with a thousand calls must not delay one with a single call by a thousand turns.
TEST_F(Line, ConsumersTakeTurnsWithinALane) {
  Ids of_one;
  Ids of_two;
  for (int i = 0; i < 3; ++i) of_one.push_back(enter({.consumer = 1, .patience = seconds{1}}));
  for (int i = 0; i < 2; ++i) of_two.push_back(enter({.consumer = 2, .patience = seconds{50}}));
  EXPECT_EQ(start_all(), (Ids{of_one[0], of_two[0], of_one[1], of_two[1], of_one[2]}));
}

// Else a caller that sends one call after the other would always come before one that sends them at once.
TEST_F(Line, LeavingAndComingBackGainsNoTurn) {
  Ids patient;
  for (int i = 0; i < 10; ++i) patient.push_back(enter({.consumer = 1}));
  int turns_of_the_other = 0;
  for (int turn = 0; turn < 10; ++turn) {
    const Id other = enter({.consumer = 2, .patience = seconds{1}});
    const Id id = line_.next(now_).value();
    line_.start(id, now_);
    if (id == other)
      ++turns_of_the_other;
    else
      EXPECT_TRUE(line_.leave(other));
  }
  EXPECT_LE(turns_of_the_other, 5);
}

// G5: a lower lane is delayed, not starved: exactly its share of every round.
TEST_F(Line, LanesShareByTheirWeights) {
  std::map<Id, std::size_t> lane_of;
  for (int i = 0; i < 200; ++i)
    for (const WaitLane lane : {WaitLane::batch, WaitLane::standard, WaitLane::interactive})
      lane_of[enter({.lane = lane})] = static_cast<std::size_t>(lane);
  const std::uint32_t round = kLaneWeights[0] + kLaneWeights[1] + kLaneWeights[2];
  for (int rounds = 0; rounds < 20; ++rounds) {
    std::array<std::uint32_t, kWaitLanes> starts{};
    std::vector<std::size_t> order;
    for (std::uint32_t i = 0; i < round; ++i) {
      const Id id = line_.next(now_).value();
      line_.start(id, now_);
      ++starts.at(lane_of.at(id));
      order.push_back(lane_of.at(id));
    }
    EXPECT_EQ(starts, kLaneWeights);
    EXPECT_TRUE(std::ranges::is_sorted(order)) << "the higher lanes come first in a round";
  }
}

// What nobody else wants a lower lane gets whole.
TEST_F(Line, ALaneAloneIsNotHeldToItsShare) {
  Ids all;
  for (int i = 0; i < 50; ++i) all.push_back(enter({.lane = WaitLane::batch}));
  EXPECT_EQ(start_all(), all);
}

TEST_F(Line, AGateOfTheProviderStopsEverybodyUntilItsTime) {
  const Id one = enter({.own = {7}});
  const Id two = enter({.consumer = 2, .own = {8}});
  line_.block(one, kProvider, gate(seconds{5}));
  EXPECT_EQ(line_.next(now_), std::nullopt);
  EXPECT_EQ(line_.next_opening(), now_ + seconds{5});
  now_ += seconds{5} - nanoseconds{1};
  EXPECT_EQ(line_.next(now_), std::nullopt);
  now_ += nanoseconds{1};
  EXPECT_EQ(start_all(), (Ids{one, two}));
}

// One caller's own limit is no reason for another to wait.
TEST_F(Line, AGateOfACallersOwnSubjectLetsTheOthersPass) {
  const Id narrow = enter({.own = {7, 70}});
  const Id same_team = enter({.consumer = 2, .own = {8, 70}});
  const Id other = enter({.consumer = 3, .own = {9}});
  line_.block(narrow, 70, gate(seconds{5}));
  EXPECT_EQ(start_all(), (Ids{other}));
  EXPECT_EQ(line_.next_opening(), now_ + seconds{5});
  const Id same_consumer = enter({.consumer = 2, .own = {8}});
  EXPECT_EQ(start_all(), (Ids{same_consumer})) << "its call that does not count for the team";
  now_ += seconds{5};
  EXPECT_EQ(start_all(), (Ids{narrow, same_team}));
}

// A finished call frees a place of `concurrency` long before anybody's guess of when; it frees no calls.
TEST_F(Line, ASettlementOpensOnlyWhatASettlementCanOpen) {
  const Id one = enter({.own = {7}});
  line_.block(one, kProvider, gate(seconds{60}, true));
  EXPECT_TRUE(line_.has_early_gate());
  line_.open(std::vector<Subject>{2, 7});
  EXPECT_EQ(line_.next(now_), std::nullopt);
  line_.open(std::vector<Subject>{kProvider, 7});
  EXPECT_FALSE(line_.has_early_gate());
  EXPECT_EQ(line_.next(now_), one);
  line_.block(one, 7, gate(seconds{60}, false));
  line_.open(std::vector<Subject>{kProvider, 7});
  EXPECT_EQ(line_.next(now_), std::nullopt);
  line_.block(one, kProvider, gate(seconds{50}, false));
  line_.open(std::vector<Subject>{kProvider, 7});
  EXPECT_EQ(line_.next_opening(), now_ + seconds{50}) << "the provider's gate";
  line_.open_all();  // a reload may have raised the limit
  EXPECT_EQ(line_.next(now_), one);
}

// Settlements while nobody waits are told to nobody.
TEST_F(Line, AnEmptyLineForgetsItsGates) {
  const Id gone = enter({.own = {7}});
  line_.block(gone, kProvider, gate(seconds{60}, true));
  line_.block(gone, 7, gate(seconds{60}, true));
  EXPECT_TRUE(line_.leave(gone));
  EXPECT_FALSE(line_.has_early_gate());
  const Id next = enter({.own = {7}});
  EXPECT_EQ(line_.next(now_), next);
}

TEST_F(Line, NobodyIsChosenAfterLeavingOrExpiring) {
  const Id one = enter({.patience = seconds{1}});
  const Id two = enter({.patience = seconds{2}});
  const Id three = enter({.patience = seconds{3}});
  EXPECT_TRUE(line_.leave(two));
  EXPECT_FALSE(line_.leave(two));
  Ids expired;
  line_.expire(now_ + seconds{1}, expired);
  EXPECT_EQ(expired, Ids{one});
  EXPECT_EQ(start_all(), Ids{three});
  EXPECT_EQ(line_.size(), 0U);
  EXPECT_EQ(line_.bytes(), 0U);
}

TEST_F(Line, IsBoundedInCallsAndBytes) {
  line_.reconfigure({.max_calls = 3, .max_bytes = 100, .limits = {}});
  enter({.bytes = 60});
  EXPECT_EQ(try_enter({.bytes = 41}), std::nullopt);
  enter({.bytes = 40});
  enter({.bytes = 0});
  EXPECT_EQ(try_enter({.bytes = 0}), std::nullopt);
  EXPECT_TRUE(displaced_.empty());
  EXPECT_EQ(line_.size(), 3U);
  EXPECT_EQ(line_.bytes(), 100U);
}

// Q4: nobody is refused while one of a lower lane keeps a place.
TEST_F(Line, AFullLineGivesUpItsLowestLaneFirst) {
  line_.reconfigure({.max_calls = 3, .max_bytes = 100, .limits = {}});
  const Id standard = enter({.lane = WaitLane::standard});
  const Id soon = enter({.lane = WaitLane::batch, .patience = seconds{1}});
  const Id later = enter({.lane = WaitLane::batch, .patience = seconds{9}});
  EXPECT_EQ(try_enter({.lane = WaitLane::batch}), std::nullopt);
  EXPECT_TRUE(try_enter({.lane = WaitLane::interactive}).has_value());
  EXPECT_EQ(displaced_, Ids{later});
  EXPECT_TRUE(try_enter({.lane = WaitLane::standard}).has_value());
  EXPECT_EQ(displaced_, Ids{soon});
  EXPECT_EQ(try_enter({.lane = WaitLane::standard}), std::nullopt);
  EXPECT_TRUE(try_enter({.lane = WaitLane::interactive, .bytes = 98}).has_value());
  EXPECT_EQ(displaced_.size(), 1U);
  EXPECT_EQ(try_enter({.lane = WaitLane::interactive, .bytes = 101}), std::nullopt);
  EXPECT_TRUE(displaced_.empty()) << "what cannot fit displaces nobody";
  (void)standard;
}

// A call that would not wait must not take the place of one that does.
TEST_F(Line, NobodyPassesByTheSameOrAHigherLane) {
  const auto held_back = [&](WaitLane lane, std::vector<Subject> own = {}) {
    return line_.holds_back(lane, own, now_).has_value();
  };
  EXPECT_FALSE(held_back(WaitLane::batch));
  const Id one = enter({.lane = WaitLane::standard, .own = {7}});
  EXPECT_TRUE(held_back(WaitLane::batch));
  EXPECT_TRUE(held_back(WaitLane::standard));
  EXPECT_FALSE(held_back(WaitLane::interactive));
  line_.block(one, 7, gate(seconds{5}));
  EXPECT_EQ(line_.next(now_), std::nullopt);
  EXPECT_FALSE(held_back(WaitLane::batch)) << "who waits for its own limit stands in nobody's way";
  EXPECT_TRUE(held_back(WaitLane::interactive, {7}));
  line_.block(one, kProvider, gate(seconds{5}));
  EXPECT_TRUE(held_back(WaitLane::interactive));
}

// Else calls that never wait could starve the lower lanes.
TEST_F(Line, PassersByUseUpTheirLanesShare) {
  const Id waits = enter({.lane = WaitLane::batch});
  for (std::uint32_t i = 0; i < kLaneWeights[0]; ++i) {
    EXPECT_FALSE(line_.holds_back(WaitLane::interactive, {}, now_));
    line_.passed(WaitLane::interactive);
  }
  EXPECT_TRUE(line_.holds_back(WaitLane::interactive, {}, now_));
  EXPECT_EQ(line_.next(now_), waits);
}

// Told to callers as Retry-After and used to refuse: too low lets them wait in vain, too high refuses
// wrongly.
TEST_F(Line, TheEstimateIsWhatTheLimitAllowsAtBest) {
  line_.reconfigure(
      {.max_calls = 1'000, .max_bytes = 1'000'000, .limits = {{60, seconds{60}, LimitUnit::calls}}});
  const auto estimate = [&](const Wish& wish) { return line_.estimate(arrival(wish), now_); };
  EXPECT_EQ(estimate({}), nanoseconds{0});
  const Id first = enter({});
  line_.block(first, kProvider, gate(seconds{50}));
  EXPECT_EQ(estimate({}), seconds{50});
  for (int i = 0; i < 59; ++i) enter({});
  EXPECT_EQ(estimate({}), seconds{50 + 61}) << "60 ahead take one window and its bucket";
  EXPECT_EQ(estimate({.consumer = 2}), seconds{50}) << "another consumer is next";
  EXPECT_EQ(estimate({.lane = WaitLane::interactive}), seconds{50});
  EXPECT_EQ(estimate({.patience = seconds{1}}), seconds{50}) << "an earlier deadline goes first";
  for (int i = 0; i < 120; ++i) enter({});
  EXPECT_EQ(estimate({}), seconds{50 + 3 * 61});
  // Two workers' clocks: what came a moment earlier is not first for that.
  for (int i = 0; i < 10; ++i) enter({.patience = seconds{60} + milliseconds{1}});
  EXPECT_EQ(estimate({}), seconds{50 + 3 * 61});
  line_.block(first, kProvider, gate(seconds{50}, true));
  EXPECT_EQ(estimate({}), seconds{3 * 61}) << "nobody knows when a settlement opens it";
}

TEST_F(Line, WithoutLimitsTheEstimateIsByTheRateOfStarts) {
  for (int i = 0; i < 100; ++i) enter({});
  for (int i = 0; i < 80; ++i) {
    line_.start(line_.next(now_).value(), now_);
    now_ += milliseconds{100};
  }
  const nanoseconds told = line_.estimate(arrival({}), now_);
  EXPECT_NEAR(std::chrono::duration<double>(told).count(), 20 * 0.1, 0.05);
}

// 15.17: a caller's hanging up costs O(log n) and leaves nothing behind, in whatever order.
TEST_F(Line, AHundredThousandCancelsLeaveNothing) {
  line_.reconfigure({.max_calls = 100'000, .max_bytes = 1'000'000, .limits = {}});
  Random random(17);
  Ids all;
  for (int i = 0; i < 100'000; ++i)
    all.push_back(enter({.lane = kAllWaitLanes.at(static_cast<std::size_t>(random.between(0, 2))),
                         .consumer = static_cast<std::uint64_t>(random.between(1, 500)),
                         .own = {static_cast<Subject>(random.between(10, 30))},
                         .patience = seconds{random.between(1, 600)}}));
  for (std::size_t i = all.size(); i > 1; --i)
    std::swap(all[i - 1], all[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(i) - 1))]);
  for (const Id id : all) ASSERT_TRUE(line_.leave(id));
  EXPECT_EQ(line_.size(), 0U);
  EXPECT_EQ(line_.bytes(), 0U);
  EXPECT_EQ(line_.next(now_), std::nullopt);
  EXPECT_EQ(line_.next_opening(), MonotonicTime::max());
}

/// A provider with a limit and `concurrency`, consumers with limits of their own, and callers who come, wait,
/// hang up and are refused, on a clock of its own. Its owner does what the gateway does.
class Simulation {
 public:
  explicit Simulation(Random& random)
      : random_(random),
        provider_({random.between(1, 20), milliseconds{random.between(1, 10) * 1'000}, LimitUnit::calls}),
        spec_{.max_calls = static_cast<std::size_t>(random.between(1, 60)),
              .max_bytes = static_cast<std::uint64_t>(random.between(10, 2'000)),
              .limits = {provider_.spec()}},
        line_(spec_),
        concurrency_(random.between(1, 30)) {
    for (Subject i = 0; i < kConsumers; ++i)
      consumers_.emplace_back(
          LimitSpec{random.between(1, 10), seconds{random.between(1, 20)}, LimitUnit::calls});
  }

  void run() {
    const MonotonicTime end = now_ + seconds{300};
    MonotonicTime next_arrival = now_;
    while (now_ < end || line_.size() > 0) {
      ASSERT_LT(steps_++, 200'000) << "it does not come to an end";
      if (now_ >= next_arrival && now_ < end) {
        for (std::int64_t n = random_.between(1, 8); n > 0; --n) arrive();
        next_arrival = now_ + milliseconds{random_.between(0, 1'500)};
      }
      if (random_.chance(10)) hang_up();
      finish();
      drain();
      if (::testing::Test::HasFatalFailure()) return;
      MonotonicTime wake = now_ < end ? next_arrival : MonotonicTime::max();
      wake = std::min(wake, line_.next_opening());
      for (const auto& [id, call] : calls_) wake = std::min(wake, call.deadline);
      for (const MonotonicTime done : running_) wake = std::min(wake, done);
      if (wake == MonotonicTime::max()) break;
      now_ = std::max(wake, now_ + nanoseconds{1});
    }
    // Q2: everybody who came has left in exactly one way.
    EXPECT_EQ(line_.size(), 0U);
    EXPECT_EQ(line_.bytes(), 0U);
    EXPECT_TRUE(calls_.empty());
    EXPECT_EQ(entered_, started_ + expired_ + cancelled_ + displaced_);
  }

  std::int64_t entered_ = 0, started_ = 0, expired_ = 0, cancelled_ = 0, displaced_ = 0, full_ = 0;

 private:
  static constexpr Subject kConsumers = 5;
  struct Known {
    WaitLane lane{};
    Subject consumer = 0;
    MonotonicTime deadline{};
    std::uint64_t bytes = 0;
  };

  void arrive() {
    const Known call{.lane = kAllWaitLanes.at(static_cast<std::size_t>(random_.between(0, 2))),
                     .consumer = static_cast<Subject>(random_.between(0, kConsumers - 1)),
                     .deadline = now_ + milliseconds{random_.between(1, 30'000)},
                     .bytes = static_cast<std::uint64_t>(random_.between(0, 100))};
    const std::vector<Subject> own{100 + call.consumer};
    Ids displaced;
    const auto id = line_.enter({.lane = call.lane,
                                 .consumer = call.consumer,
                                 .own = own,
                                 .deadline = call.deadline,
                                 .bytes = call.bytes,
                                 .tokens = 0},
                                displaced);
    for (const Id victim : displaced) {
      EXPECT_TRUE(id.has_value());
      EXPECT_GT(calls_.at(victim).lane, call.lane) << "Q4";
      forget(victim);
      ++displaced_;
    }
    if (!id) {
      ++full_;
      std::size_t calls = calls_.size() + 1;
      std::uint64_t bytes = bytes_ + call.bytes;
      for (const auto& [other, each] : calls_)
        if (each.lane > call.lane) {
          --calls;
          bytes -= each.bytes;
        }
      EXPECT_TRUE(calls > spec_.max_calls || bytes > spec_.max_bytes) << "Q4: a lower lane could make room";
      return;
    }
    ++entered_;
    calls_.emplace(*id, call);
    bytes_ += call.bytes;
    EXPECT_LE(line_.size(), spec_.max_calls) << "Q5";
    EXPECT_LE(line_.bytes(), spec_.max_bytes) << "Q5";
    EXPECT_EQ(line_.bytes(), bytes_);
  }

  void hang_up() {
    if (calls_.empty()) return;
    auto victim = calls_.begin();
    std::advance(victim, random_.between(0, static_cast<std::int64_t>(calls_.size()) - 1));
    const Id id = victim->first;
    EXPECT_TRUE(line_.leave(id));
    forget(id);
    ++cancelled_;
  }

  void finish() {
    const std::size_t before = running_.size();
    std::erase_if(running_, [&](MonotonicTime done) { return done <= now_; });
    if (running_.size() < before) line_.open(std::vector<Subject>{kProvider});
  }

  void drain() {
    Ids late;
    line_.expire(now_, late);
    for (const Id id : late) {
      EXPECT_LE(calls_.at(id).deadline, now_);
      forget(id);
      ++expired_;
    }
    for (const auto& [id, call] : calls_) ASSERT_GT(call.deadline, now_) << "Q1: call " << id;
    while (const auto id = line_.next(now_)) {
      const auto found = calls_.find(*id);
      ASSERT_NE(found, calls_.end()) << "Q6: one that has left is chosen";
      const Known call = found->second;
      ASSERT_GT(call.deadline, now_) << "Q1";
      WaitingLine::Gate gate{.reason = Reason::policy_rate_limited, .until = {}, .opens_early = false};
      if (static_cast<std::int64_t>(running_.size()) >= concurrency_) {
        gate.until = now_ + seconds{1};
        gate.opens_early = true;
        line_.block(*id, kProvider, gate);
      } else if (const auto wait = provider_.wait_for(1, now_); wait > nanoseconds{0}) {
        gate.until = now_ + wait;
        line_.block(*id, kProvider, gate);
      } else if (const auto own = consumers_[call.consumer].wait_for(1, now_); own > nanoseconds{0}) {
        gate.until = now_ + own;
        line_.block(*id, 100 + call.consumer, gate);
      } else {
        provider_.take(1, now_);
        consumers_[call.consumer].take(1, now_);
        running_.push_back(now_ + milliseconds{random_.between(1, 3'000)});
        line_.start(*id, now_);
        forget(*id);
        ++started_;
      }
    }
    check_nobody_waits_in_vain();
  }

  /// With nobody chosen, everybody who waits is really stopped by something.
  void check_nobody_waits_in_vain() {
    if (static_cast<std::int64_t>(running_.size()) >= concurrency_) return;
    if (provider_.wait_for(1, now_) > nanoseconds{0}) return;
    for (const auto& [id, call] : calls_)
      EXPECT_GT(consumers_[call.consumer].wait_for(1, now_), nanoseconds{0}) << "call " << id;
  }

  void forget(Id id) {
    bytes_ -= calls_.at(id).bytes;
    calls_.erase(id);
  }

  Random& random_;
  MonotonicTime now_ = kNow;
  WindowLimit provider_;
  LineSpec spec_;
  WaitingLine line_;
  std::int64_t concurrency_;
  std::deque<WindowLimit> consumers_;
  std::map<Id, Known> calls_;
  std::uint64_t bytes_ = 0;
  std::vector<MonotonicTime> running_;
  int steps_ = 0;
};

// G5 and Q1, Q2, Q4, Q5, Q6 over many days of random traffic.
TEST(LineProperty, EveryoneStartsInTimeOrIsRefused) {
  std::int64_t started = 0;
  std::int64_t others = 0;
  for_each_seed(60, [&](Random& random) {
    Simulation simulation(random);
    simulation.run();
    started += simulation.started_;
    others += simulation.expired_ + simulation.displaced_ + simulation.full_ + simulation.cancelled_;
  });
  EXPECT_GT(started, 1'000);
  EXPECT_GT(others, 1'000) << "the simulation must be under pressure to mean something";
}

// Q3: between two lanes (and two consumers of one lane) that always have somebody waiting, shares differ by
// less than a round.
TEST(LineProperty, SharesAreKeptWithinOneRound) {
  for_each_seed(30, [](Random& random) {
    WaitingLine line({.max_calls = 10'000, .max_bytes = 10'000, .limits = {}});
    MonotonicTime now = kNow;
    std::map<Id, std::pair<std::size_t, std::uint64_t>> known;
    Ids displaced;
    const auto refill = [&] {
      for (const WaitLane lane : kAllWaitLanes)
        while (line.size(lane) < 40)
          for (std::uint64_t consumer = 0; consumer < 4; ++consumer) {
            const auto id = line.enter({.lane = lane,
                                        .consumer = consumer,
                                        .own = {},
                                        .deadline = now + seconds{random.between(1'000, 2'000)},
                                        .bytes = 0,
                                        .tokens = 0},
                                       displaced);
            known.emplace(id.value(), std::pair{static_cast<std::size_t>(lane), consumer});
          }
    };
    std::array<double, kWaitLanes> lanes{};
    std::array<std::array<int, 4>, kWaitLanes> consumers{};
    for (int i = 0; i < 2'000; ++i) {
      refill();
      now += milliseconds{random.between(0, 100)};
      const Id id = line.next(now).value();
      if (random.chance(20)) {
        line.block(id, kProvider,
                   {.reason = Reason::policy_rate_limited, .until = now, .opens_early = false});
        continue;
      }
      line.start(id, now);
      const auto [lane, consumer] = known.at(id);
      lanes.at(lane) += 1.0 / kLaneWeights.at(lane);
      ++consumers.at(lane).at(consumer);
      const auto [least, most] = std::ranges::minmax(lanes);
      ASSERT_LE(most - least, 1.0 + 1e-9);
      for (const auto& each : consumers) {
        const auto [fewest, many] = std::ranges::minmax(each);
        ASSERT_LE(many - fewest, 2);
      }
    }
  });
}

}  // namespace
}  // namespace penstock::policy
