#include "policy/clock_guard.hpp"

#include <map>
#include <vector>

#include <date/tz.h>
#include <gtest/gtest.h>

#include "policy/budget.hpp"
#include "policy/property_testing.hpp"

namespace penstock::policy {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using Trust = ClockGuard::Trust;

WallTime utc(int year, unsigned month, unsigned day, nanoseconds time_of_day = {}) {
  return WallTime{date::sys_days{date::year{year} / date::month{month} / date::day{day}}} + time_of_day;
}
const WallTime kNoon = utc(2026, 3, 10, hours{12});

/// A machine whose clocks can be set, and its guard.
struct Machine {
  ClockReading clocks{MonotonicTime{hours{1'000}}, kNoon};
  ClockGuard guard{clocks};

  explicit Machine(WallTime wall = kNoon) : clocks{MonotonicTime{hours{1'000}}, wall}, guard{clocks} {}

  void run(nanoseconds time, nanoseconds tick = seconds{1}) {
    for (; time > nanoseconds{0}; time -= tick) {
      const nanoseconds step = std::min(time, tick);
      clocks.mono += step;
      clocks.wall += step;
      guard.observe(clocks);
    }
  }
  void jump(nanoseconds by) {
    clocks.wall += by;
    run(seconds{1});
  }
  [[nodiscard]] Now now() const { return guard.at(clocks.mono); }
  /// How far the time that is told is ahead of the machine's wall clock.
  [[nodiscard]] nanoseconds told_ahead() const { return now().wall - clocks.wall; }
  void source_says(ClockSource source, WallTime said) { guard.confirm(source, said, clocks.mono); }
};

TEST(ClockGuard, TellsTheWallTimeOfAHealthyMachine) {
  Machine machine;
  machine.run(hours{2});
  EXPECT_EQ(machine.told_ahead(), nanoseconds{0});
  EXPECT_EQ(machine.guard.trust(), Trust::trusted);
  EXPECT_EQ(machine.now().doubtful_ahead, nanoseconds{0});
  // Between two looks it goes on by the monotonic clock.
  EXPECT_EQ(machine.guard.at(machine.clocks.mono + milliseconds{900}).wall,
            machine.clocks.wall + milliseconds{900});
}

TEST(ClockGuard, FollowsSmallSteps) {
  for (const seconds step : {seconds{1}, seconds{-1}, seconds{5}, seconds{-5}}) {
    Machine machine;
    machine.jump(step);
    EXPECT_EQ(machine.guard.trust(), Trust::trusted) << step.count();
    machine.run(seconds{10});
    EXPECT_EQ(machine.told_ahead(), nanoseconds{0}) << step.count();
  }
}

// A step back is waited out: the time that was told stands still until the clock has come there again.
TEST(ClockGuard, NeverGoesBackInASmallStepBack) {
  Machine machine;
  machine.run(seconds{10});
  const WallTime told = machine.now().wall;
  machine.jump(seconds{-4});
  EXPECT_GE(machine.now().wall, told);
  machine.run(seconds{1});
  EXPECT_LE(machine.now().wall, told + seconds{2});
  machine.run(seconds{3});
  EXPECT_EQ(machine.told_ahead(), nanoseconds{0});
}

// A leap second that is stepped or repeated is a small step.
TEST(ClockGuard, LeapSecondIsNoJump) {
  Machine machine(utc(2016, 12, 31, hours{24} - seconds{5}));
  machine.run(seconds{5});
  machine.jump(seconds{-1});  // 23:59:59 comes twice
  EXPECT_EQ(machine.guard.trust(), Trust::trusted);
  EXPECT_GE(machine.now().wall, utc(2017, 1, 1));
}

// The most that NTP slews, for weeks, one way and the other.
TEST(ClockGuard, SlewingIsNoJump) {
  for (const nanoseconds slew : {nanoseconds{500'000}, nanoseconds{-500'000}}) {
    Machine machine;
    for (int i = 0; i < 200'000; ++i) {
      machine.clocks.wall += slew;
      machine.run(seconds{1});
      ASSERT_EQ(machine.guard.trust(), Trust::trusted) << i;
    }
    EXPECT_LE(std::chrono::abs(machine.told_ahead()), seconds{1});
  }
}

// Small steps cannot be strung together to a jump.
TEST(ClockGuard, ManySmallStepsAreAJump) {
  Machine machine;
  machine.jump(seconds{4});
  machine.jump(seconds{4});
  EXPECT_EQ(machine.guard.trust(), Trust::suspect);
  EXPECT_EQ(machine.now().wall, machine.clocks.wall - seconds{4});
}

TEST(ClockGuard, JumpIsDoubtedAndTimeGoesOn) {
  for (const hours jump : {hours{24}, hours{-24}, hours{24 * 31}}) {
    Machine machine;
    machine.jump(jump);
    EXPECT_EQ(machine.guard.trust(), Trust::suspect);
    EXPECT_EQ(machine.told_ahead(), -jump);
    EXPECT_EQ(machine.now().doubtful_ahead, std::max<nanoseconds>(jump, nanoseconds{0}));
    machine.run(minutes{5});
    EXPECT_EQ(machine.told_ahead(), -jump);
    machine.jump(-jump);
    EXPECT_EQ(machine.guard.trust(), Trust::trusted);
    EXPECT_EQ(machine.told_ahead(), nanoseconds{0});
    EXPECT_EQ(machine.now().doubtful_ahead, nanoseconds{0});
  }
}

TEST(ClockGuard, TwoSourcesConfirmAJump) {
  Machine machine;
  machine.jump(hours{24});
  machine.source_says(1, machine.clocks.wall - seconds{1});
  machine.source_says(1, machine.clocks.wall);
  EXPECT_EQ(machine.guard.trust(), Trust::suspect) << "one source is one, however often it says so";
  machine.source_says(2, machine.clocks.wall + seconds{2});
  EXPECT_EQ(machine.guard.trust(), Trust::trusted);
  EXPECT_EQ(machine.told_ahead(), nanoseconds{0});
  machine.run(hours{1});
  EXPECT_EQ(machine.told_ahead(), nanoseconds{0});
}

TEST(ClockGuard, TwoSourcesRefuteAJump) {
  Machine machine;
  machine.jump(hours{24});
  machine.source_says(1, machine.clocks.wall - hours{24});
  EXPECT_EQ(machine.guard.trust(), Trust::suspect);
  machine.source_says(2, machine.clocks.wall - hours{24});
  EXPECT_EQ(machine.guard.trust(), Trust::refuted);
  EXPECT_EQ(machine.now().doubtful_ahead, nanoseconds{0});
  machine.run(hours{3});  // patience does not overrule them
  EXPECT_EQ(machine.guard.trust(), Trust::refuted);
  EXPECT_EQ(machine.told_ahead(), -hours{24});
  machine.jump(hours{1});  // another jump is another question
  EXPECT_EQ(machine.guard.trust(), Trust::suspect);
  machine.jump(-hours{25});
  EXPECT_EQ(machine.guard.trust(), Trust::trusted);
  EXPECT_EQ(machine.told_ahead(), nanoseconds{0});
}

TEST(ClockGuard, SourceMayChangeItsMind) {
  Machine machine;
  machine.jump(hours{24});
  machine.source_says(1, machine.clocks.wall - hours{24});
  machine.source_says(1, machine.clocks.wall);
  machine.source_says(2, machine.clocks.wall - hours{24});
  EXPECT_EQ(machine.guard.trust(), Trust::suspect);
  machine.source_says(3, machine.clocks.wall);
  EXPECT_EQ(machine.guard.trust(), Trust::trusted);
}

// The Date of an answer out of a cache is neither clock's.
TEST(ClockGuard, SourceThatAgreesWithNeitherClockCountsForNone) {
  Machine machine;
  machine.jump(hours{24});
  for (ClockSource source = 1; source < 5; ++source)
    machine.source_says(source, machine.clocks.wall - hours{5});
  EXPECT_EQ(machine.guard.trust(), Trust::suspect);
}

TEST(ClockGuard, JumpThatStandsUncontradictedIsBelieved) {
  Machine machine;
  machine.jump(hours{24});
  machine.run(ClockGuard::kPatience - seconds{1});
  EXPECT_EQ(machine.guard.trust(), Trust::suspect);
  machine.run(seconds{1});
  EXPECT_EQ(machine.guard.trust(), Trust::trusted);
  EXPECT_EQ(machine.told_ahead(), nanoseconds{0});
}

TEST(ClockGuard, ContradictionAndAnotherJumpBeginThePatienceAnew) {
  Machine machine;
  machine.jump(hours{24});
  machine.run(minutes{9});
  machine.source_says(1, machine.clocks.wall - hours{24});
  machine.run(minutes{9});
  EXPECT_EQ(machine.guard.trust(), Trust::suspect);
  machine.jump(hours{2});
  machine.run(minutes{9});
  EXPECT_EQ(machine.guard.trust(), Trust::suspect);
  machine.run(minutes{1});
  EXPECT_EQ(machine.guard.trust(), Trust::trusted);
}

// A laptop that wakes up: its wall clock went on, its monotonic one did not, and the kernel says why.
TEST(ClockGuard, SleepIsNoJump) {
  Machine machine;
  machine.clocks.asleep += hours{9};
  machine.jump(hours{9});
  EXPECT_EQ(machine.guard.trust(), Trust::trusted);
  EXPECT_EQ(machine.told_ahead(), nanoseconds{0});
}

// A virtual machine that was stopped: nothing on it can tell that from a clock that was set.
TEST(ClockGuard, StalledMonotonicClockIsDoubted) {
  Machine machine;
  machine.jump(minutes{3});
  EXPECT_EQ(machine.guard.trust(), Trust::suspect);
  machine.source_says(1, machine.clocks.wall);
  machine.source_says(2, machine.clocks.wall);
  EXPECT_EQ(machine.told_ahead(), nanoseconds{0});
}

TEST(ClockGuard, SleepWhileTheClockIsDoubtedIsCountedInBoth) {
  Machine machine;
  machine.jump(hours{24});
  machine.clocks.asleep += hours{1};
  machine.jump(hours{1});
  EXPECT_EQ(machine.guard.trust(), Trust::suspect);
  EXPECT_EQ(machine.told_ahead(), -hours{24});
  EXPECT_EQ(machine.now().doubtful_ahead, hours{24});
}

// The clock was a day ahead, and is put right: the day that has begun goes on until it really has.
TEST(ClockGuard, JumpBackThatIsBelievedHoldsTheTime) {
  Machine machine;
  machine.run(seconds{5});
  machine.jump(-hours{24});
  const WallTime told = machine.now().wall;
  machine.source_says(1, machine.clocks.wall);
  machine.source_says(2, machine.clocks.wall);
  EXPECT_EQ(machine.guard.trust(), Trust::trusted);
  EXPECT_EQ(machine.now().wall, told);
  machine.run(hours{23}, minutes{1});
  EXPECT_EQ(machine.now().wall, told);
  machine.run(hours{2}, minutes{1});
  EXPECT_EQ(machine.told_ahead(), nanoseconds{0});
}

TEST(ClockGuard, MonotonicTimeThatGoesBackIsIgnored) {
  Machine machine;
  machine.guard.observe({machine.clocks.mono - hours{1}, machine.clocks.wall + hours{30}});
  EXPECT_EQ(machine.guard.trust(), Trust::trusted);
  EXPECT_EQ(machine.told_ahead(), nanoseconds{0});
}

// ---- with a budget

constexpr NanoUsd kLimit{1'000};

BudgetSpec spec(BudgetWindow window, std::string zone) {
  BudgetSpec out{.window = window, .limit = kLimit, .time_zone = std::move(zone)};
  return out;
}

/// A budget that is used as far as it goes at every step, beside the days that have really passed.
struct Spender {
  Machine machine;
  Budget budget;
  std::int64_t spent = 0;

  Spender(WallTime start, BudgetWindow window, std::string zone)
      : machine(start), budget(spec(window, std::move(zone))) {
    spend();
  }
  void spend() {
    const Now now = machine.now();
    budget.advance(now.wall, now.doubtful_ahead);
    for (const NanoUsd amount : {NanoUsd{400}, NanoUsd{150}, NanoUsd{50}, NanoUsd{1}})
      while (budget.may_reserve(amount)) {
        (void)budget.settle(budget.reserve(amount), amount, amount);
        spent += amount.count;
      }
  }
};

struct Place {
  const char* name;
  const char* zone;
  WallTime evening;  ///< a few minutes before a day or month ends
  BudgetWindow window;
};

const std::vector<Place> kPlaces{
    {"utc", "UTC", utc(2026, 3, 10, hours{23} + minutes{50}), BudgetWindow::daily},
    {"month_end", "UTC", utc(2026, 2, 28, hours{23} + minutes{50}), BudgetWindow::monthly},
    {"leap_day", "UTC", utc(2028, 2, 29, hours{23} + minutes{50}), BudgetWindow::daily},
    {"year_end", "Asia/Kathmandu", utc(2026, 12, 31, hours{18} + minutes{10}), BudgetWindow::monthly},
    {"before_a_day_of_23_hours", "America/New_York", utc(2026, 3, 8, hours{4} + minutes{50}),
     BudgetWindow::daily},
    {"in_a_day_of_23_hours", "America/New_York", utc(2026, 3, 9, hours{3} + minutes{50}),
     BudgetWindow::daily},
    {"in_a_day_of_25_hours", "America/New_York", utc(2026, 11, 2, hours{4} + minutes{50}),
     BudgetWindow::daily},
    {"before_a_midnight_that_is_skipped", "America/Sao_Paulo", utc(2018, 11, 4, hours{2} + minutes{50}),
     BudgetWindow::daily},
    {"before_a_midnight_that_comes_twice", "America/Havana", utc(2025, 11, 2, hours{3} + minutes{50}),
     BudgetWindow::daily},
    {"half_hour_change", "Australia/Lord_Howe", utc(2026, 4, 5, hours{13} + minutes{20}),
     BudgetWindow::daily},
};

class ClockAndBudget : public testing::TestWithParam<Place> {};
INSTANTIATE_TEST_SUITE_P(Places, ClockAndBudget, testing::ValuesIn(kPlaces),
                         [](const auto& info) { return info.param.name; });

// A wall clock that jumps over midnight opens no window; nor does it when it comes back, nor by doing so
// often.
TEST_P(ClockAndBudget, JumpMintsNothing) {
  for (const nanoseconds jump : {nanoseconds{hours{1}}, nanoseconds{hours{24}}, nanoseconds{hours{24 * 40}},
                                 -nanoseconds{hours{24}}}) {
    Spender spender(GetParam().evening, GetParam().window, GetParam().zone);
    EXPECT_EQ(spender.spent, kLimit.count);
    for (int i = 0; i < 10; ++i) {
      spender.machine.jump(jump);
      spender.spend();
      spender.machine.jump(-jump);
      spender.spend();
    }
    EXPECT_EQ(spender.spent, kLimit.count) << jump / hours{1} << " h";
    // Its real end opens the next one, once.
    spender.machine.run(minutes{45});
    spender.spend();
    EXPECT_EQ(spender.spent, 2 * kLimit.count) << jump / hours{1} << " h";
  }
}

// What was held while the clock was in doubt is counted in the window that it turns out to be.
TEST_P(ClockAndBudget, ConfirmedJumpOpensTheWindowWithWhatWasHeldMeanwhile) {
  Machine machine(GetParam().evening);
  Budget budget(spec(GetParam().window, GetParam().zone));
  const auto advance = [&] {
    const Now now = machine.now();
    budget.advance(now.wall, now.doubtful_ahead);
  };
  advance();
  (void)budget.settle(budget.reserve({300}), {300}, {300});
  machine.jump(hours{2});
  advance();
  const auto open = budget.reserve({400});
  const auto ended = budget.reserve({200});
  (void)budget.settle(ended, {200}, {150});
  EXPECT_FALSE(budget.may_reserve({151})) << "the old window is the narrower one";
  EXPECT_TRUE(budget.may_reserve({150}));
  machine.source_says(1, machine.clocks.wall);
  machine.source_says(2, machine.clocks.wall);
  advance();
  EXPECT_EQ(budget.settled(), NanoUsd{150});
  EXPECT_EQ(budget.held(), NanoUsd{400});
  EXPECT_TRUE(budget.may_reserve({450}));
  EXPECT_FALSE(budget.may_reserve({451}));
  EXPECT_EQ(budget.settle(open, {400}, {420}), NanoUsd{20});
  EXPECT_EQ(budget.settled(), NanoUsd{550});
  EXPECT_EQ(budget.overrun(), NanoUsd{20});
  EXPECT_EQ(budget.stray(), NanoUsd{0});
}

// Midnight comes by itself while a jump is in doubt: the new day has what was held for it already.
TEST_P(ClockAndBudget, MidnightWhileInDoubtIsNoFreshWindow) {
  Machine machine(GetParam().evening);
  Budget budget(spec(GetParam().window, GetParam().zone));
  const auto advance = [&] {
    const Now now = machine.now();
    budget.advance(now.wall, now.doubtful_ahead);
  };
  advance();
  const auto before = budget.reserve({100});
  machine.jump(hours{2});
  for (int i = 0; i < 45; ++i) {  // contradicted again and again, by one source
    advance();
    machine.run(minutes{1});
    machine.source_says(1, machine.clocks.wall - hours{2});
    if (i == 0) (void)budget.reserve({600});
  }
  ASSERT_EQ(machine.guard.trust(), Trust::suspect);
  EXPECT_EQ(budget.held(), NanoUsd{600});
  EXPECT_FALSE(budget.may_reserve({401}));
  EXPECT_TRUE(budget.may_reserve({400}));
  budget.release(before, {100});
  EXPECT_EQ(budget.held(), NanoUsd{600});
}

TEST_P(ClockAndBudget, RefutedJumpLeavesNoTrace) {
  Machine machine(GetParam().evening);
  Budget budget(spec(GetParam().window, GetParam().zone));
  const auto advance = [&] {
    const Now now = machine.now();
    budget.advance(now.wall, now.doubtful_ahead);
  };
  advance();
  machine.jump(hours{2});
  advance();
  const auto pin = budget.reserve({700});
  machine.jump(-hours{2});
  advance();
  EXPECT_EQ(budget.held(), NanoUsd{700});
  (void)budget.settle(pin, {700}, {100});
  EXPECT_EQ(budget.settled(), NanoUsd{100});
  EXPECT_EQ(budget.held(), NanoUsd{0});
  EXPECT_EQ(budget.stray(), NanoUsd{0});
  EXPECT_TRUE(budget.may_reserve({900}));
}

// ---- properties

/// Does something to the machine's clocks; returns by how much true time has passed.
nanoseconds disturb(Random& random, Machine& machine, bool with_sources, WallTime true_time) {
  nanoseconds passed{0};
  const auto tick = [&](nanoseconds time) {
    machine.run(time);
    passed += time;
  };
  switch (random.between(0, 11)) {
    case 0: machine.clocks.wall += hours{random.between(-40, 40)}; break;
    case 1: machine.clocks.wall += seconds{random.between(-10, 10)}; break;
    case 2: machine.clocks.wall = true_time; break;
    case 3: {  // it sleeps
      const nanoseconds slept = minutes{random.between(1, 600)};
      machine.clocks.wall += slept;
      machine.clocks.asleep += slept;
      passed += slept;
      break;
    }
    case 4:
      if (with_sources)
        machine.source_says(static_cast<ClockSource>(random.between(1, 3)),
                            true_time + milliseconds{random.between(-1'500, 0)});
      break;
    case 5: tick(minutes{random.between(1, 30)}); break;
    default: tick(seconds{random.between(1, 20)}); break;
  }
  if (passed == nanoseconds{0}) tick(seconds{1});
  return passed;
}

// Whatever the wall clock does, the time that is told never goes back; and it is ahead of the time that has
// passed by no more than what is followed unasked, until sources or ten minutes speak for a jump.
TEST(ClockGuardProperty, TimeNeverGoesBackAndIsNeverAheadUnbelieved) {
  int believed_runs = 0;
  for_each_seed(100, [&](Random& random) {
    Machine machine(utc(2026, 1, 1) + seconds{random.between(0, 400LL * 86'400)});
    const bool with_sources = random.chance(50);
    WallTime true_time = machine.clocks.wall;
    WallTime told = machine.now().wall;
    nanoseconds allowed = ClockGuard::kJump;
    MonotonicTime set_at = machine.clocks.mono;  // when the wall clock was last set
    nanoseconds error{0};
    bool believed = false;
    for (int step = 0; step < 400; ++step) {
      const MonotonicTime before = machine.clocks.mono;
      true_time += disturb(random, machine, with_sources, true_time);
      if (std::chrono::abs(machine.clocks.wall - true_time - error) > ClockGuard::kJump) set_at = before;
      error = machine.clocks.wall - true_time;
      allowed += (machine.clocks.mono - before) / 1'000'000 * ClockGuard::kSlewPerMillion;
      ASSERT_GE(machine.now().wall, told) << "step " << step;
      ASSERT_GE(machine.now().doubtful_ahead, nanoseconds{0});
      told = machine.now().wall;
      if (!believed && machine.guard.trust() == Trust::trusted && std::chrono::abs(error) > allowed) {
        believed = true;
        ASSERT_TRUE(with_sources || machine.clocks.mono - set_at >= ClockGuard::kPatience) << "step " << step;
      }
      if (!believed) ASSERT_LE(told, true_time + allowed) << "step " << step;
    }
    believed_runs += believed ? 1 : 0;
  });
  EXPECT_GT(believed_runs, 0);
}

// No fresh budget: in a run whose jumps no source confirms and none stands for ten minutes, what is spent is
// at most the limit times the days that really began. And no window that was seen opens again.
TEST(ClockGuardProperty, NoJumpMintsABudget) {
  for_each_seed(60, [](Random& random) {
    static constexpr const char* kZones[] = {
        "UTC",           "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "America/Havana",
        "Asia/Kathmandu"};
    const std::string zone = kZones[random.between(0, 5)];
    const WallTime start = utc(2017, 1, 1) + minutes{random.between(0, 600LL * 1'440)};
    Spender spender(start, BudgetWindow::daily, zone);
    WallTime true_time = start;
    WallTime last_start = spender.budget.span().start;
    for (int step = 0; step < 300; ++step) {
      const nanoseconds jump = minutes{random.between(-3'000, 3'000)};
      spender.machine.jump(jump);
      spender.spend();
      const seconds while_wrong{random.between(1, 500)};
      spender.machine.run(while_wrong);
      spender.spend();
      spender.machine.jump(-jump);
      spender.spend();
      const minutes right{random.between(0, 60)};
      spender.machine.run(right);
      spender.spend();
      true_time += while_wrong + right + seconds{2};
      ASSERT_GE(spender.budget.span().start, last_start);
      last_start = spender.budget.span().start;
      std::int64_t windows = 1;
      for (WallTime at = window_at(BudgetWindow::daily, zone, start).end; at <= true_time + seconds{1};
           at = window_at(BudgetWindow::daily, zone, at).end)
        ++windows;
      ASSERT_LE(spender.spent, windows * kLimit.count) << zone << " step " << step;
    }
    EXPECT_GT(spender.spent, kLimit.count);
  });
}

// Reservations while the clock is believed, doubted, right and wrong, of which each ends once: both windows'
// books balance, and no window holds more than its limit.
TEST(ClockGuardProperty, BooksBalanceWhileInDoubt) {
  for_each_seed(60, [](Random& random) {
    Machine machine(utc(2026, 1, 1) + seconds{random.between(0, 400LL * 86'400)});
    Budget budget(spec(BudgetWindow::daily, "UTC"));
    WallTime true_time = machine.clocks.wall;
    std::vector<std::pair<Budget::Pin, NanoUsd>> open;
    for (int step = 0; step < 500; ++step) {
      if (random.chance(20)) true_time += disturb(random, machine, true, true_time);
      const Now now = machine.now();
      budget.advance(now.wall, now.doubtful_ahead);
      const NanoUsd amount{random.between(0, 300)};
      if (budget.may_reserve(amount)) open.emplace_back(budget.reserve(amount), amount);
      ASSERT_LE((budget.settled() + budget.held()).count, kLimit.count);
      while (!open.empty() && random.chance(50)) {
        const auto [pin, held] = open.back();
        open.pop_back();
        if (random.chance(30))
          budget.release(pin, held);
        else
          (void)budget.settle(pin, held, {random.between(0, held.count)});
      }
    }
    for (const auto& [pin, held] : open) budget.release(pin, held);
    EXPECT_EQ(budget.held(), NanoUsd{0});
    EXPECT_GE(budget.settled(), NanoUsd{0});
  });
}

}  // namespace
}  // namespace penstock::policy
