#include "policy/learned_limit.hpp"

#include <cmath>
#include <cstdio>
#include <deque>
#include <queue>

#include <gtest/gtest.h>

#include "policy/limit.hpp"
#include "policy/property_testing.hpp"

namespace penstock::policy {
namespace {

using namespace std::chrono_literals;
using Answer = LimitSigns::Answer;
using Refill = LimitReading::Refill;
using Ticket = LearnedLimit::Ticket;

constexpr MonotonicTime kStart{1'000h};
constexpr auto kFirst = LearnedLimit::Attempt::first;

LimitReading gradual(std::int64_t limit, std::int64_t remaining, nanoseconds reset) {
  return {.limit = limit, .remaining = remaining, .reset = reset, .refill = Refill::gradual};
}
LimitReading at_once(std::int64_t limit, std::int64_t remaining, nanoseconds reset) {
  return {.limit = limit, .remaining = remaining, .reset = reset, .refill = Refill::at_once};
}

/// A limit, a clock and short names.
class LearnedLimitTest : public testing::Test {
 protected:
  LearnedLimit limit_;
  MonotonicTime now_ = kStart;

  nanoseconds wait(std::int64_t tokens = 0, LearnedLimit::Attempt attempt = kFirst) {
    return limit_.wait_for({1, tokens, tokens, 1}, attempt, now_);
  }
  Ticket take(std::int64_t tokens = 0) { return limit_.take({1, tokens, tokens, 1}, now_); }
  /// How many may start now, up to 1000.
  int startable(std::int64_t tokens = 0) {
    int count = 0;
    while (count < 1000 && wait(tokens) == 0s) {
      take(tokens);
      ++count;
    }
    return count;
  }
  void learn(const Ticket& ticket, Answer answer, std::optional<LimitReading> requests = {},
             std::optional<LimitReading> tokens = {}) {
    limit_.learn(ticket, {.answer = answer, .readings = {requests, tokens}, .retry_after = {}}, 1, now_);
  }
  void refuse(const Ticket& ticket, std::optional<nanoseconds> retry_after = {}, std::uint64_t random = 0) {
    limit_.learn(ticket, {.answer = Answer::rate_limited, .retry_after = retry_after, .random = random}, 1,
                 now_);
  }
};

TEST_F(LearnedLimitTest, LimitsNothingUntilItLearns) {
  EXPECT_EQ(startable(1'000'000), 1000);
  EXPECT_FALSE(limit_.view(LimitDimension::requests, now_));
}

// What was started since the request that the reading answers is not in it.
TEST_F(LearnedLimitTest, CountsWhatWasStartedSinceTheRequestThatWasAnswered) {
  const Ticket first = take();
  for (int i = 0; i < 4; ++i) take();
  learn(first, Answer::good, gradual(20, 10, 30s));
  EXPECT_EQ(startable(), 6);
}

TEST_F(LearnedLimitTest, RefillsAsTheProviderDoes) {
  learn(take(), Answer::good, gradual(30, 0, 60s));  // one in two seconds
  EXPECT_NEAR(static_cast<double>(wait().count()), 2e9, 1e3);
  now_ += wait();
  EXPECT_EQ(startable(), 1);
  now_ += 7s;
  EXPECT_EQ(startable(), 3);
  now_ += 1h;
  EXPECT_EQ(limit_.view(LimitDimension::requests, now_), std::nullopt);  // too old to be believed
}

TEST_F(LearnedLimitTest, AWindowComesBackAllAtOnce) {
  learn(take(), Answer::good, at_once(40, 0, 25s));
  now_ += 24s;
  EXPECT_EQ(wait(), 1s);
  now_ += 1s;
  EXPECT_EQ(startable(), 40);
}

// Answers overtake each other.
TEST_F(LearnedLimitTest, AnOlderAnswerThatComesLateTellsNothing) {
  const Ticket older = take();
  const Ticket newer = take();
  learn(newer, Answer::good, gradual(100, 0, 60s));
  learn(older, Answer::good, gradual(100, 90, 6s));
  EXPECT_GT(wait(), 0s);
}

TEST_F(LearnedLimitTest, TokensAreALimitOfTheirOwn) {
  learn(take(10), Answer::good, gradual(100, 90, 6s), gradual(1000, 250, 60s));
  EXPECT_EQ(startable(100), 2);  // a margin of 20 is kept
  EXPECT_GT(wait(100), 0s);
  EXPECT_EQ(wait(10), 0s);
}

// Its estimate may be far above what it will use: the provider decides.
TEST_F(LearnedLimitTest, ACallAboveTheWholeLimitStartsWhenTheLimitIsFull) {
  learn(take(10), Answer::good, {}, gradual(1000, 500, 30s));
  EXPECT_GT(wait(5'000), 0s);
  now_ += 30s;
  EXPECT_EQ(wait(5'000), 0s);
}

TEST_F(LearnedLimitTest, AShareOfWhatIsLeftIsTaken) {
  limit_.learn(take(), {.answer = Answer::good, .readings = {gradual(40, 40, 1s)}, .retry_after = {}}, 0.25,
               now_);
  EXPECT_EQ(startable(), 10);
  EXPECT_NEAR(static_cast<double>(wait().count()), 6e9, 1e3);  // 40 a minute, a quarter of it
}

// ---- Retry-After

TEST_F(LearnedLimitTest, RetryAfterHoldsAllThenOneProbesThenAllGo) {
  const Ticket first = take();
  refuse(first, 10s);
  limit_.end(first, false);
  EXPECT_EQ(wait(), 10s);
  now_ += 10s;
  EXPECT_EQ(wait(), 0s);
  const Ticket probe = take();
  EXPECT_TRUE(probe.is_probe);
  EXPECT_EQ(wait(), LearnedLimit::kProbeFor);
  now_ += 1s;
  limit_.end(probe, true);
  EXPECT_EQ(startable(), 1000);
}

TEST_F(LearnedLimitTest, ARefusedProbeHoldsAgain) {
  refuse(take(), 10s);
  now_ += 10s;
  refuse(take(), 5s);
  EXPECT_EQ(wait(), 5s);
}

// A provider that tells the limit has answered for its probe by the head alone: streams go on for minutes.
TEST_F(LearnedLimitTest, TheHeadOfAGoodAnswerEndsTheProbe) {
  refuse(take(), 10s);
  now_ += 10s;
  learn(take(), Answer::good);
  EXPECT_EQ(startable(), 1000);
}

TEST_F(LearnedLimitTest, AProbeThatIsNeverAnsweredIsFollowedByTheNext) {
  refuse(take(), 10s);
  now_ += 10s;
  take();
  now_ += LearnedLimit::kProbeFor;
  EXPECT_EQ(startable(), 1);
}

// All who were told the same time would come back together; who has waited out his own time may go.
TEST_F(LearnedLimitTest, JitterIsUpToATenthAndNotForRetries) {
  refuse(take(), 10s, ~std::uint64_t{0});
  EXPECT_GT(wait(), 10'900ms);
  EXPECT_LE(wait(), 11s);
  EXPECT_EQ(wait(0, LearnedLimit::Attempt::retry), 10s);
}

TEST_F(LearnedLimitTest, ALaterShorterHoldDoesNotShortenAnEarlierOne) {
  const Ticket a = take();
  const Ticket b = take();
  refuse(a, 10s);
  refuse(b, 1s);
  EXPECT_EQ(wait(), 10s);
}

TEST_F(LearnedLimitTest, NoHoldIsLongerThanItsBound) {
  refuse(take(), 24h);
  EXPECT_EQ(wait(), LearnedLimit::kMaxHold);
  limit_.learn(take(), {.answer = Answer::rate_limited, .retry_after = {}, .is_daily = true}, 1, now_);
  EXPECT_EQ(wait(), LearnedLimit::kMaxDailyHold);
}

// ---- Refusals without a word

TEST_F(LearnedLimitTest, ARareRefusalWithoutATimeHoldsBriefly) {
  refuse(take());
  EXPECT_EQ(wait(), LearnedLimit::kBlindHold);
  EXPECT_EQ(wait(0, LearnedLimit::Attempt::retry), 0s);
}

TEST_F(LearnedLimitTest, RefusalsThatNothingExplainsLowerTheRateOncePerRoundTrip) {
  std::vector<Ticket> tickets;
  for (int i = 0; i < 100; ++i) {
    tickets.push_back(take());
    now_ += 100ms;
  }
  for (const Ticket& ticket : tickets) refuse(ticket);
  const auto per_minute = [&] { return limit_.view(LimitDimension::requests, now_).value().limit; };
  EXPECT_EQ(per_minute(), 416);  // 0.7 of the 99 in 10 s that were not refused by then
  now_ += 10s;
  EXPECT_EQ(per_minute(), 457);  // and a hundredth of it more each second
  now_ += LearnedLimit::kRateKept;
  EXPECT_FALSE(limit_.view(LimitDimension::requests, now_));
}

// The fields explain it: the gate of what is told waits, no rate is guessed.
TEST_F(LearnedLimitTest, AnExplainedRefusalLowersNoRate) {
  std::vector<Ticket> tickets;
  for (int i = 0; i < 10; ++i) tickets.push_back(take(100));
  learn(tickets[8], Answer::rate_limited, gradual(60, 0, 60s));
  learn(tickets[9], Answer::rate_limited, gradual(60, 50, 10s), gradual(1000, 99, 54s));
  now_ += 10min;
  learn(take(), Answer::good, gradual(60, 60, 1s), gradual(1000, 1000, 1s));
  EXPECT_EQ(startable(), 59);
}

TEST_F(LearnedLimitTest, TheRateHasAFloor) {
  for (int i = 0; i < 5; ++i) take();
  for (int i = 0; i < 60; ++i) {
    now_ += wait();
    for (int n = 0; n < 6; ++n) refuse(take());
    now_ += 30s;
  }
  EXPECT_EQ(limit_.view(LimitDimension::requests, now_).value().limit, 1);
}

// ---- U1: a hostile provider

/// Signs that no sane provider sends, some of them just within what is believed.
LimitSigns hostile(Random& random) {
  LimitSigns signs{
      .answer = static_cast<Answer>(random.between(0, 3)), .retry_after = {}, .random = random.next()};
  for (auto& reading : signs.readings) {
    if (random.chance(40)) continue;
    const std::int64_t limit = random.chance(20) ? 0 : random.between(1, random.chance(50) ? 5 : (1LL << 53));
    const std::int64_t most = limit == 0 ? 1LL << 53 : limit;
    reading = LimitReading{
        .limit = limit,
        .remaining = random.chance(50) ? 0 : random.between(0, most),
        .reset = random.chance(20) ? 0s : nanoseconds{random.between(1'000'000'000, 86'400'000'000'000)},
        .refill = random.chance(50) ? Refill::gradual : Refill::at_once,
        .rounding = random.chance(50) ? 500 : 0};
  }
  if (random.chance(30)) signs.retry_after = nanoseconds{random.between(0, 86'400'000'000'000)};
  signs.is_daily = random.chance(5);
  return signs;
}

// However it lies and in whatever order its answers come: what is configured stands, and some attempt is let
// through in time.
TEST(LearnedLimitProperty, AHostileProviderNeitherLiftsTheConfiguredLimitNorStopsItself) {
  for_each_seed(40, [](Random& random) {
    const LimitSpec configured{.amount = 7, .period = 60s};
    WindowLimit window(configured);
    LearnedLimit learned;
    std::deque<MonotonicTime> starts;
    std::vector<Ticket> tickets;
    MonotonicTime now = kStart;
    for (int step = 0; step < 3'000; ++step) {
      now += nanoseconds{random.between(0, random.chance(3) ? 700'000'000'000 : 5'000'000'000)};
      const LearnedLimit::Costs costs{1, random.between(0, 5'000), random.between(0, 5'000), 1};
      const nanoseconds learned_wait = learned.wait_for(costs, kFirst, now);
      ASSERT_GE(learned_wait, 0s);
      ASSERT_LE(learned_wait, LearnedLimit::kMaxDailyHold * 1.1 + 1s);
      if (std::max(window.wait_for(1, now), learned_wait) == 0s) {
        window.take(1, now);
        tickets.push_back(learned.take(costs, now));
        starts.push_back(now);
        while (starts.front() + configured.period <= now) starts.pop_front();
        ASSERT_LE(starts.size(), static_cast<std::size_t>(configured.amount));
      }
      if (!tickets.empty() && random.chance(50)) {
        const auto at =
            static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(tickets.size()) - 1));
        learned.learn(tickets[at], hostile(random), random.chance(50) ? 1 : 0.25, now);
        if (random.chance(70)) {
          learned.end(tickets[at], random.chance(50));
          tickets.erase(tickets.begin() + static_cast<std::ptrdiff_t>(at));
        }
      }
    }
    // Nobody answers any more: the wait that is told is the truth, and it ends.
    const LearnedLimit::Costs costs{1, 100, 100, 1};
    const MonotonicTime asked = now;
    for (nanoseconds wait; (wait = learned.wait_for(costs, kFirst, now)) > 0s; now += wait)
      ASSERT_LE(now - asked, 2h);
  });
}

// The wait is tight: a nanosecond less does not do.
TEST(LearnedLimitProperty, TheWaitIsTight) {
  for_each_seed(40, [](Random& random) {
    for (int i = 0; i < 300; ++i) {
      LearnedLimit limit;
      const std::int64_t most = random.between(1, 100'000);
      const LearnedLimit::Costs costs{1, random.between(0, most), 0, 0};
      const Ticket ticket = limit.take(costs, kStart);
      LimitSigns signs{.answer = Answer::good, .retry_after = {}};
      const auto refill = random.chance(50) ? Refill::gradual : Refill::at_once;
      signs.readings[1] = LimitReading{.limit = most,
                                       .remaining = random.between(0, most),
                                       .reset = nanoseconds{random.between(1'000'000'000, 300'000'000'000)},
                                       .refill = refill};
      limit.learn(ticket, signs, 1, kStart);
      const nanoseconds wait = limit.wait_for(costs, kFirst, kStart);
      if (wait == 0s) continue;
      ASSERT_EQ(limit.wait_for(costs, kFirst, kStart + wait), 0s);
      // Doubles: a thousandth of the wait and a microsecond.
      LearnedLimit again;
      again.learn(again.take(costs, kStart), signs, 1, kStart);
      ASSERT_GT(again.wait_for(costs, kFirst, kStart + wait - wait / 1000 - 1us), 0s);
    }
  });
}

// ---- U2: a provider with true buckets, several replicas, answers out of order

struct World {
  int replicas = 4;
  double share = 1;           ///< that each replica believes in
  std::int64_t limit = 600;   ///< calls a minute
  double depth_seconds = 60;  ///< of the provider's bucket
  double load = 0.95;         ///< calls offered, over the limit
  bool tells = true;          ///< limit fields stand on its answers
  milliseconds slowest{800};  ///< answer
  bool starts_empty = false;  ///< the bucket
  bool tells_time = false;    ///< its refusals carry Retry-After
};

struct Outcome {
  std::int64_t passed = 0;
  std::int64_t refused = 0;
  double utilisation = 0;
  double refused_share = 0;
};

/// Calls arrive as a Poisson process, at a random replica each; what may not start waits there in line. A
/// request is 5 to 60 ms on its way, its answer 20 to 800 ms; the provider counts when it arrives.
class Simulation {
 public:
  Simulation(Random& random, World world)
      : random_(random),
        world_(world),
        replicas_(static_cast<std::size_t>(world.replicas)),
        per_second_(static_cast<double>(world.limit) / 60),
        depth_(std::max(1.0, per_second_ * world.depth_seconds)),
        level_(world.starts_empty ? 0 : depth_) {}

  /// Counts what happens in the last half of that time.
  Outcome run(seconds time) {
    const MonotonicTime end = kStart + time;
    const MonotonicTime counted_from = kStart + time / 2;
    Outcome out;
    push({.at = kStart, .kind = Event::Kind::call});
    while (!events_.empty() && events_.top().at < end) {
      const Event event = events_.top();
      events_.pop();
      now_ = event.at;
      Replica& replica = replicas_[event.replica];
      switch (event.kind) {
        case Event::Kind::call: {
          const auto at = static_cast<std::size_t>(random_.between(0, world_.replicas - 1));
          if (replicas_[at].line < 1'000) ++replicas_[at].line;
          start(at);
          push({.at = now_ + exponential(1 / (per_second_ * world_.load)), .kind = Event::Kind::call});
          break;
        }
        case Event::Kind::turn:
          replica.has_turn = false;
          start(event.replica);
          break;
        case Event::Kind::arrival: {
          Event answer = event;
          serve(answer);
          answer.kind = Event::Kind::answer;
          answer.at = now_ + milliseconds{random_.between(20, world_.slowest.count())};
          if (now_ >= counted_from) ++(answer.signs.answer == Answer::good ? out.passed : out.refused);
          push(answer);
          break;
        }
        case Event::Kind::answer:
          replica.limit.learn(event.ticket, event.signs, world_.share, now_);
          replica.limit.end(event.ticket, event.signs.answer == Answer::good);
          start(event.replica);
          break;
      }
    }
    const double minutes = std::chrono::duration<double, std::ratio<60>>(time / 2).count();
    out.utilisation = static_cast<double>(out.passed) / (static_cast<double>(world_.limit) * minutes);
    out.refused_share = static_cast<double>(out.refused) / static_cast<double>(out.passed + out.refused);
    return out;
  }

 private:
  struct Event {
    enum class Kind : std::uint8_t { call, turn, arrival, answer };
    MonotonicTime at;
    Kind kind = Kind::call;
    std::size_t replica = 0;
    Ticket ticket{};
    LimitSigns signs{.retry_after = {}};
    bool operator<(const Event& other) const { return at > other.at; }
  };
  struct Replica {
    LearnedLimit limit;
    int line = 0;
    bool has_turn = false;
  };

  void push(Event event) { events_.push(std::move(event)); }
  nanoseconds exponential(double mean_seconds) {
    const double uniform = (static_cast<double>(random_.next() >> 11) + 1) * 0x1.0p-53;
    return nanoseconds{static_cast<std::int64_t>(-std::log(uniform) * mean_seconds * 1e9)};
  }

  void start(std::size_t at) {
    Replica& replica = replicas_[at];
    const LearnedLimit::Costs costs{1, 0, 0, 1};
    while (replica.line > 0) {
      const nanoseconds wait = replica.limit.wait_for(costs, kFirst, now_);
      if (wait > 0s) {
        if (!replica.has_turn) push({.at = now_ + wait, .kind = Event::Kind::turn, .replica = at});
        replica.has_turn = true;
        return;
      }
      --replica.line;
      push({.at = now_ + milliseconds{random_.between(5, 60)},
            .kind = Event::Kind::arrival,
            .replica = at,
            .ticket = replica.limit.take(costs, now_)});
    }
  }

  void serve(Event& event) {
    level_ =
        std::min(depth_, level_ + per_second_ * std::chrono::duration<double>(now_ - filled_at_).count());
    filled_at_ = now_;
    const bool passes = level_ >= 1;
    if (passes) level_ -= 1;
    event.signs = {
        .answer = passes ? Answer::good : Answer::rate_limited, .retry_after = {}, .random = random_.next()};
    if (world_.tells) {
      const auto remaining = static_cast<std::int64_t>(level_);
      const auto limit = static_cast<std::int64_t>(depth_);
      event.signs.readings[0] =
          gradual(limit, remaining,
                  std::max<nanoseconds>(
                      1s, nanoseconds{static_cast<std::int64_t>((depth_ - level_) / per_second_ * 1e9)}));
    }
    if (!passes && world_.tells_time)
      event.signs.retry_after = nanoseconds{static_cast<std::int64_t>((1 - level_) / per_second_ * 1e9)};
  }

  Random& random_;
  World world_;
  std::vector<Replica> replicas_;
  std::priority_queue<Event> events_;
  MonotonicTime now_ = kStart;
  MonotonicTime filled_at_ = kStart;
  double per_second_;
  double depth_;
  double level_;
};

void print(const char* what, const Outcome& outcome) {
  std::printf("%s: %lld passed, %lld refused (%.2f %%), %.1f %% of the limit used\n", what,
              static_cast<long long>(outcome.passed), static_cast<long long>(outcome.refused),
              100 * outcome.refused_share, 100 * outcome.utilisation);
}

TEST(LearnedLimitSimulation, FourReplicasAt95PercentSeeNextToNoRefusal) {
  for_each_seed(3, [](Random& random) {
    const Outcome outcome = Simulation(random, {.load = 0.95}).run(10min);
    print("95 %", outcome);
    EXPECT_LT(outcome.refused_share, 0.01);
    EXPECT_GT(outcome.utilisation, 0.85);
  });
}

TEST(LearnedLimitSimulation, FourReplicasThatKnowTheirShareUseTheLimitUnderOverload) {
  for_each_seed(3, [](Random& random) {
    const Outcome outcome = Simulation(random, {.share = 0.25, .load = 2}).run(10min);
    print("200 %, share 1/4", outcome);
    EXPECT_LT(outcome.refused_share, 0.01);
    EXPECT_GT(outcome.utilisation, 0.95);
  });
}

TEST(LearnedLimitSimulation, FourReplicasThatDoNotKnowOfEachOther) {
  for_each_seed(3, [](Random& random) {
    const Outcome outcome = Simulation(random, {.share = 1, .load = 2}).run(10min);
    print("200 %, share 1", outcome);
    EXPECT_LT(outcome.refused_share, 0.10);
    EXPECT_GT(outcome.utilisation, 0.90);
  });
}

TEST(LearnedLimitSimulation, OneReplicaUnderOverload) {
  for_each_seed(3, [](Random& random) {
    const Outcome outcome = Simulation(random, {.replicas = 1, .load = 3}).run(10min);
    print("300 %, one replica", outcome);
    EXPECT_LT(outcome.refused_share, 0.01);
    EXPECT_GT(outcome.utilisation, 0.95);
  });
}

// Language models take their time, and answer in any order: what is in flight is more than any margin.
TEST(LearnedLimitSimulation, SlowAnswersOutOfOrder) {
  for_each_seed(3, [](Random& random) {
    const Outcome outcome = Simulation(random, {.replicas = 1, .load = 2, .slowest = 20s}).run(10min);
    print("200 %, answers of up to 20 s", outcome);
    EXPECT_LT(outcome.refused_share, 0.03);
    EXPECT_GT(outcome.utilisation, 0.95);
  });
}

// Some providers spread a minute's limit over its seconds.
TEST(LearnedLimitSimulation, AShallowBucket) {
  for_each_seed(3, [](Random& random) {
    const Outcome outcome = Simulation(random, {.replicas = 1, .depth_seconds = 1, .load = 0.95}).run(10min);
    print("95 %, bucket of a second", outcome);
    EXPECT_LT(outcome.refused_share, 0.05);
    EXPECT_GT(outcome.utilisation, 0.80);
  });
}

TEST(LearnedLimitSimulation, AHiddenLimitIsFound) {
  for (const bool tells_time : {false, true}) {
    for (const bool starts_empty : {false, true})
      for_each_seed(3, [&](Random& random) {
        const World world{
            .replicas = 1, .load = 3, .tells = false, .starts_empty = starts_empty, .tells_time = tells_time};
        const Outcome outcome = Simulation(random, world).run(20min);
        print(tells_time ? "hidden, Retry-After" : "hidden", outcome);
        EXPECT_LT(outcome.refused_share, 0.05);
        EXPECT_GT(outcome.utilisation, 0.70);
      });
  }
}

}  // namespace
}  // namespace penstock::policy
